"""BLEU, ROUGE-L and CIDEr of captions, by pycocoevalcap (the COCO authors' code), without its Java parts.

Two of the official figures need Java and are not computed: METEOR and SPICE. So does the official tokenizer, Stanford's
PTBTokenizer; `tokens` does its rules for English: lower case, "n't" and "'s" apart, hyphenated words and abbreviations
whole, brackets as -lrb- and the like, then the official list of punctuation removed. Compared with the Java one
(CoreNLP 3.4.1) it differs on 14 of 885 lines of questions, names and odd captions, some of which it was made on: flags,
"d'Arc", a sentence without a space before it.
Source: Chen et al. 2015 (arXiv 1504.00325); eval.py and ptbtokenizer.py of tylin/coco-caption.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDERS = 4
_TINY, _SMALL = 1e-15, 1e-9  # bleu_scorer.py keeps zeros apart with them

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_REMOVED = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_TOKEN = re.compile(
    r"""
    can(?=not\b) | gon(?=na\b) | got(?=ta\b) | wan(?=na\b) | lem(?=me\b) | gim(?=me\b) | y'(?=all\b) | 't(?=is\b|was\b)
    | (?:mr|mrs|ms|dr|st|jr|sr|vs|etc|mt|ave|blvd|co|inc|ltd)\. | no\.(?=\s*\d) | (?:[a-z]\.){2,} | [a-z]\.(?:[a-z]\b)?
    | o'[a-z]{2,} | ma'am\b | 'n'
    | [^\W\d_]+(?=n't\b) | n't\b | '(?:s|m|d|ll|re|ve)\b
    | [\w.]+@\w+(?:\.\w+)+ | @\w+ | \d+(?:[.,:/]\d+)+(?:-\w+)* | \w+(?:[-&/]\w+)*
    | \.{3} | [!?]{2,} | --+ | \S
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class CaptionScores:
    """Figures of N captions: per caption, and what BLEU sums over them."""

    cider: np.ndarray  # (N,), 0..10
    rouge_l: np.ndarray  # (N,), 0..1
    bleu_4: np.ndarray  # (N,), 0..1
    counts: np.ndarray  # (N, 2 + 2 * ORDERS): length, length of the closest reference, n-grams given, n-grams right


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """The figures of one caption per image against the image's references. ValueError without pycocoevalcap."""
    try:
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ValueError("captions are scored with pycocoevalcap: pip install 'comem-ray[captions]'") from error

    candidates = {i: [" ".join(tokens(caption))] for i, caption in enumerate(captions)}
    gold = {i: [" ".join(tokens(reference)) for reference in given] for i, given in enumerate(references)}
    scorer = BleuScorer(n=ORDERS)
    for i, caption in candidates.items():
        scorer += (caption[0], gold[i])
    _, single = scorer.compute_score(option="closest")
    counts = [
        [one["testlen"], min((abs(n - one["testlen"]), n) for n in one["reflen"])[1], *one["guess"], *one["correct"]]
        for one in scorer.ctest
    ]
    cider, rouge = Cider(n=ORDERS).compute_score(gold, candidates)[1], Rouge().compute_score(gold, candidates)[1]
    return CaptionScores(cider, rouge, np.array(single[-1]), np.array(counts, dtype=np.float64))


def corpus_bleu(counts: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 (..., ORDERS), 0..1, of summed counts (..., 2 + 2 * ORDERS), as bleu_scorer.py has it."""
    length, reference = counts[..., 0], counts[..., 1]
    guess, correct = counts[..., 2 : 2 + ORDERS], counts[..., 2 + ORDERS :]
    precision = np.cumprod((correct + _TINY) / (guess + _SMALL), axis=-1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + _TINY) / (reference + _SMALL)
    return precision * np.exp(np.minimum(0.0, 1 - 1 / ratio))[..., None]


def tokens(text: str) -> list[str]:
    """The words of a caption."""
    plain = text.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"').lower()
    return [_BRACKETS.get(token, token) for token in _TOKEN.findall(plain) if token not in _REMOVED]
