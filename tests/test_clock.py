"""Times of stages, and of the whole."""

from __future__ import annotations

import time

import pytest

from comem_ray.clock import Clock


def test_stages_and_the_whole() -> None:
    clock = Clock()
    with clock.stage("short"):
        time.sleep(0.01)
    with clock.stage("long"):
        time.sleep(0.03)
    times = clock.timings()
    assert list(times) == ["short", "long", "total"]
    assert times["short"] >= 10
    assert times["long"] >= 30
    assert times["total"] >= times["short"] + times["long"] - 0.1


def test_a_stage_that_fails_has_its_time() -> None:
    clock = Clock()
    with pytest.raises(ZeroDivisionError), clock.stage("failing"):
        raise ZeroDivisionError
    assert clock.timings().keys() == {"failing", "total"}
