"""jobs.ingest on a real local Ray: what becomes of every kind of row, and reruns."""

import base64
import gzip
import io
import json
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from support.ingesting import configuration, encoded, line, rows_of, tsv
from support.tiny import image, png
from support.website import Site, running

from comem_ray.artifacts import ArtifactError, StageFolder
from comem_ray.config import ConfigError
from comem_ray.knowledge.sources.files import source_files
from comem_ray.knowledge.sources.scan import units
from jobs import ingest


@pytest.fixture
def site() -> Iterator[Site]:
    with running(Site()) as site:
        yield site


EXIF = Image.Exif()
EXIF[0x0112] = 6
MORE = {"save_all": True, "append_images": [image(9)]}
IMAGES = {
    "good.jpg": encoded(image(1), "JPEG"),
    "good.png": png(2),
    "cmyk.jpg": encoded(image(3).convert("CMYK"), "JPEG"),
    "palette.png": encoded(image(4).convert("P"), "PNG", transparency=0),
    "grey16.png": encoded(Image.new("I;16", (30, 20), 40_000), "PNG"),
    "rotated.jpg": encoded(image(5), "JPEG", exif=EXIF),
    "mislabelled.jpg": encoded(image(6), "WEBP"),
    "large.jpg": encoded(image(7, 900, 300), "JPEG"),
    "empty.jpg": b"",
    "truncated.jpg": encoded(image(8, 300, 300), "JPEG")[:2_000],
    "page.jpg": b"<html>No such image</html>",
    "animated.gif": encoded(image(1), "GIF", **MORE),
    "animated.webp": encoded(image(1), "WEBP", **MORE),
    "animated.png": encoded(image(1), "PNG", **MORE),
    "drawing.svg": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'></svg>",
    "pixels.png": encoded(Image.new("1", (3_000, 3_000)), "PNG"),
    "bytes.bmp": encoded(Image.new("RGB", (300, 300)), "BMP"),
    "dot.gif": encoded(Image.new("L", (1, 1)), "GIF"),
    "ruler.png": encoded(Image.new("L", (900, 4)), "PNG"),
}


def outcomes(site: Site) -> list[tuple[bytes, str]]:
    """Rows of a WIT file, and what must become of each: an item's text, "duplicate", or a reason."""
    inline = "data:image/png;base64," + base64.b64encode(png(10)).decode()
    good = line("Good", "good.jpg")
    return [
        (good, "Good: Text."),
        (line("PNG", "good.png"), "PNG: Text."),
        (line("Inline", inline), "Inline: Text."),
        (line("Web", site.url("/web.png")), "Web: Text."),
        (line('"The ""old"" oak"', "good.png"), 'The "old" oak: Text.'),
        (line('The "old" elm', "good.png"), 'The "old" elm: Text.'),
        (line('"Two\nlines"', "good.png"), "Two\nlines: Text."),
        (line('"A\ttab"', "good.png"), "A\ttab: Text."),
        (line("Page", "good.png", "", "Of the page."), "Page: Of the page."),
        (line("Title alone", "good.png", ""), "Title alone"),
        (line("", "good.png", "Text alone."), "Text alone."),
        (line("Returns", "good.png") + b"\r", "Returns: Text."),
        (line("CMYK", "cmyk.jpg"), "CMYK: Text."),
        (line("Palette", "palette.png"), "Palette: Text."),
        (line("Grey", "grey16.png"), "Grey: Text."),
        (line("Rotated", "rotated.jpg"), "Rotated: Text."),
        (line("Mislabelled", "mislabelled.jpg"), "Mislabelled: Text."),
        (line("Large", "large.jpg"), "Large: Text."),
        (good, "duplicate"),
        (good.replace(b"\t", b"", 1), "column_count"),
        (good + b"\tmore", "column_count"),
        (b'"never closed\tand short', "unclosed_quote"),
        (b"", "empty_line"),
        (line("Öl", "good.jpg").decode().encode("latin-1"), "bad_utf8"),
        (line("N\0L", "good.jpg"), "nul_byte"),
        (line("", "good.jpg", ""), "no_text"),
        (line("Blind", ""), "no_image"),
        (line("Missing", "missing.jpg"), "image_missing"),
        (line("Outside", "../run.yaml"), "image_outside"),
        (line("Broken inline", "data:image/png;base64,@@"), "image_data_uri"),
        (line("Empty", "empty.jpg"), "image_empty"),
        (line("Truncated", "truncated.jpg"), "image_truncated"),
        (line("HTML", "page.jpg"), "image_unreadable"),
        (line("GIF", "animated.gif"), "image_animated"),
        (line("WebP", "animated.webp"), "image_animated"),
        (line("APNG", "animated.png"), "image_animated"),
        (line("SVG", "drawing.svg"), "image_svg"),
        (line("Pixels", "pixels.png"), "image_too_many_pixels"),
        (line("Bytes", "bytes.bmp"), "image_too_many_bytes"),
        (line("Dot", "dot.gif"), "image_degenerate"),
        (line("Ruler", "ruler.png"), "image_degenerate"),
        (line("Gone", site.url("/missing")), "fetch_http_404"),
        (line("Down", site.url("/closed")), "fetch_http_503"),
        (line("Weighty", site.url("/large")), "fetch_too_large"),
        (line("FTP", "ftp://example.org/a.png"), "fetch_scheme"),
        (line("File", "file:///etc/hostname"), "fetch_scheme"),
        (line("Nowhere", "http://nowhere.invalid/a.png"), "fetch_dns"),
        (line("Last", "good.jpg"), "Last: Text."),
    ]


