"""COCO 2014 captions: CIDEr, BLEU-1 to BLEU-4 and ROUGE-L over `captions_val2014.json` (captions.py says how).

A question is an image and its id the image's; its gold are its captions. The overall figure is CIDEr times 100, as
papers print it, and can be above 100. The score of one caption is its CIDEr / 10, which is within 0..1, with its
`cider`, `rouge_l` and `bleu_4` beside it. An image without a prediction counts as an empty caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comem_ray.evaluation.captions import CaptionScores, caption_scores, corpus_bleu
from comem_ray.evaluation.records import Question, Rules, Verdict, identity, read_json, said, text_field, unique
from comem_ray.evaluation.scoring import boxed
from comem_ray.evaluation.summary import RESAMPLES, Estimate, generator, mean_of

CIDER_TOP = 10.0


def load(paths: Sequence[Path]) -> list[Question]:
    """The images of `paths`; a gold is the list of an image's captions."""
    captions: dict[str | int, list[str]] = {}
    for path in paths:
        for where, row in _annotations(path):
            captions.setdefault(identity(where, row, "image_id"), []).append(text_field(where, row, "caption"))
    return unique((str(paths[0]), Question(image, given)) for image, given in captions.items())


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every caption. ValueError for the paper's rules: its authors have published none for captions."""
    if rules == "paper":
        raise ValueError("the paper's authors have no scorer for captions")
    texts = [_caption(answer or "") for answer in answers]
    scores = caption_scores(texts, [question.gold for question in questions])
    return [_verdict(scores, i, text) for i, text in enumerate(texts)]


def finals(_: Sequence[Question], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Every metric in percent; `overall` is CIDEr's."""
    means = {name: mean_of([v.beside[name] for v in verdicts], name) for name in ("cider", "rouge_l")}
    metrics = {"CIDEr": means["cider"].summary(), "ROUGE-L": means["rouge_l"].summary()}
    metrics |= {f"BLEU-{i + 1}": one.summary() for i, one in enumerate(_bleu(verdicts))}
    return {"overall": metrics["CIDEr"]["score"], "interval": metrics["CIDEr"]["interval"], "metrics": metrics}


def _annotations(path: Path) -> list[tuple[str, dict[str, Any]]]:
    document = read_json(path)
    rows = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: no list 'annotations'")
    return [(f"{path}, annotation {number}", row) for number, row in enumerate(rows, start=1)]


def _caption(prediction: str) -> str:
    inside = boxed(prediction)
    return prediction if inside is None else inside


def _verdict(scores: CaptionScores, i: int, text: str) -> Verdict:
    cider = float(scores.cider[i])
    beside = {"cider": cider, "rouge_l": float(scores.rouge_l[i]), "bleu_4": float(scores.bleu_4[i])}
    return Verdict(said(text), cider / CIDER_TOP, {**beside, "counts": scores.counts[i]})


def _bleu(verdicts: Sequence[Verdict]) -> list[Estimate]:
    """BLEU of the corpus, and of resamples of its captions."""
    counts = np.stack([verdict.beside["counts"] for verdict in verdicts])
    n = len(counts)
    random, even = generator("bleu"), np.full(n, 1 / n)
    drawn = np.stack([random.multinomial(n, even) @ counts for _ in range(RESAMPLES)])
    value, draws = corpus_bleu(counts.sum(axis=0)) * 100, corpus_bleu(drawn) * 100
    return [Estimate(float(value[i]), draws[:, i]) for i in range(len(value))]
