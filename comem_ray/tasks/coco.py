"""COCO 2014 captions: CIDEr, BLEU-1 to BLEU-4 and ROUGE-L over `captions_val2014.json` (captions.py says how).

A question is an image and its id the image's; its gold are its captions. The overall figure is CIDEr times 100, as
papers print it, and can be above 100. The score of one caption is its CIDEr / 10, which is within 0..1, with its
`cider`, `rouge_l` and `bleu_4` beside it. An image without a prediction counts as an empty caption.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comem_ray.prompts import CAPTION
from comem_ray.tasks.bootstrap import RESAMPLES, Estimate, generator, mean_of
from comem_ray.tasks.okvqa import image_names
from comem_ray.tasks.records import (
    Asked,
    Question,
    Row,
    Rules,
    Verdict,
    identity,
    loaded,
    read_json,
    said,
    text_field,
)
from comem_ray.tasks.rules.captions import CaptionScores, caption_scores, corpus_bleu
from comem_ray.tasks.rules.scoring import boxed

CIDER_TOP = 10.0


def load(paths: Sequence[Path]) -> list[Question]:
    """The images of `paths`; a gold is the list of an image's captions."""
    return loaded(rows(paths), question)


def rows(paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """A row an image, {"image_id", "file_name", "captions"}, after the annotations that are none."""
    captions: dict[str | int, list[str]] = {}
    names: dict[Any, Any] = {}
    for path in paths:
        images, annotations = _lists(path)
        names |= {str(image.get("id")): image.get("file_name") for image in images if isinstance(image, dict)}
        for number, row in enumerate(annotations, start=1):
            where = f"{path}, annotation {number}"
            try:
                captions.setdefault(identity(where, row, "image_id"), []).append(text_field(where, row, "caption"))
            except ValueError as error:
                yield where, error
    for image, given in captions.items():
        if given:
            yield str(paths[0]), {"image_id": image, "file_name": names.get(str(image)), "captions": given}


def question(where: str, row: dict[str, Any]) -> Question:
    """The question of an image; a gold is the list of its captions."""
    return Question(row["image_id"], row["captions"])


def asked(where: str, row: dict[str, Any]) -> Asked:
    """The words that ask for a caption, which goes into no box."""
    names = [row["file_name"], f"val2014/{row['file_name']}"] if isinstance(row["file_name"], str) else []
    return Asked(CAPTION, names or image_names(where, row), boxed=False)


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


def _lists(path: Path) -> tuple[list[Any], list[dict[str, Any]]]:
    document = read_json(path)
    rows = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: no list 'annotations'")
    images = document.get("images")
    return images if isinstance(images, list) else [], rows


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
