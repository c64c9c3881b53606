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
from torch import Tensor

from comem_ray.artifacts import ArtifactError, Manifest, OpenStage
from comem_ray.config import Config
from comem_ray.knowledge.schema import OLD_NAMES
from comem_ray.retrieval.clip import ClipEncoder
from comem_ray.retrieval.embeddings import stored_vectors
from comem_ray.retrieval.index import FACTORIES, STAGE, ItemIndex, index_path
from comem_ray.retrieval.languages import QueryError
from comem_ray.retrieval.live import LiveVectors, MergedIndex, merged_indexes
from comem_ray.retrieval.probe import index_fault
from comem_ray.retrieval.subset import Subset

FUSION_DEPTH = 100


@dataclass(frozen=True)
class Query:
    """The parts of a question that the retriever compares. `retrieve` checks that `by` has what it needs.

    An image may come as the pixels that `ClipEncoder.preprocess` makes of it: they are smaller.
    """

    image: Image.Image | Tensor | None
    text: str | None


@dataclass(frozen=True)
class Hit:
    """An item and its score: a cosine, or with 'both' the weighted mean of two."""

    item_id: str
    score: float
    live: bool = False
    """Whether the item was added after the index was built."""


Indexes = Mapping[str, ItemIndex] | Mapping[str, MergedIndex]
"""The index of each kind, "image" and "text"."""


class Retriever:
    """CLIP model and indexes of a run.

    Raises ArtifactError if index/ is unfinished or damaged, if its factory cannot do all that a search needs, or if it
    was made with another CLIP model than the configuration's.
    """

    def __init__(
        self,
        config: Config,
        device: str = "cpu",
        generation: str | None = None,
        encoder: ClipEncoder | None = None,
    ):
        """`encoder` may be given, to share it with a retriever of another generation."""
        folder = config.folder("index")
        stage = OpenStage(folder, STAGE, generation)
        self.manifest = manifest = stage.manifest
        self._stage = stage  # holds the files of ids and languages, which stay on disk
        self.encoder, self._text_weight = encoder or ClipEncoder(config.clip, device), config.retrieval.text_weight
        refuse_other_clip(folder, manifest, self.encoder.fingerprint)
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
        live: LiveVectors | None = None,
    ) -> list[list[Hit]]:
        """The `k` best items of each query, best first, equal scores in item order; fewer if the run has fewer.

        With `language`, only items in that language. `text_weight` is the w of 'both', None the configuration's. With
        `live`, the items are as its changes left them, and equal scores have the live ones last. Raises ValueError if a
        query lacks what `by` needs, if `k` < 1, if no item is in `language`, or if the index has no texts.
        """
        if k < 1:
            raise QueryError(f"k must be 1 at least, got {k}", "k")
        indexes: Indexes = self._indexes
        if live is not None and not live.is_empty:
            assert live.base is self.index, "live vectors belong to the index that they were made for"
            indexes = merged_indexes(self._indexes, live)
        return self._nearest(indexes, self._embed(queries, by), k, by, language, text_weight)

    def retrieve_in(
        self, queries: Sequence[Query], k: int, subsets: Sequence[Subset], by: Literal["image", "text", "both"]
    ) -> list[list[list[Hit]]]:
        """As `retrieve`, once per subset of the items (`index.subset`). The queries are embedded once."""
        vectors = self._embed(queries, by)
        return [self._nearest(self._indexes, vectors, k, by, None, None, subset) for subset in subsets]

    def live(self, seq: int = 0) -> LiveVectors:
        """No live vectors yet: those of changes after `seq` are to be applied."""
        return LiveVectors(self.index, self.encoder.fingerprint, dict.fromkeys(self._indexes, self.encoder.width), seq)

    def embed_items(self, texts: Sequence[str], images: Sequence[Image.Image | Tensor]) -> list[dict[str, np.ndarray]]:
        """The vectors of n items by kind, each (C,) float32, rounded as jobs.embed_items stores them.

        There is no "text" where the index has no texts. Raises NotFinite, with positions.
        """
        vectors = {"image": self.encoder.embed_images(images)}
        if "text" in self._indexes:
            vectors["text"] = self.encoder.embed_texts(texts)
        rounded = {kind: stored_vectors(rows).astype(np.float32) for kind, rows in vectors.items()}
        return [{kind: rows[n] for kind, rows in rounded.items()} for n in range(len(images))]

    @property
    def index(self) -> ItemIndex:
        """The index of images. Ids, languages and positions are the same in all indexes."""
        return self._indexes["image"]

    def _nearest(
        self,
        indexes: Indexes,
        vectors: dict[str, np.ndarray],
        k: int,
        by: str,
        language: str | None,
        text_weight: float | None,
        subset: Subset | None = None,
    ) -> list[list[Hit]]:
        if by != "both":
            scores, positions = indexes[by].nearest(vectors[by], k, language, subset)
            return [self._hits(indexes, *row) for row in zip(scores, positions, strict=True)]
        weight = self._text_weight if text_weight is None else text_weight
        depth = max(FUSION_DEPTH, 4 * k)
        lists = [indexes[kind].nearest(vectors[kind], depth, language, subset)[1] for kind in ("text", "image")]
        return [
            self._fuse(indexes, vectors["text"][i], vectors["image"][i], np.union1d(text, image), weight, k)
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
            vectors["image"] = self.encoder.embed_images(images)
        if by in ("text", "both"):
            texts = [q.text for q in queries if q.text]
            _refuse_missing(len(texts), len(queries), by, "text")
            if "text" not in self._indexes:
                message = f"retrieval by {by!r} needs texts, this run embedded none (clip.texts: false)"
                raise QueryError(message, "by")
            vectors["text"] = self.encoder.embed_texts(texts)
        return vectors

    def _fuse(
        self, indexes: Indexes, text: np.ndarray, image: np.ndarray, candidates: np.ndarray, weight: float, k: int
    ) -> list[Hit]:
        """The `k` best of `candidates` (positions, ascending, -1 for none) by their weighted score."""
        candidates = candidates[candidates >= 0]
        text_scores = indexes["text"].scores(text, candidates)
        scores = weight * text_scores + (1 - weight) * indexes["image"].scores(image, candidates)
        order = np.argsort(-scores, kind="stable")[:k]
        return self._hits(indexes, scores[order], candidates[order])

    def _hits(self, indexes: Indexes, scores: np.ndarray, positions: np.ndarray) -> list[Hit]:
        """The items at `positions`, -1 for none, with their scores."""
        index, size = indexes["image"], len(self.index.ids)
        rows = zip(positions.tolist(), scores.tolist(), strict=True)
        return [Hit(index.item_id(position), score, position >= size) for position, score in rows if position >= 0]


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


def _refuse_missing(present: int, total: int, by: str, what: str) -> None:
    if present != total:
        article = "an" if what == "image" else "a"
        message = f"retrieval by {by!r} needs {article} {what} in every query, {total - present} of {total} have none"
        raise QueryError(message, what)
