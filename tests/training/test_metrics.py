"""metrics.jsonl is the file of an uninterrupted run, whatever was repeated or cut short."""

import json

from comem_ray.training.metrics import NAME, MetricsLog, read_metrics


def figures(step: int, loss: float) -> dict:
    return {"step": step, "steps": 9, "loss": loss, "mfu": None}


def test_lines_are_read_as_they_were_written(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.step(figures(1, 2.5))
    log.validation(1, {"memory": 50.0, "n": 200})
    assert read_metrics(tmp_path) == [figures(1, 2.5), {"step": 1, "validation": {"memory": 50.0, "n": 200}}]


def test_repeated_steps_replace_the_earlier_ones(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.step(figures(step, step))
    resumed = MetricsLog(tmp_path, 2)
    resumed.step(figures(3, 0.5))
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [(1, 1), (2, 2), (3, 0.5)]


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    (tmp_path / NAME).write_text(json.dumps(figures(1, 1.0)) + "\n" + '{"step": 2, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    MetricsLog(tmp_path, 1).step(figures(2, 2.0))
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_there_are_no_lines_without_a_file(tmp_path):
    assert read_metrics(tmp_path) == []


def test_tensorboard_files_are_written_beside_it(tmp_path):
    MetricsLog(tmp_path, 0).step(figures(1, 1.0))
    assert list((tmp_path / "tensorboard").iterdir())
