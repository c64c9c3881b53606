"""What does it cost to check a store? A memory store at 7B width: a rerun, `comem verify`, and a shard's first read.

    python benchmarks/check_store.py [--shards 20] [--items 2000] [--width 3584]

A shard's bytes are compared with its SHA-256 when a stage runs again, in `comem verify`, and when a reader first
opens it. Warm: the files are in the page cache. Cold: their pages were dropped before.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from comem_ray.artifacts import StageFolder
from comem_ray.artifacts.verify import verify
from comem_ray.memory_store import STAGE, MemoryStore, write_memory

QUERIES = 8


def make(folder: Path, shards: int, items: int, width: int) -> dict[str, str]:
    """A finished memory stage of random numbers. Returns its units with their inputs."""
    stage, generator = StageFolder(folder, STAGE, {"encoder": "0" * 64}), torch.Generator().manual_seed(0)
    inputs = {f"part-{n:06d}": "" for n in range(shards)}
    for n, unit in enumerate(inputs):
        memory = torch.randn(items, QUERIES, width, generator=generator).bfloat16()
        ids = [f"{n * items + i:024x}" for i in range(items)]
        write_memory(folder / f"{unit}.safetensors", ids, [bytes(16)] * items, memory)
        stage.commit(unit, "", {f"{unit}.safetensors": items}, {"items": items})
    stage.close(inputs)
    return inputs


def drop_pages(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--width", type=int, default=3_584)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "memory"
        inputs = make(folder, args.shards, args.items, args.width)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9
        print(f"{args.shards} shards, {size:.2f} GB, {os.cpu_count()} cores")
        for state in ("cold", "warm"):
            if state == "cold":
                drop_pages(folder)
            start = time.perf_counter()
            assert len(StageFolder(folder, STAGE, {"encoder": "0" * 64}).finished(inputs)) == args.shards
            print(f"a rerun that keeps all, {state}: {(time.perf_counter() - start) / size:.2f} s per GB")
        start = time.perf_counter()
        assert not any(report.faults for report in verify(Path(home)))
        print(f"comem verify, warm: {(time.perf_counter() - start) / size:.2f} s per GB")
        store = MemoryStore(folder, "0" * 64)
        for read in ("first", "second"):
            start = time.perf_counter()
            store.get([f"{0:024x}"])
            print(f"{read} read of a shard of {1_000 * size / args.shards:.0f} MB: {time.perf_counter() - start:.4f} s")


if __name__ == "__main__":
    main()
