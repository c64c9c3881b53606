"""Links a generated name to a Wikidata entity: the Wikipedia title with the highest BM25 score.

BM25 by bm25s with k1 1.5, b 0.75 and Okapi's term frequencies, as in rank_bm25, which the OVEN authors use. Two things
differ from theirs: words are BERT's words (lower case, no accents), but not its word pieces, so that no vocabulary has
to be fetched; and the inverse document frequency is Lucene's, which agrees with Okapi's on millions of titles and stays
positive on a few. Of titles that score the same: one that equals the name to the letter, else the first in the file.
Holds one array of ids, one of titles, and the postings: 232 MB at the peak for 500,000 generated titles of 2.9 words,
which makes 2.8 GB for 6M (measured on 2 cores with bm25s 0.3.16 and numpy 2.4.6; 28 s to build).
Source: run_bm25_index.py and run_bm25_query.py of the OVEN authors (Hu et al. 2023, arXiv 2302.11154).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import bm25s
import numpy as np
import pyarrow as pa
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from comem_ray.tasks.files import read_jsonl, strict

K1, B = 1.5, 0.75
_CHUNK = 100_000  # titles turned into an array at once
_NORMALIZER, _PRE_TOKENIZER = BertNormalizer(lowercase=True), BertPreTokenizer()


class TitleIndex:
    """BM25 over (entity_id, title) pairs. ValueError where there are none."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._vocabulary: dict[str, int] = {}
        rows: list[list[int]] = []
        ids, titles = [], []
        for chunk in _chunks(pairs):
            ids.append(pa.array([entity for entity, _ in chunk], pa.large_string()))
            titles.append(pa.array([title for _, title in chunk], pa.large_string()))
            rows.extend(self._known(title) for _, title in chunk)
        if not rows or not self._vocabulary:
            raise ValueError("there are no titles to link to")
        self._ids, self._titles = pa.chunked_array(ids), pa.chunked_array(titles)
        self._bm25 = bm25s.BM25(k1=K1, b=B, method="atire", idf_method="lucene")
        self._bm25.index((rows, self._vocabulary), create_empty_token=False, show_progress=False)
        self.link = lru_cache(maxsize=100_000)(self._link)

    def _link(self, name: str) -> tuple[str, str] | None:
        """(entity_id, title) of the best title; None where no word of `name` is in any."""
        known = [self._vocabulary[word] for word in words(name) if word in self._vocabulary]
        if not known:
            return None
        scores = self._bm25.get_scores_from_ids(known)
        best = np.flatnonzero(scores == scores.max())
        exact = (int(row) for row in best if self._titles[int(row)].as_py() == name)
        row = next(exact, int(best[0]))
        return self._ids[row].as_py(), self._titles[row].as_py()

    def _known(self, title: str) -> list[int]:
        """Numbers of the words of a title, new ones added."""
        return [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words(title)]


def read_titles(path: Path) -> Iterator[tuple[str, str]]:
    """(wikidata_id, wikipedia_title) of every line of a file like `Wiki6M_ver_1_0_title_only.jsonl`."""
    for row in strict(read_jsonl(path)):
        yield row.text("wikidata_id"), row.text("wikipedia_title")


def words(text: str) -> list[str]:
    """BERT's words: lower case, no accents, split at white space, punctuation and every Chinese character."""
    sound = text.encode("utf-8", "replace").decode()  # half a surrogate pair is not text to the tokenizer
    return [word for word, _ in _PRE_TOKENIZER.pre_tokenize_str(_NORMALIZER.normalize_str(sound))]


def _chunks(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    chunk: list[tuple[str, str]] = []
    for pair in pairs:
        chunk.append(pair)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
