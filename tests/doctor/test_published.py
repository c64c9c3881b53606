from comem_ray.doctor.published import PUBLISHED, documented_rows
from comem_ray.tasks import TASK_NAMES


def test_every_published_task_says_where_it_comes_from():
    assert set(PUBLISHED) == set(TASK_NAMES) - {"jsonl"}
    for benchmark in PUBLISHED.values():
        assert benchmark.home.startswith("https://")
        assert benchmark.questions
        assert benchmark.images


def test_documented_rows_are_those_of_the_files_together():
    assert documented_rows("viquae", ["test.jsonl"]) == 1_257
    assert documented_rows("viquae", ["test.jsonl", "validation.jsonl"]) == 2_507
    assert documented_rows("mrag", ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]) == 1_353
    for task, names in [("viquae", ["test.jsonl", "mine.jsonl"]), ("oven", ["oven_query_val.jsonl"]), ("jsonl", ["a"])]:
        assert documented_rows(task, names) is None
    assert documented_rows("okvqa", []) is None
