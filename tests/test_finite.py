"""NaN and infinity are noticed in every dtype, and the advice names a precision that is wider."""

import pickle

import pytest
import torch

from comem_ray.finite import NotFinite, dtype_name, finite_rows, is_finite, right_precision

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_in_a_tensor_is_noticed(dtype, value):
    tensor = torch.ones(3, 5, dtype=dtype)
    assert is_finite(tensor)
    tensor[2, 4] = value
    assert not is_finite(tensor)


def test_what_cannot_be_infinite_is_finite():
    assert is_finite(torch.empty(0, 4))
    assert is_finite(torch.tensor([1, 2]))
    assert is_finite(torch.tensor(1.0, requires_grad=True))


def test_finite_rows_are_those_without_any():
    rows = torch.zeros(4, 2, 3)
    rows[1, 0, 2], rows[3, 1, 0] = float("nan"), float("inf")
    assert finite_rows(rows).tolist() == [True, False, True, False]
    assert finite_rows(rows[:0]).tolist() == []


def test_the_advice_names_a_wider_precision():
    assert "set backbone.precision to bfloat16" in right_precision(torch.float16, "backbone.precision")
    assert "clip.precision: float32" in right_precision(torch.bfloat16, "clip.precision")
    assert "damaged" in right_precision(torch.float32, "clip.precision")
    assert dtype_name(torch.bfloat16) == "bfloat16"


def test_the_error_travels_with_its_positions():
    error = pickle.loads(pickle.dumps(NotFinite("memory", (2, 5))))
    assert isinstance(error, ValueError)
    assert (str(error), error.positions) == ("memory", [2, 5])
