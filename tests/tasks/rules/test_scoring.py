"""Scoring: cases worked out by hand from the official rules."""

from __future__ import annotations

import pytest

from comem_ray.tasks.rules.numbers import overlap, predicted_range
from comem_ray.tasks.rules.scoring import boxed, normalised, score
from comem_ray.tasks.rules.vqa import CONTRACTIONS, processed

US = ["the US", "U.S.A.", "United States of America", "'Murica"]


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("United States of America", True),
        ("  the united   states of AMERICA. ", True),
        ("usa", True),
        ("US", True),  # the article of the alias goes too
        ("murica", True),
        ("United States", False),
        ("It is the US", False),
        ("", False),
    ],
)
def test_infoseek_strings(prediction, right):
    assert score("infoseek", prediction, US) == score("exact", prediction, US) == float(right)


def test_infoseek_normalisation_keeps_letters_inside_words():
    assert normalised("Another Theory, a Banana") == "another theory banana"
    assert score("exact", "Paris", ["Tunis"]) == 0.0
    assert normalised("Зелёный, «Б»") == "зелёный «б»"  # only ASCII punctuation goes
    assert score("infoseek", "1878", ["1877", "1878", "1879"]) == 1.0  # a time: the aliases hold the tolerated years


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("237", (237, 237)),
        ("about 1,200.5 metres", (1200.5, 1200.5)),
        ("220-250 m", (220, 250)),
        ("between 220 and 250", (220, 250)),
        ("250 or 220", (250, 250)),  # descending: the first alone
        ("built 1930, 237 m long", (1930, 1930)),
        ("3, 4 or 5", (3, 4)),  # the first two
        ("-5 to -2", (-5, -2)),
        ("1e3", (1000, 1000)),
        (".5", (5, 5)),  # as the official script has it
        ("-.5", (-0.5, -0.5)),
        ("12.", (12, 12)),
        ("many", (0, 0)),
        ("m²-5", (5, 5)),  # a superscript is a digit to the official script, so the hyphen separates
    ],
)
def test_numbers_in_a_text(text, interval):
    assert predicted_range(text) == interval


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("237", True),
        ("213.3", True),
        ("213.2", False),
        ("It is 240 metres long", True),
        ("220 - 250", True),  # inside
        ("200 - 260", True),  # 46.7 of 60.7 shared
        ("100 - 260", False),  # 46.7 of 160.7 shared
        ("a long bridge", False),
    ],
)
def test_infoseek_numbers(prediction, right):
    gold = [{"wikidata": 237.0, "range": [213.3, 260.70000000000005]}]
    assert score("infoseek", prediction, gold) == float(right)


def test_overlap_of_exactly_half_is_right():
    assert overlap(0, 10, 0, 20) == pytest.approx(0.5)
    assert score("infoseek", "0 to 10", {"wikidata": 10.0, "range": [0, 20]}) == 1.0
    assert score("infoseek", "-10 to 10", {"wikidata": 10.0, "range": [0, 20]}) == 0.0  # 10 of 30
    assert score("infoseek", "nothing", [{"wikidata": 0.0, "range": [0, 0]}]) == 1.0  # no number counts as 0


def test_limits_that_descend_hold_no_number_but_overlap():
    gold = [{"wikidata": -1.0, "range": [-0.9, -1.1]}]  # 10% about a negative number, as the file may have it
    assert score("infoseek", "-1", gold) == 0.0
    assert score("infoseek", "-1.1 to -0.9", gold) == 1.0


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


@pytest.mark.parametrize(
    ("prediction", "gold", "right"),
    [
        ("The Menger family", "menger family", True),
        ("the answer is: five", "5", True),
        ("True", "yes", True),
        ("1920s", "the 1910s|1920’s", True),
        ("Menger", "menger family", False),
        ("red and blue", "blue&&red", True),
        ("red, green", "red&&blue&&green&&yellow", True),  # 2 of 4
        ("red", "red&&blue&&green", False),  # 1 of 3
        ("red, pink & white", "red&&blue", False),  # 1 of 4
        ("red and blue", "red&&", True),  # a list of one: 1 of 2
        ("red and blue", "red", False),
        ("", "red|", False),
    ],
)
def test_encyclopedic_vqa(prediction, gold, right):
    assert score("encyclopedic_vqa", prediction, gold) == float(right)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"So it is \boxed{Paris}.", "Paris"),
        (r"\boxed{Rome}, no: \boxed{ Paris }", "Paris"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a \boxed{b} c}", "b"),
        (r"\boxed{Rome} and \boxed{Par", "Rome"),
        (r"\boxed{}", ""),
        (r"\boxed{Par", None),
        ("Paris", None),
    ],
)
def test_boxed(text, wanted):
    assert boxed(text) == wanted


@pytest.mark.parametrize(
    ("rule", "gold"),
    [
        ("infoseek", []),
        ("infoseek", [{"wikidata": 1.0}]),
        ("exact", "Paris"),
        ("vqa", [1, 2]),
        ("encyclopedic_vqa", ["red"]),
        ("encyclopedic_vqa", " | "),
        ("official", ["red"]),
    ],
)
def test_what_cannot_be_scored_is_refused(rule, gold):
    with pytest.raises(ValueError, match=r"rule|gold"):
        score(rule, "red", gold)
