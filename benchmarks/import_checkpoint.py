"""What does `comem import-checkpoint` take at 7B? Time and memory, on a synthetic release of true shapes.

    python -m benchmarks.import_checkpoint [--layers 28] [--random-layers 28] [--leave-gb 10] [--folder /tmp]

Writes a base of Qwen2.5-VL-7B's shapes (bfloat16, random), and a release in the authors' format: the base with a known
change of rank 16 on every Linear, model_inf equal to the base, a random Q-Former. 28 layers are 16.6 and 33.5 GB. Each
tensor is written on its own, and everything is deleted at the end.

Where the disk has less, `--random-layers N` makes the base of the later layers, the embeddings and lm_head zeros. Their
files keep their size, but zeros take no room (holes, by `fallocate --dig-holes`). Every tensor is read and imported all
the same. The import runs in a process of its own; its memory is sampled from /proc every 50 ms. Of that, "anonymous" is
what the process needs; the rest of the resident pages are the system's cache of the files.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from comem_ray.model.families import FAMILIES
from comem_ray.model.qformer import QFormer
from comem_ray.model.released.names import ReleasedName, authors_name
from comem_ray.model.released.shards import INDEX, stored_tensors, write_tensors
from comem_ray.model.shapes import backbone_config

MODEL, RANK, DTYPE = "Qwen/Qwen2.5-VL-7B-Instruct", 16, torch.bfloat16
WEIGHT_STD, CHANGE_STD = 0.02, 2e-4  # a change of about two units in the last place of the weights
SHARD_BYTES = 4 << 30
Shapes = dict[str, tuple[int, ...]]


def seeded(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(name.encode()[-7:], "little") + len(name))


def base_tensor(name: str, shape: tuple[int, ...], random_layers: int) -> Tensor:
    layer = re.search(r"language_model\.layers\.(\d+)\.", name)
    if (layer and int(layer[1]) >= random_layers) or ("embed_tokens" in name or "lm_head" in name):
        return torch.zeros(shape, dtype=DTYPE)
    return torch.empty(shape, dtype=DTYPE).normal_(0, WEIGHT_STD, generator=seeded(name))


def change(name: str, shape: tuple[int, ...]) -> Tensor:
    """The known change of a Linear (O, I), float32, with singular values that fall from 1 to 0.2."""
    generator = seeded(name + "lora")
    left = torch.randn(shape[0], RANK, generator=generator) * torch.logspace(0, -0.7, RANK)
    right = torch.randn(RANK, shape[1], generator=generator)
    return (left @ right).mul_(CHANGE_STD / (RANK / 3) ** 0.5)


def write_checkpoint(
    folder: Path, shapes: Shapes, make: Callable[[str], Tensor], check_disk: Callable[[], object]
) -> None:
    """Shards of about 4 GB with their index."""
    files: dict[str, str] = {}
    for number, names in enumerate(groups(shapes), start=1):
        check_disk()
        file = f"model-{number:05d}.safetensors"
        write_tensors(folder / file, {name: (shapes[name], DTYPE) for name in names}, make)
        subprocess.run(["fallocate", "--dig-holes", folder / file], check=True)
        files |= dict.fromkeys(names, file)
        print(f"{time.strftime('%H:%M:%S')}  {folder.name}/{file}  {len(names)} tensors", flush=True)
    index = {"metadata": {"total_size": sum(map(bytes_of, shapes.values()))}, "weight_map": files}
    (folder / INDEX).write_text(json.dumps(index))


def groups(shapes: Shapes) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if size and size + bytes_of(shape) > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += bytes_of(shape)
    yield names


def bytes_of(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel() * DTYPE.itemsize


def write_all(work: Path, layers: int, random_layers: int, check_disk: Callable[[], object]) -> None:
    config = backbone_config(MODEL)
    config.text_config.num_hidden_layers = layers
    config.text_config.layer_types = config.text_config.layer_types[:layers]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
        qformer = QFormer(config.text_config.hidden_size).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    spelled = {authors_name(ReleasedName("encoder", name)): name for name in shapes}
    for folder in ("base", "release"):
        config.save_pretrained(work / folder)

    wanted = {theirs: shapes[name] for theirs, name in spelled.items()}
    write_checkpoint(
        work / "base", wanted, lambda n: base_tensor(spelled[n], shapes[spelled[n]], random_layers), check_disk
    )
    base = stored_tensors(work / "base")

    def released(name: str) -> Tensor:
        if name.startswith("knowledge_processor."):
            return torch.randn(wanted[name], generator=seeded(name)).to(DTYPE)
        tensor = base[name.removeprefix("model_inf.")].read()
        if (
            name in spelled
            and re.fullmatch(FAMILIES["qwen2_5_vl"].lora_targets, spelled[name].removesuffix(".weight"))
            and "weight" in name
        ):
            return (tensor.float() + change(name, tuple(tensor.shape))).to(DTYPE)
        return tensor

    wanted |= {f"model_inf.{name}": tensor.shape for name, tensor in base.items()}
    for name, tensor in qformer.items():
        shape = (1, *tensor.shape) if name == "queries" else tuple(tensor.shape)
        wanted[authors_name(ReleasedName("qformer", name))] = shape
    write_checkpoint(work / "release", wanted, released, check_disk)


def run_import(work: Path) -> tuple[float, int, int]:
    """Seconds, and the most bytes that were resident and anonymous."""
    command = [sys.executable, "-m", "comem_ray.cli", "import-checkpoint", str(work / "release")]
    begin = time.monotonic()
    process = subprocess.Popen([*command, "--base", str(work / "base"), "--out", str(work / "out")])
    resident = anonymous = 0
    while process.poll() is None:
        fields = dict(re.findall(r"(\w+):\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text()))
        resident = max(resident, int(fields.get("VmHWM", 0)) * 1024)
        anonymous = max(anonymous, int(fields.get("RssAnon", 0)) * 1024)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the import ended with {process.returncode}")
    return time.monotonic() - begin, resident, anonymous


def largest_error(work: Path) -> float:
    """The largest error of the recovered changes, as a share of their norm, over every tenth Linear."""
    tensors = load_file(work / "out" / "lora" / "adapter_model.safetensors")
    modules = sorted({name.rsplit(".lora_", 1)[0] for name in tensors})[::10]
    errors = []
    for module in modules:
        known_name = authors_name(ReleasedName("encoder", module.removeprefix("base_model.model.") + ".weight"))
        a, b = tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"]
        known = change(known_name, (b.shape[0], a.shape[1]))
        errors.append(float((2 * b @ a - known).norm() / known.norm()))
    return max(errors)


def disk_use(folder: Path) -> tuple[int, int]:
    """Bytes of a folder's files, and bytes that they take on the disk."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(f.st_size for f in files), sum(f.st_blocks * 512 for f in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=28, help="layers of the language model")
    parser.add_argument("--random-layers", type=int, default=28, help="of these, how many have a random base")
    parser.add_argument("--leave-gb", type=float, default=10, help="stop where the disk would have less left")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the files are written")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="import-checkpoint-", dir=options.folder))

    def check_disk() -> None:
        free = shutil.disk_usage(work).free
        if free - SHARD_BYTES < options.leave_gb * 1e9:
            raise SystemExit(f"{free / 1e9:.1f} GB are free, the next shard would leave less than {options.leave_gb}")

    try:
        begin = time.monotonic()
        write_all(work, options.layers, options.random_layers, check_disk)
        print(f"written in {time.monotonic() - begin:.0f} s")
        for folder in ("base", "release"):
            size, taken = disk_use(work / folder)
            print(f"{folder}: {size / 1e9:.1f} GB of files, {taken / 1e9:.1f} GB on the disk")
        seconds, resident, anonymous = run_import(work)
        print(f"import: {seconds:.0f} s; resident at most {resident / 1e9:.2f} GB, anonymous {anonymous / 1e9:.2f} GB")
        print(f"adapter: {disk_use(work / 'out')[0] / 1e6:.0f} MB; largest error of a change {largest_error(work):.4f}")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
