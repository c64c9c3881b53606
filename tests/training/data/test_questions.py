"""Questions of training samples: every trainable task, and every broken row rejected with its row number."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from pathlib import Path

import pytest

from comem_ray.config import ConfigError, SynthesisSourceConfig
from comem_ray.tasks.example import Example
from comem_ray.training.data.questions import RejectedSample, read_questions, sample_id, without_duplicates


def lines(path: Path, *rows: object) -> Path:
    path.write_bytes(b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows))
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"image")


def read(own_rules=None, **fields) -> list[Example | RejectedSample]:
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}
    return list(read_questions(SynthesisSourceConfig(**texts), own_rules or {}))


def image_name(example: Example) -> str | None:
    return None if example.image_at is None else Path(example.image_at.file).name


def reasons(rows) -> list[tuple[int, str]]:
    return [(r.source_row, r.reason) for r in rows if isinstance(r, RejectedSample)]


def infoseek(i: int, **changed) -> dict:
    row = {"data_id": f"infoseek_train_{i}", "image_id": f"oven_{i:08d}", "question": f"What is {i}?"}
    return {**row, "answer": ["x"], "answer_eval": ["x", "y"], "data_split": "train", **changed}


def test_infoseek(tmp_path):
    touch(tmp_path, "oven_00000000.JPEG", "oven_00000001.jpg", "04/oven_04000002.png")
    number = [{"wikidata": 5.0, "range": [4.5, 5.5]}]
    rows = [infoseek(0), infoseek(1, answer_eval=number), infoseek(4000002), infoseek(3), infoseek(1, data_split="val")]
    questions = read(task="infoseek", path=lines(tmp_path / "train.jsonl", *rows), split="train", language="es")
    assert [image_name(q) for q in questions[:3]] == ["oven_00000000.JPEG", "oven_00000001.jpg", "oven_04000002.png"]
    first = questions[0]
    assert (first.source, first.data_id, first.question) == ("infoseek", "infoseek_train_0", "What is 0?")
    assert (first.rule, first.gold, first.language) == ("infoseek", ["x", "y"], "es")
    assert (first.place.path.name, first.place.number) == ("train.jsonl", 0)
    assert questions[1].gold == number
    assert reasons(questions) == [(3, "image_missing")]
    assert questions[3].data_id == "infoseek_train_3"


def test_broken_lines_are_rejections(tmp_path):
    touch(tmp_path, "oven_00000000.jpg")
    rows = [
        b"{",
        infoseek(0),
        b'["list"]',
        b'{"data_id": "\xff"}',
        infoseek(0, question=None),
        infoseek(0, answer_eval=[], answer=None),
        infoseek(0, answer_eval=[{"wikidata": 1}]),
        b'{"data_id": "a", "image_id": "oven_00000000", "question": "\\ud800", "answer": ["x"]}',
        b"",
        infoseek(0, image_id="../../etc/passwd"),
    ]
    questions = read(task="infoseek", path=lines(tmp_path / "train.jsonl", *rows))
    wanted = ["bad_json", "bad_json", "bad_utf8", "bad_field", "bad_gold", "bad_gold", "bad_utf8", "image_missing"]
    assert reasons(questions) == list(zip([0, 2, 3, 4, 5, 6, 7, 9], wanted, strict=True))


def test_a_gzip_that_breaks_off_is_a_rejection(tmp_path):
    touch(tmp_path, "oven_00000000.jpg")
    data = gzip.compress(b"\n".join(json.dumps(infoseek(0)).encode() for _ in range(50)))
    (tmp_path / "train.jsonl.gz").write_bytes(data[:-20])
    questions = read(task="infoseek", path=tmp_path / "train.jsonl.gz")
    assert questions[-1].reason == "gz_truncated"


HEADER = ["question", "question_type", "answer", "dataset_image_ids", "dataset_name", "encyclopedic_vqa_split", "extra"]


def test_encyclopedic_vqa(tmp_path):
    touch(tmp_path, "train/00001_Bird/a.jpg", "landmarks/ab12.jpg", "c/d/e/cdef.jpg")
    (tmp_path / "inat.json").write_text(json.dumps({"images": [{"id": 7, "file_name": "train/00001_Bird/a.jpg"}]}))
    rows = [
        ["What eats it?", "multi_answer", "hawk&&fox|hawk", "6|7", "inaturalist", "train", "long\ntext, with commas"],
        ["How old?", "templated", "5|five", "ab12", "landmarks", "train", ""],
        ["How old?", "templated", "|", "ab12", "landmarks", "train", ""],
        ["How high?", "automatic", "9 m", "cdef", "landmarks", "train", ""],
        ["How high?", "automatic", "9 m", "gone", "landmarks", "train", ""],
        ["too", "few"],
        ["How high?", "automatic", "9 m", "cdef", "landmarks", "val", ""],
    ]
    with open(tmp_path / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    questions = read(
        task="encyclopedic_vqa", path=tmp_path / "train.csv", annotations=tmp_path / "inat.json", split="train"
    )
    good = [q for q in questions if isinstance(q, Example)]
    assert [image_name(q) for q in good] == ["a.jpg", "ab12.jpg", "cdef.jpg"]
    assert [q.gold for q in good] == ["hawk&&fox|hawk&&", "5|five", "9 m"]
    assert reasons(questions) == [(2, "bad_gold"), (4, "image_missing"), (5, "bad_csv")]


def test_okvqa(tmp_path):
    touch(tmp_path, "COCO_train2014_000000000009.jpg", "COCO_val2014_000000000010.jpg")
    questions = [{"image_id": i, "question": f"What is {i}?", "question_id": 10 * i} for i in (9, 10, 11, 9)]
    questions[3]["question_id"] = 1
    annotations = [{"question_id": 10 * i, "answers": [{"answer": "dog"}] * 10} for i in (9, 10, 11)]
    (tmp_path / "q.json").write_text(json.dumps({"questions": [*questions, "no object"]}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": annotations}))
    source = {"task": "okvqa", "path": tmp_path / "q.json", "annotations": tmp_path / "a.json"}
    questions = read(**source)
    assert [(q.data_id, q.rule, q.gold) for q in questions[:2]] == [(i, "vqa", ["dog"] * 10) for i in ("90", "100")]
    assert reasons(questions) == [(2, "image_missing"), (3, "no_answer"), (4, "bad_json")]
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ConfigError, match=r"synthesis\.sources: .*a\.json: not JSON"):
        read(**source)
    with pytest.raises(ConfigError, match="holds no 'annotations': name the file"):
        read(**{**source, "annotations": None})


def test_plain_jsonl(tmp_path):
    touch(tmp_path, "a.jpg")
    row = {"data_id": "1", "question": "Who?", "image": "a.jpg", "answers": ["Ann"]}
    rows = [
        row,
        {**row, "data_id": "2", "image": None, "language": "fr", "rule": "encyclopedic_vqa", "answers": ["a", "b&&c"]},
        {**row, "data_id": "3", "image": "../a.jpg"},
        {**row, "data_id": "4", "rule": "mine"},
        {**row, "data_id": "5", "image": 7},
        row,
    ]
    questions = read(task="jsonl", path=lines(tmp_path / "q.jsonl", *rows), name="own")
    assert (questions[0].source, questions[0].rule, questions[0].language) == ("own", "exact", "en")
    assert (questions[1].image_at, questions[1].language, questions[1].gold) == (None, "fr", "a|b&&c")
    assert reasons(questions) == [(2, "image_missing"), (3, "bad_field"), (4, "bad_field")]
    assert reasons(row for _, row in without_duplicates([("a", q) for q in questions]))[-1] == (5, "duplicate")
    assert len(read(task="jsonl", path=tmp_path / "q.jsonl", limit=2)) == 2


def test_what_is_not_there_is_a_configuration_error(tmp_path):
    path = lines(tmp_path / "q.jsonl")
    with pytest.raises(ConfigError, match=r"no file .*gone\.jsonl"):
        read(task="jsonl", path=tmp_path / "gone.jsonl")
    with pytest.raises(ConfigError, match=r"images: .*gone is not there"):
        read(task="jsonl", path=path, images=tmp_path / "gone")
    with pytest.raises(ConfigError, match="task jsonl has no annotations: leave them out"):
        read(task="jsonl", path=path, annotations=path)
    with pytest.raises(ConfigError, match="no rule scores one answer of task cvqa: want infoseek, okvqa, viquae, "):
        read(task="cvqa", path=path)
    with pytest.raises(ConfigError, match=r"no row of .* is of split 'test'; there are none"):
        read(task="jsonl", path=path, split="test")


def test_a_rule_of_ones_own(tmp_path):
    row = {"data_id": "1", "question": "Who?", "image": None, "answers": ["Ann"], "rule": "mine"}
    path = lines(tmp_path / "q.jsonl", row)
    assert reasons(read(task="jsonl", path=path)) == [(0, "bad_field")]
    (question,) = read({"mine": lambda prediction, gold: 0.0}, task="jsonl", path=path)
    assert question.rule == "mine"


def test_images_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("folder/oven_00000000.jpg", b"image")
    path = lines(tmp_path / "train.jsonl", infoseek(0), infoseek(1))
    questions = read(task="infoseek", path=path, images=tmp_path / "images.zip")
    assert questions[0].image_at.entry == "folder/oven_00000000.jpg"
    assert reasons(questions) == [(1, "image_missing")]


def test_a_sample_id_says_source_question_and_language(tmp_path):
    row = {"data_id": "1", "question": "Who?", "image": None, "answers": ["Ann"]}
    path = lines(tmp_path / "q.jsonl", row)
    same, again, named, french = (
        sample_id(read(task="jsonl", path=path, **changed)[0])
        for changed in ({}, {}, {"name": "own"}, {"language": "fr"})
    )
    assert same == again == "de613d9de854ba1c3cac7582"
    assert len({same, named, french}) == 3
