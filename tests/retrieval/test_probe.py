"""Every factory either does all that a retriever asks of a saved index, or is refused with what it cannot do."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from comem_ray.config import ConfigError, IndexConfig
from comem_ray.retrieval.index import ItemIndex, build_index, save_index
from comem_ray.retrieval.probe import index_fault

N, C = 600, 32
COMPLETE = [
    "Flat",
    "IVF8,Flat",
    "HNSW16",
    "IVF8,PQ16x4",
    "IVF8,SQ8",
    "SQ8",
    "IVF1,PQ16x4",
    "OPQ8,IVF8,PQ8x4",
    "IVF8,PQ16x4fs,RFlat",
    "IVF8,PQ8x4,Refine(SQ8)",
    "PCA16,IVF8,Flat",
    "L2norm,Flat",
    "PCA16,L2norm,Flat",
]
PARTIAL = {
    "PQ16x4": "search among the items of one language: invalid search params",
    "PQ16x4fs": "search among the items of one language: search params not supported",
    "PQ16x4fs,RFlat": "search among the items of one language",
    "NSG16": "search among the items of one language",
    "RQ4x4": "search among the items of one language",
    "IVF8,PQ16x4fs": "give its vectors back, which a search by both needs: FAISS ends the process",
    "OPQ16,IVF8,PQ16x4fs": "give its vectors back",
    "IVF8,FlatDedup": "give its vectors back, which a search by both needs: not implemented",
    "RaBitQ": "score by the vectors that it holds: its scores are wrong by up to",
    "HNSW16_PQ8x4": "compare by inner products: its file says that it compares by another measure",
    "ZnLattice2x8_4": "be read back from its file: IndexLattice deserialization carries no code storage",
}


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((N, C), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def build(vectors: np.ndarray, factory: str):
    return build_index(IndexConfig(factory=factory), C, len(vectors), lambda n: vectors[:n], [vectors])


def saved(folder: Path, vectors: np.ndarray, factory: str) -> Path:
    save_index(folder / "image.faiss", build(vectors, factory))
    return folder / "image.faiss"


@pytest.mark.parametrize("factory", COMPLETE)
def test_a_factory_that_does_all_has_no_fault(vectors, tmp_path, factory):
    path = saved(tmp_path, vectors, factory)
    assert index_fault(path, {}) == ""
    index = ItemIndex(faiss.read_index(str(path)), np.zeros(N, "S1"), np.zeros(N, "S1"), {})
    scores, positions = index.nearest(vectors[:3], 10, subset=index.subset(np.arange(0, N, 3)))
    for query, row, numbers in zip(vectors, scores, positions, strict=False):
        np.testing.assert_allclose(index.scores(query, numbers[numbers >= 0]), row[numbers >= 0], atol=1e-4)


@pytest.mark.parametrize(("factory", "fault"), PARTIAL.items())
def test_a_factory_that_does_a_part_is_named_with_what_it_cannot(vectors, tmp_path, factory, fault):
    assert index_fault(saved(tmp_path, vectors, factory), {}).startswith(fault)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IDMap,Flat", r"leave IDMap out \('Flat'\)"),
        ("IVF8,Flat,IDMap2", r"leave IDMap out \('IVF8,Flat'\)"),
        ("LSH", "for inner products: .*Factories that do all that is needed: 'Flat'"),
        ("BFlat", "could not parse index string BFlat. Factories that do all"),
        ("", "could not parse"),
        ("IVF8", "could not parse"),
        ("IVF0,Flat", "a number that is too small"),
        ("PQ8x0", "a number that is too small"),  # this and the next end the process where they are built
        ("HNSW1", "a number that is too small"),
        ("IMI2x4,Flat", "not implemented for inner prod"),
        ("PCA64,Flat", "PCA matrix cannot output 64 dimensions from 32"),
    ],
)
def test_a_factory_that_cannot_be_built_is_refused(vectors, factory, message):
    with pytest.raises(ConfigError, match=message):
        build(vectors, factory)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_small_index_is_tried_too(vectors, tmp_path, count):
    assert index_fault(saved(tmp_path, vectors[:count], "Flat"), {}) == ""


def test_the_search_parameters_are_those_of_the_configuration(vectors, tmp_path):
    path = saved(tmp_path, vectors, "IVF8,Flat")
    assert index_fault(path, {"nprobe": 4}) == ""
    with pytest.raises(ConfigError, match=r"index.search.efSearch: 9: .*could not set parameter"):
        index_fault(path, {"efSearch": 9})


def test_a_file_that_is_no_index_cannot_be_read_back(tmp_path):
    (tmp_path / "image.faiss").write_bytes(b"no index")
    assert index_fault(tmp_path / "image.faiss", {}).startswith("be read back from its file")
