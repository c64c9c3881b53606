"""What all tasks have in common: their files, how answers are scored, and `Task`, of which every task is a child.

Knows no single task, no model and no configuration of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from comem_ray.config.evaluation import TaskName
from comem_ray.tasks.bootstrap import group_summaries, groups_of, mean_of
from comem_ray.tasks.example import OFFICIAL, Example
from comem_ray.tasks.files import FileRow, RejectedRow, Rows, encodable
from comem_ray.tasks.rules import paper
from comem_ray.tasks.rules.scoring import NO_RULES, OwnRules, Rule, UnknownRule, score

if TYPE_CHECKING:
    from comem_ray.tasks.rules.titles import TitleIndex

Examples = Iterator[Example | RejectedRow]


@dataclass(frozen=True)
class TaskFiles:
    """The files of a task: those of its questions, and others that some tasks take (`Task.takes`)."""

    paths: Sequence[Path]
    references: Sequence[Path] = ()
    question_types: Path | None = None
    entities: Path | None = None
    titles: Path | None = None
    vocabulary: Path | None = None


@dataclass(frozen=True)
class Scoring:
    """By whose rules answers are scored, and what the rules of some tasks need."""

    rules: Literal["official", "paper"] = "official"
    titles: TitleIndex | None = None  # OVEN's; None: the names in its own references
    own_rules: OwnRules = field(default_factory=dict)


OFFICIAL_SCORING = Scoring()


@dataclass(frozen=True)
class ScoredAnswer:
    """`parsed` is the answer that the rule took from a text, None where it holds none; `score` is in 0..1."""

    parsed: str | None
    score: float
    metrics: dict[str, Any] = field(default_factory=dict)  # further figures of some tasks


MISSING = ScoredAnswer(None, 0.0)


class Task:
    """A published set of questions, or a format of them: read its files, ask, score, aggregate.

    A child defines `read`, and for its scores `_official` and `_paper` (one answer each) or `score` itself.
    """

    name: TaskName
    id_field = "data_id"
    question_field = "question"
    rule: Rule | None = None  # scores one of its answers too; None: `score` alone can, and it gives no training samples
    official = True  # whether its authors publish a rule
    has_paper_rules = True  # whether the paper's authors have a scorer of their own for it
    percent_first = False  # 100 * sum / n in the official script, where others have sum / n * 100
    scored_together = False  # whether an answer's score depends on the other examples
    boxed = True  # whether its answers are short enough for a box
    takes: tuple[str, ...] = ()  # fields of TaskFiles other than `paths`
    prediction_ids: tuple[str, ...] = ()  # further fields that hold the id in its authors' files of predictions
    prediction_fields: tuple[str, ...] = ()  # further fields that hold the text there
    prediction_form = ""  # the form of these files, where it is not ours

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The examples of the files in order, and the rows that make none.

        `language` is that of the questions; None: as the files say, else "en". Raises ValueError for a file that cannot
        be read at all. A row may lack what only asking needs: `ask` says so.
        """
        raise NotImplementedError

    def ask(self, example: Example) -> str:
        """The words to ask with, options among them. Raises RejectedRow where the row holds no question or no image."""
        if not example.question.strip():
            raise RejectedRow("bad_field", f"field {self.question_field!r} holds no text")
        if example.image_names is None and example.image_at is None:
            raise RejectedRow("bad_field", "the row names no image")
        return encodable(self.question_field, example.question)

    def score(
        self, examples: Sequence[Example], answers: Sequence[str | None], scoring: Scoring = OFFICIAL_SCORING
    ) -> list[ScoredAnswer]:
        """The score of every answer; one that is missing (None) is wrong. Raises ValueError for rules there are not."""
        self.check_rules(scoring)
        score_one = self._paper if scoring.rules == "paper" else self._official
        pairs = zip(examples, answers, strict=True)
        return [MISSING if answer is None else score_one(example, answer) for example, answer in pairs]

    def aggregate(self, examples: Sequence[Example], scored: Sequence[ScoredAnswer]) -> dict[str, Any]:
        """The figures of scored answers in percent, with 95% intervals: overall, the task's own, and by group."""
        overall = mean_of([answer.score for answer in scored], "overall", self.percent_first).summary()
        groups = groups_of((example.groups, answer.score) for example, answer in zip(examples, scored, strict=True))
        return {
            "overall": overall["score"],
            "interval": overall["interval"],
            **self._own_figures(examples, scored),
            **group_summaries(groups, self.percent_first),
        }

    def prediction_text(self, row: FileRow) -> str:
        """The text of a row of a file of predictions, in our form or the authors'. Raises RejectedRow without one."""
        name = next((name for name in ("prediction", *self.prediction_fields) if name in row.fields), None)
        if name is None:
            raise RejectedRow("bad_field", f"field 'prediction' is missing: {self.wanted_prediction()}", row.place)
        value = row.get(name)
        return value if isinstance(value, str) else row.text(name)

    def wanted_prediction(self) -> str:
        """The forms of a file of predictions, for messages."""
        ours = 'want JSONL of {"data_id": ..., "prediction": "..."}'
        return f"{ours}, or {self.prediction_form}" if self.prediction_form else ours

    def warnings(self, scoring: Scoring) -> list[str]:
        """What a reader of the figures must know."""
        return [paper.WARNING] if scoring.rules == "paper" else []

    def check_rules(self, scoring: Scoring) -> None:
        """Raises ValueError where there are no such rules for the task."""
        if scoring.rules == "paper" and not self.has_paper_rules:
            raise ValueError(f"the paper's authors have no scorer for {self.name}")

    def check_files(self, files: TaskFiles) -> None:
        """Raises ValueError for a file that the task does not take."""
        for name in ("references", "question_types", "entities", "titles", "vocabulary"):
            if getattr(files, name) and name not in self.takes:
                raise ValueError(f"task {self.name} does not take {name}: leave it out")

    def _example(self, row: FileRow, gold: Any, question: Any, rule: str = OFFICIAL, **fields: Any) -> Example:
        """The example of a row; `question` is whatever stands in its field."""
        own_id = row.identity(self.id_field)
        return Example(
            data_id=str(own_id),
            question=question if isinstance(question, str) else "",
            image=None,
            rule=rule,
            gold=gold,
            task=self.name,
            own_id=own_id,
            place=row.place,
            **fields,
        )

    def _examples(self, rows: Rows, make: Callable[[FileRow], Example]) -> Examples:
        """The example that `make` makes of each row, or the row rejected."""
        for row in rows:
            try:
                yield row if isinstance(row, RejectedRow) else make(row)
            except RejectedRow as rejected:
                assert isinstance(row, FileRow)
                yield rejected.at(row, self.id_field)

    def _official(self, example: Example, prediction: str) -> ScoredAnswer:
        """The score by the rule of the task's authors."""
        raise NotImplementedError

    def _paper(self, example: Example, prediction: str) -> ScoredAnswer:
        """The score as the paper's authors compute it (rules/paper.py)."""
        raise NotImplementedError

    def _own_figures(self, examples: Sequence[Example], scored: Sequence[ScoredAnswer]) -> dict[str, Any]:
        """Further figures of the task; those of the same name replace the mean's."""
        return {}


def check_gold(rule: str, gold: Any, own_rules: OwnRules = NO_RULES) -> None:
    """Raises RejectedRow for a rule that is unknown, and for a gold that the rule cannot use."""
    try:
        score(rule, "", gold, own_rules)
    except UnknownRule as error:
        raise RejectedRow("bad_field", f"field 'rule': {error}") from error
    except ValueError as error:
        raise RejectedRow("bad_gold", str(error)) from error


def text_or_none(text: str) -> str | None:
    """A free answer as it stands, or None where it holds nothing."""
    return text if text.strip() else None
