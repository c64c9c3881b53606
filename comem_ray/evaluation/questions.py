"""Our own file of questions to evaluate with (parquet, one question per row), and examples on their way to a worker.

An example's image stays where it is until the question is asked (`with_image`). Knows no task and no model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.artifacts import ArtifactError, write_parquet
from comem_ray.knowledge.images import ImageError, open_image
from comem_ray.tasks.example import IMAGE_MISSING, Example
from comem_ray.tasks.images import ImageAt, ImageReader

BAD_GOLD = "bad_gold"
EVALUATION_SCHEMA = pa.schema(
    [
        pa.field("data_id", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("image", pa.binary()),  # JPEG or PNG; null for a question without one
        pa.field("rule", pa.string(), nullable=False),  # of comem_ray.tasks.rules.scoring, or of scoring_rules
        pa.field("gold", pa.string(), nullable=False),  # JSON, in the rule's own form
        pa.field("language", pa.string(), nullable=False),
        pa.field("gold_items", pa.list_(pa.string()), nullable=False),  # item_ids that hold the answer, if known
        pa.field("groups", pa.string(), nullable=False),  # JSON: name -> value, for figures of parts
    ]
)


def write_questions(path: Path, examples: Iterable[Example]) -> int:
    """Writes the file; returns the number of questions."""
    rows = [{**asdict(e), "gold": json.dumps(e.gold), "groups": json.dumps(e.groups)} for e in examples]
    write_parquet(path, pa.Table.from_pylist(rows, EVALUATION_SCHEMA))
    return len(rows)


def read_questions(path: Path) -> list[Example]:
    """The questions of a file, their images left in it. Raises ArtifactError where there is none, or an id twice."""
    if not path.is_file():
        raise ArtifactError(f"there is no file of questions {path}: evaluation.questions names it")
    try:
        table = pq.read_table(path, schema=EVALUATION_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path} is not a file of questions (EVALUATION_SCHEMA): {reason}") from error
    marks = [None if image is None else sha256(image).hexdigest() for image in table["image"].to_pylist()]
    rows = table.drop_columns(["image"]).to_pylist()
    if twice := [data_id for data_id, count in Counter(row["data_id"] for row in rows).items() if count > 1]:
        raise ArtifactError(f"{path} has {twice[0]!r} twice")
    return [_example(path, number, row, mark) for number, (row, mark) in enumerate(zip(rows, marks, strict=True))]


def with_image(example: Example, reader: ImageReader, max_pixels: int) -> Example:
    """The example with its image's bytes, or with the fault that no image can be made of them."""
    if example.fault or example.image_at is None:
        return example
    try:
        data = reader.read(example.image_at)
        if not data:
            return replace(example, fault=IMAGE_MISSING)
        open_image(data, max_pixels)
    except ImageError as error:
        return replace(example, fault=error.reason)
    except (OSError, ValueError, pa.ArrowException):
        return replace(example, fault=IMAGE_MISSING)
    return replace(example, image=data)


def packed(examples: Sequence[Example]) -> str:
    """Examples as JSON, for `unpacked`; the bytes of images are not in it, nor the rows they were read from."""
    return json.dumps([{**asdict(e), "image": None, "place": None} for e in examples], sort_keys=True)


def unpacked(text: str) -> list[Example]:
    """The examples of `packed`; tuples have become lists."""
    rows = json.loads(text)
    return [Example(**{**row, "image_at": row["image_at"] and ImageAt(**row["image_at"])}) for row in rows]


def _example(path: Path, number: int, row: dict[str, Any], mark: str | None) -> Example:
    """The question of a row; with a fault where its gold or its groups are not JSON."""
    fields, fault = {**row, "gold": None, "groups": {}}, None
    try:
        gold, groups = json.loads(row["gold"]), json.loads(row["groups"])
        fields |= {"gold": gold, "groups": {str(name): str(value) for name, value in groups.items()}}
    except (ValueError, AttributeError):
        fault = BAD_GOLD
    at = None if mark is None else ImageAt(str(path), "image", number, mark)
    return Example(**fields, image=None, own_id=row["data_id"], image_at=at, fault=fault)
