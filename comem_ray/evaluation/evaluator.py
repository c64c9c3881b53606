"""Puts questions in every arm: retrieval once per question and knowledge size, then answers, scores and times.

A question that cannot be put (its image is missing, its prompt is too long, an item of it cannot be read, the model
fails on it) has a row too: with a `fault`, no prediction, and the score of a wrong answer. The others of its batch are
answered. Knows nothing of shards or Ray.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL.Image import Image

from comem_ray.artifacts import ArtifactError
from comem_ray.config import Config, ConfigError, EvaluationConfig
from comem_ray.evaluation.arms import Arm, arms
from comem_ray.evaluation.knowledge_subsets import KnowledgeSubsets
from comem_ray.evaluation.official import score_alone
from comem_ray.knowledge.images import open_image
from comem_ray.model.reasoner import Completion, Prompt, PromptTooLong
from comem_ray.pipeline import Pipeline
from comem_ray.retrieval.index import Subset
from comem_ray.retrieval.retriever import Query
from comem_ray.tasks.each import detail_of, for_each, reason_of
from comem_ray.tasks.example import Example
from comem_ray.tasks.rules.own import import_rules

Retrieved = dict[int | str, dict[str, list[str]]]
"""Knowledge size -> data_id -> ids of the best items, best first."""
TOO_LONG, NOT_FINITE = "prompt_too_long", "not_finite"


@dataclass(frozen=True)
class _Case:
    """A question in an arm: the items before it, and its prompt, or the fault for which there is none."""

    question: Example
    item_ids: list[str]
    prompt: Prompt | None = None
    fault: str | None = None
    fault_detail: str | None = None


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
        self._retrieval_errors: dict[str, Exception] = {}  # by data_id
        self._knowledge = KnowledgeSubsets(self._pipeline.retriever.index, gold_items, config.seed)

    def predictions(self, questions: Sequence[Example]) -> list[dict[str, Any]]:
        """A row of PREDICTION_SCHEMA for every question and every arm that it can be put in."""
        retrieved, size = self._retrieve(questions), self._evaluation.batch
        rows = []
        for arm in arms(self._evaluation):
            for start in range(0, len(questions), size):
                cases = self._cases(arm, questions[start : start + size], retrieved[arm.knowledge])
                prompts = [case.prompt for case in cases if case.prompt is not None]
                completions = iter(self._answer(prompts))
                for case in cases:
                    outcome = case if case.prompt is None else _outcome(case, next(completions))
                    rows.append(self._row(arm, case, outcome, retrieved))
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

    def _answer(self, prompts: Sequence[Prompt]) -> list[Completion | Exception]:
        """The completion of every prompt, or the error for which there is none."""
        return for_each(self._pipeline.reasoner.answer_each, prompts) if prompts else []

    def _time(self, prompt: Prompt) -> tuple[float, float] | None:
        """Milliseconds to the first token and to the end; None where it cannot be answered."""
        first = list[float]()
        start = time.perf_counter()
        try:
            self._pipeline.reasoner.answer([prompt], on_text=lambda *_: first.append(time.perf_counter()))
        except (ConfigError, ArtifactError):
            raise
        except Exception:  # it has a fault among the predictions too
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
            subsets = [self._knowledge.subset(size, language) for size in sizes]
            outcomes = for_each(lambda some, subsets=subsets: self._hits(some, depth, subsets), group)  # type: ignore[misc]
            for question, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    self._retrieval_errors[question.data_id] = outcome
                    continue
                for size, ids in zip(sizes, outcome, strict=True):
                    retrieved[size][question.data_id] = ids
        return retrieved

    def _hits(self, questions: Sequence[Example], depth: int, subsets: Sequence[Subset]) -> list[list[list[str]]]:
        """Ids of the best items of each question in each of `subsets`."""
        queries = [Query(self._image(question), question.question) for question in questions]
        by_subset = self._pipeline.retriever.retrieve_in(queries, depth, subsets, self._config.retrieval.by)
        return [[[hit.item_id for hit in lists[n]] for lists in by_subset] for n in range(len(questions))]

    def _language(self, question: Example) -> str | None:
        """The language of the items that are searched for a question."""
        return question.language if self._evaluation.items_language == "question" else self._config.retrieval.language

    def _cases(self, arm: Arm, questions: Sequence[Example], retrieved: dict[str, list[str]]) -> list[_Case]:
        """The questions that the arm is for, each with its items and its prompt."""
        cases = []
        for question in questions:
            ids = arm.items(retrieved.get(question.data_id, []), question.gold_items)
            if ids is not None:
                cases.append(self._case(arm, question, ids))
        prompted = [n for n, case in enumerate(cases) if case.fault is None]
        prompts = for_each(lambda some: self._prompts(arm, some), [cases[n] for n in prompted]) if prompted else []
        for n, prompt in zip(prompted, prompts, strict=True):
            cases[n] = _with_fault(cases[n], prompt, "prompt_failed") if isinstance(prompt, Exception) else prompt
        return cases

    def _case(self, arm: Arm, question: Example, item_ids: list[str]) -> _Case:
        """The question with its items, or the fault that is known of it already."""
        if question.fault:
            return _Case(question, [], fault=question.fault)
        if arm.mode != "none" and (error := self._retrieval_errors.get(question.data_id)) is not None:
            return _with_fault(_Case(question, []), error, "retrieval_failed")
        return _Case(question, item_ids)

    def _prompts(self, arm: Arm, cases: Sequence[_Case]) -> list[_Case]:
        prompt = self._pipeline.prompt
        return [
            replace(case, prompt=prompt(case.question.question, self._image(case.question), arm.mode, case.item_ids))
            for case in cases
        ]

    def _image(self, question: Example) -> Image | None:
        return None if question.image is None else open_image(question.image, self._config.ingest.images.max_pixels)

    def _row(self, arm: Arm, case: _Case, outcome: Completion | _Case, retrieved: Retrieved) -> dict[str, Any]:
        """The row of an answer, or of the fault that there is instead."""
        question, answer = case.question, outcome if isinstance(outcome, Completion) else None
        score: float | None = 0.0
        if isinstance(outcome, _Case):
            fault, detail = outcome.fault, outcome.fault_detail
        else:
            score, fault, detail = self._score(question, outcome.text)
        knowledge = self._knowledge.subset(arm.knowledge, self._language(question)).count
        return {
            "data_id": question.data_id,
            "arm": arm.name,
            "mode": arm.mode,
            "k": arm.k,
            "gold_position": arm.gold_position,
            "knowledge": 0 if arm.mode == "none" else knowledge,
            "prediction": answer.text if answer else "",
            "fault": fault,
            "fault_detail": detail,
            "score": score,
            "rank": rank(retrieved[arm.knowledge].get(question.data_id, []), question.gold_items),
            "item_ids": case.item_ids,
            "prompt_tokens": answer.prompt_tokens if answer else 0,
            "memory_vectors": answer.memory_vectors if answer else 0,
            "completion_tokens": answer.completion_tokens if answer else 0,
        }

    def _score(self, question: Example, text: str) -> tuple[float | None, str | None, str | None]:
        """The score of an answer, with fault and detail where the rule, which may be the user's own, fails on it."""
        try:
            return score_alone(question, text, self._own_rules), None, None
        except Exception as error:
            return 0.0, "scoring_failed", f"rule {question.rule} fails: {type(error).__name__}: {error}"


def _with_fault(case: _Case, error: Exception, otherwise: str) -> _Case:
    reason = TOO_LONG if isinstance(error, PromptTooLong) else reason_of(error, otherwise)
    return replace(case, prompt=None, fault=reason, fault_detail=detail_of(error))


def _outcome(case: _Case, completion: Completion | Exception) -> Completion | _Case:
    return _with_fault(case, completion, "answer_failed") if isinstance(completion, Exception) else completion


def rank(retrieved: Sequence[str], gold: Sequence[str]) -> int | None:
    """Position (from 1) of the first right item, 0 where it was not retrieved, None where none is known."""
    if not gold:
        return None
    return next((position for position, item in enumerate(retrieved, start=1) if item in gold), 0)
