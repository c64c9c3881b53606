"""Questions with gold answers: InfoSeek, Encyclopedic-VQA, OK-VQA, and plain JSONL.

    {"data_id": "a1", "question": "...", "image": "a.jpg", "answers": ["..."], "language": "en", "rule": "exact"}

A row of a file is a `GoldQuestion`, or a `Rejection` with file, row and reason; nothing a file holds raises. Rows of
another split than the source's are passed over. Images are looked up by name; their bytes are not read. Knows nothing
of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from comem_ray.artifacts import fingerprint
from comem_ray.config import ConfigError, SynthesisSourceConfig, resolve
from comem_ray.tasks.images import ImageFolder
from comem_ray.tasks.rows import Numbered, RejectedRow
from comem_ray.tasks.rules.scoring import Rule, score
from comem_ray.training.data.question_formats import READERS

DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class GoldQuestion:
    """A question and what its rule scores an answer against. `image` is a path, None for a question without one."""

    benchmark: str
    data_id: str
    text: str
    image: str | None
    rule: Rule
    gold: Any
    language: str
    source: str
    source_row: int

    @property
    def sample_id(self) -> str:
        """24 hex digits: the same question in the same language has the same one."""
        return fingerprint([self.benchmark, self.data_id, self.language])[:24]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that makes no sample. Rows count from 0, the first behind a header; `answer` is what the VLM said."""

    source: str
    source_row: int
    reason: str  # a code, such as "wrong_answer"
    detail: str  # a sentence
    data_id: str | None = None
    answer: str | None = None


def read_questions(source: SynthesisSourceConfig) -> Iterator[GoldQuestion | Rejection]:
    """The rows of a source in order. Raises ConfigError where a file or the folder of images is not there."""
    paths = [resolve(p) for p in (source.path, source.annotations) if p is not None]
    if missing := [p for p in paths if not p.is_file()]:
        raise ConfigError(f"synthesis.sources: there is no file {missing[0]}")
    folder = resolve(source.images) if source.images else paths[0].parent
    if not folder.is_dir():
        raise ConfigError(f"synthesis.sources: the folder of images {folder} is not there")
    reader = READERS[source.format]
    return islice(_checked(source, paths[0].name, reader(source, paths, ImageFolder(folder))), source.limit)


def _checked(source: SynthesisSourceConfig, file: str, rows: Iterable[Numbered]) -> Iterator[GoldQuestion | Rejection]:
    benchmark = source.benchmark or source.format
    for number, row in rows:
        if isinstance(row, RejectedRow):
            yield Rejection(file, number, row.reason, row.detail, row.data_id)
            continue
        try:
            score(row["rule"], "", row["gold"])
        except ValueError as error:
            yield Rejection(file, number, "bad_gold", str(error), row["data_id"])
            continue
        named = {"language": source.language, **row}
        yield GoldQuestion(**named, benchmark=benchmark, source=file, source_row=number)


def without_duplicates(rows: Iterable[GoldQuestion | Rejection]) -> Iterator[GoldQuestion | Rejection]:
    """The rows, with a Rejection of reason DUPLICATE in the place of a question that came before."""
    seen = set()
    for row in rows:
        if isinstance(row, GoldQuestion) and (sample_id := bytes.fromhex(row.sample_id)) in seen:
            yield Rejection(row.source, row.source_row, DUPLICATE, "the same question came before", row.data_id)
            continue
        if isinstance(row, GoldQuestion):
            seen.add(sample_id)
        yield row
