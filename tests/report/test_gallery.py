"""The gallery: which questions are in it, what a card holds, and that its size is bounded."""

import pytest
from support.tiny import item_row

from comem_ray.config import GalleryConfig
from comem_ray.knowledge.items import ItemStore
from comem_ray.report.gallery import CardBuilder, choose, gallery, gold_text, question_scores, web_address
from comem_ray.report.tables import in_order
from comem_ray.tasks.images import ImageReader

COUNT = 24


def gallery_of(finished, predictions=None, **settings):
    items = ItemStore(finished.config.folder("items"))
    builder = CardBuilder(list(in_order(finished.figures.arms)), items, ImageReader())
    rows = finished.predictions if predictions is None else predictions
    return gallery(finished.questions, rows, builder, GalleryConfig(**settings), "p")


def test_wrong_ones_come_first_and_the_summary_counts_the_rest(finished):
    found = gallery_of(finished, questions=9)
    numbers = [int(c.data_id[1:]) for c in found.cards]
    assert [n % 3 == 0 for n in numbers] == [True] * 6 + [False] * 3
    assert "wrong on 8 of 24 questions" in found.summary
    assert "Below are 6 of these, then 3 of the others. 15 questions are left out." in found.summary
    assert len(gallery_of(finished, questions=99).cards) == COUNT
    assert gallery_of(finished, questions=0).cards == []
    assert gallery_of(finished, predictions=[]).summary == "No question was asked."


def test_its_megabytes_are_bounded(finished):
    small = gallery_of(finished, questions=99, max_mb=0.1)
    assert 0 < sum(c.characters for c in small.cards) <= 100_000
    assert f"{COUNT - len(small.cards)} questions are left out" in small.summary


def test_a_card_has_every_answer_and_says_which_item_is_right(finished):
    cards = {c.data_id: c for c in gallery_of(finished).cards}
    card = cards["q2"]  # rag and memory right, the right item at rank 3
    assert [(a.text, a.verdict) for a in card.answers] == [("I do not know, none", "wrong"), ("number 2", "right")]
    assert sum(len(a.arms) for a in card.answers) == len(finished.figures.arms)
    assert [(s.rank, s.right) for s in card.sources] == [(1, False), (2, False), (3, True)]
    assert card.sources[2].title == "Title 2"
    assert card.sources[2].url == item_row(2)["page_url"]
    assert "the right item is at rank 3" in card.sources_heading
    lost = cards["q3"]  # not retrieved: after the others
    assert [(s.rank, s.right) for s in lost.sources] == [(1, False), (2, False), (3, False), (0, True)]
    assert "the right item was not retrieved" in lost.sources_heading
    assert cards["q4"].image is None


def test_a_question_that_could_not_be_asked_says_why(finished):
    rows = [{**r, "prediction": "", "score": 0.0, "fault": "image_missing"} for r in finished.predictions]
    card = gallery_of(finished, predictions=rows).cards[0]
    assert [(a.text, a.verdict) for a in card.answers] == [("(not asked: image_missing)", "wrong")]


def test_the_score_of_a_question_is_of_memory_with_the_items_as_retrieved():
    def row(mode, score, position=None):
        return {"mode": mode, "score": score, "gold_position": position}

    both = {"a": [row("rag", 0), row("memory", 1), row("memory", 0.5), row("memory", 0, position=1)]}
    assert question_scores(both) == ({"a": 0.75}, "memory")
    assert question_scores({"a": [row("none", 0), row("rag", 1)]}) == ({"a": 1}, "rag")


def test_the_choice_is_from_all_of_the_file():
    scores = {f"q{i}": 0.0 for i in range(1000)}
    numbers = [int(i[1:]) for i in choose(scores, 40)]
    assert len(set(numbers)) == 40
    assert min(numbers) < 200
    assert max(numbers) > 800
    assert len({n % 4 for n in numbers}) == 4  # a file may repeat its kinds of question in turn


def test_a_gold_answer_as_text():
    number = [{"wikidata": 5, "range": [4.5, 5.5]}]
    assert [gold_text(g) for g in (["a", "b", "a"], number, "x|y")] == ["a | b", "4.5 to 5.5", "x|y"]
    assert gold_text({"A": "red", "B": ["blue", "sky"]}) == "A: red, B: blue | sky"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//example.org", "", None])
def test_only_a_web_address_is_a_link(url):
    assert web_address(url) is None
    assert web_address("https://example.org/a?b=c") == "https://example.org/a?b=c"
