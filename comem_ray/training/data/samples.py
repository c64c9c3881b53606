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

from comem_ray.artifacts import ArtifactError, check_shard, fingerprint
from comem_ray.artifacts.manifest import read_manifest
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
        pa.field("rule", pa.string(), nullable=False),  # of comem_ray.tasks.rules.scoring, or of scoring_rules
        pa.field("gold", pa.string(), nullable=False),  # JSON: the right answers, in the rule's own form
        pa.field("provenance", pa.string(), nullable=False),  # JSON: source, data_id, score, who answered
    ]
)

REJECTED = ".rejected.parquet"
"""Ending of the shards of rows that make no sample; they stand among the training shards."""

REJECTED_SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # file name of the source
        pa.field("source_row", pa.int64(), nullable=False),  # row in that file, 0 is the first after the header
        pa.field("reason", pa.string(), nullable=False),  # a code, such as "wrong_answer"
        pa.field("detail", pa.string(), nullable=False),  # a sentence
        pa.field("data_id", pa.string()),
        pa.field("answer", pa.string()),  # of the VLM, where it was asked
    ]
)


@dataclass(frozen=True)
class Sample:
    """A training sample, its images decoded."""

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

    Shards of versions 0.1 and 0.2, which lack the columns `rule` and `gold`, are read too. Raises ArtifactError where
    the folder holds no sample, or a sample names an item that the store does not hold.
    """

    def __init__(self, folder: Path, items: ItemStore, items_per_sample: int, max_pixels: int):
        tables = [_read_shard(path) for path in _files(folder)]
        if not sum(map(len, tables)):
            raise ArtifactError(
                f"{folder} holds no training sample: run jobs.synthesize, or name another training.data"
            )
        self._rows = pa.concat_tables(tables)
        self._items, self._count, self._max_pixels = items, items_per_sample, max_pixels
        # All that training depends on but the images.
        self.digest = fingerprint(self._rows.drop_columns(["image", "rule", "gold", "provenance"]).to_pylist())
        wanted = {item for ids in self._rows["item_ids"].to_pylist() for item in ids[:items_per_sample]}
        if unknown := [item for item in sorted(wanted) if item not in items]:
            raise ArtifactError(f"{folder} names {len(unknown)} items that are not in the knowledge base: {unknown[0]}")

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, index: int) -> Sample:
        """The sample at `index`, images decoded."""
        row = self._rows.slice(index, 1).to_pylist()[0]
        items = [i for i in self._items.get(row["item_ids"][: self._count]) if i.image is not None]
        return Sample(
            sample_id=row["sample_id"],
            question=row["question"],
            image=None if row["image"] is None else self._open(row["image"]),
            items=[(item.text, self._open(item.image or b"")) for item in items],
            answer=row["answer"],
            rule=row["rule"],
            gold=json.loads(row["gold"]),
            item_ids=[item.item_id for item in items],
        )

    def rules(self) -> set[str]:
        """The names of the scoring rules of all samples."""
        return set(self._rows["rule"].to_pylist())

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
    """The shards of samples: those of the manifest, or in a folder without one every parquet file."""
    if not (folder / "manifest.json").exists():
        return sorted(f for f in folder.glob("*.parquet") if not f.name.endswith(REJECTED))
    shards = [s for s in read_manifest(folder).shards(".parquet") if not s.logical_name.endswith(REJECTED)]
    return [check_shard(folder, s, "synthesize") for s in sorted(shards, key=lambda s: s.logical_name)]


def _read_shard(path: Path) -> pa.Table:
    """A shard in TRAINING_SCHEMA. Version 0.1 called the image `picture`; 0.2 had rule and gold in the provenance."""
    table = pq.read_table(path)
    names = ["image" if name == "picture" else name for name in table.column_names]
    table = table.rename_columns(names)
    if "rule" not in names:
        answers = table["answer"].to_pylist()
        provenances = [json.loads(text) for text in table["provenance"].to_pylist()]
        rules = [provenance.get("rule", "exact") for provenance in provenances]
        golds = [json.dumps(old.get("gold", [answer])) for old, answer in zip(provenances, answers, strict=True)]
        table = table.append_column("rule", pa.array(rules, pa.string()))
        table = table.append_column("gold", pa.array(golds, pa.string()))
    return table.select(TRAINING_SCHEMA.names).cast(TRAINING_SCHEMA)


def steps_of(samples: int, global_batch: int, epochs: int, max_steps: int | None) -> int:
    """Optimizer steps of a run: whole batches only, at least one."""
    steps = max(1, samples * epochs // global_batch)
    return min(steps, max_steps or steps)


def batch_of(step: int, samples: int, global_batch: int, seed: int, sets: Sequence[int] | None = None) -> list[int]:
    """Indices of the samples of a step: position step * global_batch of the epochs' orders, one after the other."""
    first = step * global_batch
    positions = range(first, first + global_batch)
    orders = {epoch: epoch_order(samples, seed, epoch, sets) for epoch in {p // samples for p in positions}}
    return [orders[p // samples][p % samples] for p in positions]


def epoch_order(samples: int, seed: int, epoch: int, sets: Sequence[int] | None = None) -> list[int]:
    """A seeded permutation of all samples, another one for each epoch.

    With `sets`, the set that each sample is of, the samples of a set stand together and the sets are permuted.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(samples, generator=generator).tolist()
    if sets is None:
        return order
    ranks = torch.randperm(max(sets) + 1, generator=generator).tolist()
    return sorted(order, key=lambda i: ranks[sets[i]])


def share_of(indices: Sequence[int], rank: int, workers: int) -> list[int]:
    """The samples of a batch that worker `rank` of `workers` computes."""
    return list(indices[rank::workers])
