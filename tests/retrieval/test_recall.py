"""Recall against exact search, and what the held-out queries are."""

import numpy as np
import pytest

from comem_ray.config import IndexConfig
from comem_ray.retrieval.embeddings import Embeddings
from comem_ray.retrieval.index import ItemIndex, build_index
from comem_ray.retrieval.recall import (
    QUERY_COSINE,
    exact_nearest,
    held_out_queries,
    recall,
    search_milliseconds,
    training_positions,
)


@pytest.fixture(scope="module")
def embeddings(finished):
    return Embeddings(finished.folder("embeddings"))


def test_the_training_sample_is_seeded_and_without_repeats():
    positions = training_positions(1000, 100, 3)
    assert (np.diff(positions) > 0).all()
    np.testing.assert_array_equal(positions, training_positions(1000, 100, 3))
    assert not np.array_equal(positions, training_positions(1000, 100, 4))
    assert training_positions(5, 100, 0).tolist() == [0, 1, 2, 3, 4]


def test_queries_resemble_items_that_were_not_trained_on(embeddings):
    training = training_positions(90, 60, 0)
    queries = held_out_queries(embeddings, "text", training, 25, 0)
    assert queries.shape == (25, 24)
    assert queries.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    left = np.delete(np.arange(90), training)
    cosines = queries @ embeddings.rows("text", left).T
    np.testing.assert_allclose(np.abs(cosines - QUERY_COSINE).min(1), 0, atol=1e-5)


def test_where_all_are_trained_on_queries_come_from_all(embeddings):
    queries = held_out_queries(embeddings, "image", np.arange(90), 500, 0)
    assert queries.shape == (90, 24)


def test_exact_search_over_blocks_is_brute_force(embeddings):
    queries = held_out_queries(embeddings, "image", np.arange(90), 20, 0)
    vectors = np.concatenate(list(embeddings.blocks("image")))
    want = np.argsort(-queries @ vectors.T, axis=1, kind="stable")
    np.testing.assert_array_equal(exact_nearest(queries, np.split(vectors, [1, 30]), 10), want[:, :10])
    assert exact_nearest(queries, [vectors[:4]], 10)[:, 4:].tolist() == [[-1] * 6] * 20


def test_recall_is_a_share():
    exact = np.array([[1, 2, 3], [4, 5, -1]])
    assert recall(exact, exact) == 1
    assert recall(np.array([[3, 9, 8], [5, -1, -1]]), exact) == pytest.approx(2 / 5)
    assert recall(exact[:0], exact[:0]) == 0


def test_a_flat_index_has_recall_one_and_a_coarse_one_less(embeddings):
    vectors = np.concatenate(list(embeddings.blocks("image")))
    queries = held_out_queries(embeddings, "image", np.arange(90), 30, 0)
    exact = exact_nearest(queries, embeddings.blocks("image"), 10)
    figures = {}
    for factory in ("Flat", "IVF16,Flat"):
        index = build_index(IndexConfig(factory=factory), 24, 90, lambda n: vectors[:n], embeddings.blocks("image"))
        items = ItemIndex(index, np.zeros(90, "S1"), np.zeros(90, "S1"), {})
        figures[factory] = recall(items.nearest(queries, 10)[1], exact)
        p50, p99 = search_milliseconds(items, queries, 10)
        assert 0 < p50 <= p99
    assert figures["Flat"] == 1
    assert figures["IVF16,Flat"] < 1