def test_every_kind_of_row_has_its_outcome(cluster, site, tmp_path):
    site.files["/web.png"] = png(11)
    (tmp_path / "images").mkdir()
    for name, data in IMAGES.items():
        (tmp_path / "images" / name).write_bytes(data)
    expected = outcomes(site)
    data = gzip.compress(tsv(*(row for row, _ in expected)))
    (tmp_path / "wit.tsv.gz").write_bytes(data[:-8])  # the checksum is gone: a truncated file
    source = {"path": str(tmp_path / "wit.tsv.gz"), "images": str(tmp_path / "images")}
    limits = {"max_side": 100, "max_pixels": 5_000_000, "max_bytes": 150_000}
    config = configuration(tmp_path, [source], images=limits)
    summary = ingest.run(config)

    items, rejected = rows_of(config)
    actual = {item["source_row"]: item["text"] for item in items}
    actual |= {row["source_row"]: row["reason"] for row in rejected}
    assert len(actual) == len(items) + len(rejected)
    want = dict(enumerate([*(outcome for _, outcome in expected), "gz_truncated"]))
    assert actual == {n: outcome for n, outcome in want.items() if outcome != "duplicate"}
    assert len({outcome for outcome in want.values() if outcome in {row["reason"] for row in rejected}}) >= 20

    assert summary["rows"] == len(want)
    assert (summary["items"], summary["rejected"], summary["duplicates"]) == (19, 29, 1)
    assert summary["rejected.image_animated"] == 3
    assert summary["retryable"] == 3
    assert summary["shards"] == 7
    raw = {row["source_row"]: row["raw"] for row in rejected}
    assert all(raw[n] == expected[n][0][:4_096] for n in raw if n < len(expected))
    assert all(row["detail"] for row in rejected)

    titles = {item["title"]: item for item in items}
    assert (titles["Rotated"]["width"], titles["Rotated"]["height"]) == (44, 60)
    assert (titles["Large"]["width"], titles["Large"]["height"]) == (100, 33)
    assert titles["PNG"]["image"] == IMAGES["good.png"]
    for item in items:
        image = Image.open(io.BytesIO(item["image"]))
        image.load()
        assert (image.format in ("JPEG", "PNG"), image.mode) == (True, "RGB")
        assert image.size == (item["width"], item["height"])


