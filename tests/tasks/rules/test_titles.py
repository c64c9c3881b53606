"""BM25 linking: against the formula, ties, and names that no title knows."""

from __future__ import annotations

import math

import pytest
from support.scored import jsonl

from comem_ray.tasks.rules.titles import EPSILON, K1, B, TitleIndex, read_titles, word_pieces, words

TITLES = [
    ("Q1", "Lion"),
    ("Q2", "Lion Rock"),
    ("Q3", "The Lion King"),
    ("Q4", "Zürich"),
    ("Q5", "LION"),
    ("Q6", "Rock pigeon"),
    ("Q7", "Rock pigeon (song)"),
]


def bm25(query: str, title: str, titles=TITLES, cut=words) -> float:
    """rank_bm25's BM25Okapi, from its formula; idf negative: a quarter of the mean."""
    documents = [cut(text) for _, text in titles]
    length = sum(map(len, documents)) / len(documents)
    vocabulary = {word for document in documents for word in document}
    holding = {word: sum(word in document for document in documents) for word in vocabulary}
    idf = {word: math.log((len(documents) - n + 0.5) / (n + 0.5)) for word, n in holding.items()}
    floor = EPSILON * sum(idf.values()) / len(idf)
    total = 0.0
    for word in cut(query):
        if count := cut(title).count(word):
            weight = idf[word] if idf[word] >= 0 else floor
            total += weight * count * (K1 + 1) / (count + K1 * (1 - B + B * len(cut(title)) / length))
    return total


@pytest.mark.parametrize(
    "query",
    ["lion", "the rock", "rock pigeon", "king of rock", "zurich", "a song", "rock rock (lion", "rock pigeon lion"],
)
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


PIECES = [
    "[UNK]",
    "red",
    "meat",
    "cross",
    "crescent",
    "onion",
    "##skin",
    "soup",
    "a",
    "##b",
    "##c",
    "##d",
    ",",
    "(",
    ")",
]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n")
    return path


def test_word_pieces_are_berts(vocabulary):
    cut = word_pieces(vocabulary)
    assert cut("Onionskin (RED), abcd zoo \ud800") == [
        "onion", "##skin", "(", "red", ")", ",", "a", "##b", "##c", "##d", "[UNK]", "[UNK]",
    ]  # fmt: skip


def test_lengths_are_counted_in_word_pieces(vocabulary):
    """As the authors' own links show: "red" is linked to "Red Red Meat" before "Red" where titles are 3 to 6 long."""
    titles = [("Q1", "Red"), ("Q2", "Red Red Meat"), *((f"Q{n}", "abcd abcd") for n in range(3, 20))]
    assert TitleIndex(titles, vocabulary).link("red") == ("Q2", "Red Red Meat")  # the mean is 7.4 pieces
    assert TitleIndex(titles).link("red") == ("Q1", "Red")  # and 2 words
    cut = word_pieces(vocabulary)
    for query in ("red", "red meat"):
        link = TitleIndex(titles, vocabulary).link(query)
        assert bm25(query, link[1], titles, cut) == pytest.approx(max(bm25(query, t, titles, cut) for _, t in titles))


def test_a_word_is_met_within_another(vocabulary):
    titles = [("Q1", "Onionskin"), ("Q2", "Red soup"), ("Q3", "Meat"), ("Q4", "Cross")]
    assert TitleIndex(titles, vocabulary).link("onion") == ("Q1", "Onionskin")
    assert TitleIndex(titles).link("onion") is None


def test_a_vocabulary_that_is_none(tmp_path):
    (tmp_path / "v.txt").write_text("lion\n")
    with pytest.raises(ValueError, match=r"v\.txt: holds no \[UNK\]: want the vocab\.txt of bert-base-uncased"):
        TitleIndex(TITLES, tmp_path / "v.txt")
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read"):
        TitleIndex(TITLES, tmp_path / "none.txt")
