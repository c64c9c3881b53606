"""The scoring rule `sentence`: the prediction may be a sentence, and what follows its last "is" counts."""

from __future__ import annotations

from comem_ray.tasks.rules.scoring import normalised

COPULAS = ("is", "es", "est", "ist", "è")


def sentence_score(prediction: str, gold: list[str]) -> float:
    """1 where the prediction, or what follows the last of a copula in it, is one of `gold`, else 0."""
    text = normalised(prediction)
    answers = {text, *(text.rpartition(f" {copula} ")[2] for copula in COPULAS)}
    return float(any(normalised(right) in answers for right in gold))
