"""jobs.embed_items against a bare open_clip loop over the same images, on the same cores.

    python -m benchmarks.embed_items --model ViT-B-32 --images 800 --rounds 3

The bare loop is a process of its own: import, model, then decode, preprocess and encode batch by batch, and one file at
the end. torch has all the cores. The job is the whole of `run(config)` on a running Ray. It too starts a process,
imports and builds the model; and it writes shards, digests and the manifest. It has one actor per core, which is
fastest on a CPU. Rounds alternate which of the two goes first.
Weights are random, with one seed for both, so that the vectors can be compared. With --texts both also embed the items'
texts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageFilter

SHARD_ITEMS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="open_clip name, or path of a model configuration")
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--side", type=int, default=512, help="pixels of the longer side of an image")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--actors", type=int, default=2, help="of the job; they share the cores")
    parser.add_argument("--decode-threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", action="store_true", help="embed the texts too, in both")
    parser.add_argument("--bare", metavar="FOLDER", help="(used by the benchmark itself) run the bare loop over FOLDER")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    if args.bare:
        bare_loop(args, Path(args.bare))
    else:
        compare(args)


def bare_loop(args: argparse.Namespace, folder: Path) -> None:
    """The loop that one would write by hand."""
    torch.set_num_threads(args.cores)
    start = time.perf_counter()
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(args.model)
    tokenizer = open_clip.get_tokenizer(args.model)
    model.eval()
    built = time.perf_counter()
    vectors, text_vectors = [], []
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=["text", "image"])
        for batch in table.to_batches(args.batch_size):
            images = [preprocess(Image.open(io.BytesIO(p.as_py()))) for p in batch["image"]]
            with torch.inference_mode():
                vectors.append(model.encode_image(torch.stack(images), normalize=True).half())
                if args.texts:
                    text_vectors.append(model.encode_text(tokenizer(batch["text"].to_pylist()), normalize=True).half())
    np.save(folder.parent / "bare.npy", torch.cat(vectors).numpy())
    ended = time.perf_counter()
    print(json.dumps({"bare_model": built - start, "bare_loop": ended - built}))


def compare(args: argparse.Namespace) -> None:
    """Rounds of both, and the figures."""
    import ray

    with tempfile.TemporaryDirectory() as home:
        os.environ["COMEM_HOME"] = home
        write_items(args, Path(home, "items"))
        ray.init(address="local", num_cpus=args.cores, log_to_driver=False)
        rounds = [one_round(args, home, number) for number in range(args.rounds)]
        check(args, Path(home))
    report(args, rounds)


def one_round(args: argparse.Namespace, home: str, number: int) -> dict[str, float]:
    """Seconds of the bare loop and of the job, the job first in odd rounds."""
    if number % 2:
        figures = time_job(args, home, number) | time_bare(home)
    else:
        figures = time_bare(home) | time_job(args, home, number)
    print(json.dumps({k: round(v, 2) for k, v in figures.items()}), flush=True)
    return figures


def write_items(args: argparse.Namespace, folder: Path) -> None:
    """An items/ stage of JPEG images with detail at every scale, about 50 kB each, and texts of 600 characters."""
    from comem_ray.artifacts import StageFolder, fingerprint, write_parquet
    from comem_ray.knowledge.schema import ITEM_SCHEMA

    rng = np.random.default_rng(0)
    stage, units = StageFolder(folder, "ingest", {}), []
    width, height = args.side, args.side * 3 // 4
    for start in range(0, args.images, SHARD_ITEMS):
        rows = []
        for i in range(start, min(start + SHARD_ITEMS, args.images)):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
            noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            image = Image.blend(coarse, noise.filter(ImageFilter.GaussianBlur(1.5)), 0.35)
            data = io.BytesIO()
            image.save(data, "JPEG", quality=90)
            text = f"Title {i}: " + " ".join(f"word{n}" for n in rng.integers(0, 5_000, 75))
            rows.append(
                {"item_id": fingerprint(i)[:24], "language": "en", "title": f"Title {i}", "text": text}
                | {"image": data.getvalue(), "width": width, "height": height, "source": "", "source_row": i}
            )
        unit = f"part-0000-{start // SHARD_ITEMS:06d}"
        write_parquet(folder / f"{unit}.parquet", pa.Table.from_pylist(rows, ITEM_SCHEMA))
        stage.commit(unit, "", {f"{unit}.parquet": len(rows)}, {"items": len(rows)})
        units.append(unit)
    stage.close(units)


def make_config(args: argparse.Namespace, home: str, root: str) -> Any:
    from comem_ray.config import Config

    Path(home, root).mkdir()
    Path(home, root, "items").symlink_to(Path(home, "items"))
    clip = {"model": args.model, "batch_size": args.batch_size, "decode_threads": args.decode_threads}
    clip |= {"texts": args.texts, "workers": {"count": args.actors, "cpus": args.cores / args.actors}}
    sections = {"ingest": {"sources": [{"path": "none"}]}, "clip": clip, "backbone": {"model": "none"}}
    return Config.model_validate({"name": root, "root": root, **sections})


def time_bare(home: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.embed_items", *sys.argv[1:], "--bare", str(Path(home, "items"))]
    start = time.perf_counter()
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"bare": time.perf_counter() - start, **json.loads(result.stdout.splitlines()[-1])}


def time_job(args: argparse.Namespace, home: str, number: int) -> dict[str, float]:
    from jobs.embed_items import run

    config = make_config(args, home, f"round{number}")
    start = time.perf_counter()
    run(config)
    return {"job": time.perf_counter() - start}


def check(args: argparse.Namespace, home: Path) -> None:
    """The job's vectors are the bare loop's, up to the rounding of float16."""
    from comem_ray.retrieval.embeddings import Embeddings

    bare = np.load(home / "bare.npy").astype(np.float32)
    for number in range(args.rounds):
        blocks = Embeddings(home / f"round{number}" / "embeddings").blocks("image")
        np.testing.assert_allclose(np.concatenate(list(blocks)), bare, atol=2e-3)


def report(args: argparse.Namespace, rounds: list[dict[str, float]]) -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "a CPU")
    versions = f"python {platform.python_version()}, torch {torch.__version__}, open_clip {open_clip.__version__}"
    print(f"{date.today()}  {args.cores} cores of {cpu}; {versions}")
    print(f"python -m benchmarks.embed_items {' '.join(sys.argv[1:])}")
    for name in ("bare", "bare_loop", "job"):
        times = sorted(r[name] for r in rounds)
        middle = statistics.median(times)
        print(f"{name:10} {middle:7.1f} s ({times[0]:.1f} to {times[-1]:.1f}), {args.images / middle:6.1f} images/s")
    for name in ("bare", "bare_loop"):
        ratios = sorted(r[name] / r["job"] for r in rounds)
        print(f"throughput of the job / {name}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
