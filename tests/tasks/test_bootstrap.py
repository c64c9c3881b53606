"""Intervals against an independent formula; harmonic means as the official scripts round them."""

from __future__ import annotations

import numpy as np
import pytest

from comem_ray.tasks.bootstrap import Estimate, group_summaries, groups_of, harmonic, mean_of, rounded


def test_interval_of_a_proportion_is_the_binomial_one():
    found = mean_of([1.0] * 300 + [0.0] * 700, "x").summary()
    wide = 1.96 * (0.3 * 0.7 / 1000) ** 0.5 * 100  # normal approximation, 2.84
    assert found["score"] == 30.0
    assert found["interval"][0] == pytest.approx(30 - wide, abs=0.4)
    assert found["interval"][1] == pytest.approx(30 + wide, abs=0.4)


def test_counts_of_distinct_scores_resample_as_draws_do():
    scores = np.array([0.0, 0.3, 0.3, 0.6, 1.0, 1.0, 0.0, 0.9] * 25)
    draws = np.random.default_rng(1).choice(scores, (4000, len(scores))).mean(axis=1) * 100
    assert mean_of(scores.tolist(), "x").draws.std() == pytest.approx(draws.std(), rel=0.1)


def test_percent_first_or_last_as_the_official_script():
    scores = [1.0] * 23 + [0.0] * 137
    assert mean_of(scores, "x").summary()["score"] == 14.37  # 0.14375 has no exact double
    assert mean_of(scores, "x", percent_first=True).summary()["score"] == 14.38


def test_seeded_by_name():
    scores = [1.0, 0.0, 0.3] * 20
    assert (mean_of(scores, "a").draws == mean_of(scores, "a").draws).all()
    assert (mean_of(scores, "a").draws != mean_of(scores, "b").draws).any()


def test_harmonic_mean():
    draws = np.array([10.0, 0.0])
    found = harmonic(Estimate(20.0, draws), Estimate(30.0, draws + 10))
    assert found.value == pytest.approx(24.0)
    assert found.draws == pytest.approx([2 / (1 / 10 + 1 / 20), 0.0], abs=1e-9)  # zero counts as 1e-12
    assert rounded(mean_of([1.0, 0.0, 0.0], "x")).value == 33.33


def test_groups():
    groups = groups_of([({"split": "b", "type": "t"}, 1.0), ({"split": "a"}, 0.0), ({"split": "b"}, 0.0)])
    assert groups == {"split": {"a": [0.0], "b": [1.0, 0.0]}, "type": {"t": [1.0]}}
    found = group_summaries(groups)
    assert found["per_split"]["b"]["score"] == 50.0
    assert found["per_split"]["b"]["n"] == 2
    assert found["per_type"]["t"] == {"score": 100.0, "interval": [100.0, 100.0], "n": 1}
