"""Reads a source of `evaluation.sources`: the published files of a task, as questions to ask.

Every row of the files is a question, of another split, rejected with a reason, or left out (the task itself does not
score it: its answer is hidden, or too hard for its rule). A question whose image is not there stays a question, with a
fault. Images are looked up, not read. Knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path

from comem_ray.config import ConfigError, EvaluationSourceConfig, resolve
from comem_ray.prompts import BOXED_IN
from comem_ray.tasks import load_task
from comem_ray.tasks.example import IMAGE_MISSING, OFFICIAL, Example
from comem_ray.tasks.files import BROKEN_FILE, RejectedRow
from comem_ray.tasks.images import ImageAt, Images, images_at
from comem_ray.tasks.rules.scoring import NO_RULES, OwnRules
from comem_ray.tasks.task import Task, TaskFiles, check_gold


@dataclass
class SourceQuestions:
    """What the files of a source hold: the questions to ask, in order, and what became of all other rows."""

    label: str
    task: str
    questions: list[Example] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)  # {"where", "reason"}
    left_out: int = 0
    ids: set[str] = field(default_factory=set)  # of the questions and of those left out
    groups: Counter[str] = field(default_factory=Counter)  # every group that an example was in


def read_source(source: EvaluationSourceConfig, own_rules: OwnRules = NO_RULES) -> SourceQuestions:
    """The questions of a source. Raises ConfigError where a file is missing or of another kind, or none is left."""
    prefix = f"evaluation.sources: {source.label}: "
    try:
        questions = _read(source, own_rules)
    except ValueError as error:
        raise ConfigError(prefix + str(error)) from error
    if not questions.questions:
        groups = f"; there are {', '.join(sorted(questions.groups)[:20])}" if source.split else ""
        first = f", first {questions.rejected[0]['reason']}" if questions.rejected else ""
        raise ConfigError(f"{prefix}no question is left ({len(questions.rejected)} rows rejected{first}){groups}")
    return questions


def _read(source: EvaluationSourceConfig, own_rules: OwnRules) -> SourceQuestions:
    task, files = load_task(source.task), _files(source)
    task.check_files(files)
    images = images_at(_paths(source.images) if source.images else [files.paths[0].parent])
    questions = SourceQuestions(source.label, source.task)
    for example in task.read(files, source.language):
        if source.limit is not None and len(questions.questions) >= source.limit:
            break
        try:
            if isinstance(example, RejectedRow):
                raise example
            _add(source, task, questions, example, images, own_rules)
        except RejectedRow as rejected:
            if rejected.reason in BROKEN_FILE:
                raise
            questions.rejected.append({"where": str(rejected.place or example.place), "reason": rejected.detail})
    return questions


def _files(source: EvaluationSourceConfig) -> TaskFiles:
    further = {
        name: resolve(path)
        for name in ("question_types", "entities", "titles", "vocabulary")
        if (path := getattr(source, name)) is not None
    }
    return TaskFiles(_paths(source.paths), _paths(source.references), **further)


def _paths(patterns: Iterable[str]) -> list[Path]:
    """The files that the paths and globs name, those of a glob in order."""
    files: list[Path] = []
    for pattern in patterns:
        path = resolve(pattern)
        paths = [path] if path.exists() else [Path(p) for p in sorted(glob(str(path), recursive=True))]
        if not paths:
            raise ValueError(f"there is no file {path}")
        files += paths
    return files


def _add(
    source: EvaluationSourceConfig,
    task: Task,
    questions: SourceQuestions,
    example: Example,
    images: Images,
    own_rules: OwnRules,
) -> None:
    """Adds a question, or counts why it is left out. Raises RejectedRow for one that cannot be asked or scored."""
    questions.groups.update(example.groups.values())
    if source.split not in (None, *example.groups.values()):
        return
    if example.data_id in questions.ids:
        raise RejectedRow("duplicate", f"a second question with id {example.own_id!r}")
    if example.rule != OFFICIAL:
        check_gold(example.rule, example.gold, own_rules)
    text = task.ask(example)
    questions.ids.add(example.data_id)
    if example.gold is None:
        questions.left_out += 1
        return
    at = _image_at(example, images, own=source.images is None)
    questions.questions.append(
        replace(
            example,
            data_id=f"{source.label}/{example.data_id}",
            question=_with_instruction(source, text, example.language, task.boxed),
            source=source.label,
            image_at=at,
            fault=IMAGE_MISSING if at is None and example.image_names else None,
            choices=[],
            image_names=None,
        )
    )


def _image_at(example: Example, images: Images, own: bool) -> ImageAt | None:
    """Where the image is: in the example's own row, unless the source names other images."""
    if own and example.image_at is not None:
        return example.image_at
    return images.find(example.image_names or [])


def _with_instruction(source: EvaluationSourceConfig, text: str, language: str, boxed: bool) -> str:
    box = BOXED_IN.get(language, BOXED_IN["en"]) if source.answer_format == "boxed" and boxed else None
    instruction = source.instruction or box
    return f"{text}\n{instruction}" if instruction else text
