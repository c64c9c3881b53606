"""Precomputes the memory of every knowledge item.

    ray job submit --working-dir . -- python -m jobs.encode_memory --config configs/demo.yaml

One unit per item shard (its items of `memory.languages`), on an actor pool. An actor holds one backbone with the
adapter on. Within a shard, items go through the model in batches of like length, while a thread decodes and tokenises
the next chunk. A rerun keeps the finished units and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from comem_ray.artifacts import StageFolder, load_manifest
from comem_ray.config import Config
from comem_ray.knowledge.images import open_image
from comem_ray.knowledge.items import STAGE as ITEMS
from comem_ray.knowledge.items import item_shards
from comem_ray.knowledge.schema import current_columns, stored_column
from comem_ray.memory_store import STAGE, write_memory
from comem_ray.model.adapter import encoder_fingerprint, encoder_identity
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.sequences import TokenSequence
from jobs.common import Summary, main, run_units

CHUNK_ITEMS = 256  # prepared at once: at 64 image tokens per item, some 300 MB of patches


def run(config: Config) -> Summary:
    """Writes memory/ under the run's root."""
    shards = item_shards(load_manifest(config.folder("items"), ITEMS))
    identity = {
        "encoder": encoder_fingerprint(config),
        **encoder_identity(config),
        "languages": config.memory.languages,
    }
    stage = StageFolder(config.folder("memory"), STAGE, identity)
    inputs = {unit: shard.sha256 for unit, shard in shards.items()}
    kept = stage.finished(inputs)
    todo = [{"unit": unit, "inputs": digest} for unit, digest in inputs.items() if unit not in kept]
    run_units(todo, EncodeShard, (config, stage), config.memory.workers, STAGE)
    manifest = stage.close(inputs)
    size = sum(s.bytes for s in manifest.shards())
    return {"items": manifest.counts.get("items", 0), "shards": len(inputs), "kept": len(kept), "bytes": size}


class EncodeShard:
    """An actor: the memory of one item shard per call."""

    def __init__(self, config: Config, stage: StageFolder):
        workers = config.memory.workers
        torch.set_num_threads(max(1, int(workers.cpus)))
        self.config, self.stage = config, stage
        self.encoder = MemoryEncoder(config, "cuda" if workers.gpus else "cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        unit, inputs = str(batch["unit"][0]), str(batch["inputs"][0])
        path = self.config.folder("items") / f"{unit}.parquet"
        chosen = self.config.memory.languages
        wanted = None if chosen is None else [("language", "in", chosen)]
        columns = ["item_id", "text", stored_column(pq.read_schema(path), "image")]
        table = current_columns(pq.read_table(path, columns=columns, filters=wanted))
        item_ids = table["item_id"].to_pylist()
        name = f"{unit}.safetensors"
        parts = [self.encoder.encode_sequences(chunk) for chunk in self._chunks(table)]
        memory = torch.cat(parts) if parts else torch.empty(0, *self.encoder.adapter.qformer.queries.shape)
        write_memory(self.stage.path / name, item_ids, memory.to(torch.bfloat16))
        self.stage.commit(unit, inputs, {name: len(item_ids)}, {"items": len(item_ids)})
        return batch

    def _chunks(self, table: pa.Table) -> Iterator[list[TokenSequence]]:
        """Tokenised chunks of the shard; a thread makes the next one while the current one is used."""
        following = None
        with ThreadPoolExecutor(1) as ahead:
            for start in range(0, len(table), CHUNK_ITEMS):
                ready, following = following, ahead.submit(self._tokenise, table.slice(start, CHUNK_ITEMS))
                if ready is not None:
                    yield ready.result()
            if following is not None:
                yield following.result()

    def _tokenise(self, chunk: pa.Table) -> list[TokenSequence]:
        limit = self.config.ingest.images.max_pixels
        rows = zip(chunk["text"].to_pylist(), chunk["image"].to_pylist(), strict=True)
        return [self.encoder.sequence(text, open_image(image, limit)) for text, image in rows]


if __name__ == "__main__":
    main(STAGE, run, __doc__)
