"""Precomputes the memory of every knowledge item.

    ray job submit --working-dir . -- python -m jobs.encode_memory --config configs/demo.yaml

One unit per item shard (its items of `memory.languages`), on an actor pool. An actor holds one backbone with the
adapter on. Within a shard, items go through the model in batches of like length, while a thread decodes and tokenises
the next chunk. A rerun keeps the finished units, takes over the items that did not change, and ends with the same
bytes. An item whose memory is not finite, or whose image is refused, is quarantined in memory/rejected/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from comem_ray.artifacts import StageFolder
from comem_ray.artifacts.manifest import damage
from comem_ray.config import Config, ConfigError
from comem_ray.finite import finite_rows, right_precision
from comem_ray.knowledge.images import open_image
from comem_ray.knowledge.schema import content_digest, current_columns, stored_column
from comem_ray.memory_store import STAGE, earlier_memory, memory_ids, write_memory
from comem_ray.model.adapter import encoder_fingerprint, encoder_identity
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.sequences import TokenSequence
from jobs.common import Summary, main
from jobs.item_shards import RejectedItem, ShardTask, commit, item_shard, open_items, run_item_shards

_Chunk = tuple[list[str], list[TokenSequence], list[RejectedItem]]
CHUNK_ITEMS = 256  # prepared at once: at 64 image tokens per item, some 300 MB of patches


def run(config: Config) -> Summary:
    """Writes memory/ under the run's root."""
    items = open_items(config)
    identity = {
        "encoder": encoder_fingerprint(config),
        **encoder_identity(config),
        "languages": config.memory.languages,
    }
    stage = StageFolder(config.folder("memory"), STAGE, identity)
    return run_item_shards(config, items, stage, EncodeShard, config.memory.workers, memory_ids)


class EncodeShard:
    """An actor: the memory of one item shard per call."""

    def __init__(self, config: Config, stage: StageFolder):
        workers = config.memory.workers
        torch.set_num_threads(workers.thread_count)
        self.config, self.stage = config, stage
        self.encoder = MemoryEncoder(config, "cuda" if workers.gpus else "cpu")

    def __call__(self, batch: dict[str, Any]) -> int:
        task = ShardTask.of(batch)
        table = self._items(task)
        texts_and_images = zip(table["text"].to_pylist(), table["image"].to_pylist(), strict=True)
        contents = {
            item_id: content_digest(text, image)
            for item_id, (text, image) in zip(table["item_id"].to_pylist(), texts_and_images, strict=True)
        }
        memory = self._earlier(task, contents)
        missing = table.filter(pa.array([i not in memory for i in contents], pa.bool_()))
        computed, rejected = self._encode(missing)
        memory.update(computed)
        item_ids = [i for i in contents if i in memory]  # in the order of the items
        shape = self.encoder.adapter.qformer.queries.shape
        stacked = torch.stack([memory[i] for i in item_ids]) if item_ids else torch.empty(0, *shape)
        name = f"{task.unit}.safetensors"
        write_memory(self.stage.path / name, item_ids, [contents[i] for i in item_ids], stacked.to(torch.bfloat16))
        commit(self.stage, task, name, len(item_ids), rejected)
        return len(computed)

    def _items(self, task: ShardTask) -> pa.Table:
        """Ids, texts and images of the task's items, those of `memory.languages`."""
        path = item_shard(self.config, task)
        chosen = self.config.memory.languages
        wanted = None if chosen is None else [("language", "in", chosen)]
        columns = ["item_id", "text", stored_column(pq.read_schema(path), "image")]
        return current_columns(pq.read_table(path, columns=columns, filters=wanted))

    def _earlier(self, task: ShardTask, contents: Mapping[str, bytes]) -> dict[str, Tensor]:
        """Memory by id of those items that the task's earlier shards hold, with the same content."""
        whole = [self.stage.path / shard.name for shard in task.earlier if not damage(self.stage.path, shard)]
        return {item_id: row for path in whole for item_id, row in earlier_memory(path, contents).items()}

    def _encode(self, table: pa.Table) -> tuple[dict[str, Tensor], list[RejectedItem]]:
        """Memory by id of the items of `table`, and the items that have none.

        Raises ConfigError where not one of several is finite: then it is the model's fault.
        """
        memory, rejected = dict[str, Tensor](), list[RejectedItem]()
        reason = right_precision(self.encoder.backbone.dtype, "backbone.precision")
        for item_ids, sequences, refused in self._chunks(table):
            encoded = self.encoder.encode_unchecked(sequences)
            outcomes = list(zip(item_ids, encoded, finite_rows(encoded).tolist(), strict=True))
            memory.update({item_id: row for item_id, row, is_finite in outcomes if is_finite})
            not_finite = [RejectedItem(i, "not_finite", reason) for i, _, is_finite in outcomes if not is_finite]
            rejected += [*refused, *not_finite]
            if len(not_finite) > 1 and not memory:
                raise ConfigError(f"the memory of all {len(not_finite)} items is NaN or infinite: {reason}")
        return memory, rejected

    def _chunks(self, table: pa.Table) -> Iterator[_Chunk]:
        """Tokenised chunks of the items; a thread makes the next one while the current one is used."""
        following = None
        with ThreadPoolExecutor(1) as ahead:
            for start in range(0, len(table), CHUNK_ITEMS):
                ready, following = following, ahead.submit(self._tokenise, table.slice(start, CHUNK_ITEMS))
                if ready is not None:
                    yield ready.result()
            if following is not None:
                yield following.result()

    def _tokenise(self, chunk: pa.Table) -> _Chunk:
        limit = self.config.ingest.images.max_pixels
        item_ids, sequences, refused = list[str](), list[TokenSequence](), list[RejectedItem]()
        columns = (chunk[name].to_pylist() for name in ("item_id", "text", "image"))
        for item_id, text, image in zip(*columns, strict=True):
            try:
                sequences.append(self.encoder.sequence(text, open_image(image, limit)))
                item_ids.append(item_id)
            except (ValueError, OSError) as error:
                refused.append(RejectedItem(item_id, "image_refused", str(error)))
        return item_ids, sequences, refused


if __name__ == "__main__":
    main(STAGE, run, __doc__)
