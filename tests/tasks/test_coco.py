"""COCO captions on a fixture in their own format; the figures themselves: rules/test_captions.py."""

from __future__ import annotations

import pytest
from support.scored import card, document, scores

CAPTIONS = {
    11: ["Two robots paint a wooden fence.", "Robots are painting a fence."],
    12: ["An owl reads the morning paper.", "An old owl with a newspaper."],
    13: ["Seven lemons roll down the stairs.", "Lemons on a staircase."],
}


@pytest.fixture
def references(tmp_path):
    annotations = [
        {"image_id": image, "id": 10 * image + n, "caption": text}
        for image, given in CAPTIONS.items()
        for n, text in enumerate(given)
    ]
    images = [{"id": image, "file_name": f"COCO_val2014_{image:012}.jpg"} for image in CAPTIONS]
    return document(tmp_path / "captions_val2014.json", {"images": images, "annotations": annotations})


def test_a_reference_as_caption_has_full_bleu_and_rouge(references):
    summary = card("coco", references, {image: given[0] for image, given in CAPTIONS.items()}).summary
    assert {name: summary["metrics"][name]["score"] for name in ("BLEU-1", "BLEU-4", "ROUGE-L")} == {
        "BLEU-1": 100.0, "BLEU-4": 100.0, "ROUGE-L": 100.0,
    }  # fmt: skip
    assert summary["overall"] == summary["metrics"]["CIDEr"]["score"] > 100
    assert summary["metrics"]["BLEU-4"]["interval"] == [100.0, 100.0]


def test_missing_captions_are_empty_ones(references):
    result = card("coco", references, {11: r"\boxed{Two robots paint a wooden fence.}", 12: "paper"})
    assert result.summary["missing"] == 1
    assert result.rows[2] == {
        "data_id": 13, "prediction": None, "parsed": None, "score": 0.0, "cider": 0.0, "rouge_l": 0.0,
        "bleu_4": pytest.approx(0.0, abs=1e-6),
    }  # fmt: skip
    assert all(0 <= score <= 1 for score in scores(result))
    low, high = result.summary["metrics"]["BLEU-1"]["interval"]
    assert low <= result.summary["metrics"]["BLEU-1"]["score"] <= high


def test_faults_are_named(references, tmp_path):
    with pytest.raises(ValueError, match="no list 'annotations'"):
        card("coco", document(tmp_path / "a.json", {"images": []}), {})
    with pytest.raises(ValueError, match="no scorer for coco"):
        card("coco", references, {}, rules="paper")
