"""The retriever: questions in, the nearest knowledge items out, by image, by text or by both.

'image' compares a question's image with the items' images. 'text' compares its text with the items' texts (as much of
them as fits CLIP's context). 'both' is late fusion: w * text score + (1 - w) * image score. The candidates of a fusion
are the best FUSION_DEPTH (or 4k) of each index. Both scores of every candidate are computed from the vectors in the two
indexes, so a candidate that is in one list only has an exact score too.

Letters: k items per question, C width. Knows nothing of the content of items, of memory or of Ray.
Source: CoMEM (arXiv 2505.17670) retrieves by image alone, with CLIP image embeddings and the inner product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from comem_ray.artifacts import ArtifactError, Manifest, OpenStage
from comem_ray.config import Config
from comem_ray.knowledge.schema import OLD_NAMES
from comem_ray.retrieval.clip import ClipEncoder
from comem_ray.retrieval.index import FACTORIES, STAGE, ItemIndex, QueryError, Subset, index_path
from comem_ray.retrieval.probe import index_fault

FUSION_DEPTH = 100


@dataclass(frozen=True)
class Query:
    """The parts of a question that the retriever compares. `retrieve` checks that `by` has what it needs."""

    image: Image.Image | None
    text: str | None


@dataclass(frozen=True)
class Hit:
    """An item and its score: a cosine, or with 'both' the weighted mean of two."""

    item_id: str
    score: float


class Retriever:
    """CLIP model and indexes of a run.

    Raises ArtifactError if index/ is unfinished or damaged, if its factory cannot do all that a search needs, or if it
    was made with another CLIP model than the configuration's.
    """

    def __init__(self, config: Config, device: str = "cpu", generation: str | None = None):
        folder = config.folder("index")
        stage = OpenStage(folder, STAGE, generation)
        self.manifest = manifest = stage.manifest
        self._stage = stage  # holds the files of ids and languages, which stay on disk
        self._encoder, self._text_weight = ClipEncoder(config.clip, device), config.retrieval.text_weight
        refuse_other_clip(folder, manifest, self._encoder.fingerprint)
        # Version 0.1 called the kind "image" "picture".
        kinds = ["image" if kind == OLD_NAMES["image"] else kind for kind in manifest.extra["kinds"]]
        if not manifest.extra.get("probed"):  # built before build_index tried what it built
            _refuse_partial(stage, kinds, config.index.search)
        self._indexes = {kind: ItemIndex.load(stage, kind, config.index.search) for kind in kinds}

    def retrieve(
        self,
        queries: Sequence[Query],
        k: int,
        by: Literal["image", "text", "both"] = "image",
        language: str | None = None,
        text_weight: float | None = None,
    ) -> list[list[Hit]]:
        """The `k` best items of each query, best first, equal scores in item order; fewer if the run has fewer.

        With `language`, only items in that language. `text_weight` is the w of 'both', None the
        configuration's. Raises ValueError if a query lacks what `by` needs, if `k` < 1, if no item is in `language`, or
        if the index has no texts.
        """
        if k < 1:
            raise QueryError(f"k must be 1 at least, got {k}", "k")
        return self._nearest(self._embed(queries, by), k, by, language, text_weight)

    def retrieve_in(
        self, queries: Sequence[Query], k: int, subsets: Sequence[Subset], by: Literal["image", "text", "both"]
    ) -> list[list[list[Hit]]]:
        """As `retrieve`, once per subset of the items (`index.subset`). The queries are embedded once."""
        vectors = self._embed(queries, by)
        return [self._nearest(vectors, k, by, None, None, subset) for subset in subsets]

    @property
    def index(self) -> ItemIndex:
        """The index of images. Ids, languages and positions are the same in all indexes."""
        return self._indexes["image"]

    def _nearest(
        self,
        vectors: dict[str, np.ndarray],
        k: int,
        by: str,
        language: str | None,
        text_weight: float | None,
        subset: Subset | None = None,
    ) -> list[list[Hit]]:
        if by != "both":
            scores, ids = self._indexes[by].search(vectors[by], k, language, subset)
            return [_hits(row, row_ids) for row, row_ids in zip(scores, ids, strict=True)]
        weight = self._text_weight if text_weight is None else text_weight
        depth = max(FUSION_DEPTH, 4 * k)
        lists = [self._indexes[kind].nearest(vectors[kind], depth, language, subset)[1] for kind in ("text", "image")]
        return [
            self._fuse(vectors["text"][i], vectors["image"][i], np.union1d(text, image), weight)[:k]
            for i, (text, image) in enumerate(zip(*lists, strict=True))
        ]

    def _embed(self, queries: Sequence[Query], by: str) -> dict[str, np.ndarray]:
        """The vectors (B, C) of each kind that `by` needs."""
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


def refuse_other_clip(folder: Path, manifest: Manifest, clip: str) -> None:
    """Raises ArtifactError where the index in `folder` was made with a CLIP model of another fingerprint."""
    index_clip = manifest.identity["clip"]
    if index_clip != clip:
        raise ArtifactError(
            f"the index in {folder} was made with the CLIP model {index_clip}, the configuration names {clip}: "
            "run jobs.embed_items and jobs.build_index with this configuration, or go back to that model"
        )


def _refuse_partial(stage: OpenStage, kinds: Sequence[str], search_parameters: Mapping[str, int]) -> None:
    for kind in kinds:
        path = index_path(stage, kind)
        if fault := index_fault(path, search_parameters):
            raise ArtifactError(
                f"the index {path} cannot {fault}. Delete {path.parent} and run jobs.build_index with another "
                f"index.factory. {FACTORIES}"
            )


def _hits(scores: np.ndarray, ids: list[str]) -> list[Hit]:
    return [Hit(item_id, float(score)) for item_id, score in zip(ids, scores, strict=False)]


def _refuse_missing(present: int, total: int, by: str, what: str) -> None:
    if present != total:
        article = "an" if what == "image" else "a"
        message = f"retrieval by {by!r} needs {article} {what} in every query, {total - present} of {total} have none"
        raise QueryError(message, what)
