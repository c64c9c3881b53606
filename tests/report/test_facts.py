"""The table of the run: names, sizes and digests, no dates and no paths."""

import re
from dataclasses import replace
from pathlib import Path

from support.tiny_report import ITEMS

from comem_ray.report.facts import facts


def digests(finished, questions=None, predictions=None):
    table = facts(
        finished.config, questions or finished.questions, predictions or finished.predictions, finished.manifest, ITEMS
    )
    return {name: value for name, value in table.rows if name.startswith("digest")}


def test_what_was_evaluated(finished, page):
    rows = dict(page.tables["The run"])
    assert rows["run"] == "tiny"
    assert rows["questions"] == "24 (20 with an image; languages: en, ja)"
    assert rows["knowledge base"] == "14 items"
    assert rows["memory encoder"] == "not trained: random weights of seed 0"
    assert rows["language model"] == f"{Path(finished.config.backbone.model).name} (float32)"
    assert rows["memory store"] == "0.0 MB for 0 items, 8 vectors each"
    assert rows["digest of the backbone"] == "b" * 16
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", page.text)
    assert str(finished.config.folder("items").parent) not in page.text


def test_a_digest_changes_with_its_thing_alone(finished):
    before = digests(finished)
    first, *others = finished.questions
    asked = digests(finished, questions=[replace(first, image=b"another"), *others])
    assert {name for name in before if asked[name] != before[name]} == {"digest of the questions"}
    row, *rows = finished.predictions
    answered = digests(finished, predictions=[{**row, "prediction": "another"}, *rows])
    assert {name for name in before if answered[name] != before[name]} == {"digest of the answers"}
