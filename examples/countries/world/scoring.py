"""The scoring rule `sentence`: a full-sentence answer is right where what follows its copula is a right answer.

A configuration names it as `scoring_rules: {sentence: "examples.countries.world.scoring:sentence_score"}`.
"""

from __future__ import annotations

from collections.abc import Sequence

from comem_ray.tasks.rules.scoring import normalised

COPULAS = ("is", "es", "est", "ist", "è")  # en, es, fr, de, it


def sentence_score(prediction: str, gold: Sequence[str]) -> float:
    """1.0 where the prediction, or what follows the last copula of a language in it, is one of `gold`; else 0.0.

    Both sides are compared in lower case, without ASCII punctuation and English articles. Raises ValueError where
    `gold` is not a list of strings with at least one.
    """
    if not isinstance(gold, list | tuple) or not gold or not all(isinstance(g, str) for g in gold):
        raise ValueError(f"rule 'sentence' wants a list of strings, one at least, got {gold!r}")
    text = normalised(prediction)
    candidates = {text, *(text.rpartition(f" {copula} ")[2] for copula in COPULAS)}
    return float(any(normalised(right) in candidates for right in gold))
