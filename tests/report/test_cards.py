"""A card of the gallery: its answers, its items, its image, and what of it may be a link."""

import pytest
from support.tiny import item_row

from comem_ray.knowledge.items import ItemStore
from comem_ray.report.cards import CardBuilder, gold_text, web_address
from comem_ray.report.tables import in_order
from comem_ray.tasks.images import ImageReader


def card_of(finished, number, rows=None):
    """The card of question `number`."""
    items = ItemStore(finished.config.folder("items"))
    builder = CardBuilder(list(in_order(finished.figures.arms)), items, ImageReader())
    question = finished.questions[number]
    rows = [row for row in rows or finished.predictions if row["data_id"] == question.data_id]
    return builder.card(question, rows, 176, "a")


def test_a_card_has_every_answer_and_says_which_item_is_right(finished):
    card = card_of(finished, 2)  # rag and memory right, the right item at rank 3
    assert [(a.text, a.verdict) for a in card.answers] == [("I do not know, none", "wrong"), ("number 2", "right")]
    assert sum(len(a.arms) for a in card.answers) == len(finished.figures.arms)
    assert [(s.rank, s.right) for s in card.sources] == [(1, False), (2, False), (3, True)]
    assert card.sources[2].title == "Title 2"
    assert card.sources[2].url == item_row(2)["page_url"]
    assert "the right item is at rank 3" in card.sources_heading
    lost = card_of(finished, 3)  # not retrieved: after the others
    assert [(s.rank, s.right) for s in lost.sources] == [(1, False), (2, False), (3, False), (0, True)]
    assert "the right item was not retrieved" in lost.sources_heading


def test_a_question_that_could_not_be_asked_says_why(finished):
    rows = [{**r, "prediction": "", "score": 0.0, "fault": "image_missing"} for r in finished.predictions]
    card = card_of(finished, 0, rows)
    assert [(a.text, a.verdict) for a in card.answers] == [("(not asked: image_missing)", "wrong")]


def test_a_question_without_an_image_has_a_card_without_one(finished):
    assert card_of(finished, 4).image is None
    assert card_of(finished, 3).image.startswith("data:image/jpeg;base64,")


def test_its_characters_grow_with_its_texts_and_images(finished):
    with_image, without = card_of(finished, 3), card_of(finished, 4)
    assert with_image.characters > without.characters + len(with_image.image) / 2


def test_a_gold_answer_as_text():
    number = [{"wikidata": 5, "range": [4.5, 5.5]}]
    assert [gold_text(g) for g in (["a", "b", "a"], number, "x|y")] == ["a | b", "4.5 to 5.5", "x|y"]
    assert gold_text({"A": "red", "B": ["blue", "sky"]}) == "A: red, B: blue | sky"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//example.org", "", None])
def test_only_a_web_address_is_a_link(url):
    assert web_address(url) is None
    assert web_address("https://example.org/a?b=c") == "https://example.org/a?b=c"
