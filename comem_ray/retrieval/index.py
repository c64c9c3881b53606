"""A FAISS index over item vectors: built within a memory cap, saved, and searched by language.

Inner products of L2-normalised vectors, so a score is a cosine. Positions count the items in the order of their shards.
The same vectors, configuration and threads give the same bytes: FAISS seeds its own training, and one thread builds
graphs (HNSW, NSG), whose links depend on the order in which threads come.

Letters: B questions, k items per question, N items, C width. Knows nothing of CLIP, images, texts or Ray.
Source: Douze et al. 2024 (arXiv 2401.08281); the factory strings and search parameters are FAISS's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from comem_ray.artifacts import ArtifactError, OpenStage, StageFolder, write_atomic
from comem_ray.config import ConfigError, IndexConfig
from comem_ray.knowledge.schema import OLD_NAMES
from comem_ray.retrieval.languages import UnknownLanguage, is_same_language, language_tag
from comem_ray.retrieval.subset import Subset

STAGE = "build_index"
IDS, LANGUAGES = "ids.npy", "languages.npy"
PROBE_VECTORS = 1_000  # added to a copy of the index, to measure the bytes per vector
TIES = 16  # items fetched beyond k, so that equal scores at the end of a list are in item order
CACHED_LANGUAGES = 32  # bitmaps of N/8 bytes each
FACTORIES = (
    "Factories that do all that is needed: 'Flat', 'IVF1024,Flat', 'HNSW32', 'IVF1024,SQ8', 'IVF4096,PQ64', and these "
    "with 'OPQ64,' before or ',RFlat' behind. In place of 'PQ64' take 'IVF1,PQ64'; 'IVF1024,PQ64x4fs' wants ',RFlat'"
)


def build_index(
    config: IndexConfig, width: int, total: int, sample: Callable[[int], np.ndarray], blocks: Iterable[np.ndarray]
) -> Any:
    """The FAISS index of `total` vectors, which come in `blocks` (n, C). `sample(n)` gives n of them to train on.

    Raises ConfigError if the factory string, the sample, the GPU or the memory cap does not allow it. An index that is
    too large is refused before the first block is added.
    """
    threads = faiss.omp_get_max_threads()
    try:
        if re.search("HNSW|NSG", config.factory):
            faiss.omp_set_num_threads(1)
        with _as_config_error(f"index.factory {config.factory!r} cannot hold {total:,} vectors of width {width}"):
            index = _empty_index(config.factory, width)
            count = min(total, PROBE_VECTORS if index.is_trained else config.training_items)
            _refuse_above(config, 4 * width * count, f"a training sample of {count:,} vectors (index.training_items)")
            vectors = sample(count)
            if not index.is_trained:
                index = _on_device(config, index, lambda i: i.train(vectors))
            _refuse_above(config, index_bytes(index, vectors, total), f"{config.factory!r} of {total:,} vectors")
            return _on_device(config, index, lambda i: [i.add(block) for block in blocks])
    finally:
        faiss.omp_set_num_threads(threads)


def _empty_index(factory: str, width: int) -> Any:
    """The index of a factory string. Raises ConfigError for one that would end the process, or number its own items."""
    if re.search(r"(?<!\d)0+(?!\d)|(HNSW|NSG)1(?!\d)", factory):
        raise ConfigError(f"index.factory {factory!r} has a number that is too small. {FACTORIES}")
    if "IDMap" in factory:
        without = ",".join(part for part in factory.split(",") if not part.startswith("IDMap"))
        raise ConfigError(f"index.factory {factory!r}: leave IDMap out ({without!r}), items are numbered already")
    try:
        return faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        message = f"index.factory {factory!r} cannot hold vectors of width {width} for inner products"
        raise ConfigError(f"{message}: {faiss_reason(error)}. {FACTORIES}") from error


def index_bytes(trained: Any, sample: np.ndarray, total: int) -> int:
    """Bytes of `trained` with `total` vectors, measured by adding some of `sample` to a copy of it."""
    file = faiss.serialize_index(trained)
    probe, empty = faiss.deserialize_index(file), len(file)  # clone_index does not know every transform
    vectors = sample[:PROBE_VECTORS]
    if not len(vectors):
        return empty
    probe.add(vectors)
    return empty + math.ceil((len(faiss.serialize_index(probe)) - empty) / len(vectors) * total)


def index_file(kind: str) -> str:
    """Name of the FAISS file of `kind` in an index/ stage."""
    return f"{kind}.faiss"


def save_index(path: Path, index: Any) -> None:
    """Writes a FAISS index atomically."""
    write_atomic(path, lambda p: faiss.write_index(index, str(p)))


def save_array(path: Path, values: np.ndarray) -> None:
    """Writes a numpy file atomically."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as f:
            np.save(f, values, allow_pickle=False)

    write_atomic(path, write)


