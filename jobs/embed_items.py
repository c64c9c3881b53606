"""CLIP embeddings of every knowledge item: its image and, with clip.texts, its text.

    ray job submit --working-dir . -- python -m jobs.embed_items --config configs/demo.yaml

One unit per item shard, on an actor pool. An actor holds one model; its threads read, decode and tokenise the next
batches while the current one is computed. The texts of a batch go first, so that there is work while the first images
are decoded. A rerun keeps the finished units and ends with the same bytes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from comem_ray.artifacts import StageFolder, load_manifest, write_parquet
from comem_ray.config import Config
from comem_ray.knowledge.images import open_image
from comem_ray.knowledge.items import STAGE as ITEMS
from comem_ray.knowledge.items import item_shards
from comem_ray.knowledge.schema import embedding_schema, stored_column
from comem_ray.retrieval.clip import ClipEncoder, locate
from comem_ray.retrieval.embeddings import STAGE
from jobs.common import Summary, main, run_units

AHEAD = 2  # batches prepared beyond the one computed; at 256 images of 224 pixels, 150 MB each


def run(config: Config) -> Summary:
    """Writes embeddings/ under the run's root."""
    shards = item_shards(load_manifest(config.folder("items"), ITEMS))
    source, clip = locate(config.clip), config.clip
    identity = {
        "clip": source.fingerprint,
        "width": source.architecture["embed_dim"],
        "texts": clip.texts,
        "precision": clip.precision if clip.workers.gpus else "float32",
    }
    stage = StageFolder(config.folder("embeddings"), STAGE, identity)
    inputs = {unit: shard.sha256 for unit, shard in shards.items()}
    kept = stage.finished(inputs)
    todo = [{"unit": unit, "inputs": digest} for unit, digest in inputs.items() if unit not in kept]
    run_units(todo, EmbedShard, (config, stage), clip.workers, STAGE)
    manifest = stage.close(inputs)
    size = sum(shard.bytes for shard in manifest.shards())
    items = manifest.counts.get("items", 0)
    return {"items": items, "width": identity["width"], "shards": len(inputs), "kept": len(kept), "bytes": size}


@dataclass
class _Batch:
    """A batch of items that threads are preparing."""

    item_ids: list[str]
    tokens: Future[torch.Tensor] | None
    pixels: list[Future[torch.Tensor]]


class EmbedShard:
    """An actor: the embeddings of one item shard per call."""

    def __init__(self, config: Config, stage: StageFolder):
        clip = config.clip
        self._items, self._stage, self._clip = config.folder("items"), stage, clip
        self._max_pixels = config.ingest.images.max_pixels
        self._encoder = ClipEncoder(clip, "cuda" if clip.workers.gpus else "cpu")
        # A preparing thread does its image alone: were each to start threads of its own, they would fight for cores.
        self._threads = ThreadPoolExecutor(clip.decode_threads)
        torch.set_num_threads(max(1, math.floor(clip.workers.cpus)))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        unit, inputs = str(batch["unit"][0]), str(batch["inputs"][0])
        table = self._embed(self._items / f"{unit}.parquet")
        write_parquet(self._stage.path / f"{unit}.parquet", table)
        self._stage.commit(unit, inputs, {f"{unit}.parquet": len(table)}, {"items": len(table)})
        return batch

    def _embed(self, path: Path) -> pa.Table:
        schema = embedding_schema(self._encoder.width, self._clip.texts)
        parts = [schema.empty_table()]
        for batch in self._prepared(path):
            columns = [pa.array(batch.item_ids)]
            texts = [] if batch.tokens is None else [self._encoder.encode_texts(batch.tokens.result())]
            pixels = torch.stack([pixels.result() for pixels in batch.pixels])
            vectors = [self._encoder.encode_images(pixels), *texts]
            columns += [_vector_column(v) for v in vectors]
            parts.append(pa.table(columns, schema=schema))
        return pa.concat_tables(parts).combine_chunks()

    def _prepared(self, path: Path) -> Iterator[_Batch]:
        """The batches of a shard; the next ones are begun before one is yielded."""
        under_way: deque[_Batch] = deque()
        with pq.ParquetFile(path) as file:
            image = stored_column(file.schema_arrow, "image")
            columns = ["item_id", "text", image] if self._clip.texts else ["item_id", image]
            for rows in file.iter_batches(self._clip.batch_size, columns=columns):
                under_way.append(self._begin(rows))
                if len(under_way) > AHEAD:
                    yield under_way.popleft()
        yield from under_way

    def _begin(self, rows: pa.RecordBatch) -> _Batch:
        submit, encoder = self._threads.submit, self._encoder
        tokens = submit(encoder.tokenize, rows["text"].to_pylist()) if self._clip.texts else None
        images = rows[stored_column(rows.schema, "image")]
        return _Batch(rows["item_id"].to_pylist(), tokens, [submit(self._pixels, i.as_py()) for i in images])

    def _pixels(self, image: bytes) -> torch.Tensor:
        return self._encoder.preprocess(open_image(image, self._max_pixels))


def _vector_column(vectors: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), vectors.shape[1])


if __name__ == "__main__":
    main(STAGE, run, __doc__)
