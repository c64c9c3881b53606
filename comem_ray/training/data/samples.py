"""Training samples: a question about an image, its best retrieved items, and the answer to learn.

Shards are parquet of TRAINING_SCHEMA; images and texts of the items come from the item store. The order of an epoch
is a function of (seed, epoch) alone, so the position in the data is the number of the step and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
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

_MAKE_AGAIN = "copy it again, or make it again with jobs.synthesize"

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

    Shards of versions 0.1 and 0.2, which lack the columns `rule` and `gold`, are read too. `left_out` are positions
    over all shards, of samples that cannot be used (checks.py). Raises ArtifactError where no sample is left, where a
    shard cannot be read, or a sample lacks a field or names an item that the store does not hold.
    """

    def __init__(
        self,
        folder: Path,
        items: ItemStore,
        items_per_sample: int,
        max_pixels: int,
        left_out: Collection[int] = (),
    ):
        tables = [table for _, table in read_shards(folder)]
        stored = sum(map(len, tables))
        if stored <= len(left_out):
            reason = f"{len(left_out)} samples, none of them usable" if stored else "no training sample"
            raise ArtifactError(f"{folder} holds {reason}: run jobs.synthesize, or name another training.data")
        rows, unusable = pa.concat_tables(tables), set(left_out)
        if unusable:
            rows = rows.filter(pa.array([position not in unusable for position in range(stored)]))
        if incomplete := [f.name for f in TRAINING_SCHEMA if not f.nullable and rows[f.name].null_count]:
            raise ArtifactError(f"{folder} has samples without {', '.join(incomplete)}")
        self._rows = rows.cast(TRAINING_SCHEMA)
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
    """The number of samples in a folder, 0 where there is none. Raises ArtifactError for a shard that is not whole."""
    return sum(_rows_in(path) for path in _files(folder))


def _rows_in(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: Exception) -> ArtifactError:
    reason = str(error).splitlines()[0]
    return ArtifactError(f"{path} is not a whole parquet file ({reason}): {_MAKE_AGAIN}")


def _files(folder: Path) -> list[Path]:
    """The shards of samples: those of the manifest, or in a folder without one every parquet file."""
    if not (folder / "manifest.json").exists():
        return sorted(f for f in folder.glob("*.parquet") if not f.name.endswith(REJECTED))
    shards = [s for s in read_manifest(folder).shards(".parquet") if not s.logical_name.endswith(REJECTED)]
    return [check_shard(folder, s, "synthesize") for s in sorted(shards, key=lambda s: s.logical_name)]


def read_shards(folder: Path) -> Iterator[tuple[str, pa.Table]]:
    """Name and rows of every shard of a folder, in order: the columns of TRAINING_SCHEMA, all nullable.

    A text that is not UTF-8 is null. Version 0.1 called the image `picture`; 0.2 had rule and gold in the provenance.
    Raises ArtifactError for a shard that is not whole, or has other columns or types.
    """
    for path in _files(folder):
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise _not_whole(path, error) from error
        yield path.name, _current(path, table)


def _current(path: Path, table: pa.Table) -> pa.Table:
    table = table.rename_columns(["image" if name == "picture" else name for name in table.column_names])
    named = [name for name in TRAINING_SCHEMA.names if name not in ("rule", "gold")]
    needed = named if "rule" not in table.column_names else TRAINING_SCHEMA.names
    if lacking := [name for name in needed if name not in table.column_names]:
        raise ArtifactError(f"{path} has no column {', '.join(lacking)}: {_MAKE_AGAIN}")
    columns = {field.name: _cast(path, field, table[field.name]) for field in TRAINING_SCHEMA if field.name in needed}
    if "rule" not in needed:
        columns |= _rule_and_gold(columns["provenance"].to_pylist(), columns["answer"].to_pylist())
    return pa.table([columns[name] for name in TRAINING_SCHEMA.names], TRAINING_SCHEMA.names)


def _cast(path: Path, field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        column = column.cast(field.type)
        column.validate(full=True)
        return column
    except pa.ArrowInvalid:  # a text that is not UTF-8, or another type
        if pa.types.is_string(field.type) and pa.types.is_string(column.type):
            return pa.chunked_array([[_decoded(text) for text in column.cast(pa.binary()).to_pylist()]], pa.string())
        raise _other_type(path, field, column) from None
    except pa.ArrowException:
        raise _other_type(path, field, column) from None


def _other_type(path: Path, field: pa.Field, column: pa.ChunkedArray) -> ArtifactError:
    return ArtifactError(f"{path}: column {field.name} holds {column.type}, wanted {field.type}: {_MAKE_AGAIN}")


def _decoded(text: bytes | None) -> str | None:
    try:
        return None if text is None else text.decode()
    except UnicodeDecodeError:
        return None


def _rule_and_gold(provenances: Sequence[str | None], answers: Sequence[str | None]) -> dict[str, pa.Array]:
    olds = [_object(text) for text in provenances]
    rules = [old.get("rule", "exact") for old in olds]
    golds = [json.dumps(old.get("gold", [answer])) for old, answer in zip(olds, answers, strict=True)]
    return {"rule": pa.array(map(str, rules), pa.string()), "gold": pa.array(golds, pa.string())}


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


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
