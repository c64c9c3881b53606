"""ViQuAE: exact match, and F1 as a further figure, the best over the answers of `output.answer`.

Both sides in lower case, without ASCII punctuation, articles and extra white space; F1 is over the words, with their
multiplicity, as in SQuAD. File: its JSONL.
Source: meerqat/train/metrics.py and answer_preprocess of the ViQuAE authors (Lerner et al. 2022, PaulLerner/ViQuAE).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from comem_ray.tasks.bootstrap import mean_of
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, RejectedRow, read_jsonl
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.rules.scoring import normalised, score
from comem_ray.tasks.task import OFFICIAL_SCORING, Examples, ScoredAnswer, Scoring, Task, TaskFiles, text_or_none


class ViQuAE(Task):
    """A gold is the list of right answers."""

    name = "viquae"
    id_field = "id"
    question_field = "input"
    rule = "exact"
    percent_first = True
    prediction_form = 'JSONL of {"id": ..., "output": [{"answer": "..."}]} as in KILT'

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The examples, with the entities that each row names."""
        for path in files.paths:
            yield from self._examples(read_jsonl(path), partial(self._read_row, language=language or "en"))

    def score(
        self, examples: Sequence[Example], answers: Sequence[str | None], scoring: Scoring = OFFICIAL_SCORING
    ) -> list[ScoredAnswer]:
        """The score of every answer; by the official rules F1 is among its metrics."""
        scored = super().score(examples, answers, scoring)
        if scoring.rules == "paper":
            return scored
        return [answer if answer.metrics else replace(answer, metrics={"f1": 0.0}) for answer in scored]

    def prediction_text(self, row: FileRow) -> str:
        """As elsewhere; in KILT's form the answer of the first output."""
        output = row.get("output")
        if "prediction" not in row.fields and isinstance(output, list) and output and isinstance(output[0], dict):
            return FileRow(row.place, output[0]).text("answer")
        return super().prediction_text(row)

    def _read_row(self, row: FileRow, language: str) -> Example:
        output = row.get("output")
        if not isinstance(output, dict):
            raise RejectedRow("bad_field", f"field 'output' is {output!r}, wanted an object with 'answer'")
        image = row.get("image")
        return self._example(
            row,
            FileRow(row.place, output).texts("answer"),
            row.get("input"),
            language=language,
            image_names=[image] if isinstance(image, str) else None,
            entities=_entities(row.get("wikidata_id"), output.get("provenance")),
        )

    def _official(self, example: Example, prediction: str) -> ScoredAnswer:
        answer = final_answer(prediction)
        best = max(f1_score(answer, gold) for gold in example.gold)
        return ScoredAnswer(text_or_none(answer), score("exact", answer, example.gold), {"f1": best})

    def _paper(self, example: Example, prediction: str) -> ScoredAnswer:
        text = paper.after_colon(prediction)
        return ScoredAnswer(paper.answer(text), float(paper.equals_one(text, example.gold)))

    def _own_figures(self, examples: Sequence[Example], scored: Sequence[ScoredAnswer]) -> dict[str, Any]:
        """The mean of F1, which the paper's authors do not have."""
        f1 = [answer.metrics["f1"] for answer in scored if "f1" in answer.metrics]
        return {"f1": mean_of(f1, "f1", percent_first=True).summary()} if f1 else {}


TASK = ViQuAE()


def f1_score(prediction: str, gold: str) -> float:
    """F1 of the words, 0..1; 0 where none is shared."""
    words, gold_words = normalised(prediction).split(), normalised(gold).split()
    shared = sum((Counter(words) & Counter(gold_words)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(words), shared / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def _entities(wikidata_id: Any, provenance: Any) -> list[str]:
    """The Wikidata id, where the row has one, and the titles of its provenance."""
    entities = [wikidata_id] if isinstance(wikidata_id, str) else []
    for page in provenance if isinstance(provenance, list) else []:
        title = page.get("title") if isinstance(page, dict) else None
        entities += [one for one in (title if isinstance(title, list) else [title]) if isinstance(one, str)]
    return entities
