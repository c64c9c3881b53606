"""Exact match of Encyclopedic-VQA, single answers and lists.

A gold is the file's field `answer`: annotators apart by "|", and the answer right for any of them counts. An annotator
who names several things writes them apart by "&&"; then the prediction is split at commas, " and " and " & ", and the
two sets must have an intersection over union of 0.5 at least. A list of one thing ends with "&&".
The authors go on to ask a model (BEM, arXiv 2202.07654) where there is no exact match; that judge is not ours, so a
score here is never above theirs. Contractions, which they write out after all apostrophes are gone, cannot change
whether two texts are equal and are left out.

Source: Mensink et al. 2023 (arXiv 2306.09224), evaluation_utils.py of its authors.
"""

from __future__ import annotations

import re
import string

from comem_ray.tasks.rules.vqa import DIGITS

LIST = "&&"
MIN_OVERLAP = 0.5

_WORDS = {**DIGITS, "true": "yes", "entailment": "yes", "false": "no", "contradiction": "no"}
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’´`_")
_ARTICLES = re.compile(r"\b(the answer is|a|an|the)\b")
_SEPARATORS = re.compile(r" and | & |,")
_SPAN = "<extra_id_0> "  # T5 begins its answers with it


def encyclopedic_score(prediction: str, gold: str) -> float:
    """1 where `prediction` matches one of the annotators of `gold`, else 0. ValueError where none says anything."""
    references = [r for r in gold.split("|") if any(normalised(part) for part in r.split(LIST))]
    if not references:
        raise ValueError(f"the gold {gold!r} holds no answer")
    return float(any(_matches(prediction, reference) for reference in references))


def normalised(text: str) -> str:
    """Lower case, no punctuation, no "a", "an", "the", "the answer is"; numbers up to ten as digits, yes and no."""
    plain = text.lower().replace("\n", " ").replace("\t", " ").strip()
    if plain.startswith(_SPAN):
        plain = plain.replace(_SPAN, "")
    words = _ARTICLES.sub(" ", plain.translate(_NO_PUNCTUATION)).split()
    return " ".join(_WORDS.get(word, word) for word in words)


def _matches(prediction: str, reference: str) -> bool:
    if LIST not in reference:
        return normalised(prediction) == normalised(reference)
    right, given = _things(reference.split(LIST)), _things(_SEPARATORS.split(prediction))
    return len(right & given) / len(right | given) >= MIN_OVERLAP


def _things(parts: list[str]) -> set[str]:
    return {thing for part in parts if (thing := normalised(part))}
