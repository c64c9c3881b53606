"""Questions of one's own, one JSON object per line.

    {"data_id": "a1", "question": "...", "image": "a.jpg", "answers": ["..."], "language": "en", "rule": "exact"}

`image` is a path below the folder of images, or null. `rule` names a scoring rule (rules/scoring.py), or one that the
configuration defines (scoring_rules); without it "exact". `answers` is the gold in that rule's form.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, RejectedRow, read_jsonl
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.rules.scoring import score
from comem_ray.tasks.task import (
    MISSING,
    OFFICIAL_SCORING,
    Examples,
    ScoredAnswer,
    Scoring,
    Task,
    TaskFiles,
    text_or_none,
)


class Jsonl(Task):
    """A gold is the field `answers`; the rule is the row's own."""

    name = "jsonl"
    rule = "exact"
    official = False
    has_paper_rules = False

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The examples; a language that a row names wins over `language`."""
        for path in files.paths:
            yield from self._examples(read_jsonl(path), partial(self._read_row, language=language or "en"))

    def score(
        self, examples: Sequence[Example], answers: Sequence[str | None], scoring: Scoring = OFFICIAL_SCORING
    ) -> list[ScoredAnswer]:
        """The score of every answer by the example's own rule. Raises UnknownRule for an unknown name."""
        self.check_rules(scoring)
        scored = []
        for example, answer in zip(examples, answers, strict=True):
            if answer is None:
                scored.append(MISSING)
                continue
            text = final_answer(answer)
            scored.append(ScoredAnswer(text_or_none(text), score(example.rule, text, example.gold, scoring.own_rules)))
        return scored

    def _read_row(self, row: FileRow, language: str) -> Example:
        rule, image = row.get("rule") or "exact", row.get("image")
        if not isinstance(rule, str):
            raise RejectedRow("bad_field", f"field 'rule' is {rule!r}, wanted the name of a scoring rule")
        if not isinstance(image, str | None):
            raise RejectedRow("bad_field", f"field 'image' is {image!r}, wanted a path or null")
        return self._example(
            row,
            _gold(rule, row.get("answers")),
            row.get("question"),
            rule=rule,
            language=row.text("language") if row.get("language") else language,
            image_names=[image] if image else [],
        )


TASK = Jsonl()


def _gold(rule: str, answers: Any) -> Any:
    """Encyclopedic-VQA has its answers in one text; a list of them is joined to it."""
    return "|".join(map(str, answers)) if rule == "encyclopedic_vqa" and isinstance(answers, list) else answers
