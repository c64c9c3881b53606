"""COCO 2014 captions: CIDEr, BLEU-1 to BLEU-4 and ROUGE-L (rules/captions.py). File: `captions_val2014.json`.

An example is an image and its id the image's; its gold are its captions. The overall figure is CIDEr times 100, as
papers print it, and can be above 100. The score of one caption is its CIDEr / 10, which is within 0..1; `cider`,
`rouge_l` and `bleu_4` are its metrics. An image without a prediction counts as an empty caption.
Source: Chen et al. 2015 (arXiv 1504.00325).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from comem_ray.prompts import CAPTION
from comem_ray.tasks.bootstrap import RESAMPLES, Estimate, generator, mean_of
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, Place, RejectedRow, read_json, rows_of
from comem_ray.tasks.rules.captions import CaptionScores, caption_scores, corpus_bleu
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.task import OFFICIAL_SCORING, Examples, ScoredAnswer, Scoring, Task, TaskFiles, text_or_none

MAX_CIDER = 10.0


class Coco(Task):
    """A gold is the list of an image's captions."""

    name = "coco"
    id_field = "image_id"
    prediction_fields = ("caption",)
    prediction_form = 'a JSON list of {"image_id": ..., "caption": "..."}'
    has_paper_rules = False
    scored_together = True  # CIDEr weighs words by all captions
    boxed = False

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """One example per image, in the order of its first caption, after the annotations that are rejected."""
        yield from self._examples(_image_rows(files.paths), partial(self._read_row, language=language or "en"))

    def score(
        self, examples: Sequence[Example], answers: Sequence[str | None], scoring: Scoring = OFFICIAL_SCORING
    ) -> list[ScoredAnswer]:
        """The score of every caption."""
        self.check_rules(scoring)
        texts = [final_answer(answer or "") for answer in answers]
        scores = caption_scores(texts, [example.gold for example in examples])
        return [_scored(scores, i, text) for i, text in enumerate(texts)]

    def _read_row(self, row: FileRow, language: str) -> Example:
        name, names = row.get("file_name"), image_names(row.get("image_id"))
        if isinstance(name, str):
            names = [name, f"val2014/{name}"]
        return self._example(row, row.texts("captions"), CAPTION, language=language, image_names=names)

    def _own_figures(self, examples: Sequence[Example], scored: Sequence[ScoredAnswer]) -> dict[str, Any]:
        """Every metric in percent; `overall` is CIDEr's."""
        means = {name: mean_of([answer.metrics[name] for answer in scored], name) for name in ("cider", "rouge_l")}
        metrics = {"CIDEr": means["cider"].summary(), "ROUGE-L": means["rouge_l"].summary()}
        metrics |= {f"BLEU-{i + 1}": estimate.summary() for i, estimate in enumerate(_bleu(scored))}
        return {"overall": metrics["CIDEr"]["score"], "interval": metrics["CIDEr"]["interval"], "metrics": metrics}


TASK = Coco()


def image_names(number: Any) -> list[str] | None:
    """COCO 2014's name of an image, in any folder of its archives."""
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    stems = [(split, f"COCO_{split}_{number:012d}") for split in ("val2014", "train2014")]
    return [*(stem for _, stem in stems), *(f"{split}/{stem}" for split, stem in stems)]


def _image_rows(paths: Sequence[Path]) -> Iterator[FileRow | RejectedRow]:
    """One row {"image_id", "file_name", "captions"} per image, after the annotations that are rejected."""
    captions: dict[str | int, list[str]] = {}
    names: dict[str, Any] = {}
    for path in paths:
        images, annotations = _lists(path)
        names |= {str(image.get("id")): image.get("file_name") for image in images if isinstance(image, dict)}
        for row in rows_of(path, "annotation", annotations):
            try:
                if isinstance(row, RejectedRow):
                    raise row
                captions.setdefault(row.identity("image_id"), []).append(row.text("caption"))
            except RejectedRow as rejected:
                yield rejected
    given = ((image, texts) for image, texts in captions.items() if texts)
    for number, (image, texts) in enumerate(given):
        fields = {"image_id": image, "file_name": names.get(str(image)), "captions": texts}
        yield FileRow(Place(paths[0], "image", number), fields)


def _lists(path: Path) -> tuple[list[Any], list[Any]]:
    document = read_json(path)
    annotations = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(annotations, list):
        raise ValueError(f"{path}: no list 'annotations'")
    images = document.get("images")
    return images if isinstance(images, list) else [], annotations


def _scored(scores: CaptionScores, i: int, text: str) -> ScoredAnswer:
    cider = float(scores.cider[i])
    metrics = {"cider": cider, "rouge_l": float(scores.rouge_l[i]), "bleu_4": float(scores.bleu_4[i])}
    return ScoredAnswer(text_or_none(text), cider / MAX_CIDER, {**metrics, "counts": scores.counts[i]})


def _bleu(scored: Sequence[ScoredAnswer]) -> list[Estimate]:
    """BLEU of the corpus, and of resamples of its captions."""
    counts = np.stack([answer.metrics["counts"] for answer in scored])
    n = len(counts)
    random, even = generator("bleu"), np.full(n, 1 / n)
    resampled = np.stack([random.multinomial(n, even) @ counts for _ in range(RESAMPLES)])
    value, draws = corpus_bleu(counts.sum(axis=0)) * 100, corpus_bleu(resampled) * 100
    return [Estimate(float(value[i]), draws[:, i]) for i in range(len(value))]
