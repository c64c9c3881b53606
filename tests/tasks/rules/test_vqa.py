"""VQA accuracy and its text processing: cases worked out by hand from the official script."""

from __future__ import annotations

import pytest

from comem_ray.tasks.rules.scoring import score
from comem_ray.tasks.rules.vqa import CONTRACTIONS, processed


def test_vqa_accuracy_leaves_one_annotator_out():
    # Two say "dog": seen from each of them one other does (1/3), from the other eight two do (2/3).
    two = ["dog"] * 2 + ["cat"] * 8
    assert score("vqa", "dog", two) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert score("vqa", "dog", ["dog"] * 3 + ["cat"] * 7) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert score("vqa", "dog", ["dog"] * 4 + ["cat"] * 6) == 1.0
    assert score("vqa", "The Dog!", two) == score("vqa", "dog", two)
    assert score("vqa", "cow", two) == 0.0


def test_vqa_processes_only_where_the_annotators_differ():
    assert score("vqa", "Two dogs", ["2 dogs"] * 10) == 0.0
    assert score("vqa", "Two dogs", ["2 dogs"] * 9 + ["dogs"]) == 1.0
    assert score("vqa", "2 dogs\n", ["2 dogs"] * 10) == 1.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A dog, on the grass.", "dog on grass"),
        ("black/white", "black white"),  # no space beside the mark
        ("black / white", "black white"),
        ("well-known", "well known"),
        ("10,000", "10000"),
        ("10,000 and-more", "10000 andmore"),  # a comma between digits removes every mark
        ("3.5 m. long", "3.5 m long"),
        ("none", "0"),
        ("Ten dont", "10 don't"),
        ("he's", "he's"),
        ("couldntve couldnt've", "couldntve couldn't've"),
        ("somebody'd", "somebodyd"),
        ("twas oclock", "'twas o'clock"),
    ],
)
def test_vqa_text(text, wanted):
    assert processed(text) == wanted


def test_contractions_are_listed_once():
    assert len(CONTRACTIONS) == len(set(CONTRACTIONS))
    assert all("'" in word for word in CONTRACTIONS)
