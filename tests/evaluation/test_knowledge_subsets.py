"""Subsets of the knowledge base: nested, seeded, with all right items, and searched as brute force would."""

import itertools

import faiss
import numpy as np
import pytest

from comem_ray.config import ConfigError
from comem_ray.evaluation.knowledge_subsets import KnowledgeSubsets
from comem_ray.retrieval.index import ItemIndex

N, C = 200, 16
RIGHT = ["item0003", "item0150", "item0199"]


@pytest.fixture(scope="module")
def vectors():
    drawn = np.random.default_rng(0).standard_normal((N, C)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def item_index(vectors, factory="Flat"):
    index = faiss.index_factory(C, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    ids = np.array([f"item{i:04}" for i in range(N)], "S8")
    return ItemIndex(index, ids, np.array(["en", "de"] * (N // 2), "S2"), {})


def members(knowledge, size, language=None):
    return set(knowledge.positions(size, language).tolist())


def test_a_subset_holds_every_smaller_one_and_the_right_items(vectors):
    knowledge = KnowledgeSubsets(item_index(vectors), RIGHT, seed=7)
    subsets = [members(knowledge, size) for size in (3, 4, 50, 199, N, "all")]
    assert [len(subset) for subset in subsets] == [3, 4, 50, 199, N, N]
    assert subsets[0] == {3, 150, 199}
    assert all(less <= more for less, more in itertools.pairwise(subsets))
    again = KnowledgeSubsets(item_index(vectors), reversed(RIGHT), seed=7)
    assert members(again, 50) == subsets[2]
    assert members(KnowledgeSubsets(item_index(vectors), RIGHT, seed=8), 50) != subsets[2]


def test_a_language_has_subsets_of_its_own(vectors):
    knowledge = KnowledgeSubsets(item_index(vectors), RIGHT, seed=7)
    assert members(knowledge, 1, "en") == {150}
    assert members(knowledge, 2, "de") == {3, 199}
    assert members(knowledge, "all", "de") == set(range(1, N, 2))
    assert knowledge.subset("all", "de").count == 100


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW16"])
def test_a_search_sees_the_subset_alone(vectors, factory):
    index = item_index(vectors, factory)
    knowledge = KnowledgeSubsets(index, RIGHT, seed=7)
    mask = np.isin(np.arange(N), list(members(knowledge, 20)))
    queries = vectors[:9] + 0.1
    _, positions = index.nearest(queries, 5, subset=knowledge.subset(20))
    scores = queries @ vectors.T
    scores[:, ~mask] = -np.inf
    assert positions.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :5].tolist()


@pytest.mark.parametrize(
    ("size", "language", "message"),
    [
        (2, None, r"2, want 3 \(the right items of the questions\) to 200 \(all items\), or 'all'"),
        (201, None, "201, want 3 .* to 200"),
        (101, "en", r"want 1 .* to 100 \(all items of language 'en'\)"),
    ],
)
def test_an_impossible_size_is_refused(vectors, size, language, message):
    with pytest.raises(ConfigError, match=f"evaluation.knowledge_sizes: .*{message}"):
        KnowledgeSubsets(item_index(vectors), RIGHT, seed=7).subset(size, language)
