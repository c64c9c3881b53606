"""Reads a source of `evaluation.sources`: the published files of a benchmark, as questions to ask.

Every row of the files is a question, of another split, rejected with a reason, or left out (the benchmark itself does
not score it: its answer is hidden, or too hard for its rule). A question whose image is not there stays a question,
with a fault. Images are found, not read. Knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from comem_ray.config import ConfigError, EvaluationSourceConfig, SynthesisSourceConfig, resolve
from comem_ray.evaluation.questions import MISSING, EvaluationQuestion
from comem_ray.prompts import BOXED_IN
from comem_ray.tasks import aokvqa, coco, cvqa, infoseek, mrag, okvqa, oven, viquae
from comem_ray.tasks.images import ImageAt, ImageFolder, Images, images_at
from comem_ray.tasks.records import Asked, Question, Row
from comem_ray.tasks.rows import RejectedRow
from comem_ray.tasks.rules.scoring import score
from comem_ray.tasks.rules.titles import read_titles
from comem_ray.training.data.question_formats import READERS

PLAIN = "jsonl"


class _Files(NamedTuple):
    """How a benchmark's files become questions (comem_ray/evaluation/benchmarks)."""

    rows: Callable[[Sequence[Path]], Iterator[tuple[str, Row]]]
    question: Callable[[str, dict[str, Any]], Question]
    asked: Callable[[str, dict[str, Any]], Asked]


FILES = {
    "infoseek": _Files(infoseek.rows, infoseek.question, infoseek.asked),
    "oven": _Files(oven.rows, oven.question, oven.asked),
    "mrag": _Files(mrag.rows, mrag.question, mrag.asked),
    "okvqa": _Files(okvqa.rows, okvqa.question, okvqa.asked),
    "aokvqa": _Files(aokvqa.rows, aokvqa.question, aokvqa.asked),
    "aokvqa-mc": _Files(aokvqa.rows, aokvqa.question_choices, aokvqa.asked_choices),
    "viquae": _Files(viquae.rows, viquae.question, viquae.asked),
    "cvqa": _Files(cvqa.rows, cvqa.question, cvqa.asked),
    "coco": _Files(coco.rows, coco.question, coco.asked),
}


@dataclass
class SourceQuestions:
    """What the files of a source hold: the questions to ask, in order, and the fate of all other rows."""

    label: str
    benchmark: str
    questions: list[EvaluationQuestion] = field(default_factory=list)
    entities: dict[str, list[str]] = field(default_factory=dict)  # by data_id, where known
    rejected: list[dict[str, str]] = field(default_factory=list)  # {"where", "reason"}
    left_out: int = 0
    seen: set[str] = field(default_factory=set)
    splits: Counter[str] = field(default_factory=Counter)  # every group that a question was in


def read_source(source: EvaluationSourceConfig) -> SourceQuestions:
    """The questions of a source. Raises ConfigError where a file is missing or of another kind, or none is left."""
    said = f"evaluation.sources: {source.label}: "
    try:
        found = _read(source, _paths([*source.paths, *source.references]))
    except ValueError as error:
        raise ConfigError(said + str(error)) from error
    if not found.questions:
        splits = f"; there are {', '.join(sorted(found.splits)[:20])}" if source.split else ""
        first = f", first {found.rejected[0]['reason']}" if found.rejected else ""
        raise ConfigError(f"{said}no question is left ({len(found.rejected)} rows rejected{first}){splits}")
    return found


def _paths(patterns: Iterable[str]) -> list[Path]:
    """The files that the paths and globs name, those of a glob in order."""
    found = []
    for pattern in patterns:
        path = resolve(pattern)
        paths = [path] if path.exists() else [Path(p) for p in sorted(glob(str(path), recursive=True))]
        if not paths:
            raise ValueError(f"there is no file {path}")
        found += paths
    return found


def _read(source: EvaluationSourceConfig, paths: Sequence[Path]) -> SourceQuestions:
    at = _paths(source.images) if source.images else [paths[0].parent]
    images, found = images_at(at), SourceQuestions(source.label, source.benchmark)
    if source.benchmark == PLAIN:
        _read_plain(source, paths, images, found)
        return found
    files = _files(source)
    for where, row in files.rows(paths):
        if source.limit is not None and len(found.questions) >= source.limit:
            break
        try:
            if isinstance(row, ValueError):
                raise row
            _add(source, found, files.question(where, row), files.asked(where, row), images)
        except ValueError as error:
            found.rejected.append({"where": where, "reason": str(error).removeprefix(f"{where}: ")})
    return found


