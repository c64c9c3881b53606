"""The four formats of questions: from the rows of a file to the fields of a question.

Each reader yields (row number, fields or Bad); the fields are data_id, text, image (a path or None), rule, gold, and
language where the row names one. Sources: the formats as the benchmarks' own pages describe them; InfoSeek (Chen et al.
2023), Encyclopedic-VQA (Mensink et al. 2023), OK-VQA (Marino et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from comem_ray.artifacts import fingerprint
from comem_ray.config import ConfigError, SynthesisSourceConfig
from comem_ray.tasks.images import ImageFolder
from comem_ray.tasks.infoseek import image_names
from comem_ray.tasks.rows import Numbered, RejectedRow, csv_rows, json_lists, json_rows
from comem_ray.tasks.rules.encyclopedic_vqa import LIST
from comem_ray.tasks.rules.scoring import RULES

_Fields = dict[str, Any]


def _each(rows: Iterable[Numbered], make: Callable[[_Fields], _Fields | None]) -> Iterator[Numbered]:
    """`make` of each good row; a row it gives None for is passed over, one it raises Bad for is bad."""
    for number, row in rows:
        try:
            made = row if isinstance(row, RejectedRow) else make(row)
        except RejectedRow as bad:
            made = bad
        if made is not None:
            yield number, made


def _infoseek(source: SynthesisSourceConfig, paths: list[Path], images: ImageFolder) -> Iterator[Numbered]:
    def make(row: _Fields) -> _Fields | None:
        if source.split not in (None, row.get("data_split")):
            return None
        data_id, image_id = _string(row, "data_id"), _string(row, "image_id")
        gold = row.get("answer_eval") or row.get("answer")
        image = images.of_stems(image_names(image_id), data_id)
        return _fields(data_id, _string(row, "question"), image, "infoseek", gold)

    return _each(json_rows(paths[0]), make)


def _encyclopedic_vqa(source: SynthesisSourceConfig, paths: list[Path], images: ImageFolder) -> Iterator[Numbered]:
    names = {str(i["id"]): i["file_name"] for i in _inaturalist(paths[1])} if len(paths) > 1 else {}

    def make(row: _Fields) -> _Fields | None:
        if source.split not in (None, row.get("encyclopedic_vqa_split")):
            return None
        text, answer = _string(row, "question"), _string(row, "answer")
        ids = [i for i in _string(row, "dataset_image_ids").split("|") if i]
        data_id = fingerprint([text, ids, answer])[:16]  # the file has no ids
        if row.get("question_type") == "multi_answer":
            answer = "|".join(a if LIST in a else a + LIST for a in answer.split("|"))
        known = [names[i] for i in ids if i in names]
        stems = [s for i in ids for s in (i, f"{row.get('dataset_name')}/{i}", "/".join([*i[:3], i]))]
        return _fields(data_id, text, images.of_names(known) or images.of_stems(stems, data_id), source.format, answer)

    return _each(csv_rows(paths[0]), make)


def _inaturalist(path: Path) -> list[_Fields]:
    found = json_lists(path, "images")
    if isinstance(found, RejectedRow):
        raise ConfigError(f"synthesis.sources: {path} names no images of iNaturalist: {found.detail}")
    return [i for i in found if isinstance(i, dict) and {"id", "file_name"} <= i.keys()]


def _okvqa(source: SynthesisSourceConfig, paths: list[Path], images: ImageFolder) -> Iterator[Numbered]:
    questions, annotations = json_lists(paths[0], "questions"), json_lists(paths[1], "annotations")
    if isinstance(questions, RejectedRow) or isinstance(annotations, RejectedRow):
        yield 0, questions if isinstance(questions, RejectedRow) else annotations  # type: ignore[misc]
        return
    answers = {a["question_id"]: a.get("answers") for a in annotations if isinstance(a, dict) and "question_id" in a}
    splits = [f"{source.split}2014"] if source.split else ["train2014", "val2014"]

    def make(row: _Fields) -> _Fields:
        data_id, image = str(row.get("question_id")), row.get("image_id")
        given = answers.get(row.get("question_id"))
        if not isinstance(given, list) or not all(isinstance(a, dict) for a in given):
            raise RejectedRow("no_answer", f"{paths[1].name} holds no answers to this question", data_id)
        if not isinstance(image, int):
            raise RejectedRow("bad_field", f"field image_id is {image!r}, wanted a number", data_id)
        image = images.of_stems([f"COCO_{s}_{image:012d}" for s in splits], data_id)
        return _fields(data_id, _string(row, "question"), image, "vqa", [a.get("answer") for a in given])

    yield from _each(((n, _object(q)) for n, q in enumerate(questions)), make)


def _plain(source: SynthesisSourceConfig, paths: list[Path], images: ImageFolder) -> Iterator[Numbered]:
    def make(row: _Fields) -> _Fields:
        data_id, rule, image = _string(row, "data_id"), row.get("rule") or "exact", row.get("image")
        if rule not in RULES:
            raise RejectedRow("bad_field", f"field rule is {rule!r}, want one of {', '.join(RULES)}", data_id)
        if not isinstance(image, str | None):
            raise RejectedRow("bad_field", f"field image is {image!r}, wanted a path or null", data_id)
        found = images.of_names([image]) if image else None
        if image and found is None:
            raise RejectedRow("image_missing", f"there is no image {image!r} in {images.folder}", data_id)
        gold = row.get("answers")
        if rule == "encyclopedic_vqa" and isinstance(gold, list):
            gold = "|".join(map(str, gold))
        fields = _fields(data_id, _string(row, "question"), found, rule, gold)
        return {**fields, "language": _string(row, "language")} if row.get("language") else fields

    return _each(json_rows(paths[0]), make)


READERS = {"infoseek": _infoseek, "encyclopedic_vqa": _encyclopedic_vqa, "okvqa": _okvqa, "jsonl": _plain}


def _fields(data_id: str, text: str, image: str | None, rule: str, gold: Any) -> _Fields:
    return {"data_id": data_id, "text": text, "image": image, "rule": rule, "gold": gold}


def _object(value: Any) -> _Fields | RejectedRow:
    return (
        value
        if isinstance(value, dict)
        else RejectedRow("bad_json", f"a JSON {type(value).__name__}, wanted an object")
    )


def _string(row: _Fields, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        known = row.get("data_id")
        said = f"field {name} is {value!r}, wanted a text"
        raise RejectedRow("bad_field", said, known if isinstance(known, str) else None)
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of an escaped pair
        raise RejectedRow("bad_utf8", f"field {name} is {value!r}, which UTF-8 cannot hold") from error
    return value.strip()
