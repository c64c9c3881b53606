r"""The score of one answer, in 0..1, by a named rule.

    rule               gold
    infoseek           a list of aliases, or [{"wikidata": x, "range": [lo, hi]}] for a number (field answer_eval)
    vqa                the annotators' answers (OK-VQA has ten)
    encyclopedic_vqa   "paris|city of paris": annotators apart by "|"; "red&&blue" is one annotator's list
    exact              a list of right answers

More rules come from the configuration (own.py). A prediction is the final answer alone (final_answer.py). Knows nothing
of how answers come about, nor of averages over a task.
Sources: infoseek_eval.py of the InfoSeek authors (Chen et al. 2023, arXiv 2302.11713); VQA accuracy: vqa.py;
Encyclopedic-VQA: encyclopedic_vqa.py.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args

from comem_ray.tasks.rules.encyclopedic_vqa import encyclopedic_score
from comem_ray.tasks.rules.final_answer import boxed as boxed  # their home until 0.3
from comem_ray.tasks.rules.final_answer import final_answer as final_answer
from comem_ray.tasks.rules.numbers import in_range_score
from comem_ray.tasks.rules.vqa import vqa_accuracy

Rule = Literal["infoseek", "vqa", "encyclopedic_vqa", "exact"]
RULES: tuple[Rule, ...] = get_args(Rule)

OwnRules = Mapping[str, Callable[[str, Any], float]]
"""Rules of the configuration: name -> function (prediction, gold) -> score in 0..1."""
NO_RULES: OwnRules = MappingProxyType({})

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class UnknownRule(ValueError):
    """A name that is neither a rule of the library nor one of the configuration."""

    def __init__(self, rule: Any, own_rules: OwnRules):
        known = ", ".join([*RULES, *own_rules])
        super().__init__(f"there is no scoring rule {rule!r}: want {known}, or a name that scoring_rules defines")


def score(rule: str, prediction: str, gold: Any, own_rules: OwnRules = NO_RULES) -> float:
    """The score of `prediction`, 0..1. Raises UnknownRule, or ValueError for a gold that the rule cannot use."""
    if rule == "vqa":
        return vqa_accuracy(prediction, _texts(rule, gold))
    if rule == "encyclopedic_vqa":
        return encyclopedic_score(prediction, _text(rule, gold))
    if rule == "infoseek" and (limits := number_range(gold)) is not None:
        return in_range_score(prediction, *limits)
    if rule in ("infoseek", "exact"):
        return float(any(normalised(prediction) == normalised(alias) for alias in _texts(rule, gold)))
    if rule in own_rules:
        return _own_score(rule, own_rules[rule](prediction, gold))
    raise UnknownRule(rule, own_rules)


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation, the articles a, an, the, and extra white space, in this order."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split())


def number_range(gold: Any) -> tuple[float, float] | None:
    """Limits of a numerical gold: of its first entry, as in the official script. None where it is not a number."""
    first = gold[0] if isinstance(gold, list) and gold else gold
    if not isinstance(first, dict):
        return None
    try:
        low, high = (float(limit) for limit in first["range"][:2])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'a numerical gold is [{{"wikidata": x, "range": [lo, hi]}}], got {gold!r}') from error
    return low, high


def _own_score(rule: str, value: Any) -> float:
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"scoring rule {rule!r} returned {value!r}, want a number from 0 to 1")


def _texts(rule: str, gold: Any) -> Sequence[str]:
    if not isinstance(gold, list | tuple) or not gold or not all(isinstance(g, str) for g in gold):
        raise ValueError(f"rule {rule!r} wants a list of strings, one at least, got {gold!r}")
    return gold


def _text(rule: str, gold: Any) -> str:
    if not isinstance(gold, str):
        raise ValueError(f"rule {rule!r} wants the field 'answer' as it stands in the file, got {gold!r}")
    return gold
