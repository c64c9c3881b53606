"""The page of an evaluation: text stays text, nothing is requested, a rerun writes the same bytes."""

import json

import pytest
from support.html_page import HtmlPage
from support.tiny import item_row
from support.tiny_report import ITEMS, NASTY

from comem_ray.artifacts import ArtifactError
from comem_ray.report.evaluation import read_evaluation, write_report


def test_the_page_is_made_of_what_is_on_disk(finished):
    given = read_evaluation(finished.config, finished.evaluation, finished.questions, finished.predictions)
    assert given == finished
    report = json.loads((finished.config.folder("evaluation") / "report.json").read_text())
    assert finished.figures.to_json() == report


def test_an_unfinished_evaluation_is_refused(make_config, tmp_path):
    config = make_config(root=str(tmp_path), evaluation={"questions": "q.parquet"})
    with pytest.raises(ArtifactError, match="run the stage 'evaluate' to its end"):
        read_evaluation(config, config.evaluation, [])


def test_text_of_questions_and_models_is_text(page):
    assert NASTY in page.text
    assert f"not {NASTY}" in page.text
    assert [a for t, a in page.elements if "onerror" in a] == []
    assert len([t for t, _ in page.elements if t == "script"]) == 1


def test_nothing_is_requested_from_the_network(page):
    links = [
        v for tag in ("img", "script", "link", "a") for name in ("src", "href") for v in page.attributes(tag, name)
    ]
    kinds = {link.split(":")[0] if ":" in link else link[:1] for link in links}
    assert kinds == {"data", "https", "#"}
    assert {link for link in links if link.startswith("https")} <= {item_row(i)["page_url"] for i in range(ITEMS)}
    assert all(a.get("alt") for t, a in page.elements if t == "img")
    (policy,) = [a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(page.ids)


def test_a_rerun_writes_the_same_bytes(finished, evaluate, tmp_path):
    again = evaluate(tmp_path / "again")
    first, second = (write_report(tmp_path / f"{n}.html", "x", [e]) for n, e in enumerate((finished, again)))
    assert first.read_bytes() == second.read_bytes()


def test_several_evaluations_share_the_gallery(finished, tmp_path):
    page = HtmlPage(write_report(tmp_path / "r.html", "Both", [finished, finished]))
    assert page.text.count("Mode memory was wrong on 8") == 2
    assert len(page.ids) == len(set(page.ids))
