"""Encyclopedic-VQA: exact match of single answers and lists (rules/encyclopedic_vqa.py).

Files: its CSV; references: iNaturalist's JSON, which names the images of that data set. The rows have no ids: an
example's is a digest of question, image ids and answer.
Source: Mensink et al. 2023 (arXiv 2306.09224).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from comem_ray.artifacts import fingerprint
from comem_ray.tasks.example import Example
from comem_ray.tasks.files import FileRow, read_csv, read_json
from comem_ray.tasks.rules.encyclopedic_vqa import LIST
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.rules.scoring import score
from comem_ray.tasks.task import Examples, ScoredAnswer, Task, TaskFiles, check_gold, text_or_none


class EncyclopedicVqa(Task):
    """A gold is the field `answer`, in which every answer to a question of type multi_answer is a list."""

    name = "encyclopedic_vqa"
    rule = "encyclopedic_vqa"
    has_paper_rules = False
    takes = ("references",)

    def read(self, files: TaskFiles, language: str | None = None) -> Examples:
        """The examples; an image is looked up by iNaturalist's name of it, then by its id."""
        file_names = _inaturalist_names(files.references)
        make = partial(self._read_row, file_names=file_names, language=language or "en")
        for path in files.paths:
            yield from self._examples(read_csv(path), make)

    def _read_row(self, row: FileRow, file_names: dict[str, str], language: str) -> Example:
        question, answer = row.text("question").strip(), row.text("answer").strip()
        image_ids = [one for one in row.text("dataset_image_ids").strip().split("|") if one]
        data_id = fingerprint([question, image_ids, answer])[:16]
        stems = [
            stem for one in image_ids for stem in (one, f"{row.get('dataset_name')}/{one}", "/".join([*one[:3], one]))
        ]
        kinds = {"split": row.get("encyclopedic_vqa_split"), "type": row.get("question_type")}
        return self._example(
            FileRow(row.place, {self.id_field: data_id}),
            _gold(answer, row.get("question_type")),
            question,
            language=language,
            groups={kind: value for kind, value in kinds.items() if value},
            image_names=[*(file_names[one] for one in image_ids if one in file_names), *stems],
        )

    def _official(self, example: Example, prediction: str) -> ScoredAnswer:
        answer = final_answer(prediction)
        return ScoredAnswer(text_or_none(answer), score(self.name, answer, example.gold))


TASK = EncyclopedicVqa()


def _gold(answer: str, question_type: Any) -> str:
    lists = question_type == "multi_answer"
    gold = "|".join(one + LIST if lists and LIST not in one else one for one in answer.split("|"))
    check_gold("encyclopedic_vqa", gold)
    return gold


def _inaturalist_names(paths: Sequence[Path]) -> dict[str, str]:
    """File name by id of the images that iNaturalist's JSON lists."""
    names: dict[str, str] = {}
    for path in paths:
        document = read_json(path)
        images = document.get("images") if isinstance(document, dict) else None
        if not isinstance(images, list):
            raise ValueError(f"{path}: no list 'images', wanted iNaturalist's JSON that names its images")
        named = (image for image in images if isinstance(image, dict) and {"id", "file_name"} <= image.keys())
        names |= {str(image["id"]): image["file_name"] for image in named}
    return names
