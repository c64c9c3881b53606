"""Small makers of test objects."""

import io
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from comem_ray.artifacts import StageFolder, fingerprint, write_parquet
from comem_ray.artifacts.manifest import read_manifest
from comem_ray.knowledge.earlier import made_by_rules
from comem_ray.knowledge.schema import ITEM_SCHEMA

FAMILIES = ["qwen2_5_vl", "qwen2_vl"]


def image(seed: int, width: int = 60, height: int = 44) -> Image.Image:
    """A seeded image of noise blocks."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def png(seed: int, width: int = 60, height: int = 44) -> bytes:
    """The same image as PNG bytes."""
    buffer = io.BytesIO()
    image(seed, width, height).save(buffer, "PNG")
    return buffer.getvalue()


def item_row(i: int) -> dict[str, Any]:
    """A knowledge item, number `i`: its own image, its own text, one of three languages."""
    return {
        "item_id": fingerprint(["item", i])[:24],
        "language": ["en", "de", "es"][i % 3],
        "title": f"Title {i}",
        "text": f"Title {i}: description number {i}" + " and more" * (i % 5),
        "page_url": f"https://en.wikipedia.org/wiki/Title_{i}",
        "image_url": f"https://example.org/image/{i}.png",
        "image": png(i, 40 + 4 * (i % 9), 44),
        "width": 40 + 4 * (i % 9),
        "height": 44,
        "source": "tiny.tsv",
        "source_row": i,
    }


def write_items(
    folder: Path, sizes: list[int], first: Sequence[int] = (), images: Mapping[int, bytes] | None = None
) -> list[str]:
    """A finished items/ stage with shards of the given sizes: items `first`, then 0, 1, ... Returns the ids in order.

    `images` replaces those of some numbers.
    """
    stage = StageFolder(folder, "ingest", {"tiny": True})
    numbers = iter([*first, *range(sum(sizes))])
    units, ids = [], []
    for number, size in enumerate(sizes):
        rows = [{**item_row(i), **({"image": images[i]} if i in (images or {}) else {})} for i in islice(numbers, size)]
        unit = f"part-0000-{number:06d}"
        write_parquet(folder / f"{unit}.parquet", pa.Table.from_pylist(rows, made_by_rules(ITEM_SCHEMA)))
        stage.commit(unit, "", {f"{unit}.parquet": size}, {"rows": size, "items": size})
        units.append(unit)
        ids += [r["item_id"] for r in rows]
    stage.close(units)
    return ids


def rename_to_old_columns(folder: Path) -> None:
    """Writes the finished stage in `folder` again under the column names of version 0.1: `picture` for `image`."""
    old = {"image": "picture", "image_embedding": "picture_embedding"}
    manifest = read_manifest(folder)
    stage = StageFolder(folder, manifest.stage, manifest.identity)
    for record in manifest.records:
        for shard in record.shards:
            table = pq.read_table(folder / shard.name)
            table = table.rename_columns([old.get(name, name) for name in table.column_names])
            write_parquet(folder / shard.logical_name, table)
        stage.commit(record.unit, record.inputs, {s.logical_name: s.rows for s in record.shards}, record.counts)
    stage.close([record.unit for record in manifest.records], manifest.extra)


def shard_paths(folder: Path, suffix: str = ".parquet") -> list[Path]:
    """The files of the finished stage in `folder`, in unit order, without rejected rows."""
    return [folder / shard.name for shard in read_manifest(folder).shards(suffix, folder="")]


def stage_bytes(folder: Path) -> dict[str, bytes]:
    """Every byte that a later stage can see in a stage folder, by name: all but the leases of its readers."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.parent.name != "readers"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}
