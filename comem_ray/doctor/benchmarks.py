"""The files of the benchmarks in `evaluation.sources`: present, of which digest, with how many rows and images.

Every file is read as a whole, for its SHA-256. Images are looked up, not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

from comem_ray.artifacts import file_sha256
from comem_ray.config import Config, ConfigError, EvaluationSourceConfig, resolve
from comem_ray.doctor.finding import Finding
from comem_ray.doctor.published import PUBLISHED, documented_rows
from comem_ray.evaluation.sources import SourceQuestions, read_source
from comem_ray.home import home_hint
from comem_ray.tasks.example import IMAGE_MISSING
from comem_ray.tasks.rules.own import import_rules
from comem_ray.tasks.rules.scoring import OwnRules

SINGLE_FILES = ("question_types", "entities", "titles", "vocabulary")


def check_benchmarks(config: Config) -> Iterator[Finding]:
    """The findings of every source of the evaluation, then a note on each benchmark that has none."""
    sources = config.evaluation.sources if config.evaluation else []
    own_rules = import_rules(config.scoring_rules)
    if config.evaluation and config.evaluation.questions is not None:
        yield _own_questions(resolve(config.evaluation.questions))
    for source in sources:
        yield from check_source(source, own_rules)
    for task in PUBLISHED:
        if task not in {source.task for source in sources}:
            yield Finding(task, "not configured", "note", f"no source of the evaluation asks it. {_origin(task)}")


def _own_questions(path: Path) -> Finding:
    if not path.is_file():
        return Finding("questions", "evaluation.questions", "missing", f"there is no file {path}{home_hint(path)}")
    return _file("questions", "evaluation.questions", path)


def check_source(source: EvaluationSourceConfig, own_rules: OwnRules) -> Iterator[Finding]:
    """The findings of one source: its files one by one, then its rows and images."""
    findings = list(_files(source))
    yield from findings
    if any(finding.is_fault for finding in findings):
        yield Finding(source.label, "origin", "note", _origin(source.task))
        return
    try:
        whole = source.model_copy(update={"limit": None, "split": None})
        questions = read_source(whole, own_rules)
    except ConfigError as error:
        yield Finding(source.label, "questions", "wrong", f"{error}. {_origin(source.task)}")
        return
    yield _rows(source, questions)
    yield _images(source, questions)


def _files(source: EvaluationSourceConfig) -> Iterator[Finding]:
    named = [("paths", path) for path in source.paths] + [("references", path) for path in source.references]
    named += [(name, path) for name in SINGLE_FILES if (path := getattr(source, name)) is not None]
    for field, pattern in named:
        files = _matches(pattern)
        if not files:
            path = resolve(pattern)
            yield Finding(source.label, field, "missing", f"there is no file {path}{home_hint(path)}")
        for file in files:
            yield _file(source.label, field, file)
    for pattern in source.images or []:
        if not _matches(pattern):
            yield Finding(source.label, "images", "missing", f"there is nothing at {resolve(pattern)}")


def _matches(pattern: str) -> list[Path]:
    path = resolve(pattern)
    return [path] if path.exists() else [Path(p) for p in sorted(glob(str(path), recursive=True))]


def _file(label: str, field: str, path: Path) -> Finding:
    try:
        digest, size = file_sha256(path), path.stat().st_size
    except OSError as error:
        return Finding(label, field, "wrong", f"{path} cannot be read: {error.strerror}")
    facts: dict[str, Any] = {"path": str(path), "bytes": size, "sha256": digest, "published_sha256": None}
    return Finding(label, field, "ok", f"{path}: {size:,} bytes, SHA-256 {digest} (no published checksum)", facts)


def _rows(source: EvaluationSourceConfig, questions: SourceQuestions) -> Finding:
    count, rejected = len(questions.questions), len(questions.rejected)
    rows = count + rejected + questions.left_out
    expected = documented_rows(source.task, [path.name for pattern in source.paths for path in _matches(pattern)])
    facts = {
        "rows": rows,
        "questions": count,
        "rejected": rejected,
        "left_out": questions.left_out,
        "documented_rows": expected,
    }
    text = f"{rows:,} rows: {count:,} questions, {questions.left_out:,} without a public answer, {rejected:,} rejected"
    if rejected:
        text += f" (the first: {questions.rejected[0]['where']}: {questions.rejected[0]['reason']})"
    if expected is None:
        return Finding(source.label, "rows", "ok", f"{text}. Its authors document no number of rows", facts)
    if rows < expected:
        lacking = f"its authors document {expected:,}: {expected - rows:,} are missing. {_origin(source.task)}"
        return Finding(source.label, "rows", "missing", f"{text}; {lacking}", facts)
    if rows > expected:
        return Finding(source.label, "rows", "note", f"{text}; its authors document {expected:,}", facts)
    return Finding(source.label, "rows", "ok", f"{text}, as many as its authors document", facts)


def _images(source: EvaluationSourceConfig, questions: SourceQuestions) -> Finding:
    named = [q for q in questions.questions if q.image_at is not None or q.fault == IMAGE_MISSING]
    missing = [q for q in named if q.fault == IMAGE_MISSING]
    present = len(named) - len(missing)
    facts = {"named": len(named), "present": present}
    text = f"{present:,} of the images of {len(named):,} questions are there"
    if not missing:
        return Finding(source.label, "images", "ok", text, facts)
    benchmark = PUBLISHED.get(source.task)
    wanted = f". Where they come from: {benchmark.images}" if benchmark else ""
    first = f"the first that is not is of question {missing[0].data_id}"
    return Finding(source.label, "images", "missing", f"{text}; {first}{wanted}", facts)


def _origin(task: str) -> str:
    benchmark = PUBLISHED.get(task)  # type: ignore[call-overload]
    if benchmark is None:
        return "It is a file of your own"
    further = "".join(f"; {name}: {use}" for name, use in benchmark.files.items())
    rows = [f"{name} {count:,}" for name, count in benchmark.rows.items()]
    rows += [f"{benchmark.rows_of_all:,} in all files"] if benchmark.rows_of_all else []
    documented = f" Documented rows: {', '.join(rows)}." if rows else ""
    text = f"{benchmark.title} comes from {benchmark.home}: {benchmark.questions}{further}."
    return f"{text}{documented} Its images: {benchmark.images}"
