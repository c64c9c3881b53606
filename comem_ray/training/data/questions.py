"""Questions to make training samples of: the examples of `synthesis.sources`, with their images looked up.

A row of a file is an `Example`, or a `RejectedSample` with file, row and reason. Rows of another split than the
source's are passed over. Images are looked up by name; their bytes are not read. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from comem_ray.artifacts import fingerprint
from comem_ray.config import ConfigError, SynthesisSourceConfig, resolve
from comem_ray.tasks import TASK_NAMES, load_task
from comem_ray.tasks.example import IMAGE_MISSING, OFFICIAL, Example
from comem_ray.tasks.files import RejectedRow
from comem_ray.tasks.images import Images, images_at
from comem_ray.tasks.rules.scoring import NO_RULES, OwnRules
from comem_ray.tasks.task import Task, TaskFiles, check_gold

DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class RejectedSample:
    """A question or row that makes no sample. Rows count from 0, the first behind a header."""

    source: str  # name of the file
    source_row: int
    reason: str  # a code, such as "wrong_answer"
    detail: str  # a sentence
    data_id: str | None = None
    answer: str | None = None  # of the VLM, where it was asked


def sample_id(example: Example) -> str:
    """24 hex digits: the same question in the same language has the same ones."""
    return fingerprint([example.source, example.data_id, example.language])[:24]


def rejected_sample(example: Example, reason: str, detail: str, answer: str | None = None) -> RejectedSample:
    """The example as one that makes no sample."""
    assert example.place is not None
    place = example.place
    return RejectedSample(place.path.name, place.number, reason, detail, example.data_id, answer)


def read_questions(source: SynthesisSourceConfig, own_rules: OwnRules = NO_RULES) -> Iterator[Example | RejectedSample]:
    """The rows of a source in order.

    Raises ConfigError, some of them while the rows are read, where the task gives no training samples, a file is not
    there or is of another kind, or no row is of the split.
    """
    task = load_task(source.task)
    if task.rule is None:
        trainable = [name for name in TASK_NAMES if load_task(name).rule is not None]
        raise _refusal(f"no rule scores one answer of task {task.name}: want {', '.join(trainable)}")
    paths = [resolve(p) for p in (source.path, source.annotations) if p is not None]
    if missing := [p for p in paths if not p.is_file()]:
        raise _refusal(f"there is no file {missing[0]}")
    try:
        images = images_at([resolve(source.images) if source.images else paths[0].parent])
    except ValueError as error:
        raise _refusal(str(error)) from error
    if source.annotations is not None and "references" not in task.takes:
        raise _refusal(f"task {task.name} has no annotations: leave them out")
    return islice(_rows(source, task, TaskFiles(paths[:1], paths[1:]), images, own_rules), source.limit)


def without_duplicates(
    rows: Iterable[tuple[str, Example | RejectedSample]],
) -> Iterator[tuple[str, Example | RejectedSample]]:
    """Rows with their sources' names; in the place of a question that came before a RejectedSample (DUPLICATE)."""
    ids = set()
    for source, row in rows:
        if isinstance(row, Example):
            digest = bytes.fromhex(sample_id(row))
            if digest in ids:
                yield source, rejected_sample(row, DUPLICATE, "the same question came before")
                continue
            ids.add(digest)
        yield source, row


def _rows(
    source: SynthesisSourceConfig, task: Task, files: TaskFiles, images: Images, own_rules: OwnRules
) -> Iterator[Example | RejectedSample]:
    groups, chosen = set[str](), False
    try:
        for row in task.read(files, source.language):
            if isinstance(row, RejectedRow):
                yield _rejected(row)
                continue
            groups |= set(row.groups.values())
            if source.split not in (None, *row.groups.values()):
                continue
            chosen = True
            yield _question(source, task, row, images, own_rules)
    except ValueError as error:
        raise _refusal(str(error)) from error
    if source.split and not chosen:
        names = ", ".join(sorted(groups)[:20]) or "none: its rows name no split"
        raise _refusal(f"no row of {files.paths[0]} is of split {source.split!r}; there are {names}")


def _question(
    source: SynthesisSourceConfig, task: Task, example: Example, images: Images, own_rules: OwnRules
) -> Example | RejectedSample:
    """The example with the words to ask, its rule and its image looked up."""
    rule = task.rule if example.rule == OFFICIAL else example.rule
    assert rule is not None
    try:
        text = task.ask(example)
        check_gold(rule, example.gold, own_rules)
        at = example.image_at or images.find(example.image_names or [])
        if at is None and example.image_names:
            raise RejectedRow(IMAGE_MISSING, f"there is no image {example.image_names[0]!r} in {images.folder}")
    except RejectedRow as rejected:
        return rejected_sample(example, rejected.reason, rejected.detail)
    name = source.name or source.task
    return replace(example, question=text.strip(), rule=rule, source=name, image_at=at, image_names=None)


def _rejected(row: RejectedRow) -> RejectedSample:
    assert row.place is not None
    return RejectedSample(row.place.path.name, row.place.number, row.reason, row.detail, row.data_id)


def _refusal(message: str) -> ConfigError:
    return ConfigError(f"synthesis.sources: {message}")
