"""InfoSeek, English and translated: exact match, and ranges for numbers; by split and by type of question.

References: `infoseek_val.jsonl` or one of its translations, known by its name (`infoseek_val_spanish.jsonl`); types
apart: `infoseek_val_qtype.jsonl`. Without the types, numerical questions are known by their gold and the others are
"string or time", whose rule is the same.
The final figure is the harmonic mean of the two splits' rounded accuracies; everything that is not "unseen_question"
belongs to "unseen_entity". The official script leaves a question without prediction out; here it is wrong.
Source: infoseek_eval.py of the InfoSeek authors (Chen et al. 2023, arXiv 2302.11713).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comem_ray.tasks.bootstrap import Estimate, harmonic, mean_of, rounded
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
    read_jsonl,
    said,
    text_field,
)
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.numbers import has_number, in_range_score
from comem_ray.tasks.rules.scoring import boxed, number_range
from comem_ray.tasks.rules.scoring import score as rule_score

LANGUAGES = {"spanish": "es", "portuguese": "pt", "chinese": "zh", "russian": "ru", "bulgarian": "bg"}
NUMERICAL, TIME, STRING, UNKNOWN = "numerical", "time", "string", "string or time"


def load(paths: Sequence[Path], question_types: Path | None = None) -> list[Question]:
    """The questions of `paths`; a gold is `answer_eval`. ValueError names what is wrong where."""
    types = None if question_types is None else read_types(question_types)
    return loaded(rows(paths), lambda where, row: question(where, row, types))


def rows(paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The rows of the files, with the `language` that the file's name says."""
    for path in paths:
        for where, row in jsonl_rows(path):
            yield where, row if isinstance(row, ValueError) else {"language": _language(path), **row}


def asked(where: str, row: dict[str, Any]) -> Asked:
    """The bare question; entities where the row has them (infoseek_val_withkb.jsonl)."""
    entities = [row[name] for name in ("entity_id", "entity_text") if isinstance(row.get(name), str)]
    return Asked(text_field(where, row, "question"), image_names(text_field(where, row, "image_id")), entities=entities)


def image_names(image_id: str) -> list[str]:
    """An image of OVEN lies in one folder with all others, or, as in its download, in one of two of its digits."""
    return [image_id, f"{image_id[5:7]}/{image_id}"]


def read_entities(path: Path) -> dict[str, dict[str, Any]]:
    """`entity_id` and `entity_text` by id, of a file like infoseek_val_withkb.jsonl."""
    fields = ("entity_id", "entity_text")
    return {str(identity(where, row, "data_id")): {f: row.get(f) for f in fields} for where, row in read_jsonl(path)}


def score(questions: Sequence[Question], answers: Sequence[str | None], rules: Rules) -> list[Verdict]:
    """The verdict on every answer."""
    return judged(_official if rules == "official" else _paper, questions, answers)


def finals(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The harmonic mean of unseen question and unseen entity; None where one of them has no question."""
    halves: dict[bool, list[float]] = {True: [], False: []}
    for question, verdict in zip(questions, verdicts, strict=True):
        halves[question.groups["split"].endswith("unseen_question")].append(verdict.score)
    if not all(halves.values()):
        return {"harmonic_means": {"final": None}}
    parts: list[Estimate] = [rounded(mean_of(scores, f"unseen question {half}")) for half, scores in halves.items()]
    return {"harmonic_means": {"final": harmonic(*parts).summary()}}


def question(where: str, row: dict[str, Any], types: dict[str, str] | None = None) -> Question:
    """The question of a row; a gold is `answer_eval`, `types` are those of `read_types`."""
    data_id, split, gold = identity(where, row, "data_id"), text_field(where, row, "data_split"), _gold(where, row)
    kind = NUMERICAL if number_range(gold) else UNKNOWN
    if types is not None:
        if str(data_id) not in types:
            raise ValueError(f"{where}: the question types lack {data_id!r}")
        kind = types[str(data_id)]
        if (kind == NUMERICAL) != (number_range(gold) is not None):
            raise ValueError(f"{where}: a question of type {kind} with the answer_eval {gold!r}")
    groups = {"split": split, "type": kind, "split_type": f"{split} {kind}", "language": row["language"]}
    return Question(data_id, gold, groups)


def _language(path: Path) -> str:
    return next((code for name, code in LANGUAGES.items() if name in path.name), "en")


def _gold(where: str, row: dict[str, Any]) -> Any:
    gold = row.get("answer_eval")
    try:
        if number_range(gold) is None:
            rule_score("infoseek", "", gold)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return gold


def read_types(path: Path) -> dict[str, str]:
    """Type by id, as the official script reads them: numerical, time, and everything else is a string."""
    found = {}
    for where, row in read_jsonl(path):
        kind = text_field(where, row, "question_type").lower()
        found[str(identity(where, row, "data_id"))] = kind if kind in (NUMERICAL, TIME) else STRING
    return found


def _official(question: Question, prediction: str) -> Verdict:
    inside = boxed(prediction)
    answer = prediction if inside is None else inside
    numerical = number_range(question.gold) is not None
    parsed = said(answer) if not numerical or has_number(answer) else None
    return Verdict(parsed, rule_score("infoseek", answer, question.gold))


def _paper(question: Question, prediction: str) -> Verdict:
    text = paper.after_colon(prediction)
    if (limits := number_range(question.gold)) is not None:
        return Verdict(said(text) if has_number(text) else None, in_range_score(text, *limits))
    answer = paper.answer(text)
    if question.groups["type"] == TIME:
        right = any(paper.time_matches(text, gold) for gold in question.gold)
    else:
        right = any(answer == paper.answer(gold) for gold in question.gold)
    return Verdict(answer, float(right))
