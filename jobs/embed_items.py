"""CLIP embeddings of every knowledge item: its image and, with clip.texts, its text.

    ray job submit --working-dir . -- python -m jobs.embed_items --config configs/demo.yaml

Items of a clip_retrieval source bring their embeddings along: these are taken, not computed.

One unit per item shard, on an actor pool. An actor holds one model; its threads decode and tokenise the next batches
while the current one is computed. A rerun keeps the finished units, takes over the items that did not change, and ends
with the same bytes. An item that CLIP cannot take is quarantined in embeddings/rejected/; it cannot be retrieved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from comem_ray.artifacts import StageFolder, write_parquet
from comem_ray.artifacts.manifest import damage
from comem_ray.artifacts.reuse import parquet_ids
from comem_ray.config import Config, ConfigError
from comem_ray.finite import NotFinite
from comem_ray.knowledge.images import open_image
from comem_ray.knowledge.schema import content_digest, embedding_schema, item_contents, stored_column
from comem_ray.retrieval.clip import ClipEncoder, locate
from comem_ray.retrieval.embeddings import STAGE, stored_vectors
from comem_ray.retrieval.ready_embeddings import ReadyEmbeddings
from jobs.common import Summary, main
from jobs.item_shards import RejectedItem, ShardTask, commit, item_shard, open_items, run_item_shards

AHEAD = 2  # batches prepared beyond the one computed; at 256 images of 224 pixels, 150 MB each


def run(config: Config) -> Summary:
    """Writes embeddings/ under the run's root."""
    items, source, clip = open_items(config), locate(config.clip), config.clip
    identity = {
        "clip": source.fingerprint,
        "width": source.architecture["embed_dim"],
        "texts": clip.texts,
        "precision": clip.precision if clip.workers.gpus else "float32",
    }
    stage = StageFolder(config.folder("embeddings"), STAGE, identity)
    summary = run_item_shards(config, items, stage, EmbedShard, clip.workers, parquet_ids)
    return {**summary, "width": identity["width"]}


@dataclass
class _Batch:
    """A batch of items that threads are preparing."""

    item_ids: list[str]
    contents: list[bytes]
    tokens: Future[torch.Tensor] | None
    pixels: list[Future[torch.Tensor] | None]  # None: the image's embedding is ready


