"""The whole chain of stages at its small size."""

import json
from pathlib import Path

import pytest

from examples.countries.backbone import BASE_LORA, TOWER
from examples.countries.train.reading import QFORMER
from examples.countries.train.stages import STAGES, Run
from examples.countries.train.warmup import ADAPTER


def test_every_stage_leaves_its_output_and_is_skipped_once_finished(finished: Run) -> None:
    outputs = [finished.weights / TOWER, finished.weights / BASE_LORA, finished.out / "source" / "countries.tsv"]
    outputs += [finished.out / QFORMER, finished.out / ADAPTER / "qformer.safetensors"]
    before = [path.stat().st_mtime_ns for path in outputs]
    for name in STAGES[:5]:
        finished.stage(name)
    assert [path.stat().st_mtime_ns for path in outputs] == before
    folders = {"vision": finished.weights, "base": finished.weights, "reading": finished.out, "warmup": finished.out}
    for stage, folder in folders.items():
        lines = (folder / f"{stage}.metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["loss"] > 0


def test_a_stage_without_the_one_before_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks tower\.safetensors"):
        Run(tmp_path, sizes="small").stage("base")
    with pytest.raises(ValueError, match=r"lacks reading\.qformer\.safetensors"):
        Run(tmp_path, sizes="small").stage("warmup")
