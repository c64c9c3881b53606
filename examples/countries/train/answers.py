"""The data of the last stage, which is the paper's own training: `jobs.train` reads what is written here.

First a knowledge base of invented countries in WIT form, for `jobs.ingest`. Then, over the items that it made,
questions about other views of their maps with the best items as the frozen tower ranks them (the right one among them,
look-alikes beside it), and full-sentence answers. Training and validation countries share one knowledge base and
nothing else: neither is ever an item of the other's question.
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
from examples.countries.train.clip_data import item_text
from examples.countries.world.countries import Country
from examples.countries.world.invented import Lexicon, Part, invented_countries
from examples.countries.world.knowledge import item_image, write_knowledge_base
from examples.countries.world.questions import ASKED, answer, question_image, sentence, wording

ITEMS = 3  # best items of a sample
QUESTION_SEED = 7


@dataclass(frozen=True)
class Answers:
    """Sizes of the data: countries, each asked about once a fact."""

    training: int = 900
    validation: int = 200
    rows_per_shard: int = 1000
    seed: int = 0


def answer_countries(training: Lexicon, validation: Sequence[Country], sizes: Answers) -> dict[Part, list[Country]]:
    """The countries of both parts. `training` is the lexicon without the names of the others."""
    made = invented_countries("training", sizes.training, training)
    return {"training": list(made), "validation": list(validation[: sizes.validation])}


def write_knowledge(folder: Path, countries: dict[Part, list[Country]]) -> int:
    """Writes `countries.tsv` and `images/` into `folder`, for `jobs.ingest`. Returns the number of rows."""
    return write_knowledge_base(folder, [c for part in countries.values() for c in part])


def write_samples(
    folder: Path, items: Path, countries: dict[Part, list[Country]], backbone: Backbone, sizes: Answers
) -> dict[str, int]:
    """Writes `training/` and `validation/` (parquet of TRAINING_SCHEMA) into `folder`. Returns their rows.

    Raises ArtifactError where `items` is not the finished items/ stage of these countries.
    """
    store = ItemStore(items)
    ids = {item.text: item.item_id for item in store.get(store.ids, image=False)}
    counts: dict[str, int] = {}
    for part, some in countries.items():
        if missing := [c.code for c in some if item_text(c, "en") not in ids]:
            raise ArtifactError(f"{items} has no item of {len(missing)} countries, first {missing[0]}: run jobs.ingest")
        rows = _rows(some, [ids[item_text(c, "en")] for c in some], backbone, sizes.seed)
        for n in range(0, len(rows), sizes.rows_per_shard):
            table = pa.Table.from_pylist(rows[n : n + sizes.rows_per_shard], TRAINING_SCHEMA)
            write_parquet(folder / part / f"part-{n // sizes.rows_per_shard:06d}.parquet", table)
        counts[part] = len(rows)
    return counts


def _rows(countries: list[Country], item_ids: list[str], backbone: Backbone, seed: int) -> list[dict[str, Any]]:
    """One question a country and fact, in a seeded order.

    All questions about a country have the same items, those of the first: training encodes them once.
    """
    gallery = _signatures([item_image(c) for c in countries], backbone)
    first = [question_image(c, QUESTION_SEED) for c in countries]
    found = best_items(_signatures(first, backbone), gallery, torch.arange(len(countries)), ITEMS).tolist()
    rows = []
    for place, fact in enumerate(ASKED, start=QUESTION_SEED):  # another view for each fact
        images = first if place == QUESTION_SEED else [question_image(c, place) for c in countries]
        for country, image, best in zip(countries, images, found, strict=True):
            rows.append(_row(country, fact, image, [item_ids[b] for b in best]))
    random.Random(f"answers {seed}").shuffle(rows)
    return rows


def best_items(asked: Tensor, gallery: Tensor, right: Tensor, count: int) -> Tensor:
    """The `count` nearest items (B, count) of each question, best first; where the right one is missing, it comes last.

    `asked` (B, D) and `gallery` (N, D) are unit signatures, `right` (B) the place of the right item.
    """
    best = (asked @ gallery.T).topk(min(count, len(gallery))).indices
    missing = (best != right[:, None]).all(1)
    best[missing, -1] = right[missing]
    return best


@torch.no_grad()
def _signatures(images: Sequence[Image.Image], backbone: Backbone) -> Tensor:
    found = []
    for n in range(0, len(images), 128):
        sequences = [backbone.sequencer.sequence([ImagePart(p, "item")]) for p in images[n : n + 128]]
        tokens = backbone.image_features(backbone.sequencer.batch(sequences, padding="right"))
        assert tokens is not None
        found.append(tokens.float().cpu().unflatten(0, (len(sequences), -1)).mean(1))
    vectors = torch.cat(found)
    return normalize(vectors, dim=-1)


def _row(country: Country, fact: Any, image: Image.Image, item_ids: list[str]) -> dict[str, Any]:
    data_id = f"{country.code}-{fact}"
    return {
        "sample_id": fingerprint(["demo", data_id])[:24],
        "question": wording(fact),
        "image": _png(image),
        "item_ids": item_ids,
        "answer": sentence(country, fact),
        "language": "en",
        "rule": "sentence",
        "gold": json.dumps([answer(country, fact)], ensure_ascii=False),
        "provenance": json.dumps({"source": "demo", "data_id": data_id}, ensure_ascii=False),
    }


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()
