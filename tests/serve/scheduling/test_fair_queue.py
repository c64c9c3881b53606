"""Callers take turns, and a long line cannot keep a short one out."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from serve.scheduling.fair_queue import FairQueue


def drained(queue: FairQueue[str]) -> list[str]:
    return [queue.take() for _ in range(len(queue))]


def test_callers_take_turns() -> None:
    queue = FairQueue[str](100)
    for caller, count in (("a", 5), ("b", 2), ("c", 1)):
        for n in range(count):
            assert queue.put(caller, f"{caller}{n}") is None
    assert queue.peek() == "a0"
    assert drained(queue) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]
    assert queue.peek() is None
    with pytest.raises(IndexError):
        queue.take()


def test_a_full_queue_takes_from_the_longest_line() -> None:
    queue = FairQueue[str](4)
    for n in range(4):
        queue.put("a", f"a{n}")
    assert queue.put("a", "a4") == "a4"  # one's own line: the new one is refused
    assert queue.put("b", "b0") == "a3"
    assert queue.put("b", "b1") == "a2"
    assert queue.put("b", "b2") == "b2"  # 2 and 2: one more for b would only turn the lines round
    assert queue.put("c", "c0") == "a1"
    assert drained(queue) == ["a0", "b0", "c0", "b1"]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_and_shares_are_fair(seed: int) -> None:
    """Random callers, some greedy: what was put is taken, displaced, or refused, once; the limit holds."""
    rng, queue = random.Random(seed), FairQueue[tuple[str, int]](20)
    outcomes: Counter[tuple[str, int]] = Counter()
    sent = []
    for n in range(2_000):
        caller = rng.choice("aaaaaaaabc")
        entry = (caller, n)
        sent.append(entry)
        displaced = queue.put(caller, entry)
        if displaced is not None:
            outcomes[displaced] += 1
        assert len(queue) <= 20
        if rng.random() < 0.3 and len(queue):
            outcomes[queue.take()] += 1
        if rng.random() < 0.05:
            outcomes.update(queue.take_where(lambda e: e[1] % 7 == 0))
    outcomes.update(drained(queue))
    assert outcomes == Counter(dict.fromkeys(sent, 1))


def test_each_caller_keeps_its_order() -> None:
    queue = FairQueue[int](50)
    for n in range(30):
        queue.put("ab"[n % 2], n)
    taken = drained(queue)
    assert [n for n in taken if n % 2] == sorted(n for n in taken if n % 2)
