"""A worker's refusal is a value that is raised again with its own type; every other exception stays an exception."""

from __future__ import annotations

from typing import Any

import pytest
import ray.cloudpickle as cloudpickle

from comem_ray.artifacts import ArtifactError, StorageError
from comem_ray.config import ConfigError
from jobs.refusals import COLUMN, COUNT, raise_refusal, refusal_of, returns_refusals, to_text

ERRORS = [
    ConfigError("field a: 'b'\nis not a number"),
    ArtifactError("items/ has no manifest"),
    StorageError("cannot write x: no room"),
]


def raising(error: Exception) -> Any:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_refusal_comes_back_with_its_type_and_message(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        raise_refusal(refusal_of(raising(error)))
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)


def test_no_refusal_is_an_empty_text() -> None:
    assert refusal_of(lambda: 1) == ""
    raise_refusal("")


def test_a_kind_of_refusal_is_raised_as_what_it_is_a_kind_of() -> None:
    class Stale(ArtifactError):
        pass

    with pytest.raises(ArtifactError, match="old"):
        raise_refusal(to_text(Stale("old")))


@pytest.mark.parametrize("error", [ValueError("x"), ZeroDivisionError("x")], ids=lambda e: type(e).__name__)
def test_other_exceptions_pass(error: Exception) -> None:
    with pytest.raises(type(error)):
        refusal_of(raising(error))


class Worker:
    """Refuses in its constructor, or a batch that says so."""

    def __init__(self, allowed: bool):
        if not allowed:
            raise ConfigError("not allowed")

    def __call__(self, batch: dict[str, Any]) -> int | None:
        if batch["refuse"]:
            raise ArtifactError("not this one")
        return batch.get("count")


def test_a_worker_answers_with_its_refusal() -> None:
    worker = cloudpickle.loads(cloudpickle.dumps(returns_refusals(Worker)))
    assert worker.__name__ == "Worker"
    allowed, refused = worker(True), worker(False)
    assert allowed({"refuse": False}) == {COLUMN: [""], COUNT: [0]}
    assert allowed({"refuse": False, "count": 7}) == {COLUMN: [""], COUNT: [7]}
    assert allowed({"refuse": True}) == {COLUMN: [to_text(ArtifactError("not this one"))], COUNT: [0]}
    assert refused({"refuse": False}) == {COLUMN: [to_text(ConfigError("not allowed"))], COUNT: [0]}