class ItemIndex:
    """A FAISS index (N, C) with the ids and the languages of its items, both (N,) bytes of fixed width.

    `search_parameters` are FAISS's own (nprobe, efSearch, ...). Raises ConfigError for one that the index does not
    know, ArtifactError where the three are not of one length. Threads may search at the same time.
    """

    def __init__(self, index: Any, ids: np.ndarray, languages: np.ndarray, search_parameters: Mapping[str, int]):
        if not index.ntotal == len(ids) == len(languages):
            raise ArtifactError(
                f"the index holds {index.ntotal:,} vectors, {len(ids):,} ids and {len(languages):,} languages, which "
                f"do not belong together: run the stage '{STAGE}' again"
            )
        self.ids, self.languages, self._index = ids, languages, index
        for name, value in search_parameters.items():
            with _as_config_error(f"index.search.{name}: {value}"):
                faiss.ParameterSpace().set_index_parameter(index, name, value)
        if isinstance(inverted := _innermost(index), faiss.IndexIVF):
            inverted.make_direct_map()  # 8 bytes per vector; needed to read vectors back
        self._selector = lru_cache(CACHED_LANGUAGES)(self._make_selector)

    @classmethod
    def load(cls, stage: OpenStage | StageFolder, kind: str, search_parameters: Mapping[str, int]) -> ItemIndex:
        """Reads the index of `kind` ("image" or "text") of an index/ stage. Ids and languages stay on disk.

        Raises ArtifactError, naming the file, where one is missing or damaged.
        """
        ids, languages = (_read(find_file(stage, name), partial(np.load, mmap_mode="r")) for name in (IDS, LANGUAGES))
        index = _read(index_path(stage, kind), faiss.read_index)
        return cls(index, ids, languages, search_parameters)

    def search(
        self, vectors: np.ndarray, k: int, language: str | None = None, subset: Subset | None = None
    ) -> tuple[np.ndarray, list[list[str]]]:
        """Scores (B, k) float32 and ids of the `k` best items of each of `vectors` (B, C) float32, best first.

        With `subset`, only its items; else with `language`, only items in it. If an approximate index finds fewer than
        `k`, the list is shorter and its scores end in -inf. Raises ValueError if no item is in `language`.
        """
        scores, positions = self.nearest(vectors, k, language, subset)
        return scores, [[self.ids[p].decode() for p in row if p >= 0] for row in positions]

    def nearest(
        self, vectors: np.ndarray, k: int, language: str | None = None, subset: Subset | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, but with positions (B, k) int64, -1 for a missing one. Equal scores are in item order."""
        if subset is None and language is not None:
            subset = self._selector(language)
        if subset is not None and not subset.count:
            return np.full((len(vectors), k), -np.inf, np.float32), np.full((len(vectors), k), -1)
        parameters = None
        if subset is not None and subset.count < len(self.ids):
            parameters = _with_selector(self._index, subset.selector, self._index.ntotal / subset.count)
        scores, positions = self._index.search(vectors, k + TIES, params=parameters)
        scores = np.where(positions < 0, -np.inf, scores).astype(np.float32)
        order = np.lexsort((positions, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)

    def scores(self, vector: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Scores (n,) float32 of the items at `positions` for one `vector` (C,), by the vectors in the index."""
        index, query = faiss.downcast_index(self._index), vector[None]
        if isinstance(index, faiss.IndexPreTransform):  # compared as the search does: not every transform can be undone
            for i in range(index.chain.size()):
                query = faiss.downcast_VectorTransform(index.chain.at(i)).apply(query)
            index = faiss.downcast_index(index.index)
        return inner_products(query[0], index.reconstruct_batch(positions))

    def item_id(self, position: int) -> str:
        """The id of the item at a position."""
        return self.ids[position].decode()

    def find(self, item_ids: Sequence[str]) -> np.ndarray:
        """Position (n,) int64 of each of `item_ids`, -1 for one that is not there. The first call sorts all ids."""
        encoded = [item_id.encode() for item_id in item_ids]
        # One that is longer than the ids here would be cut, and might then be taken for another.
        wanted = np.array([e if len(e) <= self.ids.itemsize else b"" for e in encoded], self.ids.dtype)
        if not len(self.ids):
            return np.full(len(wanted), -1)
        ranks = np.searchsorted(self.ids, wanted, sorter=self._order)
        positions = self._order[np.minimum(ranks, len(self.ids) - 1)]
        return np.where(self.ids[positions] == wanted, positions, -1)

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.ids, kind="stable")

    def positions(self, language: str | None = None) -> np.ndarray:
        """Positions (n,) int64, ascending, of the items in `language`; of all items without one.

        Raises ValueError if no item is in `language`.
        """
        if language is None:
            return np.arange(len(self.ids))
        tag = language_tag(language)
        positions = np.flatnonzero(self.languages == tag.encode())
        if not len(positions):
            known = [i.decode() for i in np.unique(self.languages).tolist()]
            # Items of version 0.1 carry their language as the source wrote it.
            if same := [code.encode() for code in known if is_same_language(code, tag)]:
                return np.flatnonzero(np.isin(self.languages, same))
            raise UnknownLanguage(language, known)
        return positions

    def subset(self, positions: np.ndarray) -> Subset:
        """The items at `positions` (n,), n at least 1. It fits every index over the same items."""
        mask = np.zeros(len(self.ids), bool)
        mask[positions] = True
        return Subset.of(mask)

    def in_language(self, language: str | None) -> Subset:
        """The items in `language`, all without one; there may be none."""
        if language is None:
            return Subset.of(np.ones(len(self.ids), bool))
        try:
            return self._selector(language)
        except UnknownLanguage:
            return Subset.of(np.zeros(len(self.ids), bool))

    def _make_selector(self, language: str) -> Subset:
        return self.subset(self.positions(language))


