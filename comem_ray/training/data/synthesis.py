"""Self-synthesis: the backbone answers questions with retrieved items in its prompt, and right answers are kept.

A question goes through retrieval (top k items), the reasoner in mode rag, and the official rule of its benchmark; what
is kept learns to say the same with the items as memory. The question of a sample is the question as it was asked,
instruction included, and its image is the one the backbone saw. Every question has one fate: a row of
TRAINING_SCHEMA, or a Rejection with one of

    image_... (images.py), image_missing, no_image, nothing_retrieved, prompt_too_long, cut_short, empty_answer,
    no_box, wrong_answer

Knows nothing of files of questions, shards or Ray.
Source: the paper, section on training data (arXiv 2505.17670).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.Image import Image

from comem_ray.artifacts import fingerprint
from comem_ray.config import Config, SynthesisConfig
from comem_ray.knowledge.images import ImageError, normalize_image, open_image
from comem_ray.knowledge.items import ItemStore
from comem_ray.model.adapter import encoder_fingerprint
from comem_ray.model.checkpoint import checkpoint_fingerprint, checkpoint_folder
from comem_ray.model.reasoner import Completion, Prompt, PromptTooLong, Reasoner
from comem_ray.prompts import BOXED, SYSTEM
from comem_ray.retrieval.retriever import Query, Retriever
from comem_ray.tasks.rows import RejectedRow
from comem_ray.tasks.rules.scoring import boxed, score
from comem_ray.training.data.questions import GoldQuestion, Rejection

Fate = dict[str, Any] | Rejection
"""A row of TRAINING_SCHEMA, or why there is none."""


def synthesis_identity(config: Config, synthesis: SynthesisConfig) -> dict[str, Any]:
    """All that a fate depends on but the items: backbone, prompt, retrieval, decoding. Loads no weights.

    Precision, device and batch are not in it: they change the rounding.
    """
    by_adapter = config.reasoner.question_vision == "adapter"
    return {
        "backbone": checkpoint_fingerprint(checkpoint_folder(config.backbone.model)),
        "pixels": [config.backbone.item_pixels.model_dump(), config.backbone.question_pixels.model_dump()],
        "question_vision": encoder_fingerprint(config) if by_adapter else "base",
        "retrieval": config.retrieval.model_dump(exclude={"top_k"}),
        "reasoner": config.reasoner.model_dump(exclude={"max_new_tokens"}),
        "synthesis": synthesis.model_dump(exclude={"sources", "translation", "workers", "batch"}),
        "prompt": fingerprint([SYSTEM, asked("", synthesis)]),
        "seed": config.seed,
    }


def asked(text: str, synthesis: SynthesisConfig) -> str:
    """A question as the reasoner gets it: with the instruction, if any, on a line of its own."""
    instruction = synthesis.instruction or (BOXED if synthesis.answer_format == "boxed" else None)
    return f"{text}\n{instruction}" if instruction else text


def judged(question: GoldQuestion, said: str, finish_reason: str, synthesis: SynthesisConfig) -> float:
    """The score of an answer that is kept. Raises Bad, with the reason, for one that is not."""
    prediction = boxed(said) if synthesis.answer_format == "boxed" else said
    if finish_reason == "length":
        raise RejectedRow("cut_short", f"no end within {synthesis.max_new_tokens} tokens")
    if not said:
        raise RejectedRow("empty_answer", "the answer is empty")
    if prediction is None:
        raise RejectedRow("no_box", "the answer has no \\boxed{...}")
    got = score(question.rule, prediction, question.gold)
    if got < synthesis.min_score:
        raise RejectedRow("wrong_answer", f"score {got:.3g} of {prediction!r} by rule {question.rule}")
    return got


@dataclass
class _Case:
    """A question on its way."""

    question: GoldQuestion
    stored: bytes | None = None
    image: Image | None = None
    item_ids: list[str] = field(default_factory=list)
    prompt: Prompt | None = None
    fate: Fate | None = None

    def reject(self, reason: str, detail: str, answer: str | None = None) -> None:
        q = self.question
        self.fate = Rejection(q.source, q.source_row, reason, detail, q.data_id, answer)


class Synthesizer:
    """Retriever, item store and reasoner of a run. Raises ArtifactError where items/ or index/ are unfinished."""

    def __init__(self, config: Config, synthesis: SynthesisConfig, device: str = "cpu"):
        self._config, self._synthesis = config, synthesis
        self._items = ItemStore(config.folder("items"))
        self._retriever, self._reasoner = Retriever(config, device), Reasoner(config, device)
        self._backbone = checkpoint_fingerprint(Path(self._reasoner.backbone.model.name_or_path))

    def fates(self, questions: Sequence[GoldQuestion]) -> list[Fate]:
        """The fate of each question, in order; `synthesis.batch` of them are decoded together."""
        cases = [_Case(q) for q in questions]
        for start in range(0, len(cases), self._synthesis.batch):
            for step in (self._open, self._retrieve, self._prompt, self._answer):
                if left := [c for c in cases[start : start + self._synthesis.batch] if c.fate is None]:
                    step(left)
            for case in cases[start : start + self._synthesis.batch]:
                case.stored = case.image = case.prompt = None  # the row alone is held on to
        fates = [c.fate for c in cases if c.fate is not None]
        assert len(fates) == len(questions), "every question has exactly one fate"
        return fates

    def _open(self, cases: list[_Case]) -> None:
        for case in cases:
            if case.question.image is not None:
                self._open_one(case, Path(case.question.image))
            elif self._config.retrieval.by != "text":
                case.reject("no_image", f"retrieval.by is {self._config.retrieval.by!r}, the question has no image")

    def _open_one(self, case: _Case, path: Path) -> None:
        limits = self._synthesis.image_limits
        try:
            if (size := path.stat().st_size) > limits.max_bytes:
                case.reject("image_too_many_bytes", f"{size:,} bytes, the limit is {limits.max_bytes:,}")
                return
            case.stored = normalize_image(path.read_bytes(), limits).data
            case.image = open_image(case.stored, limits.max_pixels)
        except ImageError as error:
            case.reject(error.reason, error.detail)
        except OSError as error:
            case.reject("image_missing", f"{path.name} cannot be read: {error.strerror}")

    def _retrieve(self, cases: list[_Case]) -> None:
        settings = self._config.retrieval
        queries = [Query(c.image, c.question.text) for c in cases]
        hits = self._retriever.retrieve(queries, self._synthesis.top_k, settings.by, settings.language)
        for case, found in zip(cases, hits, strict=True):
            case.item_ids = [hit.item_id for hit in found]
            if not found:
                case.reject("nothing_retrieved", "no knowledge item was found for the question")

    def _prompt(self, cases: list[_Case]) -> None:
        limit, synthesis = self._config.ingest.images.max_pixels, self._synthesis
        for case in cases:
            found = self._items.get(case.item_ids[: synthesis.shown])
            items = [(item.text, open_image(item.image or b"", limit)) for item in found]
            text = asked(case.question.text, synthesis)
            prompt = Prompt(text, case.image, "rag", items, max_new_tokens=synthesis.max_new_tokens)
            try:
                self._reasoner.sequence(prompt)
                case.prompt = prompt
            except PromptTooLong as error:
                case.reject("prompt_too_long", str(error))

    def _answer(self, cases: list[_Case]) -> None:
        answers = self._reasoner.answer([c.prompt for c in cases if c.prompt is not None])
        for case, answer in zip(cases, answers, strict=True):
            self._judge(case, answer)

    def _judge(self, case: _Case, answer: Completion) -> None:
        said = answer.text.strip()
        try:
            case.fate = self._sample(case, said, judged(case.question, said, answer.finish_reason, self._synthesis))
        except RejectedRow as bad:
            case.reject(bad.reason, bad.detail, said)

    def _sample(self, case: _Case, answer: str, got: float) -> dict[str, Any]:
        q = case.question
        provenance = {
            "benchmark": q.benchmark,
            "data_id": q.data_id,
            "rule": q.rule,
            "gold": q.gold,
            "score": got,
            "backbone": self._backbone,
        }
        return {
            "sample_id": q.sample_id,
            "question": asked(q.text, self._synthesis),
            "image": case.stored,
            "item_ids": case.item_ids,
            "answer": answer,
            "language": q.language,
            "provenance": json.dumps(provenance, sort_keys=True),
        }
