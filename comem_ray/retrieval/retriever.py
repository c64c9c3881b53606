"""The retriever: questions in, the nearest knowledge items out, by image, by text or by both.

By image, a question's image is compared with the items' images; by text, its text with the items' texts (as far
as CLIP's context reaches); by both, late fusion: w * text score + (1 - w) * image score. The candidates of a fusion
are the best FUSION_DEPTH (or 4k) of each index, and both scores of every candidate are computed from the vectors that
the two indexes hold, so a candidate that one list lacks counts as exactly as the others.

Letters: k items a question, C width. Knows nothing of what an item says, of memory or of Ray.
Source: the paper retrieves by image alone (METHOD: CLIP image embeddings, inner product).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from comem_ray.artifacts import ArtifactError, load_manifest
from comem_ray.config import Config
from comem_ray.retrieval.clip import ClipEncoder
from comem_ray.retrieval.index import STAGE, ItemIndex, QueryError, Subset

FUSION_DEPTH = 100


@dataclass(frozen=True)
class Query:
    """A question as the retriever sees it. Raises nothing: what `by` needs is checked when it is asked."""

    image: Image.Image | None
    text: str | None


@dataclass(frozen=True)
class Hit:
    """An item and its score: a cosine, or with 'both' the weighted mean of two."""

    item_id: str
    score: float


class Retriever:
    """CLIP model and indexes of a run.

    Raises ArtifactError where index/ is unfinished or was made with another CLIP model than the configuration's.
    """

    def __init__(self, config: Config, device: str = "cpu"):
        folder = config.folder("index")
        manifest = load_manifest(folder, STAGE)
        self._encoder, self._text_weight = ClipEncoder(config.clip, device), config.retrieval.text_weight
        made_with, here = manifest.identity["clip"], self._encoder.fingerprint
        if made_with != here:
            raise ArtifactError(
                f"the index in {folder} was made with the CLIP model {made_with}, the configuration names {here}: run "
                "jobs.embed_items and jobs.build_index with this configuration, or go back to that model"
            )
        self._indexes = {kind: ItemIndex.load(folder, kind, config.index.search) for kind in manifest.extra["kinds"]}

    def retrieve(
        self,
        queries: Sequence[Query],
        k: int,
        by: Literal["image", "text", "both"] = "image",
        language: str | None = None,
        text_weight: float | None = None,
    ) -> list[list[Hit]]:
        """The `k` best items of each query, best first, equal scores in item order; fewer where there are fewer.

        `language` admits items of that language only, None all. `text_weight` is the w of 'both', None the
        configuration's. Raises ValueError where a query lacks what `by` needs, `k` < 1, no item is in `language`, or
        the index has no texts.
        """
        if k < 1:
            raise QueryError(f"k must be 1 at least, got {k}", "k")
        return self._nearest(self._embed(queries, by), k, by, language, text_weight)

    def retrieve_in(
        self, queries: Sequence[Query], k: int, parts: Sequence[Subset], by: Literal["image", "text", "both"]
    ) -> list[list[list[Hit]]]:
        """As `retrieve`, once for each of `parts` of the items (`index.part`), the queries embedded once."""
        vectors = self._embed(queries, by)
        return [self._nearest(vectors, k, by, None, None, part) for part in parts]

    @property
    def index(self) -> ItemIndex:
        """The index of images: ids, languages and positions are the same in all."""
        return self._indexes["image"]

    def _nearest(
        self,
        vectors: dict[str, np.ndarray],
        k: int,
        by: str,
        language: str | None,
        text_weight: float | None,
        part: Subset | None = None,
    ) -> list[list[Hit]]:
        if by != "both":
            scores, ids = self._indexes[by].search(vectors[by], k, language, part)
            return [_hits(row, found) for row, found in zip(scores, ids, strict=True)]
        weight = self._text_weight if text_weight is None else text_weight
        depth = max(FUSION_DEPTH, 4 * k)
        lists = [self._indexes[kind].nearest(vectors[kind], depth, language, part)[1] for kind in ("text", "image")]
        return [
            self._fuse(vectors["text"][i], vectors["image"][i], np.union1d(text, image), weight)[:k]
            for i, (text, image) in enumerate(zip(*lists, strict=True))
        ]

    def _embed(self, queries: Sequence[Query], by: str) -> dict[str, np.ndarray]:
        """The vectors (B, C) that `by` needs, by kind."""
        if by not in ("image", "text", "both"):
            raise QueryError(f"by must be 'image', 'text' or 'both', got {by!r}", "by")
        vectors = {}
        if by in ("image", "both"):
            images = [q.image for q in queries if q.image is not None]
            _refuse_missing(len(images), len(queries), by, "image")
            vectors["image"] = self._encoder.embed_images(images)
        if by in ("text", "both"):
            texts = [q.text for q in queries if q.text]
            _refuse_missing(len(texts), len(queries), by, "text")
            if "text" not in self._indexes:
                message = f"retrieval by {by!r} needs texts, this run embedded none (clip.texts: false)"
                raise QueryError(message, "by")
            vectors["text"] = self._encoder.embed_texts(texts)
        return vectors

    def _fuse(self, text: np.ndarray, image: np.ndarray, candidates: np.ndarray, weight: float) -> list[Hit]:
        """All `candidates` (positions, ascending, -1 for none) by their weighted score, best first."""
        candidates = candidates[candidates >= 0]
        text_scores = self._indexes["text"].scores(text, candidates)
        scores = weight * text_scores + (1 - weight) * self._indexes["image"].scores(image, candidates)
        order = np.argsort(-scores, kind="stable")
        ids = self._indexes["text"].ids
        return _hits(scores[order], [ids[p].decode() for p in candidates[order]])


def _hits(scores: np.ndarray, ids: list[str]) -> list[Hit]:
    return [Hit(item_id, float(score)) for item_id, score in zip(ids, scores, strict=False)]


def _refuse_missing(there: int, wanted: int, by: str, what: str) -> None:
    if there != wanted:
        article = "an" if what == "image" else "a"
        message = f"retrieval by {by!r} needs {article} {what} in every query, {wanted - there} of {wanted} have none"
        raise QueryError(message, what)
