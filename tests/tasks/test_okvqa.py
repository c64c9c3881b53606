"""OK-VQA on a fixture in its own format; source: vqaEval.py of the VQA authors (its rule: rules/test_vqa.py)."""

from __future__ import annotations

import pytest
from support.scored import card, document, scores

ANSWERS = {11: ["two dogs"] * 4 + ["2 cats"] * 6, 12: ["race"] * 10, 13: ["cake"] * 3 + ["pie"] * 7}


@pytest.fixture
def references(tmp_path):
    annotations = [
        {
            "question_id": i, "image_id": 1, "question_type": "one" if i < 13 else "four", "answer_type": "other",
            "answers": [
                {"answer": text, "raw_answer": text, "answer_confidence": "yes", "answer_id": n}
                for n, text in enumerate(given, start=1)
            ],
        }
        for i, given in ANSWERS.items()
    ]  # fmt: skip
    questions = [{"image_id": 1, "question": "?", "question_id": i} for i in ANSWERS]
    return [
        document(tmp_path / "OpenEnded_mscoco_val2014_questions.json", {"questions": questions}),
        document(tmp_path / "mscoco_val2014_annotations.json", {"annotations": annotations}),
    ]


def test_accuracy(references):
    result = card("okvqa", references, {11: "The 2 dogs!", 12: "Race", 13: r"so \boxed{cake}"})
    # Question 12: all say the same, so nothing is processed and the capital is wrong. 13: three of ten say cake.
    assert scores(result) == pytest.approx([1.0, 0.0, (3 * 2 / 3 + 7) / 10])
    assert result.summary["overall"] == round((1 + 0.9) / 3 * 100, 2)
    assert result.summary["per_question_type"]["one"]["score"] == 50.0
    assert result.summary["per_answer_type"]["other"]["n"] == 3
    assert result.rows[0]["data_id"] == 11


def test_ids_may_be_written_as_strings(references):
    assert card("okvqa", references[1], {"12": "race"}).summary["per_question_type"]["one"]["score"] == 50.0


def test_the_papers_rules_need_one_annotator(references):
    assert scores(card("okvqa", references, {11: "The two dogs", 12: "race", 13: "a cake"}, rules="paper")) == [1.0] * 3


def test_faults_are_named(references, tmp_path):
    with pytest.raises(ValueError, match=r"questions\.json: holds no 'annotations': name the file mscoco_"):
        card("okvqa", references[0], {})
    with pytest.raises(ValueError, match="holds neither a list 'annotations' nor a list 'questions'"):
        card("okvqa", document(tmp_path / "a.json", [1]), {})
    with pytest.raises(ValueError, match=r"annotation 1: field 'answers' is not a list of objects"):
        card("okvqa", document(tmp_path / "a.json", {"annotations": [{"question_id": 1}]}), {})
    with pytest.raises(ValueError, match=r"annotation 1: a JSON int, wanted an object"):
        card("okvqa", document(tmp_path / "a.json", {"annotations": [1]}), {})
