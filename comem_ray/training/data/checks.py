"""Which samples of training shards cannot be used, and why. They are checked before the first step, without weights.

A sample is unusable for one of these reasons:

    null_field, bad_provenance, bad_gold, empty_question, empty_answer      what stands in its row
    image_...                     its image cannot be decoded (knowledge/images.py)
    unknown_item, item_image      an item is not in the knowledge base, or its image cannot be decoded
    no_items                      it has no item with an image: nothing to learn from (training alone)
    prompt_too_long               longer than reasoner.max_prompt_tokens, memory included
    sample_too_long               longer than that and reasoner.max_new_tokens with its answer
    bad_rule                      its rule cannot use its gold (validation alone)

Images are decoded, on all cores; texts are tokenised. Knows nothing of runs or files of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL.Image import Image

from comem_ray.config import Config
from comem_ray.knowledge.images import ImageError, open_image
from comem_ray.knowledge.items import ItemStore
from comem_ray.tasks.files import RejectedRow
from comem_ray.tasks.rules.scoring import OwnRules
from comem_ray.tasks.task import check_gold
from comem_ray.training.data.samples import TRAINING_SCHEMA, read_shards
from comem_ray.training.data.token_counts import TokenCounter

_ROWS = 64  # checked together, so that no more images are held
_NULLABLE = {field.name for field in TRAINING_SCHEMA if field.nullable}


@dataclass(frozen=True)
class UnusableSample:
    """A sample that cannot be used. `position` counts over all shards from 0, `row` within its shard."""

    position: int
    shard: str
    row: int
    sample_id: str | None
    reason: str
    detail: str


class _Fault(ValueError):
    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class SampleCheck:
    """Checks samples against the knowledge base and the limits of a configuration.

    With `own_rules` they are those of a validation: scored, and asked without items too. Raises ValueError without a
    section `training`.
    """

    def __init__(self, config: Config, items: ItemStore, own_rules: OwnRules | None = None):
        if config.training is None:
            raise ValueError("the configuration has no section 'training'")
        self._items, self._own_rules = items, own_rules
        self._count, self._queries = config.training.items, config.adapter.queries
        self._rag = config.training.distillation > 0
        self._max_pixels = config.ingest.images.max_pixels
        self._limit, self._answer_limit = config.reasoner.max_prompt_tokens, config.reasoner.max_new_tokens
        self._tokens = TokenCounter(config.backbone)
        self._item = lru_cache(maxsize=4_096)(self._read_item)

    def unusable(self, folder: Path) -> list[UnusableSample]:
        """The samples of a folder that cannot be used, in order. Raises ArtifactError for an unreadable shard."""
        position, samples = 0, list[UnusableSample]()
        with ThreadPoolExecutor(os.cpu_count() or 1, "check") as pool:
            for shard, table in read_shards(folder):
                rows = (row for batch in table.to_batches(_ROWS) for row in batch.to_pylist())
                for number, (row, fault) in enumerate(_mapped(pool, self._fault, rows)):
                    if fault is not None:
                        where = position + number, shard, number, row["sample_id"]
                        samples.append(UnusableSample(*where, fault.reason, fault.detail))
                position += len(table)
        return samples

    def _fault(self, row: dict[str, Any]) -> _Fault | None:
        try:
            _check_fields(row)
            self._check_gold(row)
            image = self._open(row["image"])
            self._check_length(row, image, self._contents(row["item_ids"]))
        except _Fault as fault:
            return fault
        return None

    def _check_gold(self, row: dict[str, Any]) -> None:
        if self._own_rules is None:
            return
        try:
            check_gold(row["rule"], json.loads(row["gold"]), self._own_rules)
        except RejectedRow as error:
            raise _Fault("bad_rule", error.detail) from error
        except Exception as error:  # whatever a rule of the user's own raises
            raise _Fault("bad_rule", f"rule {row['rule']!r} fails: {type(error).__name__}: {error}") from error

    def _open(self, data: bytes | None) -> Image | None:
        if data is None:
            return None
        try:
            return open_image(data, self._max_pixels)
        except ImageError as error:
            raise _Fault(error.reason, error.detail) from error

    def _contents(self, item_ids: Sequence[str]) -> list[tuple[str, Image]]:
        """Texts and images of the sample's items, without those that have no image."""
        contents = [content for item_id in item_ids[: self._count] if (content := self._item(item_id)) is not None]
        if not contents and self._own_rules is None:
            raise _Fault("no_items", "the sample has no item with an image: there is no memory to train")
        return contents

    def _read_item(self, item_id: str) -> tuple[str, Image] | None:
        if item_id not in self._items:
            raise _Fault("unknown_item", f"item {item_id!r} is not in the knowledge base")
        (item,) = self._items.get([item_id])
        if item.image is None:
            return None
        try:
            return item.text, open_image(item.image, self._max_pixels)
        except ImageError as error:
            raise _Fault("item_image", f"the image of item {item_id}: {error.detail}") from error

    def _check_length(self, row: dict[str, Any], image: Image | None, items: Sequence[tuple[str, Image]]) -> None:
        try:
            prompt = self._tokens.prompt(row["question"], image)
            lengths = {"memory": prompt + self._queries * len(items)}
            if self._rag:
                lengths["rag"] = self._tokens.prompt(row["question"], image, items)
        except ValueError as error:
            raise _Fault("image_unreadable", str(error)) from error
        for mode, tokens in lengths.items():
            if tokens > self._limit:
                raise _Fault("prompt_too_long", f"{tokens:,} tokens in mode {mode}, the limit is {self._limit:,}")
        whole, limit = max(lengths.values()) + self._tokens.answer(row["answer"]), self._limit + self._answer_limit
        if whole > limit:
            raise _Fault("sample_too_long", f"{whole:,} tokens with the answer, the limit is {limit:,}")


def _check_fields(row: dict[str, Any]) -> None:
    for name, value in row.items():
        if value is None and name not in _NULLABLE:
            raise _Fault("null_field", f"field {name!r} is null, or text that is not UTF-8")
    if None in row["item_ids"]:
        raise _Fault("null_field", "field 'item_ids' holds a null")
    for name in ("question", "answer"):
        if not row[name].strip():
            raise _Fault(f"empty_{name}", f"field {name!r} holds no text")
    try:
        json.loads(row["gold"])
    except ValueError as error:
        raise _Fault("bad_gold", f"field 'gold' is {row['gold'][:80]!r}, wanted JSON") from error
    try:
        provenance = json.loads(row["provenance"])
    except ValueError:
        provenance = None
    if not isinstance(provenance, dict):
        raise _Fault("bad_provenance", f"field 'provenance' is {row['provenance'][:80]!r}, wanted a JSON object")


def _mapped(
    pool: ThreadPoolExecutor, function: Any, rows: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], _Fault | None]]:
    """The rows, each with the function's result, a few at a time."""
    held: list[dict[str, Any]] = []
    for row in rows:
        held.append(row)
        if len(held) == _ROWS:
            yield from zip(held, pool.map(function, held), strict=True)
            held = []
    yield from zip(held, pool.map(function, held), strict=True)
