"""Links a generated name to a Wikidata entity: the Wikipedia title with the highest BM25 score.

BM25 by bm25s, as rank_bm25's BM25Okapi has it, which the OVEN authors use: k1 1.5, b 0.75; the inverse document
frequency is log((N - n + 0.5) / (n + 0.5)), and a quarter of the mean where that is negative. With a `vocabulary` (the
vocab.txt of bert-base-uncased) titles and names are cut into BERT's word pieces, as theirs are. Without one they are
cut into BERT's words, which differs: a longer title counts as shorter ("X Y X" loses to "X" where the mean length is
below 3), and "Onionskin" does not match "onion". Of titles that score the same: one that equals the name to the letter,
else the first in the file; theirs takes any (numpy's unstable argsort).
Holds one array of ids, one of titles, and the postings: 232 MB at the peak for 500,000 generated titles of 2.9 words,
which makes 2.8 GB for 6M (measured on 2 cores with bm25s 0.3.16 and numpy 2.4.6; 28 s to build).
Source: run_bm25_index.py and run_bm25_query.py of the OVEN authors (Hu et al. 2023, arXiv 2302.11154).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import bm25s
import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from comem_ray.tasks.files import read_jsonl, strict

K1, B, EPSILON = 1.5, 0.75, 0.25
_TINY = 1e-6  # a few titles may have no positive frequency to take a quarter of
_CHUNK = 100_000  # titles turned into an array at once
_UNKNOWN = "[UNK]"
_NORMALIZER, _PRE_TOKENIZER = BertNormalizer(lowercase=True), BertPreTokenizer()


class TitleIndex:
    """BM25 over (entity_id, title) pairs, cut into the word pieces of `vocabulary`, or without one into words.

    ValueError where there are no titles, or the vocabulary cannot be read.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], vocabulary: Path | None = None) -> None:
        self._tokens = words if vocabulary is None else word_pieces(vocabulary)
        self.has_word_pieces = vocabulary is not None
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
        self._bm25.scores["data"] *= _okapi_over_lucene(len(rows), np.diff(self._bm25.scores["indptr"]))
        self.link = lru_cache(maxsize=100_000)(self._link)

    def _link(self, name: str) -> tuple[str, str] | None:
        """(entity_id, title) of the best title; None where no word of `name` is in any."""
        known = [self._vocabulary[word] for word in self._tokens(name) if word in self._vocabulary]
        if not known:
            return None
        scores = self._bm25.get_scores_from_ids(known)
        best = np.flatnonzero(scores == scores.max())
        exact = (int(row) for row in best if self._titles[int(row)].as_py() == name)
        row = next(exact, int(best[0]))
        return self._ids[row].as_py(), self._titles[row].as_py()

    def _known(self, title: str) -> list[int]:
        """Numbers of the words of a title, new ones added."""
        return [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in self._tokens(title)]


def read_titles(path: Path) -> Iterator[tuple[str, str]]:
    """(wikidata_id, wikipedia_title) of every line of a file like `Wiki6M_ver_1_0_title_only.jsonl`."""
    for row in strict(read_jsonl(path)):
        yield row.text("wikidata_id"), row.text("wikipedia_title")


def word_pieces(vocabulary: Path) -> Callable[[str], list[str]]:
    """The function that cuts a text into BERT's word pieces. ValueError where the file holds no such vocabulary."""
    try:
        model = WordPiece.from_file(str(vocabulary), unk_token=_UNKNOWN)
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"{vocabulary}: cannot be read: {error}") from error
    tokenizer = Tokenizer(model)
    if tokenizer.token_to_id(_UNKNOWN) is None:
        raise ValueError(f"{vocabulary}: holds no {_UNKNOWN}: want the vocab.txt of bert-base-uncased")
    tokenizer.normalizer, tokenizer.pre_tokenizer = _NORMALIZER, _PRE_TOKENIZER
    return lambda text: tokenizer.encode(_encodable(text), add_special_tokens=False).tokens


def words(text: str) -> list[str]:
    """BERT's words: lower case, no accents, split at white space, punctuation and every Chinese character."""
    return [word for word, _ in _PRE_TOKENIZER.pre_tokenize_str(_NORMALIZER.normalize_str(_encodable(text)))]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair is not text to the tokenizer


def _okapi_over_lucene(titles: int, holding: np.ndarray) -> np.ndarray:
    """For every posting (float32): Okapi's inverse document frequency of its token over Lucene's, which bm25s used.

    `holding` (tokens,) is the number of titles that hold each token. bm25s has Okapi's too, but cuts negative ones off.
    """
    odds = (titles - holding + 0.5) / (holding + 0.5)
    okapi = np.log(odds)
    floor = max(EPSILON * okapi.mean(), _TINY)
    return np.repeat(np.where(okapi < 0, floor, okapi) / np.log1p(odds), holding).astype(np.float32)


def _chunks(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    chunk: list[tuple[str, str]] = []
    for pair in pairs:
        chunk.append(pair)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
