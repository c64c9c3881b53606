"""Wilson's interval and McNemar's test against published values and their own definitions."""

import math

import pytest

from comem_ray.evaluation.intervals import Z_95, mcnemar, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_values(hits, n, low, high):
    assert wilson(hits / n, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("share", "n"), [(0.1, 10), (0.5, 7), (0.93, 200)])
def test_wilson_has_the_shares_from_which_this_one_is_z_standard_errors_away(share, n):
    for end in wilson(share, n):
        assert abs(share - end) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / n))


def test_wilson_of_no_trial_is_everything():
    assert wilson(0.0, 0) == (0.0, 1.0)


def test_mcnemar_is_the_sign_test_of_the_discordant_pairs():
    first, second = [True] * 9 + [False] * 1 + [True] * 20, [False] * 9 + [True] * 1 + [True] * 20
    assert mcnemar(first, second) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(first, second) == mcnemar(second, first)
    assert mcnemar([True, False], [True, False]) == 1
    assert mcnemar([True, False], [False, True]) == 1
