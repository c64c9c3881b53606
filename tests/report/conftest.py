"""A finished evaluation of 24 questions, and its page."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.html_page import HtmlPage
from support.tiny_report import write_evaluation

from comem_ray.report.evaluation import FinishedEvaluation, write_report

COUNT = 24


@pytest.fixture(scope="session")
def evaluate(make_config) -> Callable[[Path], FinishedEvaluation]:
    """A function: the folder of a run -> its finished evaluation of COUNT questions."""

    def make(root: Path) -> FinishedEvaluation:
        evaluation = {"questions": "q.parquet", "k": [1, 3], "gold_positions": [1, 2]}
        return write_evaluation(make_config(root=str(root), evaluation=evaluation), COUNT)

    return make


@pytest.fixture(scope="session")
def finished(evaluate, tmp_path_factory) -> FinishedEvaluation:
    return evaluate(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def page(finished, tmp_path_factory) -> HtmlPage:
    path = tmp_path_factory.mktemp("page") / "report.html"
    return HtmlPage(write_report(path, "Evaluation of tiny", [finished]))
