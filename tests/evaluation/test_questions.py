"""Our own file of questions, and examples on their way to a worker."""

from __future__ import annotations

import pytest
from support.tiny import png

from comem_ray.artifacts import ArtifactError
from comem_ray.evaluation.questions import packed, read_questions, unpacked, with_image, write_questions
from comem_ray.tasks.example import Example
from comem_ray.tasks.images import ImageAt, ImageReader

EXAMPLES = [
    Example("a", "Who?", png(1), "exact", ["Ann"], "fr", ["item"], {"kind": "x"}),
    Example("b", "How high?", None, "infoseek", [{"wikidata": 5, "range": [4, 6]}]),
]


@pytest.fixture
def path(tmp_path):
    assert write_questions(tmp_path / "questions.parquet", EXAMPLES) == 2
    return tmp_path / "questions.parquet"


def test_a_file_gives_its_questions_back(path):
    reader = ImageReader()
    read = [with_image(example, reader, 10_000) for example in read_questions(path)]
    fields = ("data_id", "question", "image", "rule", "gold", "language", "gold_items", "groups", "fault")
    assert [[getattr(e, f) for f in fields] for e in read] == [[getattr(e, f) for f in fields] for e in EXAMPLES]
    assert [example.own_id for example in read] == ["a", "b"]


def test_packed_and_unpacked(path):
    read = read_questions(path)
    assert unpacked(packed(read)) == read


@pytest.mark.parametrize(
    ("data", "fault"), [(None, "image_missing"), (b"", "image_missing"), (b"<html>", "image_unreadable")]
)
def test_an_image_that_cannot_be_opened_is_a_fault(tmp_path, data, fault):
    if data is not None:
        (tmp_path / "a.png").write_bytes(data)
    example = Example("a", "?", None, "exact", ["x"], image_at=ImageAt(str(tmp_path / "a.png")))
    assert with_image(example, ImageReader(), 10_000).fault == fault


def test_what_is_no_file_of_questions_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="there is no file of questions"):
        read_questions(tmp_path / "none.parquet")
    write_questions(tmp_path / "twice.parquet", [EXAMPLES[0], EXAMPLES[0]])
    with pytest.raises(ArtifactError, match="has 'a' twice"):
        read_questions(tmp_path / "twice.parquet")
