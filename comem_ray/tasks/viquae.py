"""ViQuAE: exact match, F1 beside it, the best over the answers of `output.answer`.

Both sides in lower case, without ASCII punctuation, articles and extra white space; F1 is over the words, with their
multiplicity, as in SQuAD.
Source: meerqat/train/metrics.py and answer_preprocess of the ViQuAE authors (Lerner et al. 2022, PaulLerner/ViQuAE).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comem_ray.tasks.bootstrap import mean_of
from comem_ray.tasks.records import (
    Asked,
    Question,
    Row,
    Rules,
    Verdict,
    identity,
    jsonl_rows,
    judged,
    loaded,
    said,
    text_field,
    texts_field,
)
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.scoring import boxed, normalised
from comem_ray.tasks.rules.scoring import score as rule_score


def load(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths`; a gold is the list of right answers."""
    return loaded(rows(paths), question)


def rows(paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The rows of the files."""
    for path in paths:
        yield from jsonl_rows(path)


def question(where: str, row: dict[str, Any]) -> Question:
    """The question of a row; a gold is the list of right answers."""
    output = row.get("output")
    if not isinstance(output, dict):
        raise ValueError(f"{where}: field 'output' is {output!r}, wanted an object with 'answer'")
    return Question(identity(where, row, "id"), texts_field(where, output, "answer"))


def asked(where: str, row: dict[str, Any]) -> Asked:
    """The bare question; its entities are `wikidata_id`, where the row has one, and the titles of its provenance."""
    entities = [row["wikidata_id"]] if isinstance(row.get("wikidata_id"), str) else []
    provenance = row["output"].get("provenance")
    for source in provenance if isinstance(provenance, list) else []:
        title = source.get("title") if isinstance(source, dict) else None
        entities += [t for t in (title if isinstance(title, list) else [title]) if isinstance(t, str)]
    return Asked(text_field(where, row, "input"), [text_field(where, row, "image")], entities=entities)


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every answer, F1 beside it (the paper's authors have none)."""
    if rules == "paper":
        return judged(_paper, questions, answers)
    return [v if "f1" in v.beside else Verdict(None, 0.0, {"f1": 0.0}) for v in judged(_official, questions, answers)]


def finals(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The mean of F1."""
    f1 = [verdict.beside["f1"] for verdict in verdicts if "f1" in verdict.beside]
    return {"f1": mean_of(f1, "f1", percent_first=True).summary()} if f1 else {}


def f1_score(prediction: str, gold: str) -> float:
    """F1 of the words, 0..1; 0 where none is shared."""
    said_words, gold_words = normalised(prediction).split(), normalised(gold).split()
    shared = sum((Counter(said_words) & Counter(gold_words)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said_words), shared / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def _official(question: Question, prediction: str) -> Verdict:
    inside = boxed(prediction)
    answer = prediction if inside is None else inside
    best = max(f1_score(answer, gold) for gold in question.gold)
    return Verdict(said(answer), rule_score("exact", answer, question.gold), {"f1": best})


def _paper(question: Question, prediction: str) -> Verdict:
    text = paper.after_colon(prediction)
    return Verdict(paper.answer(text), float(paper.equals_one(text, question.gold)))
