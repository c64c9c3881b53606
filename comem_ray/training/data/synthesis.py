"""Self-synthesis: the backbone answers questions with retrieved items in its prompt, and right answers are kept.

A question goes through retrieval (top k items), the reasoner in mode rag, and the official rule of its task; what is
kept learns to answer the same with the items as memory. The question of a sample is the question as it was asked,
instruction included, and its image is the one the backbone got. Every question has one outcome: a row of
TRAINING_SCHEMA, or a RejectedSample with one of

    image_... (images.py), image_missing, no_image, retrieval_failed, nothing_retrieved, item_image_... (of an item),
    prompt_failed, prompt_too_long, not_finite, answer_failed, out_of_memory, cut_short, empty_answer, no_box,
    scoring_failed, wrong_answer

Knows nothing of files of questions, shards or Ray.
Source: the paper, section on training data (arXiv 2505.17670).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL.Image import Image

from comem_ray.artifacts import fingerprint
from comem_ray.config import Config, SynthesisConfig
from comem_ray.knowledge.images import ImageError, normalize_image, open_image
from comem_ray.model.adapter import encoder_fingerprint, reasoner_identity
from comem_ray.model.checkpoint import checkpoint_fingerprint, checkpoint_folder
from comem_ray.model.reasoner import Completion, Prompt, PromptTooLong
from comem_ray.pipeline import Pipeline
from comem_ray.prompts import BOXED, SYSTEM
from comem_ray.retrieval.retriever import Hit, Query
from comem_ray.tasks.each import detail_of, for_each, reason_of
from comem_ray.tasks.example import IMAGE_MISSING, Example
from comem_ray.tasks.images import ImageAt, ImageReader
from comem_ray.tasks.rules.final_answer import boxed, final_answer
from comem_ray.tasks.rules.own import import_rules
from comem_ray.tasks.rules.scoring import NO_RULES, OwnRules, score
from comem_ray.training.data.questions import RejectedSample, rejected_sample, sample_id

Outcome = dict[str, Any] | RejectedSample
"""A row of TRAINING_SCHEMA, or why there is none."""


class RejectedAnswer(ValueError):
    """An answer that is not kept: a reason code and a sentence."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def synthesis_identity(config: Config, synthesis: SynthesisConfig) -> dict[str, Any]:
    """All that an outcome depends on but the items: backbone, prompt, retrieval, decoding. Loads no weights.

    Precision, device and batch are not in it: they change the rounding.
    """
    reasoner = reasoner_identity(config)
    del reasoner["max_new_tokens"]
    by_adapter = config.reasoner.question_vision == "adapter"
    return {
        "backbone": checkpoint_fingerprint(checkpoint_folder(config.backbone.model)),
        "pixels": [config.backbone.item_pixels.model_dump(), config.backbone.question_pixels.model_dump()],
        "question_vision": encoder_fingerprint(config) if by_adapter else "base",
        "retrieval": config.retrieval.model_dump(exclude={"top_k"}),
        "reasoner": reasoner,
        "scoring_rules": config.scoring_rules,
        "synthesis": synthesis.model_dump(exclude={"sources", "translation", "workers", "batch"}),
        "prompt": fingerprint([SYSTEM, with_instruction("", synthesis)]),
        "seed": config.seed,
    }


def with_instruction(text: str, synthesis: SynthesisConfig) -> str:
    """A question as the reasoner gets it: with the instruction, if any, on a line of its own."""
    instruction = synthesis.instruction or (BOXED if synthesis.answer_format == "boxed" else None)
    return f"{text}\n{instruction}" if instruction else text


def score_answer(
    example: Example, text: str, finish_reason: str, synthesis: SynthesisConfig, own_rules: OwnRules = NO_RULES
) -> float:
    """The score of an answer that is kept. Raises RejectedAnswer for one that is not."""
    if finish_reason == "length":
        raise RejectedAnswer("cut_short", f"no end within {synthesis.max_new_tokens} tokens")
    if not text:
        raise RejectedAnswer("empty_answer", "the answer is empty")
    prediction = boxed(text) if synthesis.answer_format == "boxed" else final_answer(text)
    if prediction is None:
        raise RejectedAnswer("no_box", "the answer has no \\boxed{...}")
    try:
        value = score(example.rule, prediction, example.gold, own_rules)
    except Exception as error:  # whatever a rule of the user's own raises for this answer
        raise RejectedAnswer("scoring_failed", f"rule {example.rule} fails: {type(error).__name__}: {error}") from error
    if value < synthesis.min_score:
        raise RejectedAnswer("wrong_answer", f"score {value:.3g} of {prediction!r} by rule {example.rule}")
    return value


@dataclass
class _Case:
    """A question on its way."""

    example: Example
    stored: bytes | None = None
    image: Image | None = None
    item_ids: list[str] = field(default_factory=list)
    prompt: Prompt | None = None
    outcome: Outcome | None = None

    def reject(self, reason: str, detail: str, answer: str | None = None) -> None:
        self.outcome = rejected_sample(self.example, reason, detail, answer)


