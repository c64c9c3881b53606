"""`verify` names every file that is not what its stage wrote, and every stage that does not fit the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from comem_ray.artifacts import ArtifactError, Manifest, StageFolder, write_json
from comem_ray.artifacts.verify import verify


def stage_of(folder: Path, stage: str, texts: list[str], made_from: dict[str, Manifest] | None = None) -> Manifest:
    writer = StageFolder(folder, stage, {"width": 4})
    units = [f"unit-{n}" for n in range(len(texts))]
    for unit, text in zip(units, texts, strict=True):
        write_json(folder / f"{unit}.json", text)
        writer.commit(unit, text, {f"{unit}.json": 1}, {})
    return writer.close(units, made_from=made_from)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    items = stage_of(tmp_path / "items", "ingest", ["a", "b", "c"])
    stage_of(tmp_path / "index", "build_index", ["x"], {"items": items})
    return tmp_path


def faults(root: Path) -> list[str]:
    return [fault for report in verify(root) for fault in report.faults]


def test_a_whole_run_has_no_fault(root: Path) -> None:
    reports = {report.folder.name: report for report in verify(root)}
    assert {name: (r.stage, r.files, r.faults) for name, r in reports.items()} == {
        "index": ("build_index", 1, []),
        "items": ("ingest", 3, []),
    }
    assert all(r.bytes and len(r.generation) == 12 for r in reports.values())


def test_every_flip_of_a_byte_is_named_with_its_file(root: Path) -> None:
    paths = list(root.glob("*/unit*.json"))
    for path in paths:
        data = path.read_bytes()
        for place in range(len(data)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
            (fault,) = faults(root)
            assert str(path) in fault
            assert "Run the stage" in fault
        path.write_bytes(data)
    assert len(paths) == 4
    assert faults(root) == []


@pytest.mark.parametrize("name", ["stage.json", "records/unit-1.json", "manifest.json"])
@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_damaged_bookkeeping_is_named(root: Path, name: str, text: str) -> None:
    (root / "items" / name).write_text(text, encoding="utf-8")
    assert any(str(root / "items" / name) in fault for fault in faults(root))


def test_a_run_that_has_begun_and_not_ended_is_named(root: Path) -> None:
    writer = StageFolder(root / "items", "ingest", {"width": 4})
    write_json(root / "items" / "unit-1.json", "other")
    writer.commit("unit-1", "other", {"unit-1.json": 1}, {})
    (fault,) = faults(root)
    assert "unit-1.json is not what the manifest says" in fault


def test_stages_that_do_not_belong_together_are_named_with_both_fingerprints(root: Path) -> None:
    now = stage_of(root / "items", "ingest", ["a", "b", "d"])
    (fault,) = faults(root)
    assert "index/ was made from items/" in fault
    assert now.generation in fault


def test_a_folder_without_stages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no stage: name the root of a run"):
        list(verify(tmp_path))
