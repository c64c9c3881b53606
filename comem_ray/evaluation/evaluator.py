"""Asks questions in every arm: retrieval once a question and knowledge size, then answers, scores and times.

A question that cannot be asked (its image is not there, its prompt too long for the reasoner) has a row too: with a
`fault`, no prediction, and the score of a wrong answer. Knows nothing of shards or Ray.
Letters: K items, Q memory vectors an item, D width.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from comem_ray.config import Config, EvaluationConfig
from comem_ray.evaluation.arms import Arm, arms
from comem_ray.evaluation.knowledge_subsets import Knowledge
from comem_ray.evaluation.official import score_alone
from comem_ray.evaluation.questions import EvaluationQuestion
from comem_ray.knowledge.images import open_image
from comem_ray.knowledge.items import ItemStore
from comem_ray.memory_store import MemoryStore
from comem_ray.model.adapter import attach_adapter, encoder_fingerprint
from comem_ray.model.backbone import load_backbone
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Completion, Prompt, PromptTooLong, Reasoner
from comem_ray.retrieval.retriever import Query, Retriever
from comem_ray.tasks.rules.own import import_rules

Case = tuple[EvaluationQuestion, Prompt, list[str]]
"""A question, how it is put to the reasoner, and the ids of the items before it."""
Retrieved = dict[int | str, dict[str, list[str]]]
"""Knowledge size -> data_id -> ids of the best items, best first."""
TOO_LONG = "prompt_too_long"


class Evaluator:
    """Retriever, stores, encoder and reasoner of a run. Raises ArtifactError where a stage is unfinished.

    `right` are the ids of the items that every part of the knowledge base holds (knowledge.py).
    """

    def __init__(self, config: Config, evaluation: EvaluationConfig, device: str = "cpu", right: Collection[str] = ()):
        self._config, self._evaluation = config, evaluation
        self._own_rules = import_rules(config.scoring_rules)
        self._retriever, self._items = Retriever(config, device), ItemStore(config.folder("items"))
        self._knowledge = Knowledge(self._retriever.index, right, config.seed)
        backbone = load_backbone(config.backbone, device)
        adapter = attach_adapter(config.adapter, backbone)
        self._encoder = MemoryEncoder(config, backbone=backbone, adapter=adapter)
        self._reasoner = Reasoner(config, backbone=backbone, adapter=adapter)
        self._store = None
        if "memory" in evaluation.modes:
            self._store = MemoryStore(config.folder("memory"), encoder_fingerprint(config))

    def predictions(self, questions: Sequence[EvaluationQuestion]) -> list[dict[str, Any]]:
        """A row of PREDICTION_SCHEMA for every question and arm that it can be asked in."""
        retrieved, size = self._retrieved(questions), self._evaluation.batch
        rows = []
        for arm in arms(self._evaluation):
            for start in range(0, len(questions), size):
                some = questions[start : start + size]
                cases = self._cases(arm, some, retrieved[arm.knowledge])
                answers = iter(self._answers([case for case in cases if not isinstance(case, EvaluationQuestion)]))
                for case in cases:
                    if isinstance(case, EvaluationQuestion):
                        rows.append(self._row(arm, case, [], case.fault, retrieved))
                    else:
                        rows.append(self._row(arm, case[0], case[2], next(answers), retrieved))
        return rows

    def times(self, questions: Sequence[EvaluationQuestion]) -> list[dict[str, Any]]:
        """Milliseconds to the first token and to the whole answer, one question at a time, memory from the store."""
        retrieved = self._retrieved(questions)
        rows = []
        for arm in arms(self._evaluation):
            for case in self._cases(arm, questions, retrieved[arm.knowledge]):
                if isinstance(case, EvaluationQuestion):
                    continue
                begun, first = time.perf_counter(), list[float]()
                try:
                    self._reasoner.answer([case[1]], on_text=lambda *_: first.append(time.perf_counter()))  # noqa: B023
                except PromptTooLong:
                    continue
                ended = time.perf_counter()
                to_first = (first[0] if first else ended) - begun
                row = {"data_id": case[0].data_id, "arm": arm.name}
                rows.append({**row, "first_token_ms": 1e3 * to_first, "answer_ms": 1e3 * (ended - begun)})
        return rows

    def _retrieved(self, questions: Sequence[EvaluationQuestion]) -> Retrieved:
        """The best items of each question that has what retrieval needs, by knowledge size."""
        settings, depth = self._config.retrieval, max([*self._evaluation.k, *self._evaluation.gold_positions]) + 1
        able: dict[str | None, list[EvaluationQuestion]] = defaultdict(list)
        for question in questions:
            if question.fault is None and (question.image is not None or settings.by == "text"):
                able[self._language(question)].append(question)
        sizes = list(dict.fromkeys(self._evaluation.knowledge_sizes))
        found: Retrieved = {size: {} for size in sizes}
        for language, some in able.items():
            queries = [Query(self._image(q), q.question) for q in some]
            parts = [self._knowledge.part(size, language) for size in sizes]
            for size, lists in zip(sizes, self._retriever.retrieve_in(queries, depth, parts, settings.by), strict=True):
                found[size] |= {q.data_id: [h.item_id for h in hits] for q, hits in zip(some, lists, strict=True)}
        return found

    def _language(self, question: EvaluationQuestion) -> str | None:
        """The language of the items that are searched for a question."""
        return question.language if self._evaluation.items_language == "question" else self._config.retrieval.language

    def _cases(
        self, arm: Arm, questions: Sequence[EvaluationQuestion], retrieved: dict[str, list[str]]
    ) -> list[Case | EvaluationQuestion]:
        """How each question is asked that the arm is for; the question itself where it has a fault."""
        cases: list[Case | EvaluationQuestion] = []
        for question in questions:
            ids = arm.items(retrieved.get(question.data_id, []), question.gold_items)
            if ids is not None:
                cases.append(question if question.fault else (question, self._asked(arm, question, ids), ids))
        return cases

    def _asked(self, arm: Arm, question: EvaluationQuestion, ids: list[str]) -> Prompt:
        image = self._image(question)
        if arm.mode == "none" or not ids:
            return Prompt(question.question, image)
        if arm.mode == "rag":
            return Prompt(question.question, image, "rag", items=self._shown(ids))
        return Prompt(question.question, image, "memory", memory=self._memory(ids))

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
        limit = self._config.ingest.images.max_pixels
        return [(i.text, open_image(i.image or b"", limit)) for i in self._items.get(ids)]

    def _image(self, question: EvaluationQuestion) -> Image | None:
        return None if question.image is None else open_image(question.image, self._config.api.max_image_pixels)

    def _answers(self, cases: Sequence[Case]) -> list[Completion | str]:
        """The answer to each case, or TOO_LONG."""
        asked = [case[1] for case in cases]
        try:
            return list(self._reasoner.answer(asked)) if asked else []
        except PromptTooLong:
            fitting = [self._fits(one) for one in asked]
        short = [one for one, fits in zip(asked, fitting, strict=True) if fits]
        answers = iter(self._reasoner.answer(short) if short else [])
        return [next(answers) if fits else TOO_LONG for fits in fitting]

    def _fits(self, asked: Prompt) -> bool:
        try:
            return bool(self._reasoner.sequence(asked))
        except PromptTooLong:
            return False

    def _row(
        self,
        arm: Arm,
        question: EvaluationQuestion,
        ids: list[str],
        answer: Completion | str | None,
        retrieved: Retrieved,
    ) -> dict[str, Any]:
        """The row of an answer, or of the fault that there is in its place."""
        said = answer if isinstance(answer, Completion) else None
        seen = self._knowledge.part(arm.knowledge, self._language(question)).count
        return {
            "data_id": question.data_id,
            "arm": arm.name,
            "mode": arm.mode,
            "k": arm.k,
            "gold_position": arm.gold_position,
            "knowledge": 0 if arm.mode == "none" else seen,
            "prediction": said.text if said else "",
            "fault": None if said else answer,
            "score": score_alone(question, said.text, self._own_rules) if said else 0.0,
            "rank": rank(retrieved[arm.knowledge].get(question.data_id, []), question.gold_items),
            "item_ids": ids,
            "prompt_tokens": said.prompt_tokens if said else 0,
            "memory_vectors": said.memory_vectors if said else 0,
            "completion_tokens": said.completion_tokens if said else 0,
        }


def rank(retrieved: Sequence[str], gold: Sequence[str]) -> int | None:
    """Place (from 1) of the first right item, 0 where it was not retrieved, None where none is known."""
    if not gold:
        return None
    return next((place for place, item in enumerate(retrieved, start=1) if item in gold), 0)
