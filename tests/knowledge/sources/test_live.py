"""The live source: read as it was exported, and refused by name where it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.live_source import live_line, write_live_source
from support.tiny import png

from comem_ray.artifacts import ArtifactError
from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.live import live_source, refuse_damaged
from comem_ray.knowledge.sources.scan import scan

IDS = [f"{n:024x}" for n in (5, 7, 9)]


def exported(folder: Path, seq: int = 3) -> Path:
    lines = [live_line(folder, item_id, f"T{n}", png(n)) for n, item_id in enumerate(IDS[:2])]
    write_live_source(folder, seq, lines, IDS)
    return folder


def test_nothing_was_exported(tmp_path: Path) -> None:
    assert live_source(tmp_path, []) is None
    assert live_source(tmp_path / "live", []) is None


def test_name_and_label_do_not_depend_on_the_export(tmp_path: Path) -> None:
    for seq in (3, 40):
        live = live_source(exported(tmp_path, seq), [])
        assert live is not None
        assert live.file is not None
        assert (live.seq, live.file.name, live.file.label, live.file.images) == (seq, "live", "live", str(tmp_path))
        assert live.file.path == str(tmp_path / f"items-{seq}.jsonl")
        assert [row.tobytes().hex() for row in live.deleted] == IDS


def test_a_configured_file_keeps_its_label(tmp_path: Path) -> None:
    live = live_source(exported(tmp_path), [SourceFile("live", "/data/live.tsv", "wit_tsv", "/data")])
    assert live is not None
    assert live.file is not None
    assert (live.file.name, live.file.label) == ("live", "live~2")


def test_no_item_was_added_and_none_deleted(tmp_path: Path) -> None:
    write_live_source(tmp_path, 2, [])
    live = live_source(tmp_path, [])
    assert live is not None
    assert (live.seq, live.file, live.deleted.shape) == (2, None, (0, 12))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("current.json", "{"),
        ("current.json", "[]"),
        ("current.json", '{"seq": 3}'),
        ("current.json", json.dumps({"seq": "3", "items": "items-3.jsonl", "deleted": "deleted-3.txt"})),
        ("current.json", json.dumps({"seq": 3, "items": "../items-3.jsonl", "deleted": "deleted-3.txt"})),
        ("items-3.jsonl", None),
        ("deleted-3.txt", None),
        ("deleted-3.txt", "\n".join(IDS)),  # the last line is cut short
        ("deleted-3.txt", f"{IDS[1]}\n{IDS[0]}\n"),
        ("deleted-3.txt", f"{IDS[1]}\n{IDS[1]}\n"),
        ("deleted-3.txt", f"{IDS[1][:23]}\n"),
        ("deleted-3.txt", "\n"),
        ("deleted-3.txt", "\u00e9\n"),
    ],
)
def test_what_an_export_does_not_leave_is_refused_by_name(tmp_path: Path, name: str, content: str | None) -> None:
    exported(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{tmp_path / name} is (missing|damaged).*Copy it from a backup"):
        live_source(tmp_path, [])


def test_a_line_that_is_not_an_item_is_damage(tmp_path: Path) -> None:
    exported(tmp_path)
    path = tmp_path / "items-3.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    live = live_source(tmp_path, [])
    assert live is not None
    assert live.file is not None
    with pytest.raises(ArtifactError, match=r"items-3.jsonl is damaged: 1 of 2 lines are not .* line 2\."):
        refuse_damaged(live.file, scan(live.file, 10, tmp_path / "scan"))
