"""What a finished stage says of itself, and what a reader says where that is not so."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from comem_ray.artifacts import (
    ArtifactError,
    Manifest,
    Shard,
    StageFolder,
    check_made_from,
    check_shard,
    file_sha256,
    load_manifest,
    write_json,
)
from comem_ray.artifacts.manifest import name_with_digest


def stage_with(folder: Path, stage: str, text: str = "a", made_from: dict[str, Manifest] | None = None) -> Manifest:
    """A finished stage of one file."""
    writer = StageFolder(folder, stage, {"width": 4})
    write_json(folder / "a.json", text)
    writer.commit("a", "", {"a.json": 1}, {"items": 1})
    return writer.close(["a"], made_from=made_from)


def test_reading_a_stage_that_never_closed_says_what_to_run(tmp_path: Path) -> None:
    StageFolder(tmp_path, "items", {})
    with pytest.raises(ArtifactError, match="run the stage 'items' to its end first"):
        load_manifest(tmp_path, "items")


@pytest.mark.parametrize("folder", ["nowhere", "file", "file/below"])
def test_a_folder_that_is_not_there_is_a_stage_that_has_not_been_run(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"has no manifest\.json: run the stage 'items' to its end first"):
        load_manifest(tmp_path / folder, "items")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"stage": "memory", "format": 1, "identity": {}, "counts": {}, "records": [], "extra": {}}',
            "wanted 'items'",
        ),
        ('{"stage": "items", "format": 99}', "has format 99, wanted 1"),
        ('{"stage": "items", "format": 1}', "is damaged"),
        ('{"stage": "it', "is damaged"),
        ("[]", "is damaged"),
        ("null", "is damaged"),
        ("", "is damaged"),
        ('{"stage": "items", "format": 1, "identity": [], "counts": {}, "records": [3], "extra": {}}', "is damaged"),
        (
            '{"stage": "items", "format": 1, "identity": {}, "counts": {}, "records": {"a": 1}, "extra": {}}',
            "is damaged",
        ),
    ],
)
def test_a_manifest_of_another_make_is_refused_in_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=message):
        load_manifest(tmp_path, "items")


def test_a_damaged_manifest_is_written_again_by_its_stage(tmp_path: Path) -> None:
    manifest = stage_with(tmp_path, "items")
    (tmp_path / "manifest.json").write_text("[]", encoding="utf-8")
    assert stage_with(tmp_path, "items") == manifest == load_manifest(tmp_path, "items")


@pytest.mark.parametrize("how", ["gone", "cut", "longer", "flipped", "folder"])
def test_a_shard_that_is_not_as_it_was_written_is_named(tmp_path: Path, how: str) -> None:
    shard = stage_with(tmp_path, "items").shards()[0]
    path = tmp_path / shard.name
    assert check_shard(tmp_path, shard, "items") == path
    data = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes({"cut": data[:-1], "longer": data + b"x", "flipped": data[:-2] + b"?" + data[-1:]}[how])
    with pytest.raises(ArtifactError, match="Run the stage 'items' again") as refused:
        check_shard(tmp_path, shard, "items")
    assert str(path) in str(refused.value)


def test_a_file_of_another_content_has_another_name(tmp_path: Path) -> None:
    first = stage_with(tmp_path, "items", "a").shards()[0]
    second = stage_with(tmp_path, "items", "b").shards()[0]
    assert first.name != second.name
    assert first.logical_name == second.logical_name == "a.json"
    assert second.name == name_with_digest("a.json", file_sha256(tmp_path / second.name))


@pytest.mark.parametrize("name", ["part-0000-000001.parquet", "rejected/wit.v1-000001.parquet", "a.b.safetensors"])
def test_the_digest_comes_off_the_name_again(name: str) -> None:
    digest = "0123456789abcdef" * 4
    assert Shard(name_with_digest(name, digest), 1, 1, digest).logical_name == name
    assert Shard(name, 1, 1, digest).logical_name == name  # of version 0.2


def test_stages_that_do_not_belong_together_are_refused_with_both_fingerprints(tmp_path: Path) -> None:
    items = stage_with(tmp_path / "items", "ingest", "a")
    index = stage_with(tmp_path / "index", "build_index", "x", {"items": items})
    check_made_from(items=items, index=index)
    other = stage_with(tmp_path / "items", "ingest", "b")
    with pytest.raises(ArtifactError, match="index/ was made from items/") as refused:
        check_made_from(items=other, index=index)
    assert items.fingerprint[:12] in str(refused.value)
    assert other.fingerprint[:12] in str(refused.value)
    assert "build_index" in str(refused.value)


def test_a_stage_of_version_0_2_does_not_say_what_it_was_made_from(tmp_path: Path) -> None:
    items, index = stage_with(tmp_path / "items", "ingest"), stage_with(tmp_path / "index", "build_index")
    check_made_from(items=items, index=index)


def test_a_manifest_of_version_0_2_is_read(tmp_path: Path) -> None:
    """Files without a digest in their names, and a manifest that does not say what it was made from."""
    (tmp_path / "part-0000-000000.parquet").write_bytes(b"rows")
    shard = {
        "name": "part-0000-000000.parquet",
        "rows": 1,
        "bytes": 4,
        "sha256": file_sha256(tmp_path / "part-0000-000000.parquet"),
    }
    record = {"unit": "part-0000-000000", "inputs": "", "shards": [shard], "counts": {"items": 1}}
    data = {"stage": "ingest", "identity": {}, "counts": {}, "records": [record], "extra": {}, "format": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    manifest = load_manifest(tmp_path, "ingest")
    read = manifest.shard("part-0000-000000.parquet")
    assert read is not None
    assert os.path.samefile(check_shard(tmp_path, read, "ingest"), tmp_path / "part-0000-000000.parquet")
    assert manifest.made_from == {}
