"""Copies what a finished training of the demo's model ships into the repository: `python -m comem_ray.demo.model.ship`.

Tower and base LoRA to `weights/backbone/`, the trained adapter to `weights/adapter/`, its matrices in bfloat16, as
safetensors. Refuses what would make the weights of the repository larger than they may be.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from comem_ray.artifacts import ArtifactError
from comem_ray.demo.backbone import BASE_LORA, TOWER

MAX_BYTES = 60_000_000  # of all weights in the repository


def ship(run: Path, adapter: Path, weights: Path) -> int:
    """Copies from a run's folder and a trained adapter's into `weights`. Returns the bytes of all that is there then.

    Raises ArtifactError, leaving `weights` as it was, where a part is missing or all would exceed MAX_BYTES.
    """
    parts = [run / "weights" / TOWER, run / "weights" / BASE_LORA, adapter / "adapter.json"]
    if missing := [str(p) for p in parts if not p.is_file()]:
        raise ArtifactError(f"the training is not finished, there is no {', '.join(missing)}")
    building = weights / ".shipping"
    shutil.rmtree(building, ignore_errors=True)
    (building / "backbone").mkdir(parents=True)
    for part in parts[:2]:
        shutil.copyfile(part, building / "backbone" / part.name)
    shutil.copytree(adapter, building / "adapter")
    for path in building.rglob("*.safetensors"):
        _halve(path)
    shipped = ("backbone", "adapter")
    others = [p for p in weights.rglob("*") if p.is_file() and p.relative_to(weights).parts[0] not in shipped]
    total = sum(p.stat().st_size for p in others)
    if total > MAX_BYTES:
        shutil.rmtree(building)
        raise ArtifactError(f"the weights would take {total:,} bytes, the limit is {MAX_BYTES:,}")
    for name in shipped:
        shutil.rmtree(weights / name, ignore_errors=True)
        (building / name).rename(weights / name)
    building.rmdir()
    return total


def _halve(path: Path) -> None:
    tensors = {n: t.to(torch.bfloat16) if t.is_floating_point() else t for n, t in load_file(path).items()}
    save_file(tensors, path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m comem_ray.demo.model.ship", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the stages")
    parser.add_argument("--adapter", type=Path, required=True, help="folder that jobs.train made")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    args = parser.parse_args()
    ship(args.run, args.adapter, args.weights)


if __name__ == "__main__":
    main()
