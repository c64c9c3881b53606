import pytest

from comem_ray.doctor.finding import Finding


@pytest.mark.parametrize(("status", "fault"), [("ok", False), ("note", False), ("missing", True), ("wrong", True)])
def test_what_is_missing_or_wrong_is_a_fault(status, fault):
    assert Finding("run", "items", status, "a sentence").is_fault is fault
