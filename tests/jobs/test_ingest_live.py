"""jobs.ingest with a live source: what was added comes last, what was deleted is left out. Without Ray."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.in_process import run_in_process
from support.ingesting import configuration, line, rows_of, stored, tsv
from support.live_source import live_line, write_live_source
from support.tiny import png

from comem_ray.artifacts import ArtifactError, load_manifest
from comem_ray.config import Config
from jobs import ingest

NEW = [f"{n:024x}" for n in range(1, 9)]


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Config, list[str]]:
    """Two files of 20 rows and 2 repeated ones, ingested, and the ids of the items."""
    run_in_process(monkeypatch)
    for n in range(20):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    rows = [line(f"T{n}", f"{n}.png") for n in range(20)]
    (tmp_path / "b.tsv").write_bytes(tsv(*rows[:12]))
    (tmp_path / "a.tsv").write_bytes(tsv(*rows[12:], *rows[:2]))
    config = configuration(tmp_path, [{"path": str(tmp_path / name)} for name in ("b.tsv", "a.tsv")])
    assert "deleted" not in ingest.run(config)
    return config, [item["item_id"] for item in rows_of(config)[0]]


def from_nothing(config: Config) -> dict[str, bytes]:
    """The bytes of a run of its own with the same live source."""
    with TemporaryDirectory() as root:
        (Path(root) / "live").symlink_to(config.folder("live"))
        other = config.model_copy(update={"root": root})
        ingest.run(other)
        return stored(other)


def test_what_was_added_comes_last_and_what_was_deleted_is_left_out(base):
    config, ids = base
    live = config.folder("live")
    scans = {path.name: path.stat().st_mtime_ns for path in (config.folder("items") / "scan").iterdir()}
    replaced = live_line(live, ids[13], "T13", png(113))
    lines = [replaced, *(live_line(live, item_id, f"N{n}", png(200 + n)) for n, item_id in enumerate(NEW))]
    write_live_source(live, 11, lines, [ids[0], ids[13]])
    summary = ingest.run(config)
    # Row 0 is in both files: 3 of their 4 units have a deleted row. 9 lines make 2 units.
    assert (summary["items"], summary["duplicates"], summary["deleted"]) == (27, 1, 3)
    assert (summary["shards"], summary["shards made now"], summary["rejected"]) == (6, 5, 0)
    items = rows_of(config)[0]
    assert [item["item_id"] for item in items] == [*(i for n, i in enumerate(ids) if n not in (0, 13)), ids[13], *NEW]
    assert [item["image"] for item in items[-9:]] == [png(113), *(png(200 + n) for n in range(8))]
    assert {item["source"] for item in items[-9:]} == {"live"}
    manifest = load_manifest(config.folder("items"), "ingest")
    assert (manifest.extra["live"], manifest.extra["sources"]) == (11, ["b.tsv", "a.tsv", "live"])
    now = {path.name: path.stat().st_mtime_ns for path in (config.folder("items") / "scan").iterdir()}
    assert scans.items() <= now.items()
    assert stored(config) == from_nothing(config)

    # A later export: one more change keeps what is in front of it, in the live source too.
    write_live_source(live, 12, [*lines, live_line(live, "f" * 24, "F", png(40))], [ids[0], ids[13]])
    summary = ingest.run(config)
    assert (summary["items"], summary["shards made now"]) == (28, 1)
    assert stored(config) == from_nothing(config)

    # Every item that was added is deleted again.
    write_live_source(live, 21, [], [ids[0], ids[13]])
    summary = ingest.run(config)
    assert (summary["items"], summary["deleted"], summary["shards"], summary["shards made now"]) == (18, 3, 4, 0)
    assert stored(config) == from_nothing(config)


def test_an_item_that_cannot_be_made_again_stops_the_job_and_what_is_served_stays(base):
    config, ids = base
    live = config.folder("live")
    lines = [live_line(live, item_id, f"N{n}", png(200 + n)) for n, item_id in enumerate(NEW)]
    write_live_source(live, 8, lines, ids[:1])
    before = load_manifest(config.folder("items"), "ingest")
    image = live / lines[3]["image"]
    data = image.read_bytes()
    image.write_bytes(data[:100])
    with pytest.raises(ArtifactError, match=f"1 items that were added .* is {NEW[3]} .*images/.*Copy the folder live/"):
        ingest.run(config)
    assert load_manifest(config.folder("items"), "ingest") == before
    image.write_bytes(data)
    assert ingest.run(config)["items"] == 27
    assert stored(config) == from_nothing(config)

    (live / "items-8.jsonl").write_text("{")
    with pytest.raises(ArtifactError, match=r"items-8\.jsonl is damaged: 1 of 1 lines"):
        ingest.run(config)
