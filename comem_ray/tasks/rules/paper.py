r"""The scorer of the paper's authors, for comparison with their table alone: it finds answers right that are not.

An answer is the content of the first `\boxed{...}` (up to the first closing brace), else what follows the last colon.
Before it is compared it is cut at every "is", "the", "of" and "by", *inside words too*, and only what follows the last
of each is kept: 'Paris' and 'Tunis' both become '' and match.
Source: extract_and_normalize_boxed_answer and normalize_answer of the *_eval.py of CoMEM's authors (WenyiWU0111/CoMEM).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from comem_ray.tasks.rules.scoring import ARTICLES, NO_PUNCTUATION

WARNING = (
    "--rules paper scores as the paper's authors do: answers are cut at every 'is', 'the', 'of' and 'by' inside words, "
    "so wrong answers can count as right. Compare these figures with the paper's table only."
)
_CUTS = ("is", "the", "of", "by")
_BOX = re.compile(r"\\boxed\{(.*?)\}")


def normalised(text: str) -> str:
    """Lower case, without punctuation, what follows the last of each cut, without articles and extra white space."""
    plain = text.lower().translate(NO_PUNCTUATION)
    for cut in _CUTS:
        plain = plain.split(cut)[-1]
    return " ".join(ARTICLES.sub(" ", plain).split())


def raw_answer(text: str) -> str:
    r"""The content of the first `\boxed{...}`, else what follows the last colon."""
    box = _BOX.search(text)
    return box.group(1) if box else text.split(":")[-1]


def answer(text: str) -> str:
    """The normalised answer in a prediction."""
    return normalised(raw_answer(text))


def after_colon(text: str) -> str:
    """What follows the last colon, boxed or not; some of the scorers cut there first."""
    return text.split(":")[-1]


def equals_one(text: str, golds: Sequence[str]) -> bool:
    """Whether the normalised answer is one of `golds` to the letter; these are stripped, but not normalised."""
    return answer(text) in [gold.strip() for gold in golds if gold.strip()]


def time_matches(text: str, gold: str) -> bool:
    """Whether one of answer and gold holds the other; an empty one holds nothing."""
    given, right = answer(text), answer(gold)
    return bool(given and right) and (given in right or right in given)
