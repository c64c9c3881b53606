"""Recall and search time of an index, against exact search.

A held-out query is an item vector, rotated in a seeded random direction by an angle of fixed cosine: the image of a
question resembles an item's image, but is another one. If enough item vectors were not in the training sample, only
those are used. So no query is a vector that the index holds or was trained on.
recall@k = |nearest by the index and exact| / k, averaged.

Letters: n queries, N items, C width.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import faiss
import numpy as np

from comem_ray.retrieval.embeddings import Embeddings
from comem_ray.retrieval.index import TIES, ItemIndex

QUERY_COSINE = 0.9  # between a query and the item vector it was made from
RECALL_AT = 10


def training_positions(total: int, count: int, seed: int) -> np.ndarray:
    """Ascending positions of the training sample: `count` of `total` items, drawn without replacement."""
    return np.sort(np.random.default_rng([seed, 0]).choice(total, min(count, total), replace=False))


def held_out_queries(embeddings: Embeddings, kind: str, training: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Queries (n, C) float32, L2-normalised, n = `count`, or fewer if there are fewer items; see the module's text."""
    rng = np.random.default_rng([seed, 1])
    left = np.setdiff1d(np.arange(len(embeddings)), training, assume_unique=True)
    pool = left if len(left) >= count else np.arange(len(embeddings))
    vectors = embeddings.rows(kind, np.sort(rng.choice(pool, min(count, len(pool)), replace=False)))
    noise = rng.standard_normal(vectors.shape, dtype=np.float32)
    noise -= (noise * vectors).sum(1, keepdims=True) * vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return QUERY_COSINE * vectors + np.float32((1 - QUERY_COSINE**2) ** 0.5) * noise


def exact_nearest(queries: np.ndarray, blocks: Iterable[np.ndarray], k: int) -> np.ndarray:
    """Positions (n, k) int64 of the `k` largest inner products over all blocks, -1 if there are fewer."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    positions = np.full((len(queries), k), -1, np.int64)
    start = 0
    for block in blocks:
        count = min(k + TIES, len(block))
        block_scores, rows = faiss.knn(queries, block, count, metric=faiss.METRIC_INNER_PRODUCT)
        scores, positions = np.hstack([scores, block_scores]), np.hstack([positions, rows + start])
        order = np.lexsort((positions, -scores), axis=1)[:, :k]  # equal scores in item order, as in an index
        scores, positions = np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
        start += len(block)
    return positions


def recall(nearest: np.ndarray, exact: np.ndarray) -> float:
    """Share of the `exact` positions (n, k) that are in the `nearest` (n, k) of the same query; -1 is none."""
    hits = [len(np.intersect1d(n, e[e >= 0])) for n, e in zip(nearest, exact, strict=True)]
    return sum(hits) / max(1, int((exact >= 0).sum()))


def search_milliseconds(index: ItemIndex, queries: np.ndarray, k: int) -> tuple[float, float]:
    """p50 and p99 of the search time of one query in milliseconds, after one search that is not counted."""
    index.nearest(queries[:1], k)
    times = []
    for i in range(len(queries)):
        start = time.perf_counter()
        index.nearest(queries[i : i + 1], k)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.percentile(times, 50)), float(np.percentile(times, 99))
