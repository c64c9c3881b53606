"""How many questions of each source became samples, and how they were asked: what a reader needs to repeat a synthesis.

    questions   rows read
    asked       put to the backbone, with its items in the prompt
    answered    answers that came to their end and hold text
    right       answers whose score reaches synthesis.min_score by the rule of their task
    kept        samples written; every right answer is one

The rest of the questions is rejected, with reasons of its own (synthesis.py), or a duplicate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from comem_ray.config import Config, SynthesisConfig
from comem_ray.training.data.questions import RejectedSample

COUNTED = ("questions", "asked", "answered", "right", "kept")
_PREFIX = "source."
_NOT_ANSWERED = ("cut_short", "empty_answer")  # an answer was begun
_NO_ANSWER = ("answer_failed", "not_finite", "out_of_memory")  # the backbone was asked, and failed


def source_counts(outcomes: Iterable[tuple[str, dict[str, Any] | RejectedSample]]) -> dict[str, int]:
    """The counts of outcomes, each with the name of its source, as {"source.<name>.<count>": n}."""
    counts = Counter[str]()
    for name, outcome in outcomes:
        counts.update(f"{_PREFIX}{name}.{count}" for count in _counted(outcome))
    return dict(sorted(counts.items()))


def by_source(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """The counts of `source_counts`, summed over units, by the name of the source; every one of COUNTED is there."""
    sources: dict[str, dict[str, int]] = {}
    for key, number in sorted(counts.items()):
        if key.startswith(_PREFIX):
            name, _, count = key.removeprefix(_PREFIX).rpartition(".")
            sources.setdefault(name, dict.fromkeys(COUNTED, 0))[count] = number
    return sources


def sampling(config: Config, synthesis: SynthesisConfig) -> dict[str, Any]:
    """Seed, decoding and retrieval of a synthesis."""
    reasoner = config.reasoner
    return {
        "seed": config.seed,
        "temperature": reasoner.temperature,
        "top_p": reasoner.top_p,
        "repetition_penalty": reasoner.repetition_penalty,
        "max_new_tokens": synthesis.max_new_tokens,
        "items": synthesis.top_k,
        "items in the prompt": synthesis.prompt_items,
        "retrieval by": config.retrieval.by,
        "answer_format": synthesis.answer_format,
        "min_score": synthesis.min_score,
    }


def _counted(outcome: dict[str, Any] | RejectedSample) -> tuple[str, ...]:
    if not isinstance(outcome, RejectedSample):
        return COUNTED
    if outcome.answer is not None and outcome.reason not in _NOT_ANSWERED:
        return COUNTED[:3]
    return COUNTED[:2] if outcome.answer is not None or outcome.reason in _NO_ANSWER else COUNTED[:1]
