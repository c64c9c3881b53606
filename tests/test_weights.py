"""A damaged file of weights or settings is refused in one sentence that names it."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from comem_ray.artifacts import ArtifactError
from comem_ray.weights import brief, load_tensors, read_settings, require_finite, require_fit, tensor_shapes

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"
TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


def whole(path: Path) -> bytes:
    save_file(TENSORS, path)
    return path.read_bytes()


DAMAGES = {
    "pointer": (lambda data: LFS, "is a Git LFS pointer"),
    "empty": (lambda data: b"", "is empty"),
    "cut short": (lambda data: data[:-1], "is not a whole safetensors file"),
    "header alone": (lambda data: data[:40], "is not a whole safetensors file"),
    "one byte": (lambda data: data[:1], "is not a whole safetensors file"),
    "longer": (lambda data: data + b"\0" * 8, "is not a whole safetensors file"),
    "a page of HTML": (lambda data: b"<!doctype html><html>Not found</html>", "is not a whole safetensors file"),
    "a broken header": (lambda data: data[:9] + b"\xff\xff" + data[11:], "is not a whole safetensors file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("read", [tensor_shapes, load_tensors])
def test_damaged_weights_are_named(tmp_path, damage, read):
    path = tmp_path / "model.safetensors"
    change, message = DAMAGES[damage]
    path.write_bytes(change(whole(path)))
    with pytest.raises(ArtifactError, match=message) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_a_folder_and_a_locked_file_are_named(tmp_path):
    for path, reason in ((tmp_path / "none.safetensors", "No such file"), (tmp_path, "Is a directory")):
        for read in (tensor_shapes, load_tensors, read_settings):
            with pytest.raises(ArtifactError, match=f"cannot be read: {reason}"):
                read(path)
    locked = tmp_path / "locked.json"
    locked.write_text("{}")
    locked.chmod(0)
    if not os.access(locked, os.R_OK):
        with pytest.raises(ArtifactError, match="Permission denied"):
            read_settings(locked)


def test_whole_weights_are_read(tmp_path):
    path = tmp_path / "model.safetensors"
    whole(path)
    assert tensor_shapes(path) == {"a.weight": (2, 3), "b": (4,)}
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in load_tensors(path).items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("{", "is not JSON"),
        (LFS.decode(), "is a Git LFS pointer"),
        ("[1, 2]", "holds a list, it lacks the fields of a JSON object"),
        ("null", "holds a NoneType"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_damaged_settings_are_named(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message) as raised:
        read_settings(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_in_another_encoding_are_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes('{"name": "é"}'.encode("latin-1"))
    with pytest.raises(ArtifactError, match="is not JSON"):
        read_settings(path)
    path.write_text(json.dumps({"name": "é"}), encoding="utf-8")
    assert read_settings(path) == {"name": "é"}


def test_what_does_not_fit_is_counted_and_named(tmp_path):
    wanted = {f"layer.{i}": (2, 3) for i in range(5)}
    require_fit(tmp_path, dict(reversed(wanted.items())), wanted, "")
    present = {"layer.0": (3, 2), "other": (1,)}
    with pytest.raises(ArtifactError) as raised:
        require_fit(tmp_path, present, wanted, "Take the whole file")
    text = str(raised.value)
    assert "missing: 4 of 5 tensors (layer.1, layer.2, layer.3, and 1 more)" in text
    assert "unexpected: 1 of 2 (other)" in text
    assert "of another shape: 1 (layer.0 is [3, 2], want [2, 3])" in text
    assert text.endswith("Take the whole file")


def test_numbers_that_are_not_finite_are_named(tmp_path):
    require_finite(tmp_path, TENSORS, "clip.precision")
    broken = TENSORS | {"c": torch.tensor([1.0, float("nan")], dtype=torch.float16)}
    with pytest.raises(ArtifactError, match=r"NaN or infinity in float16, tensors: 1 \(c\): .* clip.precision to bf"):
        require_finite(tmp_path, broken.items(), "clip.precision")


def test_another_librarys_message_becomes_one_line():
    assert brief(ValueError("two\n  lines")) == "two lines"
    assert brief(KeyError("field")) == "KeyError 'field'"
    assert brief(ValueError()) == "ValueError"
    assert len(brief(ValueError("long " * 100))) < 210
