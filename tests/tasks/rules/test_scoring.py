"""Scoring by name: strings, boxes, rules of the user's own, and what is refused."""

from __future__ import annotations

import pytest

from comem_ray.tasks.rules.scoring import UnknownRule, normalised, score

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


def test_a_rule_of_ones_own():
    def first_letter(prediction, gold):
        return prediction[:1] == gold[0]

    assert score("first", "apple", ["a"], {"first": first_letter}) == 1.0
    assert score("first", "pear", ["a"], {"first": first_letter}) == 0.0
    with pytest.raises(UnknownRule, match=r"no scoring rule 'second': want infoseek, .*exact, first, or a name"):
        score("second", "apple", ["a"], {"first": first_letter})
    with pytest.raises(ValueError, match="scoring rule 'ten' returned 10, want a number from 0 to 1"):
        score("ten", "apple", ["a"], {"ten": lambda prediction, gold: 10})
