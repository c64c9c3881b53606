"""VQA accuracy and its text processing, as the official evaluation does it (used by VQA, OK-VQA).

Accuracy: for each annotator, min(1, others with this answer / 3); the mean over all annotators. Both sides are
processed only where the annotators do not all say the same; where they do, the answer must equal theirs to the letter.
Quirks kept, so that figures can be compared: a mark is removed where any of its kind touches a space, or the text has a
comma between digits, else it becomes a space; a full stop goes unless a digit follows, the first 32 of them;
"somebody'd" loses its apostrophe.

Source: Antol et al. 2015 (arXiv 1505.00468), vqaEval.py of its authors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MARKS = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0", **{word: str(value) for value, word in enumerate(_NUMBERS)}}
ARTICLES = ("a", "an", "the")

# A word is written as here where it lacks any one of its apostrophes.
_WORDS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
    who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
    you'll you're you've
"""
CONTRACTIONS = tuple(_WORDS.split())
_WRITTEN = {
    **{word[:i] + word[i + 1 :]: word for word in CONTRACTIONS for i, c in enumerate(word) if c == "'"},
    "somebody'd": "somebodyd",
}

_THOUSANDS = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_FULL_STOPS = 32


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of `prediction` against the annotators' `answers`, 0..1."""
    given, right = _flat(prediction), [_flat(answer) for answer in answers]
    if len(set(right)) > 1:
        given, right = processed(given), [processed(answer) for answer in right]
    same = sum(answer == given for answer in right)
    return sum(min(1.0, (same - (answer == given)) / 3) for answer in right) / len(right)


def processed(text: str) -> str:
    """`text` without punctuation and articles, numbers up to ten as digits, contractions with their apostrophes."""
    words = [DIGITS.get(word, word) for word in _unmarked(text).lower().split()]
    return " ".join(_WRITTEN.get(word, word) for word in words if word not in ARTICLES)


def _flat(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _unmarked(text: str) -> str:
    thousands = _THOUSANDS.search(text) is not None
    out = text
    for mark in MARKS:
        removed = thousands or f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if removed else " ")
    return _FULL_STOP.sub("", out, count=_FULL_STOPS)
