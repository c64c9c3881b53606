"""Relative paths start from COMEM_HOME, and a message about a missing path says so if it is not set."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from comem_ray.artifacts import ArtifactError, load_manifest
from comem_ray.home import home_hint, resolve


def test_relative_paths_are_below_comem_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMEM_HOME", str(tmp_path / "shared"))
    assert resolve("wit/a.tsv") == tmp_path / "shared" / "wit" / "a.tsv"
    assert resolve(str(tmp_path / "absolute")) == tmp_path / "absolute"


def test_home_is_the_default_and_a_tilde_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("COMEM_HOME", raising=False)
    assert resolve("a") == tmp_path / "comem" / "a"
    monkeypatch.setenv("COMEM_HOME", "")
    assert resolve("a") == tmp_path / "comem" / "a"
    monkeypatch.setenv("COMEM_HOME", "~/elsewhere")
    assert resolve("a") == tmp_path / "elsewhere" / "a"
    assert resolve("~/b") == tmp_path / "b"


def test_a_relative_comem_home_starts_from_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMEM_HOME", "runs")
    assert resolve("a") == tmp_path / "runs" / "a"


def test_the_hint_is_given_below_the_default_home_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("COMEM_HOME", raising=False)
    assert home_hint(resolve("demo/items")) == " (COMEM_HOME is not set; paths are below ~/comem)"
    assert home_hint(tmp_path / "elsewhere") == ""
    monkeypatch.setenv("COMEM_HOME", str(tmp_path / "comem"))
    assert home_hint(resolve("demo/items")) == ""


def test_a_missing_manifest_says_that_comem_home_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("COMEM_HOME", raising=False)
    with pytest.raises(ArtifactError, match=r"no manifest\.json.* \(COMEM_HOME is not set; paths are below ~/comem\)$"):
        load_manifest(resolve("demo/items"), "ingest")


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_a_path_may_be_composed_or_decomposed(tmp_path: Path, disk: str, written: str) -> None:
    there = tmp_path / unicodedata.normalize(disk, "Fjäll") / unicodedata.normalize(disk, "Mañana.tsv")
    there.parent.mkdir()
    there.write_text("x")
    path = unicodedata.normalize(written, str(there))
    assert resolve(path) == there
    glob = resolve(unicodedata.normalize(written, str(there.parent)) + "/*.tsv")
    assert list(glob.parent.glob(glob.name)) == [there]
    assert resolve(str(tmp_path / "é" / "none")) == tmp_path / "é" / "none"
    assert resolve("/" + "é" * 5_000) == Path("/" + "é" * 5_000)
