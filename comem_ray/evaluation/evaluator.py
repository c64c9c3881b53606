"""Puts questions in every arm: retrieval once per question and knowledge size, then answers, scores and times.

A question that cannot be put (its image is missing, its prompt is too long for the reasoner) has a row too: with a
`fault`, no prediction, and the score of a wrong answer. Knows nothing of shards or Ray.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from comem_ray.config import Config, EvaluationConfig
from comem_ray.evaluation.arms import Arm, arms
from comem_ray.evaluation.knowledge_subsets import KnowledgeSubsets
from comem_ray.evaluation.official import score_alone
from comem_ray.finite import NotFinite
from comem_ray.knowledge.images import open_image
from comem_ray.model.reasoner import Completion, Outcome, Prompt, PromptTooLong
from comem_ray.pipeline import Pipeline
from comem_ray.retrieval.retriever import Query
from comem_ray.tasks.example import Example
from comem_ray.tasks.rules.own import import_rules

Retrieved = dict[int | str, dict[str, list[str]]]
"""Knowledge size -> data_id -> ids of the best items, best first."""
TOO_LONG, NOT_FINITE = "prompt_too_long", "not_finite"


@dataclass(frozen=True)
class _Case:
    """A question in an arm: the items before it, and its prompt; no prompt where the question has a fault."""

    question: Example
    item_ids: list[str]
    prompt: Prompt | None


class Evaluator:
    """The pipeline of a run, over parts of its knowledge base. Raises ArtifactError where a stage is unfinished.

    `gold_items` are the ids of the items that every part of the knowledge base holds (knowledge_subsets.py).
    """

    def __init__(
        self, config: Config, evaluation: EvaluationConfig, device: str = "cpu", gold_items: Collection[str] = ()
    ):
        self._config, self._evaluation = config, evaluation
        self._own_rules = import_rules(config.scoring_rules)
        self._pipeline = Pipeline(config, device, memory="memory" in evaluation.modes)
        self._knowledge = KnowledgeSubsets(self._pipeline.retriever.index, gold_items, config.seed)

    def predictions(self, questions: Sequence[Example]) -> list[dict[str, Any]]:
        """A row of PREDICTION_SCHEMA for every question and every arm that it can be put in."""
        retrieved, size = self._retrieve(questions), self._evaluation.batch
        rows = []
        for arm in arms(self._evaluation):
            for start in range(0, len(questions), size):
                cases = self._cases(arm, questions[start : start + size], retrieved[arm.knowledge])
                prompts = [case.prompt for case in cases if case.prompt is not None]
                completions = iter(self._pipeline.reasoner.answer_each(prompts))
                for case in cases:
                    completion = None if case.prompt is None else next(completions)
                    rows.append(self._row(arm, case, completion, retrieved))
        return rows

    def times(self, questions: Sequence[Example]) -> list[dict[str, Any]]:
        """Milliseconds to the first token and to the whole answer, one question at a time, memory from the store."""
        retrieved = self._retrieve(questions)
        rows = []
        for arm in arms(self._evaluation):
            for case in self._cases(arm, questions, retrieved[arm.knowledge]):
                if case.prompt is None or (milliseconds := self._time(case.prompt)) is None:
                    continue
                first, whole = milliseconds
                ids = {"data_id": case.question.data_id, "arm": arm.name}
                rows.append({**ids, "first_token_ms": first, "answer_ms": whole})
        return rows

    def _time(self, prompt: Prompt) -> tuple[float, float] | None:
        """Milliseconds to the first token and to the end; None where there is no answer."""
        first = list[float]()
        start = time.perf_counter()
        try:
            self._pipeline.reasoner.answer([prompt], on_text=lambda *_: first.append(time.perf_counter()))
        except (PromptTooLong, NotFinite):
            return None
        end = time.perf_counter()
        return 1e3 * ((first[0] if first else end) - start), 1e3 * (end - start)

    def _retrieve(self, questions: Sequence[Example]) -> Retrieved:
        """The best items of each question that has what retrieval needs, by knowledge size."""
        settings, depth = self._config.retrieval, max([*self._evaluation.k, *self._evaluation.gold_positions]) + 1
        by_language: dict[str | None, list[Example]] = defaultdict(list)
        for question in questions:
            if question.fault is None and (question.image is not None or settings.by == "text"):
                by_language[self._language(question)].append(question)
        sizes = list(dict.fromkeys(self._evaluation.knowledge_sizes))
        retrieved: Retrieved = {size: {} for size in sizes}
        for language, group in by_language.items():
            queries = [Query(self._image(q), q.question) for q in group]
            subsets = [self._knowledge.subset(size, language) for size in sizes]
            hits = self._pipeline.retriever.retrieve_in(queries, depth, subsets, settings.by)
            for size, lists in zip(sizes, hits, strict=True):
                retrieved[size] |= {q.data_id: [h.item_id for h in hit] for q, hit in zip(group, lists, strict=True)}
        return retrieved

    def _language(self, question: Example) -> str | None:
        """The language of the items that are searched for a question."""
        return question.language if self._evaluation.items_language == "question" else self._config.retrieval.language

    def _cases(self, arm: Arm, questions: Sequence[Example], retrieved: dict[str, list[str]]) -> list[_Case]:
        """The questions that the arm is for, each with its items and its prompt."""
        cases = []
        for question in questions:
            ids = arm.items(retrieved.get(question.data_id, []), question.gold_items)
            if ids is None:
                continue
            if question.fault:
                cases.append(_Case(question, [], None))
            else:
                prompt = self._pipeline.prompt(question.question, self._image(question), arm.mode, ids)
                cases.append(_Case(question, ids, prompt))
        return cases

    def _image(self, question: Example) -> Image | None:
        return None if question.image is None else open_image(question.image, self._config.ingest.images.max_pixels)

    def _row(self, arm: Arm, case: _Case, completion: Outcome | None, retrieved: Retrieved) -> dict[str, Any]:
        """The row of an answer, or of the fault that there is instead."""
        question, answer = case.question, completion if isinstance(completion, Completion) else None
        faults = {PromptTooLong: TOO_LONG, NotFinite: NOT_FINITE}
        fault = faults.get(type(completion), question.fault)  # type: ignore[arg-type]
        knowledge = self._knowledge.subset(arm.knowledge, self._language(question)).count
        return {
            "data_id": question.data_id,
            "arm": arm.name,
            "mode": arm.mode,
            "k": arm.k,
            "gold_position": arm.gold_position,
            "knowledge": 0 if arm.mode == "none" else knowledge,
            "prediction": answer.text if answer else "",
            "fault": None if answer else fault,
            "score": score_alone(question, answer.text, self._own_rules) if answer else 0.0,
            "rank": rank(retrieved[arm.knowledge].get(question.data_id, []), question.gold_items),
            "item_ids": case.item_ids,
            "prompt_tokens": answer.prompt_tokens if answer else 0,
            "memory_vectors": answer.memory_vectors if answer else 0,
            "completion_tokens": answer.completion_tokens if answer else 0,
        }


def rank(retrieved: Sequence[str], gold: Sequence[str]) -> int | None:
    """Position (from 1) of the first right item, 0 where it was not retrieved, None where none is known."""
    if not gold:
        return None
    return next((position for position, item in enumerate(retrieved, start=1) if item in gold), 0)