def test_a_corrupt_source_never_stops_the_job(cluster, tmp_path):
    (tmp_path / "good.png").write_bytes(png(0))
    good = [line(f"T{n}", "good.png") for n in range(20)]
    features = {"language": ["en", "de"], "page_title": ["P0", "Q0"]}
    table = pa.Table.from_pylist([{"image": {"bytes": png(1), "path": None}, "wit_features": features}] * 2)
    pq.write_table(table, tmp_path / "f.parquet")
    whole = (tmp_path / "f.parquet").read_bytes()
    files = {
        "a.tsv": b"",
        "b.tsv": b"\n".join(good),
        "c.tsv.gz": gzip.compress(tsv(*good), 0)[:-500],
        "d.tsv": os.urandom(5_000),
        "e.parquet": whole[:-30],
        "f.parquet": whole,
        "g.jsonl": json.dumps({"image": "good.png", "title": "J"}).encode() + b"\n{\n",
        "h.tsv": tsv(),
        "i.tsv": tsv(*good),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    config = configuration(tmp_path, [{"path": str(tmp_path / name)} for name in files])
    summary = ingest.run(config)
    items, rejected = rows_of(config)
    reasons = [(row["source"], row["reason"]) for row in rejected]
    assert [pair for pair in reasons if pair[0] != "d.tsv"] == [
        ("a.tsv", "source_empty"),
        ("b.tsv", "header_missing"),
        ("c.tsv.gz", "gz_truncated"),
        ("e.parquet", "parquet_corrupt"),
        ("g.jsonl", "json_invalid"),
    ]
    assert [reason for name, reason in reasons if name == "d.tsv"] in (["header_missing"], ["source_empty"])
    kept = sum(item["source"] == "c.tsv.gz" for item in items)
    assert 5 < kept < 20
    # What c.tsv.gz lost, i.tsv still has; what it kept, i.tsv repeats; the parquet row is there twice.
    assert (summary["items"], summary["duplicates"]) == (20 + 2 + 1, kept + 2)
    assert [i["title"] for i in items if i["source"] == "f.parquet"] == ["P0", "Q0"]


@pytest.mark.parametrize("path", ["none.tsv", "none-*.tsv"])
def test_a_missing_source_is_a_wrong_configuration(cluster, tmp_path, path):
    with pytest.raises(ConfigError, match=r"ingest\.sources\.0\.path"):
        ingest.run(configuration(tmp_path, [{"path": str(tmp_path / path)}]))


def test_a_run_prints_its_progress_and_nothing_of_rays_own_log(start_job, tmp_path):
    (tmp_path / "good.png").write_bytes(png(0))
    (tmp_path / "wit.tsv").write_bytes(tsv(*(line(f"T{n}", "good.png") for n in range(60))))
    config = configuration(tmp_path, [{"path": str(tmp_path / "wit.tsv")}])
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    output = start_job("jobs.ingest", path).finish()
    assert "Failed to convert" not in output
    assert "INFO" not in output
    lines = [line for line in output.splitlines() if "core_worker.cc" not in line]  # Ray Data's actors, once
    assert lines[0] == "ingest: started"
    progress = lines[1 : lines.index("== ingest")]
    assert progress[0].startswith("ingest, scan: 1 of 1 files, ")
    assert progress[-1].startswith("ingest: 9 of 9 units, ")
    assert len(progress) <= 5


def test_a_source_that_changes_while_it_is_read_is_refused(cluster, tmp_path):
    (tmp_path / "good.png").write_bytes(png(0))
    path = tmp_path / "wit.tsv"
    path.write_bytes(tsv(*(line(f"T{n}", "good.png") for n in range(10))))
    config = configuration(tmp_path, [{"path": str(path)}])
    files = source_files(config.ingest.sources)
    stage = StageFolder(config.folder("items"), "ingest", {})
    plan = units(files, ingest.scan_files(files, 7, stage.path / "scan"))
    path.write_bytes(tsv(*(line(f"U{n}", "good.png") for n in range(10))))
    with pytest.raises(ArtifactError, match="changed since it was scanned"):
        ingest.ingest_files(files, plan, stage, config.ingest)


def test_what_a_reader_refuses_is_raised(cluster, tmp_path, monkeypatch):
    path = tmp_path / "wit.tsv"
    path.write_bytes(tsv(line("T", "good.png")))
    config = configuration(tmp_path, [{"path": str(path)}])
    files = source_files(config.ingest.sources)
    stage = StageFolder(config.folder("items"), "ingest", {})
    plan = units(files, ingest.scan_files(files, 7, stage.path / "scan"))

    def refuse(*_: object) -> Iterator[dict[str, Any]]:
        raise ConfigError("no such source")
        yield {}

    monkeypatch.setattr(ingest, "_read_units", refuse)
    with pytest.raises(ConfigError, match="no such source"):
        ingest.ingest_files(files, plan, stage, config.ingest)


def test_another_make_of_images_is_refused(cluster, tmp_path):
    (tmp_path / "a.tsv").write_bytes(tsv())
    source = {"path": str(tmp_path / "a.tsv")}
    assert ingest.run(configuration(tmp_path, [source]))["rows"] == 0
    with pytest.raises(ArtifactError, match=r"images: stored .*'max_side': 512.*now .*'max_side': 100"):
        ingest.run(configuration(tmp_path, [source], images={"max_side": 100}))
