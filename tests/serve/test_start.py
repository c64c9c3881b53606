"""What cannot be served is refused before anything is deployed, in one sentence."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from support.serving import FinishedRun, serve_process

from serve.app import build_app
from serve.start import StartError


def broken_root(run: FinishedRun, home: Path, kind: str) -> str:
    """The root of a run that cannot be served."""
    root = home / kind
    shutil.copytree(run.config.folder("items").parent, root)
    if kind == "unfinished":
        (root / "memory" / "manifest.json").unlink()
    elif kind == "cut":
        path = next((root / "index").glob("image*.faiss"))
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "no manifest of ours":
        (root / "index" / "manifest.json").write_text("[1, 2]")
    elif kind == "flipped":
        path = next((root / "index").glob("image*.faiss"))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    return f"root={root}"


BROKEN = {
    "unfinished": "memory has no manifest.json: run the stage 'encode_memory' to its end first",
    "cut": r"image\S*\.faiss has [\d,]+ bytes, its record says [\d,]+. Run the stage 'build_index' again",
    "flipped": r"image\S*\.faiss is damaged: its SHA-256 begins with",
    "no manifest of ours": "index/manifest.json is damaged",
}


@pytest.mark.parametrize(("kind", "sentence"), BROKEN.items())
def test_what_cannot_be_served_builds_nothing(run: FinishedRun, tmp_path: Path, kind: str, sentence: str) -> None:
    with pytest.raises(StartError, match=f"artifact: .*{sentence}"):
        build_app({"config": str(run.path), "overrides": [broken_root(run, tmp_path, kind)]})


def test_models_of_another_make_build_nothing(run: FinishedRun) -> None:
    with pytest.raises(StartError, match=r"the memory in .* was made by encoder"):
        build_app({"config": str(run.path), "overrides": ["backbone.item_pixels.max=1568"]})
    with pytest.raises(StartError, match=r"the index in .* was made with the CLIP model"):
        build_app({"config": str(run.path), "overrides": ["clip.pretrained=null"]})


@pytest.mark.ray
def test_serve_run_says_in_one_sentence_what_is_wrong(run: FinishedRun, tmp_path: Path) -> None:
    with serve_process(run, tmp_path, broken_root(run, tmp_path, "cut")) as (process, _):
        log, end = tmp_path / "serve.log", time.monotonic() + 120
        while "failed with exception" not in log.read_text():
            assert process.poll() is None
            assert time.monotonic() < end, log.read_text()[-5_000:]
            time.sleep(0.3)
        time.sleep(1)
        assert re.search(f"artifact: .*{BROKEN['cut']}", log.read_text())
        assert "Traceback" not in log.read_text()