class Synthesizer:
    """The pipeline of a run, in mode rag. Raises ArtifactError where items/ or index/ are unfinished."""

    def __init__(self, config: Config, synthesis: SynthesisConfig, device: str = "cpu"):
        self._config, self._synthesis = config, synthesis
        self._own_rules = import_rules(config.scoring_rules)
        self._images, self._pipeline = ImageReader(), Pipeline(config, device, memory=False)
        self._backbone = checkpoint_fingerprint(Path(self._pipeline.reasoner.backbone.model.name_or_path))

    def outcomes(self, examples: Sequence[Example]) -> list[Outcome]:
        """The outcome of each question, in order; `synthesis.batch` of them are decoded together."""
        cases = [_Case(example) for example in examples]
        for start in range(0, len(cases), self._synthesis.batch):
            batch = cases[start : start + self._synthesis.batch]
            for step in (self._open, self._retrieve, self._prompt, self._answer):
                if left := [case for case in batch if case.outcome is None]:
                    step(left)
            for case in batch:
                case.stored = case.image = case.prompt = None  # the row alone is held on to
        outcomes = [case.outcome for case in cases if case.outcome is not None]
        assert len(outcomes) == len(examples), "every question has exactly one outcome"
        return outcomes

    def _open(self, cases: list[_Case]) -> None:
        for case in cases:
            if case.example.image_at is not None:
                self._open_one(case, case.example.image_at)
            elif self._config.retrieval.by != "text":
                case.reject("no_image", f"retrieval.by is {self._config.retrieval.by!r}, the question has no image")

    def _open_one(self, case: _Case, at: ImageAt) -> None:
        limits = self._synthesis.image_limits
        try:
            data = self._images.read(at)
            if len(data) > limits.max_bytes:
                case.reject("image_too_many_bytes", f"{len(data):,} bytes, the limit is {limits.max_bytes:,}")
                return
            case.stored = normalize_image(data, limits).data
            case.image = open_image(case.stored, limits.max_pixels)
        except ImageError as error:
            case.reject(error.reason, error.detail)
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or error
            case.reject(IMAGE_MISSING, f"{Path(at.file).name} cannot be read: {reason}")

    def _retrieve(self, cases: list[_Case]) -> None:
        for case, hits in zip(cases, for_each(self._hits, cases), strict=True):
            if isinstance(hits, Exception):
                case.reject(reason_of(hits, "retrieval_failed"), detail_of(hits))
                continue
            case.item_ids = [hit.item_id for hit in hits]
            if not hits:
                case.reject("nothing_retrieved", "no knowledge item was retrieved for the question")

    def _hits(self, cases: Sequence[_Case]) -> list[list[Hit]]:
        settings = self._config.retrieval
        queries = [Query(case.image, case.example.question) for case in cases]
        return self._pipeline.retriever.retrieve(queries, self._synthesis.top_k, settings.by, settings.language)

    def _prompt(self, cases: list[_Case]) -> None:
        for case, prompt in zip(cases, for_each(self._prompts, cases), strict=True):
            if isinstance(prompt, Exception):
                case.reject(reason_of(prompt, "prompt_failed"), detail_of(prompt))
            else:
                case.prompt = prompt

    def _prompts(self, cases: Sequence[_Case]) -> list[Prompt]:
        synthesis = self._synthesis
        return [
            self._pipeline.prompt(
                with_instruction(case.example.question, synthesis),
                case.image,
                "rag",
                case.item_ids[: synthesis.prompt_items],
                synthesis.max_new_tokens,
            )
            for case in cases
        ]

    def _answer(self, cases: list[_Case]) -> None:
        prompts = [case.prompt for case in cases if case.prompt is not None]
        assert len(prompts) == len(cases)
        for case, completion in zip(cases, for_each(self._pipeline.reasoner.answer_each, prompts), strict=True):
            if isinstance(completion, PromptTooLong):
                case.reject("prompt_too_long", str(completion))
            elif isinstance(completion, Exception):
                case.reject(reason_of(completion, "answer_failed"), detail_of(completion))
            else:
                self._keep_or_reject(case, completion)

    def _keep_or_reject(self, case: _Case, completion: Completion) -> None:
        text = completion.text.strip()
        try:
            value = score_answer(case.example, text, completion.finish_reason, self._synthesis, self._own_rules)
            case.outcome = self._sample(case, text, value)
        except RejectedAnswer as rejected:
            case.reject(rejected.reason, rejected.detail, text)

    def _sample(self, case: _Case, answer: str, value: float) -> dict[str, Any]:
        example = case.example
        provenance = {
            "source": example.source,
            "data_id": example.data_id,
            "score": value,
            "backbone": self._backbone,
        }
        return {
            "sample_id": sample_id(example),
            "question": with_instruction(example.question, self._synthesis),
            "image": case.stored,
            "item_ids": case.item_ids,
            "answer": answer,
            "language": example.language,
            "rule": example.rule,
            "gold": json.dumps(example.gold),
            "provenance": json.dumps(provenance, sort_keys=True),
        }
