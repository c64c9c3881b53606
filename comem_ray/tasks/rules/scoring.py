"""The score of one answer, in 0..1, by the official rule of its benchmark.

    rule               gold
    infoseek           a list of aliases, or [{"wikidata": x, "range": [lo, hi]}] for a number (field answer_eval)
    vqa                the annotators' answers (OK-VQA has ten)
    encyclopedic_vqa   "paris|city of paris": annotators apart by "|"; "red&&blue" is one annotator's list
    exact              a list of right answers
    sentence           a list of right answers; the prediction may be a sentence: what follows its last "is" (es, est,
                       ist, è) counts

A prediction is the final answer alone: `boxed` takes it out of a text that reasons first. Knows nothing of how answers
come about, nor of averages over a benchmark.
Sources: infoseek_eval.py of the InfoSeek authors (Chen et al. 2023, arXiv 2302.11713); VQA accuracy: vqa_text.py;
Encyclopedic-VQA: lists.py.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any, Literal, get_args

from comem_ray.tasks.rules.encyclopedic_vqa import encyclopedic_score
from comem_ray.tasks.rules.numbers import in_range_score
from comem_ray.tasks.rules.vqa import vqa_accuracy

Rule = Literal["infoseek", "vqa", "encyclopedic_vqa", "exact", "sentence"]
RULES: tuple[Rule, ...] = get_args(Rule)

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
COPULAS = ("is", "es", "est", "ist", "è")
_BOX = "\\boxed{"


def score(rule: Rule, prediction: str, gold: Any) -> float:
    """The score of `prediction`, 0..1. Raises ValueError for an unknown rule, or a gold that the rule cannot use."""
    if rule == "vqa":
        return vqa_accuracy(prediction, _strings(rule, gold))
    if rule == "encyclopedic_vqa":
        return encyclopedic_score(prediction, _text(rule, gold))
    if rule == "infoseek" and (limits := number_range(gold)) is not None:
        return in_range_score(prediction, *limits)
    if rule in ("infoseek", "exact"):
        return float(any(normalised(prediction) == normalised(alias) for alias in _strings(rule, gold)))
    if rule == "sentence":
        said = normalised(prediction)
        told = {said, *(said.rpartition(f" {copula} ")[2] for copula in COPULAS)}
        return float(any(normalised(right) in told for right in _strings(rule, gold)))
    raise ValueError(f"there is no rule {rule!r}, want one of {', '.join(RULES)}")


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation, the articles a, an, the, and extra white space, in this order."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split())


def number_range(gold: Any) -> tuple[float, float] | None:
    """Limits of a numerical gold; as the official script, the first entry counts. None where the gold is no number."""
    first = gold[0] if isinstance(gold, list) and gold else gold
    if not isinstance(first, dict):
        return None
    try:
        low, high = (float(limit) for limit in first["range"][:2])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'a numerical gold is [{{"wikidata": x, "range": [lo, hi]}}], got {gold!r}') from error
    return low, high


def boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` that is closed, nested braces kept; None where there is none."""
    end = len(text)
    while (start := text.rfind(_BOX, 0, end)) >= 0:
        content = _braced(text, start + len(_BOX))
        if content is not None:
            return content.strip()
        end = start
    return None


def _braced(text: str, start: int) -> str | None:
    """What stands between `start` and the brace that closes it; None where none does."""
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if not depth:
            return text[start:i]
    return None


def _strings(rule: str, gold: Any) -> Sequence[str]:
    if not isinstance(gold, list | tuple) or not gold or not all(isinstance(g, str) for g in gold):
        raise ValueError(f"rule {rule!r} wants a list of strings, one at least, got {gold!r}")
    return gold


def _text(rule: str, gold: Any) -> str:
    if not isinstance(gold, str):
        raise ValueError(f"rule {rule!r} wants the field 'answer' as it stands in the file, got {gold!r}")
    return gold
