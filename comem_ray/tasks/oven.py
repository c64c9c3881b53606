"""OVEN: the generated name is linked to an entity (rules/titles.py), which must be the right one.

Files: `oven_entity_val.jsonl`, `oven_query_val.jsonl`; titles: `Wiki6M_ver_1_0_title_only.jsonl`. Without titles a name
is linked to the entities of the references alone: far fewer, so the figures are too high to compare with others'.
Own figures: for each of entity and query the harmonic mean of seen and unseen, then the harmonic mean of the two.
Source: oven_eval.py of the OVEN authors (Hu et al. 2023, arXiv 2302.11154); 50 characters and the cuts of the paper's
rules: run_bm25_query.py of the paper's authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from comem_ray.tasks.bootstrap import Estimate, harmonic, mean_of, rounded
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, RejectedRow, read_jsonl
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.rules.titles import TitleIndex, read_titles
from comem_ray.tasks.task import MISSING, OFFICIAL_SCORING, Examples, ScoredAnswer, Scoring, Task, TaskFiles

WARNING = "no --titles: names are linked to the entities of the references alone, which makes the figures too high"
WORDS_WARNING = (
    "no --vocabulary: titles are cut into words, not into BERT's word pieces as the authors do, so that some names are "
    "linked to other titles (the vocab.txt of bert-base-uncased mends it)"
)
PARTS, SIDES = ("query", "entity"), ("seen", "unseen")
LINKED = "wikidata:"
"""Begins a prediction that is an entity, not a name to be linked."""
_PAPER_LENGTH = 50


class Oven(Task):
    """A gold is (entity_id, entity_text)."""

    name = "oven"
    scored_together = True  # a name is linked to one of all entities
    takes = ("titles", "vocabulary")
    prediction_form = 'JSONL of {"data_id": ..., "pred_entity_id": "Q..."}'

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The examples; with titles, the entity's title is among its `entities`."""
        make = partial(self._read_row, language=language or "en", titles=_titles_of_entities(files))
        for path in files.paths:
            yield from self._examples(read_jsonl(path), make)

    def score(
        self, examples: Sequence[Example], answers: Sequence[str | None], scoring: Scoring = OFFICIAL_SCORING
    ) -> list[ScoredAnswer]:
        """The score of every answer; `metrics` name the entity it is linked to."""
        index = scoring.titles or TitleIndex(dict.fromkeys(tuple(example.gold) for example in examples))
        return [
            MISSING if answer is None else _score_one(example, answer, scoring, index)
            for example, answer in zip(examples, answers, strict=True)
        ]

    def prediction_text(self, row: FileRow) -> str:
        """The entity that the name is linked to already, where the row says so as the authors' files do; else the name.

        The authors' scorer takes `pred_entity_id`; their linker writes `bm25`: [title, id] pairs, best first.
        """
        if "pred_entity_id" in row.fields:
            return LINKED + row.text("pred_entity_id")
        match row.get("bm25"):
            case [[str(), str() as entity], *_]:
                return LINKED + entity
        return super().prediction_text(row)

    def warnings(self, scoring: Scoring) -> list[str]:
        """Figures without titles are too high; without word pieces some names are linked to other titles."""
        words_only = scoring.titles is not None and not scoring.titles.has_word_pieces
        own = [WARNING] if scoring.titles is None else [WORDS_WARNING] if words_only else []
        return super().warnings(scoring) + own

    def _read_row(self, row: FileRow, language: str, titles: dict[Any, str]) -> Example:
        split = row.text("data_split")
        part, side = _cell(split)
        if part not in PARTS or side not in SIDES:
            raise RejectedRow("bad_field", f"data_split is {split!r}, wanted one like 'query_val_seen'")
        entity, text = row.text("entity_id"), row.text("entity_text")
        return self._example(
            row,
            (entity, text),
            row.get("question"),
            language=language,
            groups={"split": split},
            image_names=image_names(row.get("image_id")),
            entities=[entity, text, *([titles[entity]] if entity in titles else [])],
        )

    def _own_figures(self, examples: Sequence[Example], scored: Sequence[ScoredAnswer]) -> dict[str, Any]:
        """The harmonic means "query", "entity" and "final"; None where a part of one has no question."""
        cells: dict[tuple[str, str], list[float]] = {}
        for example, answer in zip(examples, scored, strict=True):
            cells.setdefault(_cell(example.groups["split"]), []).append(answer.score)
        means = {part: _harmonic(cells, part) for part in PARTS}
        both = [mean for mean in means.values() if mean is not None]
        means["final"] = harmonic(*both) if len(both) == len(PARTS) else None
        return {"harmonic_means": {name: mean and mean.summary() for name, mean in means.items()}}


TASK = Oven()


def image_names(image_id: Any) -> list[str] | None:
    """An image of OVEN lies in one folder with all others, or, as in its download, in one of two of its digits."""
    return [image_id, f"{image_id[5:7]}/{image_id}"] if isinstance(image_id, str) else None


def _titles_of_entities(files: TaskFiles) -> dict[Any, str]:
    """The titles of the entities that the files name; none without a file of titles."""
    if files.titles is None:
        return {}
    rows = (row for path in files.paths for row in read_jsonl(path) if isinstance(row, FileRow))
    entities = {entity for row in rows if isinstance(entity := row.get("entity_id"), str)}
    return {entity: title for entity, title in read_titles(files.titles) if entity in entities}


def _score_one(example: Example, prediction: str, scoring: Scoring, index: TitleIndex) -> ScoredAnswer:
    if prediction.startswith(LINKED):
        entity = prediction.removeprefix(LINKED)
        return ScoredAnswer(entity, float(entity == example.gold[0]), {"entity_id": entity})
    paper_name = paper.answer(prediction)[:_PAPER_LENGTH]
    name = paper_name if scoring.rules == "paper" else final_answer(prediction)
    link = index.link(name)
    if link is None:
        return MISSING
    entity, title = link
    return ScoredAnswer(name, float(entity == example.gold[0]), {"entity_id": entity, "title": title})


def _harmonic(cells: dict[tuple[str, str], list[float]], part: str) -> Estimate | None:
    if not all((part, side) in cells for side in SIDES):
        return None
    return harmonic(*(rounded(mean_of(cells[part, side], f"{part} {side}")) for side in SIDES))


def _cell(split: str) -> tuple[str, str]:
    """("query" or "entity", "seen" or "unseen") of a split like "query_val_seen"."""
    return split.split("_")[0], split.split("_")[-1]
