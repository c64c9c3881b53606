"""InfoSeek's rule for numbers: cases worked out by hand from the official script."""

from __future__ import annotations

import pytest

from comem_ray.tasks.rules.numbers import overlap, predicted_range
from comem_ray.tasks.rules.scoring import score


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
