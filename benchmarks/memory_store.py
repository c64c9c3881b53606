"""Which file format for the memory store? 10 random items of 100,000, read by row number, in three formats.

    python benchmarks/memory_store.py [--items 100000] [--width 576] [--reads 200]

Arrow IPC (memory-mapped, one fixed-size binary per row), Lance (`take`), safetensors (memory-mapped, `get_slice`), all
in shards of 10,000 items, as the job writes them. Lance needs `pip install pylance`. "Warm": the pages are in memory.
"Cold": the files' pages are dropped from the page cache before each read.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors import safe_open
from safetensors.torch import save_file

QUERIES, SHARD, READ_ITEMS = 8, 10_000, 10


def shards(items: int, width: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    for start in range(0, items, SHARD):
        yield torch.randn(min(SHARD, items - start), QUERIES, width, generator=generator).bfloat16()


def write_all(folder: Path, items: int, width: int) -> None:
    import lance

    for number, memory in enumerate(shards(items, width)):
        save_file({"memory": memory}, folder / f"{number:03d}.safetensors")
        rows = memory.view(torch.uint8).reshape(len(memory), -1).numpy()
        array = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(rows.tobytes())]
        )
        table = pa.table({"memory": array})
        with pa.OSFile(str(folder / f"{number:03d}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
            out.write_table(table)
        lance.write_dataset(table, folder / "store.lance", mode="append" if number else "create")


def readers(folder: Path, width: int) -> dict[str, Callable[[np.ndarray], torch.Tensor]]:
    """A function rows_read -> (READ_ITEMS, QUERIES, width) bfloat16 for each format, over handles opened once."""
    import lance

    slices = [safe_open(p, framework="pt").get_slice("memory") for p in sorted(folder.glob("*.safetensors"))]
    maps = [pa.memory_map(str(p)) for p in sorted(folder.glob("*.arrow"))]
    columns = [pa.ipc.open_file(m).read_all()["memory"].chunk(0) for m in maps]
    dataset = lance.dataset(str(folder / "store.lance"))

    def from_bytes(rows: list[bytes]) -> torch.Tensor:
        joined = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.bfloat16)
        return joined.reshape(len(rows), QUERIES, width)

    return {
        "safetensors": lambda rows_read: torch.stack([slices[p // SHARD][int(p % SHARD)] for p in rows_read]),
        "arrow ipc": lambda rows_read: from_bytes([columns[p // SHARD][int(p % SHARD)].as_py() for p in rows_read]),
        "lance": lambda rows_read: from_bytes(dataset.take(rows_read.tolist())["memory"].to_pylist()),
    }


def drop_pages(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def measure(read: Callable[[np.ndarray], torch.Tensor], items: int, reads: int, before: Callable[[], None]) -> str:
    rng = np.random.default_rng(1)
    took = []
    for _ in range(reads):
        rows_read = rng.choice(items, READ_ITEMS, replace=False)
        before()
        start = time.perf_counter()
        read(rows_read)
        took.append((time.perf_counter() - start) * 1e3)
    return f"p50 {statistics.median(took):8.3f} ms   p99 {np.percentile(took, 99):8.3f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--reads", type=int, default=200)
    args = parser.parse_args()
    names = ("torch", "safetensors", "pyarrow", "pylance")
    print(platform.machine(), os.cpu_count(), "cores;", ", ".join(f"{n} {version(n)}" for n in names))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_all(folder, args.items, args.width)
        os.sync()
        print(f"{args.items:,} items of {QUERIES} x {args.width} bfloat16; {READ_ITEMS} random items per read")
        opened = readers(folder, args.width)
        rows_read = np.random.default_rng(2).choice(args.items, READ_ITEMS, replace=False)
        first = opened["safetensors"](rows_read)
        for name, read in opened.items():
            assert torch.equal(read(rows_read), first), name
            measure(read, args.items, args.reads, lambda: None)  # brings the pages into memory
            warm = measure(read, args.items, args.reads, lambda: None)
            cold = measure(read, args.items, max(10, args.reads // 10), lambda: drop_pages(folder))
            print(f"{name:12} warm {warm}    cold {cold}", flush=True)


if __name__ == "__main__":
    main()
