"""The rank of the right item. The evaluator itself runs in tests/jobs/test_evaluate.py, on real stages."""

from comem_ray.evaluation.evaluator import rank


def test_rank():
    assert [rank(list("abc"), gold) for gold in (["b"], ["z"], [], ["c", "a"])] == [2, 0, None, 1]
