"""The report of a training run: its curves, its last figures, and a running mean against its definition."""

import json

import pytest
from support.html_page import HtmlPage

from comem_ray.report.training import running_mean, write_report


def write(folder, rows):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return HtmlPage(write_report(folder, "name: <b>tiny</b>"))


def test_curves_and_last_figures(tmp_path):
    steps = [{"step": s, "loss": 9 / s, "tokens_per_s": 1e4 * s, "tflops": None} for s in (1, 2, 3)]
    page = write(tmp_path, [*steps, {"step": 2, "validation": {"none": 1.0, "memory": 50.0, "n": 9}}])
    titles = [text.split(". ")[0] for text in page.attributes("svg", "aria-label")]
    assert titles == ["Loss", "Tokens", "Validation"]
    assert page.tables["Last step"] == [["step", "3"], ["loss", "3"], ["tokens per s", "30,000"]]
    assert page.tables["Last validation"] == [["step", "2"], ["none", "1"], ["memory", "50"], ["n", "9"]]
    assert "name: <b>tiny</b>" in page.text


def test_a_run_without_a_step_has_a_page(tmp_path):
    page = write(tmp_path, [])
    assert "No step was taken." in page.text
    assert page.attributes("svg", "aria-label") == []


def test_the_running_mean_weighs_the_past():
    values, keep = [3.0, 1.0, 2.0, 7.0], 0.9
    for n, mean in enumerate(running_mean(values, keep), start=1):
        weights = [keep ** (n - 1 - i) for i in range(n)]
        expected = sum(w * v for w, v in zip(weights, values[:n], strict=True)) / sum(weights)
        assert mean == pytest.approx(expected)
