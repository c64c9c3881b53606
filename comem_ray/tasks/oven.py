"""OVEN: the generated name is linked to an entity (titles.py), which must be the right one; by split, seen and unseen.

References: `oven_entity_val.jsonl`, `oven_query_val.jsonl`; titles: `Wiki6M_ver_1_0_title_only.jsonl`. Without titles a
name is linked to the entities of the references alone: far fewer, so the figures are too high to compare with others'.
Finals: for each of entity and query the harmonic mean of seen and unseen, then the harmonic mean of the two.
Source: oven_eval.py of the OVEN authors (Hu et al. 2023, arXiv 2302.11154); 50 characters and the cuts of the paper's
rules: run_bm25_query.py of the paper's authors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from comem_ray.tasks.bootstrap import Estimate, harmonic, mean_of, rounded
from comem_ray.tasks.infoseek import image_names
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
    text_field,
)
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.scoring import boxed
from comem_ray.tasks.rules.titles import TitleIndex

WARNING = "no --titles: names are linked to the entities of the references alone, which makes the figures too high"
PARTS, SIDES = ("query", "entity"), ("seen", "unseen")
_PAPER_LENGTH = 50


def load(paths: Sequence[Path]) -> list[Question]:
    """The questions of `paths`; a gold is (entity_id, entity_text)."""
    return loaded(rows(paths), question)


def rows(paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The rows of the files."""
    for path in paths:
        yield from jsonl_rows(path)


def question(where: str, row: dict[str, Any]) -> Question:
    """The question of a row; a gold is (entity_id, entity_text)."""
    split = text_field(where, row, "data_split")
    part, side = _cell(split)
    if part not in PARTS or side not in SIDES:
        raise ValueError(f"{where}: data_split is {split!r}, wanted one like 'query_val_seen'")
    gold = (text_field(where, row, "entity_id"), text_field(where, row, "entity_text"))
    return Question(identity(where, row, "data_id"), gold, {"split": split})


def asked(where: str, row: dict[str, Any]) -> Asked:
    """The bare question: the answer is a name."""
    names = image_names(text_field(where, row, "image_id"))
    return Asked(text_field(where, row, "question"), names, entities=[row["entity_id"], row["entity_text"]])


def titles_of(questions: Iterable[Question]) -> list[tuple[str, str]]:
    """The entities of the references, once each, in their order."""
    return list(dict.fromkeys(question.gold for question in questions))


def score(
    questions: Sequence[Question],
    answers: Sequence[str | None],
    rules: Rules,
    titles: Iterable[tuple[str, str]] | TitleIndex,
) -> list[Verdict]:
    """The verdict on every answer, the entity it is linked to beside it."""
    index = titles if isinstance(titles, TitleIndex) else TitleIndex(titles)

    def judge(question: Question, prediction: str) -> Verdict:
        name = _official_name(prediction) if rules == "official" else paper.answer(prediction)[:_PAPER_LENGTH]
        linked = index.link(name)
        if linked is None:
            return Verdict(None, 0.0)
        entity, title = linked
        return Verdict(name, float(entity == question.gold[0]), {"entity_id": entity, "title": title})

    return judged(judge, questions, answers)


def finals(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The harmonic means "query", "entity" and "final"; None where a part of one has no question."""
    cells: dict[tuple[str, str], list[float]] = {}
    for question, verdict in zip(questions, verdicts, strict=True):
        cells.setdefault(_cell(question.groups["split"]), []).append(verdict.score)
    means = {part: _harmonic(cells, part) for part in PARTS}
    both = [mean for mean in means.values() if mean is not None]
    means["final"] = harmonic(*both) if len(both) == len(PARTS) else None
    return {"harmonic_means": {name: mean and mean.summary() for name, mean in means.items()}}


def _harmonic(cells: dict[tuple[str, str], list[float]], part: str) -> Estimate | None:
    if not all((part, side) in cells for side in SIDES):
        return None
    return harmonic(*(rounded(mean_of(cells[part, side], f"{part} {side}")) for side in SIDES))


def _cell(split: str) -> tuple[str, str]:
    """("query" or "entity", "seen" or "unseen") of a split like "query_val_seen"."""
    return split.split("_")[0], split.split("_")[-1]


def _official_name(prediction: str) -> str:
    inside = boxed(prediction)
    return prediction if inside is None else inside