def index_path(stage: OpenStage | StageFolder, kind: str) -> Path:
    """The path of the FAISS file of `kind`, its bytes checked. Raises ArtifactError, naming the file."""
    return find_file(stage, index_file(kind), index_file(OLD_NAMES.get(kind, kind)))


def find_file(stage: OpenStage | StageFolder, *names: str) -> Path:
    """The path of the file that has one of these logical names, its bytes checked. Raises ArtifactError."""
    path = next((path for name in names if (path := stage.find(name)) is not None), None)
    if path is None:
        raise ArtifactError(f"the index has no {names[0]}: run the stage '{STAGE}' again")
    return path


def inner_products(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Inner products (n,) float32 of `query` (C,) and `vectors` (n, C). Equal vectors have equal ones, bit for bit."""
    query, vectors = (np.ascontiguousarray(values, np.float32) for values in (query, vectors))
    products = np.empty(len(vectors), np.float32)
    pointers = [faiss.swig_ptr(values) for values in (products, query, vectors)]
    faiss.fvec_inner_products_ny(*pointers, len(query), len(vectors))
    return products


def _read(path: Path, read: Callable[[str], Any]) -> Any:
    try:
        return read(str(path))
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        reason = faiss_reason(RuntimeError(str(error)))
        raise ArtifactError(f"{path} is damaged ({reason}). Run the stage '{STAGE}' again") from error


def _with_selector(index: Any, selector: Any, rarity: float) -> Any:
    """Search parameters of `index` with a selector.

    An approximate search goes `rarity` (N / selected) times as far, so that it meets as many selected items as it would
    meet items without a selector.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_with_selector(index.index, selector, rarity))
    if isinstance(index, faiss.IndexRefine):
        base = _with_selector(index.base_index, selector, rarity)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=base)
    if isinstance(index, faiss.IndexIVF):
        nprobe = min(index.nlist, math.ceil(index.nprobe * rarity))
        return faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
    if isinstance(index, faiss.IndexHNSW):
        ef = min(index.ntotal, math.ceil(index.hnsw.efSearch * rarity))
        return faiss.SearchParametersHNSW(sel=selector, efSearch=ef)
    return faiss.SearchParameters(sel=selector)


def _innermost(index: Any) -> Any:
    index = faiss.downcast_index(index)
    return _innermost(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def _on_device(config: IndexConfig, index: Any, work: Any) -> Any:
    """Does `work` on the index and returns a CPU index. With `index.gpu` the work is done on a copy on the GPU."""
    if not config.gpu:
        work(index)
        return index
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        raise ConfigError("index.gpu is true, but this FAISS has no GPU: install the extra [gpu] on a node with one")
    resources = faiss.StandardGpuResources()
    on_gpu = faiss.index_cpu_to_gpu(resources, 0, index)
    work(on_gpu)
    return faiss.index_gpu_to_cpu(on_gpu)


def _refuse_above(config: IndexConfig, need: int, what: str) -> None:
    if need > config.max_memory_gb * 1e9:
        raise ConfigError(
            f"index: {what} takes {need / 1e9:.3g} GB, index.max_memory_gb is {config.max_memory_gb:g}: raise it, or "
            "choose a factory with smaller codes (such as IVF4096,PQ64)"
        )


@contextmanager
def _as_config_error(what: str) -> Iterator[None]:
    """Turns FAISS's errors into a ConfigError that begins with `what`."""
    try:
        yield
    except RuntimeError as error:
        raise ConfigError(f"{what}: {faiss_reason(error)}") from error


def faiss_reason(error: RuntimeError) -> str:
    """What an error of FAISS says, without its place in FAISS's source and the assertion's own text."""
    text = " ".join(re.split(r"\.(?:cpp|h|cu):\d+: ", str(error))[-1].split())
    return re.sub(r"^(Error: )?'.*?' failed:? ?(?=.)", "", text)
