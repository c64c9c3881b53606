"""One outcome per input: one that fails costs itself, and what is not its fault is raised."""

from __future__ import annotations

import pytest
import torch

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.knowledge.images import ImageError
from comem_ray.tasks.each import detail_of, for_each, reason_of


def inverse(numbers):
    return [1 / number for number in numbers]


def checked(numbers):
    if min(numbers) < 0:
        raise ValueError(f"{min(numbers)} is negative")
    return [2 * number for number in numbers]


def test_the_others_have_their_outcomes():
    assert for_each(checked, [1, 2]) == [2, 4]
    first, second, third = for_each(checked, [1, -2, 3])
    assert (first, str(second), third) == (2, "-2 is negative", 6)
    half, error = for_each(inverse, [2, 0])
    assert half == 0.5
    assert isinstance(error, ZeroDivisionError)
    assert [str(error) for error in for_each(checked, [-1, -2])] == ["-1 is negative", "-2 is negative"]


@pytest.mark.parametrize(
    "error",
    [ConfigError("x"), ArtifactError("x"), RuntimeError("CUDA error: device-side assert triggered")],
)
def test_what_is_no_fault_of_an_input_is_raised(error):
    def fail(inputs):
        raise error

    with pytest.raises(type(error)):
        for_each(fail, [1])


def test_an_error_of_all_that_is_not_about_data_is_raised():
    def fail(inputs):
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        for_each(fail, [1, 2])
    assert isinstance(for_each(fail, [1])[0], OSError)  # of one alone nobody can tell


def test_reasons():
    assert reason_of(ImageError("image_truncated", "x"), "y") == "item_image_truncated"
    assert reason_of(torch.OutOfMemoryError("x"), "y") == "out_of_memory"
    assert reason_of(ValueError("x"), "y") == "y"
    assert (detail_of(ValueError("a\nb")), detail_of(ValueError())) == ("a", "ValueError")
