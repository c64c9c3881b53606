"""Small runs of jobs.ingest: configurations, WIT files, and what a run leaves."""

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from comem_ray.artifacts import load_manifest
from comem_ray.config import Config
from comem_ray.knowledge.schema import ITEM_SCHEMA, REJECTED_SCHEMA
from comem_ray.knowledge.sources.wit_tsv import COLUMNS


def configuration(folder: Path, sources: list[dict[str, Any]], root: str = "run", **changes: Any) -> Config:
    fetch = {"allow_private": True, "retries": 0, "backoff_s": 0, **changes.pop("fetch", {})}
    fields = {"sources": sources, "rows_per_shard": 7, "fetch": fetch, "workers": {"count": 2, "cpus": 0.5}}
    data = {"name": "t", "root": str(folder / root), "ingest": {**fields, **changes}}
    return Config.model_validate({**data, "clip": {"model": "ViT-B-32"}, "backbone": {"model": "none"}})


def line(title: str, image: str, section: str = "Text.", page: str = "", language: str = "en") -> bytes:
    fields = dict.fromkeys(COLUMNS, "")
    fields |= {"language": language, "page_url": "https://example.org/page", "image_url": image, "page_title": title}
    fields |= {"context_page_description": page, "context_section_description": section}
    return "\t".join(fields.values()).encode()


def tsv(*rows: bytes) -> bytes:
    return b"".join(row + b"\n" for row in ("\t".join(COLUMNS).encode(), *rows))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def stored(config: Config) -> dict[str, bytes]:
    """Every byte that a later stage can see: shards, records and the manifest."""
    folder = config.folder("items")
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.parent.name not in ("scan", "readers")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def rows_of(config: Config) -> tuple[list[dict], list[dict]]:
    """The items and the rejected rows of a finished run, in order."""
    folder = config.folder("items")
    manifest = load_manifest(folder, "ingest")
    items, rejected = [], []
    for record in manifest.records:
        shards = [record.shard(name) for name in (f"{record.unit}.parquet", f"rejected/{record.unit}.parquet")]
        assert shards[0] is not None
        assert shards[1] is not None
        items += pq.read_table(folder / shards[0].name, schema=ITEM_SCHEMA).to_pylist()
        rejected += pq.read_table(folder / shards[1].name, schema=REJECTED_SCHEMA).to_pylist()
    counts = manifest.counts
    assert (counts["items"], counts["rejected"]) == (len(items), len(rejected))
    assert counts["rows"] == counts["items"] + counts["rejected"] + counts["duplicates"] + counts.get("deleted", 0)
    return items, rejected
