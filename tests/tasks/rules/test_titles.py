"""BM25 linking: against the formula, ties, and names that no title knows."""

from __future__ import annotations

import math

import pytest
from support.scored import jsonl

from comem_ray.tasks.rules.titles import K1, B, TitleIndex, read_titles, words

TITLES = [
    ("Q1", "Lion"),
    ("Q2", "Lion Rock"),
    ("Q3", "The Lion King"),
    ("Q4", "Zürich"),
    ("Q5", "LION"),
    ("Q6", "Rock pigeon"),
    ("Q7", "Rock pigeon (song)"),
]


def bm25(query: str, title: str) -> float:
    """Okapi's term frequencies and Lucene's inverse document frequencies, from the formula."""
    documents = [words(text) for _, text in TITLES]
    length = sum(map(len, documents)) / len(documents)
    total = 0.0
    for word in words(query):
        holding = sum(word in document for document in documents)
        idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
        count = words(title).count(word)
        total += idf * count * (K1 + 1) / (count + K1 * (1 - B + B * len(words(title)) / length))
    return total


@pytest.mark.parametrize("query", ["lion", "the rock", "rock pigeon", "king of rock", "zurich", "a song"])
def test_the_top_title_is_bm25s(query):
    linked = TitleIndex(TITLES).link(query)
    assert linked is not None
    best = max(bm25(query, title) for _, title in TITLES)
    assert bm25(query, linked[1]) == pytest.approx(best)


def test_ties_go_to_the_same_letters_then_to_the_first():
    index = TitleIndex(TITLES)
    assert index.link("LION") == ("Q5", "LION")
    assert index.link("Lion") == ("Q1", "Lion")
    assert index.link("lion") == ("Q1", "Lion")


def test_a_name_without_a_known_word():
    index = TitleIndex(TITLES)
    assert index.link("giraffe") is None
    assert index.link("") is None
    assert index.link("\ud800 lion") == ("Q1", "Lion")  # half a surrogate pair, as JSON can hold
    with pytest.raises(ValueError, match="no titles"):
        TitleIndex([])


def test_one_title_is_enough():
    assert TitleIndex([("Q1", "Lion")]).link("the lion") == ("Q1", "Lion")


def test_words_are_berts():
    assert words("The Café-Bar, № 5 東京") == ["the", "cafe", "-", "bar", ",", "№", "5", "東", "京"]


def test_read_titles(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", [{"wikidata_id": "Q1", "wikipedia_title": "Lion"}, {"wikidata_id": "Q2"}])
    rows = read_titles(path)
    assert next(rows) == ("Q1", "Lion")
    with pytest.raises(ValueError, match=r"t\.jsonl, line 2: field 'wikipedia_title' is missing"):
        next(rows)
