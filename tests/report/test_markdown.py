"""report.md: the figures as tables in Markdown."""

from dataclasses import replace

import pytest

from comem_ray.evaluation.figures import Share
from comem_ray.report.markdown import markdown


def tables(text):
    """The rows of every table, cell by cell, without its line of dashes."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    return [[[c.strip() for c in line.strip("|").split("|")] for line in [b[0], *b[2:]]] for b in blocks]


def test_the_tables_of_an_evaluation(finished):
    found = tables(markdown(finished.figures))
    heads = [rows[0][0] for rows in found]
    assert heads == [
        *("arm", "right item among the first", "memory minus rag", "against none"),
        *("by language", "by parity", "by third"),
    ]
    assert all(len(row) == len(rows[0]) for rows in found for row in rows)
    arms = {row[0]: row[1:] for row in found[0][1:]}
    assert arms.keys() == finished.figures.arms.keys()
    assert arms["memory, k=1"] == ["66.7 (46.7 to 82.0)", "24", "70.0", "8.0", "11.0", "21.0"]
    assert ["1", "25.0 (12.0 to 44.9)", "24"] in found[1]
    assert ["k=1", "+16.7", "0.388", "24"] in found[2]
    assert ["rag, k=1", "100.0 (12)", "0.0 (12)"] in found[5]


def test_what_was_not_asked_and_sizes_have_tables_of_their_own(finished):
    arms = {"rag, k=3": replace(finished.figures.arms["rag, k=3"], unanswered={"prompt_too_long": 5})}
    recall = {14_000: finished.figures.recall, 7: {1: Share(12.5, 1.0, 20.0, 24)}}
    figures = replace(finished.figures, arms=arms, recall_by_knowledge=recall)
    rows = [row for table in tables(markdown(figures)) for row in table]
    assert ["rag, k=3", "prompt_too_long", "5"] in rows
    assert ["1 of 7", "12.5 (1.0 to 20.0)", "24"] in rows
    assert "3 of 14,000" in [row[0] for row in rows]


@pytest.fixture
def source():
    overall = {"overall": 50.0, "interval": [40.0, 60.0], "n": 8, "missing": 1, "unparsable": 2}
    return {
        "benchmark": "viquae",
        "official": {"none": {**overall, "f1": {"score": 60.0, "interval": [50.0, 70.0]}}},
        "warnings": ["A warning."],
        "questions": 8,
        "left_out": 3,
        "missing_images": {"count": 1, "first": [{"data_id": "viquae/v1", "reason": "image_missing"}]},
        "rejected": {"count": 0, "first": []},
    }


def test_a_source_has_a_section(finished, source):
    text = markdown(replace(finished.figures, sources={"viquae": source}))
    section = text[text.index("### viquae") :]
    assert "questions: 8; not scored by the task itself: 3; without an image, counted as wrong: 1" in section
    assert tables(section)[0][1] == ["none", "50.0 (40.0 to 60.0)", "8", "1", "2", "F1 60.0"]
    assert section.endswith("A warning.\n")
    plain = markdown(replace(finished.figures, sources={"ours": {**source, "official": {}, "warnings": []}}))
    assert plain.endswith("(first viquae/v1).\n")
