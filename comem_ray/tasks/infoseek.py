"""InfoSeek, English and translated: exact match, and ranges for numbers; by split and by type of question.

Files: `infoseek_val.jsonl` or one of its translations, known by its name (`infoseek_val_spanish.jsonl`); types apart:
`infoseek_val_qtype.jsonl`; entities apart: `infoseek_val_withkb.jsonl`. Without the types, numerical questions are
known by their gold and the others are "string or time", whose rule is the same.
The final figure is the harmonic mean of the two splits' rounded accuracies; everything that is not "unseen_question"
belongs to "unseen_entity". The official script leaves a question without prediction out; here it is wrong.
Source: infoseek_eval.py of the InfoSeek authors (Chen et al. 2023, arXiv 2302.11713).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from comem_ray.tasks.bootstrap import Estimate, harmonic, mean_of, rounded
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, RejectedRow, read_jsonl, strict
from comem_ray.tasks.oven import image_names
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.rules.numbers import has_number, in_range_score
from comem_ray.tasks.rules.scoring import number_range, score
from comem_ray.tasks.task import Examples, ScoredAnswer, Task, TaskFiles, check_gold, text_or_none

LANGUAGES = {"spanish": "es", "portuguese": "pt", "chinese": "zh", "russian": "ru", "bulgarian": "bg"}
NUMERICAL, TIME, STRING, UNKNOWN = "numerical", "time", "string", "string or time"
ENTITY_FIELDS = ("entity_id", "entity_text")


class InfoSeek(Task):
    """A gold is `answer_eval`: a list of aliases, or [{"wikidata": x, "range": [lo, hi]}] for a number."""

    name = "infoseek"
    rule = "infoseek"
    takes = ("question_types", "entities")

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The examples; each has the type and the entity that the other files name for its id."""
        types = None if files.question_types is None else _read_types(files.question_types)
        entities = {} if files.entities is None else _read_entities(files.entities)
        for path in files.paths:
            make = partial(self._read_row, language=language or _language_of(path), types=types, entities=entities)
            yield from self._examples(read_jsonl(path), make)

    def _read_row(
        self, row: FileRow, language: str, types: dict[str, str] | None, entities: dict[str, list[str]]
    ) -> Example:
        data_id, gold = row.identity("data_id"), _gold(row)
        kind = (NUMERICAL if number_range(gold) else UNKNOWN) if types is None else _type(data_id, gold, types)
        groups = {"type": kind, "language": language}
        if "data_split" in row.fields:
            split = row.text("data_split")
            groups = {"split": split, "type": kind, "split_type": f"{split} {kind}", "language": language}
        return self._example(
            row,
            gold,
            row.get("question"),
            language=language,
            groups=groups,
            image_names=image_names(row.get("image_id")),
            entities=entities.get(str(data_id)) or _entities(row),
        )

    def _official(self, example: Example, prediction: str) -> ScoredAnswer:
        answer = final_answer(prediction)
        numerical = number_range(example.gold) is not None
        parsed = text_or_none(answer) if not numerical or has_number(answer) else None
        return ScoredAnswer(parsed, score("infoseek", answer, example.gold))

    def _paper(self, example: Example, prediction: str) -> ScoredAnswer:
        text = paper.after_colon(prediction)
        if (limits := number_range(example.gold)) is not None:
            return ScoredAnswer(text_or_none(text) if has_number(text) else None, in_range_score(text, *limits))
        answer = paper.answer(text)
        if example.groups["type"] == TIME:
            right = any(paper.time_matches(text, gold) for gold in example.gold)
        else:
            right = any(answer == paper.answer(gold) for gold in example.gold)
        return ScoredAnswer(answer, float(right))

    def _own_figures(self, examples: Sequence[Example], scored: Sequence[ScoredAnswer]) -> dict[str, Any]:
        """The harmonic mean of unseen question and unseen entity; None where one of them has no question."""
        halves: dict[bool, list[float]] = {True: [], False: []}
        for example, answer in zip(examples, scored, strict=True):
            if "split" in example.groups:
                halves[example.groups["split"].endswith("unseen_question")].append(answer.score)
        if not all(halves.values()):
            return {"harmonic_means": {"final": None}}
        parts: list[Estimate] = [rounded(mean_of(scores, f"unseen question {half}")) for half, scores in halves.items()]
        return {"harmonic_means": {"final": harmonic(*parts).summary()}}


TASK = InfoSeek()


def _language_of(path: Path) -> str:
    return next((code for name, code in LANGUAGES.items() if name in path.name), "en")


def _gold(row: FileRow) -> Any:
    gold = row.get("answer_eval") or row.get("answer")
    check_gold("infoseek", gold)
    return gold


def _type(data_id: str | int, gold: Any, types: dict[str, str]) -> str:
    if str(data_id) not in types:
        raise RejectedRow("bad_field", f"the question types lack {data_id!r}")
    kind = types[str(data_id)]
    if (kind == NUMERICAL) != (number_range(gold) is not None):
        raise RejectedRow("bad_gold", f"a question of type {kind} with the answer_eval {gold!r}")
    return kind


def _read_types(path: Path) -> dict[str, str]:
    """Type by id, as the official script reads them: numerical, time, and everything else is a string."""
    types = {}
    for row in strict(read_jsonl(path)):
        kind = row.text("question_type").lower()
        types[str(row.identity("data_id"))] = kind if kind in (NUMERICAL, TIME) else STRING
    return types


def _read_entities(path: Path) -> dict[str, list[str]]:
    """The entity's Wikidata id and name by id, of a file like infoseek_val_withkb.jsonl."""
    return {str(row.identity("data_id")): _entities(row) for row in strict(read_jsonl(path))}


def _entities(row: FileRow) -> list[str]:
    return [value for name in ENTITY_FIELDS if isinstance(value := row.get(name), str)]