class EmbedShard:
    """An actor: the embeddings of one item shard per call."""

    def __init__(self, config: Config, stage: StageFolder):
        clip = config.clip
        self._config, self._stage, self._clip = config, stage, clip
        self._max_pixels = config.ingest.images.max_pixels
        self._encoder = ClipEncoder(clip, "cuda" if clip.workers.gpus else "cpu")
        # A preparing thread does its image alone: were each to start threads of its own, they would fight for cores.
        self._threads = ThreadPoolExecutor(clip.decode_threads)
        torch.set_num_threads(clip.workers.thread_count)

    def __call__(self, batch: dict[str, Any]) -> int:
        task = ShardTask.of(batch)
        path = item_shard(self._config, task)
        ready = ReadyEmbeddings(path, self._encoder.width)
        contents = item_contents(path) if task.earlier else {}
        contents = {item_id: ready.content(item_id, content) for item_id, content in contents.items()}
        earlier = self._earlier(task, contents)
        computed, rejected = self._embed(path, set(earlier["item_id"].to_pylist()), ready)
        table = pa.concat_tables([earlier, computed])
        if len(earlier):  # back into the order of the items
            row = {item_id: n for n, item_id in enumerate(table["item_id"].to_pylist())}
            table = table.take(pa.array([row[i] for i in contents if i in row], pa.int64()))
        table = table.combine_chunks()
        write_parquet(self._stage.path / f"{task.unit}.parquet", table)
        commit(self._stage, task, f"{task.unit}.parquet", len(table), rejected)
        return sum(item_id not in ready for item_id in computed["item_id"].to_pylist())

    def _earlier(self, task: ShardTask, contents: Mapping[str, bytes]) -> pa.Table:
        """The rows of the task's earlier shards whose item has the same content still."""
        schema = embedding_schema(self._encoder.width, self._clip.texts)
        parts = [schema.empty_table()]
        for shard in task.earlier:
            if damage(self._stage.path, shard) or pq.read_schema(self._stage.path / shard.name) != schema:
                continue
            table = pq.read_table(self._stage.path / shard.name)
            columns = table["item_id"].to_pylist(), table["content"].to_pylist()
            parts.append(
                table.filter(pa.array([contents.get(i) == c for i, c in zip(*columns, strict=True)], pa.bool_()))
            )
        return pa.concat_tables(parts)

    def _embed(self, path: Path, known: set[str], ready: ReadyEmbeddings) -> tuple[pa.Table, list[RejectedItem]]:
        """Embeddings of a shard's items that are not `known`, and the items that have none."""
        schema = embedding_schema(self._encoder.width, self._clip.texts)
        parts, rejected = [schema.empty_table()], list[RejectedItem]()
        for batch in self._prepared(path, known, ready):
            rows, pixels = list[int](), list[torch.Tensor | None]()
            for row, future in enumerate(batch.pixels):
                try:
                    pixels.append(None if future is None else future.result())
                    rows.append(row)
                except (ValueError, OSError) as error:
                    rejected.append(RejectedItem(batch.item_ids[row], "image_refused", str(error)))
            if rows:
                table, not_finite = self._encode(batch, rows, pixels, ready)
                parts.append(table)
                rejected += not_finite
        return pa.concat_tables(parts), rejected

    def _encode(
        self, batch: _Batch, rows: list[int], pixels: list[torch.Tensor | None], ready: ReadyEmbeddings
    ) -> tuple[pa.Table, list[RejectedItem]]:
        """The table of the `rows` of a batch. Where the model gives infinite numbers, each item is asked alone."""
        try:
            return self._table(batch, rows, pixels, ready), []
        except NotFinite as error:
            if len(rows) == 1:
                schema = embedding_schema(self._encoder.width, self._clip.texts)
                return schema.empty_table(), [RejectedItem(batch.item_ids[rows[0]], "not_finite", str(error))]
            alone = [self._encode(batch, [row], pixels[n : n + 1], ready) for n, row in enumerate(rows)]
            tables, rejected = zip(*alone, strict=True)
            if not any(map(len, tables)):
                raise ConfigError(f"clip.precision: no item of {len(rows)} is finite: {error}") from error
            return pa.concat_tables(tables), [r for some in rejected for r in some]

    def _table(
        self, batch: _Batch, rows: list[int], pixels: list[torch.Tensor | None], ready: ReadyEmbeddings
    ) -> pa.Table:
        ids = [batch.item_ids[r] for r in rows]

        def encode_images(positions: list[int]) -> np.ndarray:
            chosen = [image for n in positions if (image := pixels[n]) is not None]
            assert len(chosen) == len(positions), "an image is prepared, or its embedding is ready"
            return self._encoder.encode_images(torch.stack(chosen))

        def encode_texts(positions: list[int]) -> np.ndarray:
            assert batch.tokens is not None
            return self._encoder.encode_texts(batch.tokens.result()[[rows[n] for n in positions]])

        vectors = [ready.completed("image", ids, encode_images)]
        vectors += [] if batch.tokens is None else [ready.completed("text", ids, encode_texts)]
        contents = [batch.contents[r] for r in rows]
        schema = embedding_schema(self._encoder.width, self._clip.texts)
        return pa.table([ids, contents, *map(_vector_column, vectors)], schema=schema)

    def _prepared(self, path: Path, known: set[str], ready: ReadyEmbeddings) -> Iterator[_Batch]:
        """The batches of a shard's items that are not `known`; the next ones are begun before one is yielded."""
        under_way: deque[_Batch] = deque()
        with pq.ParquetFile(path) as file:
            columns = ["item_id", "text", stored_column(file.schema_arrow, "image")]
            for rows in file.iter_batches(self._clip.batch_size, columns=columns):
                items = [row for row in zip(*(c.to_pylist() for c in rows.columns), strict=True) if row[0] not in known]
                if items:
                    under_way.append(self._begin(items, ready))
                if len(under_way) > AHEAD:
                    yield under_way.popleft()
        yield from under_way

    def _begin(self, items: Sequence[tuple[str, str, bytes]], ready: ReadyEmbeddings) -> _Batch:
        ids, texts, images = map(list, zip(*items, strict=True))
        contents = [ready.content(item_id, content_digest(text, image)) for item_id, text, image in items]
        tokens = self._threads.submit(self._encoder.tokenize, texts) if self._clip.texts else None
        pixels = [
            None if item_id in ready else self._threads.submit(self._pixels, image)
            for item_id, image in zip(ids, images, strict=True)
        ]
        return _Batch(ids, contents, tokens, pixels)

    def _pixels(self, image: bytes) -> torch.Tensor:
        return self._encoder.preprocess(open_image(image, self._max_pixels))


def _vector_column(vectors: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(stored_vectors(vectors).ravel()), vectors.shape[1])


if __name__ == "__main__":
    main(STAGE, run, __doc__)