def _files(source: EvaluationSourceConfig) -> _Files:
    """The benchmark's own, with what the source adds."""
    files = FILES[source.benchmark]
    if source.benchmark == "infoseek":
        return _of_infoseek(source, files)
    if source.benchmark == "cvqa" and source.language == "en":
        return files._replace(asked=partial(cvqa.asked, english=True))
    if source.titles is not None:
        rows = (row for _, row in files.rows(_paths(source.paths)) if isinstance(row, dict))
        wanted = {row.get("entity_id") for row in rows}
        titles = {entity: title for entity, title in read_titles(resolve(source.titles)) if entity in wanted}
        return files._replace(asked=lambda where, row: _titled(oven.asked(where, row), titles))
    return files


def _of_infoseek(source: EvaluationSourceConfig, files: _Files) -> _Files:
    types = None if source.question_types is None else infoseek.read_types(resolve(source.question_types))
    known = {} if source.entities is None else infoseek.read_entities(resolve(source.entities))
    language = {} if source.language is None else {"language": source.language}
    return files._replace(
        question=lambda where, row: infoseek.question(where, {**row, **language}, types),
        asked=lambda where, row: infoseek.asked(where, {**row, **known.get(str(row["data_id"]), {})}),
    )


def _titled(asked: Asked, titles: dict[str, str]) -> Asked:
    asked.entities.extend(titles[entity] for entity in asked.entities[:1] if entity in titles)
    return asked


def _add(
    source: EvaluationSourceConfig, found: SourceQuestions, question: Question, asked: Asked, images: Images
) -> None:
    found.splits.update(question.groups.values())
    if source.split not in (None, *question.groups.values()):
        return
    if str(question.data_id) in found.seen:
        raise ValueError(f"a second question with id {question.data_id!r}")
    found.seen.add(str(question.data_id))
    if question.gold is None:
        found.left_out += 1
        return
    language = source.language or question.groups.get("language", "en")
    at = asked.own if asked.own is not None and source.images is None else images.find(_names(question, asked))
    made = EvaluationQuestion(
        data_id=f"{source.label}/{question.data_id}",
        question=_with_instruction(source, asked.text, language, asked.boxed),
        image=None,
        rule="official",
        gold=question.gold,
        language=language,
        groups=question.groups,
        source=source.label,
        benchmark=source.benchmark,
        own_id=question.data_id,
        image_at=at,
        fault=MISSING if at is None else None,
    )
    found.questions.append(made)
    if asked.entities:
        found.entities[made.data_id] = asked.entities


def _names(question: Question, asked: Asked) -> list[str]:
    return asked.images or [str(question.data_id)]


def _with_instruction(source: EvaluationSourceConfig, text: str, language: str, boxed: bool) -> str:
    asks = BOXED_IN.get(language, BOXED_IN["en"]) if source.answer_format == "boxed" and boxed else None
    instruction = source.instruction or asks
    return f"{text}\n{instruction}" if instruction else text


def _read_plain(source: EvaluationSourceConfig, paths: Sequence[Path], images: Images, found: SourceQuestions) -> None:
    """Our own JSONL, as the training data has it (comem_ray/training/data/questions.py)."""
    for path in paths:
        rows = READERS[PLAIN](SynthesisSourceConfig(format=PLAIN, path=str(path)), [path], images)  # type: ignore[arg-type]
        for number, row in rows:
            if source.limit is not None and len(found.questions) >= source.limit:
                return
            where = f"{path}, row {number}"
            try:
                found.questions.append(_plain(source, row, found.seen))
            except ValueError as error:
                found.rejected.append({"where": where, "reason": str(error)})


def _plain(source: EvaluationSourceConfig, row: dict[str, Any] | RejectedRow, seen: set[str]) -> EvaluationQuestion:
    if isinstance(row, RejectedRow):
        if row.reason != MISSING or row.data_id is None:
            raise row
        row = {"data_id": row.data_id, "text": "", "rule": "exact", "gold": [""], "image": None, "fault": MISSING}
    if row["data_id"] in seen:
        raise ValueError(f"a second question with id {row['data_id']!r}")
    score(row["rule"], "", row["gold"])  # refuses a gold that the rule cannot use
    seen.add(row["data_id"])
    at, language = row["image"], row.get("language") or source.language or "en"
    if isinstance(at, str):
        at = ImageFolder(Path(at).parent).find([Path(at).name])
    assert at is None or isinstance(at, ImageAt)
    return EvaluationQuestion(
        data_id=f"{source.label}/{row['data_id']}",
        question=_with_instruction(source, row["text"], language, True),
        image=None,
        rule=row["rule"],
        gold=row["gold"],
        language=language,
        source=source.label,
        own_id=row["data_id"],
        image_at=at,
        fault=row.get("fault"),
    )
