"""What jobs.ingest refuses has a reason; what depends on the configuration or the hour is tried again."""

import io
import json

import numpy as np
from PIL import Image
from support.ingesting import configuration, encoded, line, rows_of, tsv
from support.tiny import png
from support.website import Site, running

from comem_ray.knowledge.images import open_image
from jobs import ingest


def test_a_refusal_of_the_host_is_tried_again_once_the_user_agent_is_mended(cluster, tmp_path):
    with running(Site()) as site:
        refused, page, gone = "/refused.png", "/page.png", "/gone.png"
        site.answers[refused] = (403, b"<html>Name a contact</html>", {})
        site.answers[page] = (200, b"<html>Too many requests</html>", {"Content_Type": "text/html"})
        site.answers[gone] = (410, b"", {})
        (tmp_path / "wit.tsv").write_bytes(tsv(*(line(path, site.url(path)) for path in (refused, page, gone))))
        fetch = {"cache": str(tmp_path / "cache")}
        sources = [{"path": str(tmp_path / "wit.tsv")}]
        first = ingest.run(configuration(tmp_path, sources, fetch=fetch))
        assert (first["items"], first["rejected"], first["retryable"]) == (0, 3, 2)
        _, rejected = rows_of(configuration(tmp_path, sources))
        assert [row["reason"] for row in rejected] == ["fetch_http_403", "fetch_not_image", "fetch_http_410"]
        assert all("ingest.fetch.user_agent" in row["detail"] for row in rejected[:2])
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]

        site.answers[refused] = site.answers[page] = (200, png(1), {})
        mended = {**fetch, "user_agent": "tests/1.0 (me@example.org)"}
        second = ingest.run(configuration(tmp_path, sources, fetch=mended))
        assert (second["items"], second["rejected"], second["retryable"]) == (2, 1, 0)
        assert site.headers["User-Agent"] == mended["user_agent"]
        assert [site.counts[path] for path in (refused, page, gone)] == [2, 2, 1]


RAMP = np.linspace(0, 1, 1_200, dtype=np.float32).reshape(30, 40)
IMAGES = {
    "good.png": png(1),
    "thin.jpg": encoded(Image.new("RGB", (2_000, 20), "white"), "JPEG"),
    "line.png": encoded(Image.new("RGB", (400, 1)), "PNG"),
    "float.tif": encoded(Image.fromarray(RAMP), "TIFF"),
    "negative.tif": encoded(Image.fromarray(RAMP - 1), "TIFF"),
}
# Rows of a JSONL, and what must become of each: its language, or a reason.
ROWS: list[tuple[dict[str, object], str]] = [
    ({"image": "good.png", "language": "en_US"}, "en-US"),
    ({"image": "good.png", "language": "français"}, "language_invalid"),
    ({"image": "good.png", "language": "x" * 5_000}, "language_invalid"),
    ({"image": "good.png", "language": ""}, "und"),
    ({"image": "thin.jpg", "language": "ZH_hant"}, "zh-Hant"),
    ({"image": "float.tif", "language": "x-klingon"}, "x-klingon"),
    ({"image": "negative.tif"}, "image_range"),
    ({"image": "line.png"}, "image_degenerate"),
    ({"image": ["good.png", "thin.jpg"]}, "json_type"),
    ({"image": "//example.org/a.png"}, "fetch_scheme"),
    ({"image": "s3://bucket/a.png"}, "fetch_scheme"),
    ({"image": "good.png", "page_url": "https://example.org/" + "x" * 9_000}, "field_too_long"),
]


def test_every_row_of_a_mixed_jsonl_has_its_outcome(cluster, tmp_path):
    for name, data in IMAGES.items():
        (tmp_path / name).write_bytes(data)
    texts = [json.dumps({"title": f"T{n}", **row}) for n, (row, _) in enumerate(ROWS)]
    (tmp_path / "items.jsonl").write_text("\n".join(texts), encoding="utf-8")
    config = configuration(tmp_path, [{"path": str(tmp_path / "items.jsonl")}], fetch={"enabled": False})
    ingest.run(config)
    items, rejected = rows_of(config)
    outcomes = {row["source_row"]: row["language"] for row in items}
    outcomes |= {row["source_row"]: row["reason"] for row in rejected}
    assert [outcomes[n] for n in range(len(ROWS))] == [outcome for _, outcome in ROWS]
    assert not any(row["retryable"] for row in rejected)
    for item in items:
        assert open_image(item["image"], 50_000_000).size == (item["width"], item["height"])
        assert np.asarray(Image.open(io.BytesIO(item["image"]))).max() > 200
