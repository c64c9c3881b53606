"""Copies what a finished training ships into the repository: `python -m examples.countries.train.ship`.

Tower and base LoRA go to `weights/backbone/`, the trained adapter to `weights/adapter/`, all in bfloat16; the CLIP
model goes to `weights/clip/`, as it is, where the run trained one. Refuses weights that are too large for the
repository.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from comem_ray.artifacts import ArtifactError, write_json
from comem_ray.model.adapter import ADAPTER_FILES
from examples.countries.backbone import BASE_LORA, TOWER
from examples.countries.prepare import CLIP_FILES, WEIGHTS

MAX_BYTES = 60_000_000  # of all weights in the repository


def ship(run: Path, adapter: Path, weights: Path) -> int:
    """Copies from the folders of a run and of a trained adapter into `weights`. Returns the bytes of all files there.

    Raises ArtifactError, leaving `weights` as it was, where a file is missing or the total would exceed MAX_BYTES.
    """
    parts = {f"backbone/{name}": run / "weights" / name for name in (TOWER, BASE_LORA)}
    parts |= {f"adapter/{name}": adapter / name for name in ADAPTER_FILES}
    if (run / "clip").exists():
        parts |= {f"clip/{name}": run / "clip" / name for name in CLIP_FILES}
    if missing := [str(p) for p in parts.values() if not p.is_file()]:
        raise ArtifactError(f"the training is not finished: {', '.join(missing)} missing")
    building = weights / ".shipping"
    shutil.rmtree(building, ignore_errors=True)
    for name, part in parts.items():
        (building / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(part, building / name)
    _remove_folder_name(building / "adapter" / "lora" / "adapter_config.json")
    for name in ("backbone", "adapter"):
        for path in (building / name).rglob("*.safetensors"):
            _to_bfloat16(path)
    shipped = {name.split("/")[0] for name in parts}
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


def _remove_folder_name(path: Path) -> None:
    """PEFT's configuration names a folder of the machine that trained; adapter.json identifies the backbone."""
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, config | {"base_model_name_or_path": None})


def _to_bfloat16(path: Path) -> None:
    tensors = {n: t.to(torch.bfloat16) if t.is_floating_point() else t for n, t in load_file(path).items()}
    save_file(tensors, path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.countries.train.ship", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the stages")
    parser.add_argument("--adapter", type=Path, required=True, help="folder that jobs.train made")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder to copy into")
    args = parser.parse_args()
    ship(args.run, args.adapter, args.weights)


if __name__ == "__main__":
    main()
