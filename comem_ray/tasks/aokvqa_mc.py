"""A-OKVQA, multiple choice: right where the answer equals the right choice's text.

An answer that is none of the choices counts as unparsable. File: `aokvqa_v1p0_val.json`. Direct answers: aokvqa.py.
Source: evaluation/eval_predictions.py of the A-OKVQA authors (Schwenk et al. 2022, allenai/aokvqa).
"""

from __future__ import annotations

from typing import Any

from comem_ray.prompts import CHOOSE_WORDS, options
from comem_ray.tasks.aokvqa import AOkVqa
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, RejectedRow
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.task import ScoredAnswer


class AOkVqaChoices(AOkVqa):
    """A gold is (choices, index of the right one)."""

    name = "aokvqa-mc"
    has_paper_rules = False
    prediction_fields = ("multiple_choice",)

    def ask(self, example: Example) -> str:
        """The question with its options, "- ..."; no letters: the rule wants the words of the option."""
        choices, _ = example.gold
        return options(super().ask(example), [("-", text) for text in choices], CHOOSE_WORDS)

    def _gold(self, row: FileRow) -> Any:
        choices, right = row.texts("choices"), row.get("correct_choice_idx")
        if not isinstance(right, int) or not 0 <= right < len(choices):
            raise RejectedRow("bad_field", f"field 'correct_choice_idx' is {right!r}, wanted 0 to {len(choices) - 1}")
        return choices, right

    def _official(self, example: Example, prediction: str) -> ScoredAnswer:
        answer = final_answer(prediction)
        choices, right = example.gold
        return ScoredAnswer(answer if answer in choices else None, float(answer == choices[right]))


TASK = AOkVqaChoices()
