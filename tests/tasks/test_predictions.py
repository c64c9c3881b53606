"""Files of predictions: our form and the authors' forms, what is refused, and texts that were not escaped."""

from __future__ import annotations

import gzip
import json

import pytest
from support.scored import document, jsonl

from comem_ray.tasks import load_task
from comem_ray.tasks.predictions import as_meant, read_predictions

GOOD = b'{"data_id": "a", "prediction": "x"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b"{\n", "line 2: not JSON"),
        (GOOD + b"\n[1]\n", "line 3: a JSON list, wanted an object"),
        (GOOD + b'{"data_id": "\xff"}\n', "line 2: byte 13 is not UTF-8"),
        (b'{"data_id": "a"}\n', "line 1: field 'prediction' is missing"),
        (b'{"data_id": "a", "prediction": null}\n', "field 'prediction' is None, wanted a string"),
        (b'{"data_id": true, "prediction": "x"}\n', "field 'data_id' is True"),
        (b'{"prediction": "x"}\n', "field 'data_id' is missing"),
        (GOOD + GOOD, "line 2: a second prediction for data_id 'a'"),
        (GOOD.replace(b'"a"', b"7") + GOOD.replace(b'"a"', b'"7"'), "a second prediction for data_id '7'"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named(tmp_path, content, message):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"p\.jsonl, ") as caught:
        read_predictions(path, load_task("jsonl"))
    assert message in str(caught.value)


def test_lines_end_at_newlines_alone(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes("\ufeff".encode() + '{"data_id": 7, "prediction": "a\u2028b"}\r\n\r\n'.encode())
    assert read_predictions(path, load_task("jsonl")).predictions == {"7": (7, "a\u2028b")}


@pytest.mark.parametrize(
    ("task", "content", "predictions"),
    [
        ("okvqa", [{"question_id": 7, "answer": "dog"}, {"question_id": 8, "answer": "cat"}], {7: "dog", 8: "cat"}),
        ("aokvqa", {"q1": "dog", "q2": "cat"}, {"q1": "dog", "q2": "cat"}),
        ("aokvqa", {"q1": {"multiple_choice": "hen", "direct_answer": "dog"}}, {"q1": "dog"}),
        ("aokvqa-mc", {"q1": {"multiple_choice": "hen", "direct_answer": "dog"}}, {"q1": "hen"}),
        ("coco", [{"image_id": 11, "caption": "A dog"}], {11: "A dog"}),
        ("mrag", [{"qs_id": "3", "output": "(B)", "gt_choice": "B"}], {"3": "(B)"}),
        ("infoseek", [{"data_id": "a", "prediction": "x"}], {"a": "x"}),
        ("oven", [{"data_id": "a", "prediction": "x", "pred_entity_id": "Q5"}], {"a": "wikidata:Q5"}),
        ("oven", [{"data_id": "a", "prediction": "x", "bm25": [["X", "Q7"], ["Y", "Q8"]]}], {"a": "wikidata:Q7"}),
        ("viquae", [{"id": "v", "output": [{"answer": "Ada"}]}], {"v": "Ada"}),
    ],
)
def test_the_authors_forms_are_read(tmp_path, task, content, predictions):
    def read(path):
        return dict(read_predictions(path, load_task(task)).predictions.values())

    path = document(tmp_path / "p.json", content)
    assert read(path) == predictions
    path.write_text(json.dumps(content, indent=1))
    assert read(path) == predictions
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert read(path) == predictions
    if isinstance(content, list):
        assert read(jsonl(tmp_path / "p.jsonl", content)) == predictions


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        (
            "okvqa",
            [{"id": 7, "answer": "dog"}],
            "prediction 1: field 'data_id' is missing: want JSONL .* or a JSON list",
        ),
        ("aokvqa", {"q1": {"multiple_choice": "hen"}}, "entry 1: field 'prediction' is missing.*direct_answer"),
        ("aokvqa", {"q1": None}, "entry 1: field 'prediction' is None, wanted a string"),
        ("okvqa", [["dog"]], "prediction 1: a JSON list, wanted an object"),
        ("infoseek", "dog", "line 1: a JSON str, wanted an object"),
        ("okvqa", [{"question_id": 7, "answer": "a"}] * 2, "prediction 2: a second prediction for data_id 7"),
    ],
)
def test_another_form_is_named(tmp_path, task, content, message):
    with pytest.raises(ValueError, match=rf"p\.json, {message}"):
        read_predictions(document(tmp_path / "p.json", content), load_task(task))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("\x08oxed{Paris}", r"\boxed{Paris}"),
        ("\x08oxed{\text{Paris}}", r"\boxed{\text{Paris}}"),
        ("\x08oxed{\textbf{B}}", r"\boxed{\textbf{B}}"),
        ("\x08oxed{\x0crac{1}{2}}", r"\boxed{\frac{1}{2}}"),
        ("\x0cbox{3 \times 4}", r"\fbox{3 \times 4}"),
        ("oxed{Paris}", r"\boxed{Paris}"),  # a control character that a cleaner took away
        ("so boxed{Paris}", r"so \boxed{Paris}"),
        (r"\boxed{Paris}", r"\boxed{Paris}"),
        ("a\ttext, a\nnew line", "a\ttext, a\nnew line"),
        ("a\text of a file", "a\text of a file"),
        ("a page\x0cfraction", "a page\x0cfraction"),
    ],
)
def test_a_backslash_that_was_lost_is_put_back_where_that_is_certain(text, meant):
    assert as_meant(text) == meant


def test_what_is_badly_escaped_is_counted(tmp_path):
    path = tmp_path / "p.jsonl"
    lines = [
        r'{"data_id": "a", "prediction": "so \boxed{\text{Paris}}"}',
        r'{"data_id": "b", "prediction": "\boxed{\mathrm{Rome}} in \(x\)"}',
        r'{"data_id": "c", "prediction": "so \\boxed{Sofia}"}',
        '{"data_id": "d", "prediction": "a\\u0001b"}',
    ]
    path.write_text("\n".join(lines))
    file = read_predictions(path, load_task("jsonl"))
    texts = {data_id: text for data_id, (_, text) in file.predictions.items()}
    assert texts["a"] == r"so \boxed{\text{Paris}}"
    assert texts["b"] == r"\boxed{\mathrm{Rome}} in \(x\)"
    assert texts["c"] == r"so \boxed{Sofia}"
    assert (file.repaired, file.doubtful) == (2, 1)
    repaired, doubtful = file.warnings()
    assert "2 of 4 predictions are badly escaped" in repaired
    assert "1 of 4 predictions hold control characters" in doubtful
    listed = tmp_path / "p.json"
    listed.write_text("[" + ",".join(lines[:2]) + "]")
    file = read_predictions(listed, load_task("jsonl"))
    assert {data_id: text for data_id, (_, text) in file.predictions.items()} == {k: texts[k] for k in "ab"}
    assert file.repaired == 2
