"""Stages `knowledge` and `samples`: the data of the last step, the paper's own training by `jobs.train`.

First a knowledge base of invented countries in WIT form, for `jobs.ingest`. Then, over the items that it made,
questions about other views of their maps, each with the best items by the frozen tower (the right one among them) and a
full-sentence answer. Training and validation countries share one knowledge base and nothing else: no item of one is
ever given to a question of the other.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from comem_ray.artifacts import ArtifactError, fingerprint, write_parquet
from comem_ray.knowledge.items import ItemStore
from comem_ray.model.backbone import Backbone
from comem_ray.prompts import ImagePart
from comem_ray.training.data.samples import TRAINING_SCHEMA
from examples.countries.world.countries import Country
from examples.countries.world.invented import Split, invented_countries
from examples.countries.world.knowledge import item_image, write_knowledge_base
from examples.countries.world.lexicon import Lexicon
from examples.countries.world.questions import (
    FACTS,
    Fact,
    answer_sentence,
    answer_text,
    question_image,
    question_text,
)
from examples.countries.world.sentences import item_text

ITEMS = 3  # of a sample, best first
QUESTION_SEED = 7  # of the view for the first fact; the next one for the next
BATCH = 128  # images per pass through the tower


@dataclass(frozen=True)
class AdapterDataSizes:
    """Sizes of the data: countries per split (four questions per country), rows per parquet file."""

    training: int = 900
    validation: int = 200
    rows_per_shard: int = 1000
    seed: int = 0


def adapter_countries(
    training: Lexicon, validation: Sequence[Country], sizes: AdapterDataSizes
) -> dict[Split, list[Country]]:
    """The countries of both splits. `training` is the lexicon without the names of `validation`."""
    invented = invented_countries("training", sizes.training, training)
    return {"training": list(invented), "validation": list(validation[: sizes.validation])}


def write_knowledge(folder: Path, countries: dict[Split, list[Country]]) -> int:
    """Writes `countries.tsv` and `images/` into `folder`, for `jobs.ingest`. Returns the number of rows."""
    return write_knowledge_base(folder, [c for split in countries.values() for c in split])


def write_samples(
    folder: Path, items: Path, countries: dict[Split, list[Country]], backbone: Backbone, sizes: AdapterDataSizes
) -> dict[str, int]:
    """Writes `training/` and `validation/` (parquet of TRAINING_SCHEMA) into `folder`. Returns their numbers of rows.

    Raises ArtifactError where `items` is not the finished items/ stage of these countries.
    """
    store = ItemStore(items)
    item_ids = {item.text: item.item_id for item in store.get(store.ids, image=False)}
    counts: dict[str, int] = {}
    for split, members in countries.items():
        if missing := [c.code for c in members if item_text(c, "en") not in item_ids]:
            raise ArtifactError(f"{items} has no item of {len(missing)} countries, first {missing[0]}: run jobs.ingest")
        rows = _rows(members, [item_ids[item_text(c, "en")] for c in members], backbone, sizes.seed)
        for n in range(0, len(rows), sizes.rows_per_shard):
            table = pa.Table.from_pylist(rows[n : n + sizes.rows_per_shard], TRAINING_SCHEMA)
            write_parquet(folder / split / f"part-{n // sizes.rows_per_shard:06d}.parquet", table)
        counts[split] = len(rows)
    return counts


def _rows(countries: list[Country], item_ids: list[str], backbone: Backbone, seed: int) -> list[dict[str, Any]]:
    """One question per country and fact, in a seeded order.

    All questions about a country have the items of the first one, so that training encodes them once.
    """
    gallery = _signatures([item_image(c) for c in countries], backbone)
    first_images = [question_image(c, QUESTION_SEED) for c in countries]
    questions = _signatures(first_images, backbone)
    best = best_items(questions, gallery, torch.arange(len(countries)), ITEMS).tolist()
    rows = []
    for view, fact in enumerate(FACTS, start=QUESTION_SEED):  # another view for each fact
        images = first_images if view == QUESTION_SEED else [question_image(c, view) for c in countries]
        for country, image, indices in zip(countries, images, best, strict=True):
            rows.append(_row(country, fact, image, [item_ids[i] for i in indices]))
    random.Random(f"answers {seed}").shuffle(rows)
    return rows


def best_items(questions: Tensor, gallery: Tensor, right: Tensor, count: int) -> Tensor:
    """The indices (B, count) of each question's nearest items, best first; a missing right one replaces the last.

    `questions` (B, D) and `gallery` (N, D) are unit signatures, `right` (B) the index of the right item.
    """
    best = (questions @ gallery.T).topk(min(count, len(gallery))).indices
    missing = (best != right[:, None]).all(1)
    best[missing, -1] = right[missing]
    return best


@torch.no_grad()
def _signatures(images: Sequence[Image.Image], backbone: Backbone) -> Tensor:
    means = []
    for n in range(0, len(images), BATCH):
        sequences = [backbone.sequencer.sequence([ImagePart(p, "item")]) for p in images[n : n + BATCH]]
        tokens = backbone.image_features(backbone.sequencer.batch(sequences, padding="right"))
        assert tokens is not None
        means.append(tokens.float().cpu().unflatten(0, (len(sequences), -1)).mean(1))
    return normalize(torch.cat(means), dim=-1)


def _row(country: Country, fact: Fact, image: Image.Image, item_ids: list[str]) -> dict[str, Any]:
    data_id = f"{country.code}-{fact}"
    gold = [answer_text(country, fact)]
    return {
        "sample_id": fingerprint(["demo", data_id])[:24],
        "question": question_text(fact),
        "image": _png(image),
        "item_ids": item_ids,
        "answer": answer_sentence(country, fact),
        "language": "en",
        "rule": "sentence",
        "gold": json.dumps(gold, ensure_ascii=False),
        "provenance": json.dumps({"source": "demo", "data_id": data_id}, ensure_ascii=False),
    }


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()
