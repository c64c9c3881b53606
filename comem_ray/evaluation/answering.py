"""Asks questions in every arm: retrieval once a question, then answers, scores and times.

Knows nothing of shards or Ray. Letters: K items, Q memory vectors an item, D width.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from comem_ray.config import Config
from comem_ray.config_evaluation import Evaluation
from comem_ray.evaluation.arms import Arm, arms
from comem_ray.evaluation.questions import EvaluationQuestion
from comem_ray.evaluation.scoring import boxed, score
from comem_ray.images import open_picture
from comem_ray.items import ItemStore
from comem_ray.memory_store import MemoryStore
from comem_ray.model.backbone import load_backbone
from comem_ray.model.checkpoint import attach_adapter, encoder_fingerprint
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Question, Reasoner
from comem_ray.retrieval.retriever import Query, Retriever

Case = tuple[EvaluationQuestion, Question, list[str]]
"""A question, how it is put to the reasoner, and the ids of the items before it."""


class Evaluator:
    """Retriever, stores, encoder and reasoner of a run. Raises ArtifactError where a stage is unfinished."""

    def __init__(self, config: Config, evaluation: Evaluation, device: str = "cpu"):
        self._config, self._evaluation = config, evaluation
        self._retriever, self._items = Retriever(config, device), ItemStore(config.folder("items"))
        backbone = load_backbone(config.backbone, device)
        adapter = attach_adapter(config.adapter, backbone)
        self._encoder = MemoryEncoder(config, backbone=backbone, adapter=adapter)
        self._reasoner = Reasoner(config, backbone=backbone, adapter=adapter)
        self._store = None
        if "memory" in evaluation.modes:
            self._store = MemoryStore(config.folder("memory"), encoder_fingerprint(config))

    def predictions(self, questions: Sequence[EvaluationQuestion]) -> list[dict[str, Any]]:
        """A row of PREDICTION_SCHEMA for every question and arm that it can be asked in."""
        retrieved = self._retrieved(questions)
        rows = []
        for arm in arms(self._evaluation):
            cases = self._cases(arm, questions, retrieved)
            for start in range(0, len(cases), self._evaluation.batch):
                rows += self._answered(arm, cases[start : start + self._evaluation.batch], retrieved)
        return rows

    def times(self, questions: Sequence[EvaluationQuestion]) -> list[dict[str, Any]]:
        """Milliseconds to the first token and to the whole answer, one question at a time, memory from the store."""
        retrieved = self._retrieved(questions)
        rows = []
        for arm in arms(self._evaluation):
            for question, asked, _ in self._cases(arm, questions, retrieved):
                begun, first = time.perf_counter(), list[float]()
                self._reasoner.answer([asked], on_text=lambda *_: first.append(time.perf_counter()))  # noqa: B023
                ended = time.perf_counter()
                to_first = (first[0] if first else ended) - begun
                row = {"data_id": question.data_id, "arm": arm.name}
                rows.append({**row, "first_token_ms": 1e3 * to_first, "answer_ms": 1e3 * (ended - begun)})
        return rows

    def _retrieved(self, questions: Sequence[EvaluationQuestion]) -> dict[str, list[str]]:
        """The best items of each question that has what retrieval needs."""
        settings, depth = self._config.retrieval, max([*self._evaluation.k, *self._evaluation.places]) + 1
        able = [q for q in questions if q.picture is not None or settings.by == "text"]
        queries = [Query(self._picture(q), q.question) for q in able]
        hits = self._retriever.retrieve(queries, depth, settings.by, settings.language) if able else []
        return {q.data_id: [h.item_id for h in found] for q, found in zip(able, hits, strict=True)}

    def _cases(self, arm: Arm, questions: Sequence[EvaluationQuestion], retrieved: dict[str, list[str]]) -> list[Case]:
        cases = []
        for question in questions:
            ids = arm.items(retrieved.get(question.data_id, []), question.gold_items)
            if ids is not None:
                cases.append((question, self._asked(arm, question, ids), ids))
        return cases

    def _asked(self, arm: Arm, question: EvaluationQuestion, ids: list[str]) -> Question:
        picture = self._picture(question)
        if arm.mode == "none" or not ids:
            return Question(question.question, picture)
        if arm.mode == "rag":
            return Question(question.question, picture, "rag", items=self._shown(ids))
        return Question(question.question, picture, "memory", memory=self._memory(ids))

    def _memory(self, ids: list[str]) -> Tensor:
        """Memory (K, Q, D), from the store; what it does not hold is encoded."""
        assert self._store is not None
        missing = self._store.missing(ids)
        stored = [i for i in ids if i not in missing]
        memory = dict(zip(stored, self._store.get(stored), strict=True)) if stored else {}
        if missing:
            memory |= dict(zip(missing, self._encoder.encode(self._shown(missing)), strict=True))
        return torch.stack([memory[i] for i in ids])

    def _shown(self, ids: Sequence[str]) -> list[tuple[str, Image]]:
        limit = self._config.ingest.pictures.max_pixels
        return [(i.text, open_picture(i.picture or b"", limit)) for i in self._items.get(ids)]

    def _picture(self, question: EvaluationQuestion) -> Image | None:
        return None if question.picture is None else open_picture(question.picture, self._config.api.max_picture_pixels)

    def _answered(self, arm: Arm, cases: Sequence[Case], retrieved: dict[str, list[str]]) -> list[dict[str, Any]]:
        answers = self._reasoner.answer([asked for _, asked, _ in cases])
        return [
            {
                "data_id": question.data_id,
                "arm": arm.name,
                "mode": arm.mode,
                "k": arm.k,
                "place": arm.place,
                "prediction": answer.text,
                "score": score(question.rule, boxed(answer.text) or answer.text, question.gold),
                "rank": rank(retrieved.get(question.data_id, []), question.gold_items),
                "item_ids": ids,
                "prompt_tokens": answer.prompt_tokens,
                "memory_vectors": answer.memory_vectors,
                "completion_tokens": answer.completion_tokens,
            }
            for (question, _, ids), answer in zip(cases, answers, strict=True)
        ]


def rank(retrieved: Sequence[str], gold: Sequence[str]) -> int | None:
    """Place (from 1) of the first right item, 0 where it was not retrieved, None where none is known."""
    if not gold:
        return None
    return next((place for place, item in enumerate(retrieved, start=1) if item in gold), 0)
