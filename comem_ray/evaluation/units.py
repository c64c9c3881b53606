"""Units of work: the questions that are asked together, and the digest of what their answers depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from comem_ray.artifacts import fingerprint, load_manifest
from comem_ray.config import Config, EvaluationConfig
from comem_ray.evaluation.predictions import TIMES
from comem_ray.evaluation.questions import packed
from comem_ray.model.adapter import encoder_identity, reasoner_identity
from comem_ray.retrieval.index import STAGE as INDEX
from comem_ray.tasks.example import Example


def evaluation_identity(config: Config, evaluation: EvaluationConfig) -> dict[str, Any]:
    """The part of the configuration, and the model, that every prediction of the stage depends on."""
    return {
        "encoder": encoder_identity(config),
        "question_pixels": config.backbone.question_pixels.model_dump(),
        "reasoner": reasoner_identity(config),
        "retrieval": config.retrieval.model_dump(exclude={"top_k"}),
        "evaluation": evaluation.model_dump(
            include={"modes", "k", "gold_positions", "knowledge_sizes", "items_language"}
        ),
        "scoring_rules": config.scoring_rules,
        "seed": config.seed,
    }


def evaluation_units(
    config: Config, evaluation: EvaluationConfig, questions: Sequence[Example], right: Sequence[str]
) -> list[dict[str, str]]:
    """The questions in units of `evaluation.questions_per_unit`, then those of the unit TIMES.

    Each is {"unit": name, "inputs": digest, "questions": text for `unpacked`}. `right` are the ids of the right items
    of all questions. Raises ArtifactError if the index is unfinished.
    """
    index = load_manifest(config.folder("index"), INDEX).fingerprint
    # Where all items are searched, the right items change no prediction.
    made_from = fingerprint([index] if evaluation.knowledge_sizes == ["all"] else [index, right])
    groups = _groups(questions, evaluation.questions_per_unit, evaluation.timed)
    return [_unit(name, some, made_from) for name, some in groups]


def _groups(questions: Sequence[Example], size: int, timed: int) -> Iterator[tuple[str, Sequence[Example]]]:
    for number, start in enumerate(range(0, len(questions), size)):
        yield f"part-{number:06d}", questions[start : start + size]
    if some := questions[:timed]:
        yield TIMES, some


def _unit(name: str, questions: Sequence[Example], made_from: str) -> dict[str, str]:
    # The digest does not depend on the folder that the images are in.
    unplaced = [replace(q, image_at=q.image_at and replace(q.image_at, file="")) for q in questions]
    return {"unit": name, "inputs": fingerprint([made_from, packed(unplaced)]), "questions": packed(questions)}
