"""How much memory does the ingest of a large file take? Peak memory of the bare reader and of every process of the job.

    python benchmarks/ingest_memory.py [--megabytes 1000] [--rows-per-shard 2000]

Generates a WIT TSV of that size (rows of about 2.5 kB, images from a local folder) and the same file as gzip. Then
reads each in a process of its own, and runs jobs.ingest over the gzip on a local Ray. The memory of a process is RSS
without shared pages; the object store is counted separately, by its limit.
"""

from __future__ import annotations

import argparse
import gzip
import io
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import psutil
import ray
from PIL import Image

from comem_ray.config import Config
from comem_ray.knowledge.sources.wit_tsv import COLUMNS
from jobs import ingest

IMAGES = 100
OBJECT_STORE = 512 * 2**20
KINDS = {"scan task": "ray::Map(", "reader": "ray::FlatMap(", "each worker": "_Worker", "idle": "ray::IDLE"}
READER = """
import re, sys, time
from pathlib import Path
from comem_ray.knowledge.sources.chunks import parse_batch, read_chunks
from comem_ray.knowledge.sources.files import SourceFile
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
before, start, rows = peak(), time.monotonic(), 0
for chunk in read_chunks(SourceFile("items", sys.argv[1], "wit_tsv", "."), int(sys.argv[2])):
    rows += len(parse_batch("wit_tsv", chunk.batch))
seconds = time.monotonic() - start
print(f"{rows:,} rows in {seconds:.1f} s, peak {peak():.0f} MB, of which {before:.0f} MB before the first row")
"""


def generate(folder: Path, megabytes: int) -> int:
    """Writes wit.tsv, wit.tsv.gz and the images; returns the count of rows."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5_000)]
    for n in range(IMAGES):
        out = io.BytesIO()
        Image.effect_noise((300, 200), 60).convert("RGB").save(out, "JPEG")
        (folder / f"{n}.jpg").write_bytes(out.getvalue())
    rows = size = 0
    with open(folder / "wit.tsv", "wb") as plain, gzip.open(folder / "wit.tsv.gz", "wb", 1) as zipped:
        row = "\t".join(COLUMNS)
        while size < megabytes * 1_000_000:
            data = row.encode() + b"\n"
            plain.write(data)
            zipped.write(data)
            size += len(data)
            fields = dict.fromkeys(COLUMNS, "x")
            fields |= {"language": "en", "page_url": f"https://example.org/{rows}", "page_title": f"Title {rows}"}
            fields |= {
                "image_url": f"{rows % IMAGES}.jpg",
                "context_page_description": " ".join(rng.choices(words, k=120)),
            }
            fields |= {"context_section_description": " ".join(rng.choices(words, k=240))}
            row, rows = "\t".join(fields.values()), rows + 1
    return rows - 1


class Watch(threading.Thread):
    """Records the peak memory of one child process of each kind, and the peak of all of them together."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[str, float] = defaultdict(float)
        self.stop = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.stop.wait(0.2):
            total = 0.0
            for process in [me, *me.children(recursive=True)]:
                try:
                    memory, title = process.memory_info(), " ".join(process.cmdline()[:1])
                except psutil.Error:
                    continue
                own = (memory.rss - memory.shared) / 2**20
                kind = next((kind for kind, part in KINDS.items() if part in title), "each of Ray's other processes")
                kind = "driver" if process == me else kind
                self.peaks[kind] = max(self.peaks[kind], own)
                total += own
            self.peaks["all together"] = max(self.peaks["all together"], total)


def run_job(folder: Path, rows_per_shard: int) -> None:
    settings = {
        "sources": [{"path": str(folder / "wit.tsv.gz")}],
        "rows_per_shard": rows_per_shard,
        "workers": {"count": 2, "cpus": 0.5},
    }
    data = {"name": "memory", "root": str(folder / "run"), "ingest": settings}
    config = Config.model_validate({**data, "clip": {"model": "ViT-B-32"}, "backbone": {"model": "none"}})
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=OBJECT_STORE
    )
    watch, start = Watch(), time.monotonic()
    watch.start()
    summary = ingest.run(config)
    watch.stop.set()
    watch.join()
    print(f"job: {summary['items']:,} items of {summary['rows']:,} rows in {time.monotonic() - start:.1f} s")
    for kind, peak in sorted(watch.peaks.items()):
        print(f"   {kind:40} peak {peak:6.0f} MB")
    print(f"   {'object store (limit)':40}      {OBJECT_STORE / 2**20:6.0f} MB")
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1_000, help="size of the uncompressed file")
    parser.add_argument("--rows-per-shard", type=int, default=2_000)
    args = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "pyarrow", "pillow"))
    print(f"{platform.platform()}, Python {platform.python_version()}, {psutil.cpu_count()} cores, {versions}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = generate(folder, args.megabytes)
        sizes = [(folder / name).stat().st_size / 1e6 for name in ("wit.tsv", "wit.tsv.gz")]
        print(f"{rows:,} rows, {sizes[0]:,.0f} MB, {sizes[1]:,.0f} MB as gzip")
        for name in ("wit.tsv", "wit.tsv.gz"):
            command = [sys.executable, "-c", READER, str(folder / name), str(args.rows_per_shard)]
            print(
                f"reader of {name}: {subprocess.run(command, check=True, capture_output=True, text=True).stdout}",
                end="",
            )
        run_job(folder, args.rows_per_shard)


if __name__ == "__main__":
    main()
