"""`Example`: one question of a task with its gold answer, as every part of the product hands it on.

A task makes it of a row of its files (comem_ray/tasks/task.py); evaluation and synthesis look its image up, ask it and
score what is answered. Knows no task, no file format and no model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from comem_ray.tasks.files import Place
from comem_ray.tasks.images import ImageAt

OFFICIAL = "official"
"""The rule of an example that its task scores (Task.score), rather than a rule of comem_ray.tasks.rules.scoring."""
IMAGE_MISSING = "image_missing"


@dataclass(frozen=True)
class Example:
    """`data_id` tells it from all others of a run; `own_id` is the id in the task's files.

    `gold` is None where the task leaves the question out of its score. `image` are the bytes, once they are read from
    `image_at`. With a `fault` it cannot be asked, and counts as wrong.
    """

    data_id: str
    question: str  # the task's words; once it is ready to ask, with options and instruction
    image: bytes | None
    rule: str
    gold: Any
    language: str = "en"
    gold_items: list[str] = field(default_factory=list)  # item_ids that hold the answer, if known
    groups: dict[str, str] = field(default_factory=dict)  # {"split": ..., "type": ...}: where its score is counted
    source: str = ""  # name of the source it comes from; "": evaluation.questions
    task: str = ""
    own_id: str | int = ""
    image_at: ImageAt | None = None
    fault: str | None = None
    choices: list[str] = field(default_factory=list)  # the options of a multiple choice, in order
    image_names: list[str] | None = None  # names to look the image up by; []: it has none; None: the row names none
    entities: list[str] = field(default_factory=list)  # Wikidata ids, titles of the English Wikipedia: what it is about
    place: Place | None = None  # the row that it was read from
