"""Which plots the arms of an evaluation have, and what each says to a reader who cannot see it."""

import re
from dataclasses import replace

import pytest

from comem_ray.evaluation.figures import Share
from comem_ray.report.charts import charts
from comem_ray.report.tables import in_order


def descriptions(arms):
    """Title -> text of every plot."""
    texts = [re.search(r'aria-label="([^"]*)"', str(figure))[1] for figure in charts(in_order(arms))]
    return {text.split(". ")[0]: text for text in texts}


@pytest.fixture(scope="module")
def sized(finished):
    """The arms, each once more with a knowledge base of 7 items, where all are right on 99%."""
    arms = dict(finished.figures.arms)
    for name in ("rag, k=1", "rag, k=3", "memory, k=1", "memory, k=3"):
        arms[f"{name}, 7 items"] = replace(arms[name], knowledge=7, share=Share(99.0, 98.0, 100.0, 24))
    return arms


def test_one_knowledge_base_has_two_plots(finished):
    texts = descriptions(finished.figures.arms)
    assert list(texts) == ["Accuracy by number of items", "Accuracy by length of the prompt"]
    assert "memory: k=1: 66.7% (46.7 to 82.0); k=3: 66.7% (46.7 to 82.0)" in texts["Accuracy by number of items"]
    assert (
        "rag, right item at a position: rag, k=2, right item at 1: 50.0%" in texts["Accuracy by length of the prompt"]
    )


def test_sizes_of_the_knowledge_base_have_one_plot_per_k(sized):
    texts = descriptions(sized)
    by_size = [title for title in texts if "size of the knowledge base" in title]
    assert by_size == [f"Accuracy by size of the knowledge base, k={k}" for k in (1, 3)]
    assert "memory: 7 items: 99.0%" in texts[by_size[0]]
    assert "99.0" not in texts["Accuracy by number of items"]


def test_mode_none_alone_has_one_plot(finished):
    assert list(descriptions({"none": finished.figures.arms["none"]})) == ["Accuracy by length of the prompt"]
