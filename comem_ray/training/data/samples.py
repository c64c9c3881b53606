"""Training samples: a question about an image, its best retrieved items, and the answer to learn.

Shards are parquet of TRAINING_SCHEMA; images and texts of the items come from the item store. The order of an epoch
is a function of (seed, epoch) alone, so the position in the data is the number of the step and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL.Image import Image

from comem_ray.artifacts import ArtifactError, fingerprint
from comem_ray.knowledge.images import open_image
from comem_ray.knowledge.items import ItemStore

TRAINING_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("image", pa.binary()),  # JPEG or PNG; null for a question without one
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),  # retrieved items, best first
        pa.field("answer", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("provenance", pa.string(), nullable=False),  # JSON: benchmark, data_id, rule, gold, who answered
    ]
)

REJECTED = ".rejected.parquet"
"""Ending of the shards, among the training shards, of rows that make no sample."""

REJECTED_SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # file name of the source
        pa.field("source_row", pa.int64(), nullable=False),  # row in that file, 0 is the first after the header
        pa.field("reason", pa.string(), nullable=False),  # a code, such as "wrong_answer"
        pa.field("detail", pa.string(), nullable=False),  # a sentence
        pa.field("data_id", pa.string()),
        pa.field("answer", pa.string()),  # what the VLM said, where it was asked
    ]
)


@dataclass(frozen=True)
class Sample:
    sample_id: str
    question: str
    image: Image | None
    items: list[tuple[str, Image]]  # (text, image), best first
    answer: str
    rule: str = "exact"  # how `gold` is compared with an answer (comem_ray.tasks.rules.scoring)
    gold: Sequence[Any] = ()  # right answers in the benchmark's own form
    item_ids: Sequence[str] = ()  # of `items`; empty: no item is another sample's too


class SampleSet:
    """All training samples of a folder, read at random. Holds the texts, not the images, of the items.

    Raises ArtifactError where the folder holds no sample, or a sample names an item that the store does not hold.
    """

    def __init__(self, folder: Path, items: ItemStore, items_a_sample: int, max_pixels: int):
        files = _files(folder)
        tables = [pq.read_table(f, schema=TRAINING_SCHEMA) for f in files]
        if not sum(map(len, tables)):
            raise ArtifactError(
                f"{folder} holds no training sample: run jobs.synthesize, or name another training.data"
            )
        self._rows = pa.concat_tables(tables)
        self._items, self._count, self._max_pixels = items, items_a_sample, max_pixels
        said = self._rows.drop_columns(["image", "provenance"]).to_pylist()
        self.digest = fingerprint(said)  # of all but the images
        wanted = {i for ids in self._rows["item_ids"].to_pylist() for i in ids[:items_a_sample]}
        if strangers := [i for i in sorted(wanted) if i not in items]:
            raise ArtifactError(
                f"{folder} names {len(strangers)} items that are not in the knowledge base: {strangers[0]}"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, index: int) -> Sample:
        """The sample at `index`, images decoded."""
        row = self._rows.slice(index, 1).to_pylist()[0]
        items = [i for i in self._items.get(row["item_ids"][: self._count]) if i.image is not None]
        shown = [(item.text, self._open(item.image or b"")) for item in items]
        image = None if row["image"] is None else self._open(row["image"])
        made = json.loads(row["provenance"])
        rule, gold = made.get("rule", "exact"), made.get("gold", [row["answer"]])
        ids = [item.item_id for item in items]
        return Sample(row["sample_id"], row["question"], image, shown, row["answer"], rule, gold, ids)

    def sets(self) -> list[int]:
        """For every sample the number of its set of items: equal where the items are, in the same order."""
        numbers: dict[tuple[str, ...], int] = {}
        wanted = (tuple(ids[: self._count]) for ids in self._rows["item_ids"].to_pylist())
        return [numbers.setdefault(ids, len(numbers)) for ids in wanted]

    def _open(self, data: bytes) -> Image:
        return open_image(data, self._max_pixels)


def stored_samples(folder: Path) -> int:
    """The number of samples in a folder, 0 where there is none."""
    return sum(pq.read_metadata(f).num_rows for f in _files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("*.parquet") if not f.name.endswith(REJECTED))


def steps_of(samples: int, global_batch: int, epochs: int, max_steps: int | None) -> int:
    """Optimizer steps of a run: whole batches only, at least one."""
    steps = max(1, samples * epochs // global_batch)
    return min(steps, max_steps or steps)


def batch_of(step: int, samples: int, global_batch: int, seed: int, sets: Sequence[int] | None = None) -> list[int]:
    """Indices of the samples of a step: position step * global_batch of the epochs' orders, one after the other."""
    first = step * global_batch
    places = range(first, first + global_batch)
    orders = {epoch: epoch_order(samples, seed, epoch, sets) for epoch in {p // samples for p in places}}
    return [orders[p // samples][p % samples] for p in places]


def epoch_order(samples: int, seed: int, epoch: int, sets: Sequence[int] | None = None) -> list[int]:
    """A seeded permutation of all samples, another one for each epoch.

    With `sets`, the set that each sample is of, the samples of a set stand together and the sets are permuted.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(samples, generator=generator).tolist()
    if sets is None:
        return order
    places = torch.randperm(max(sets) + 1, generator=generator).tolist()
    return sorted(order, key=lambda i: places[sets[i]])


def share_of(indices: Sequence[int], rank: int, workers: int) -> list[int]:
    """The samples of a batch that worker `rank` of `workers` computes."""
    return list(indices[rank::workers])
