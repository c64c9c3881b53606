"""FAISS indexes against brute force, by language, and against their memory cap."""

from functools import lru_cache

import faiss
import numpy as np
import pytest

from comem_ray.artifacts import StageFolder
from comem_ray.config import ConfigError, IndexConfig
from comem_ray.retrieval.index import (
    IDS,
    LANGUAGES,
    TIES,
    ItemIndex,
    build_index,
    index_bytes,
    index_file,
    inner_products,
    save_array,
    save_index,
)
from comem_ray.retrieval.languages import QueryError

N, C = 600, 32
FACTORIES = ["Flat", "IVF8,Flat", "IVF8,PQ8x4", "HNSW16", "SQ8", "OPQ8_16,IVF8,PQ8x4", "IVF8,SQ8,RFlat"]
WIDE = {"Flat": {}, "HNSW16": {"efSearch": N}, "SQ8": {}}  # others: nprobe 8 looks everywhere


@pytest.fixture(scope="module")
def vectors():
    """(N, C) around 20 centres; rows 10 and 400 are equal."""
    rng = np.random.default_rng(0)
    vectors = _unit(rng.standard_normal((20, C))[rng.integers(0, 20, N)] + 0.7 * rng.standard_normal((N, C)))
    vectors[400] = vectors[10]
    return vectors


@pytest.fixture(scope="module")
def queries():
    return _unit(np.random.default_rng(1).standard_normal((7, C)))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small matrices; threads would only wait for one another."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def built(vectors):
    """A function factory -> the index of all vectors, made once; take a copy to change it."""
    return lru_cache(lambda factory: _build(vectors, factory))


def _unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def _build(vectors, factory="Flat", **fields):
    blocks = np.split(vectors, [100, 100, 350])
    return build_index(
        IndexConfig(factory=factory, **fields),
        C,
        len(vectors),
        lambda n: vectors[: min(n, 400)],
        (b for b in blocks if len(b)),
    )


def _item_index(index, **search):
    ids = np.array([f"item{i:04}" for i in range(index.ntotal)], "S8")
    languages = np.array(["en", "de", "en", "zh-Hant"] * (index.ntotal // 4), "S7")
    languages[5] = b"eo"
    return ItemIndex(faiss.clone_index(index), ids, languages, search)


def _brute_force(queries, vectors, k, mask=None):
    scores = queries @ vectors.T
    if mask is not None:
        scores[:, ~mask] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k], -np.sort(-scores, axis=1)[:, :k]


def test_flat_search_is_brute_force(built, vectors, queries):
    index = _item_index(built("Flat"))
    positions, expected = _brute_force(queries, vectors, 10)
    scores, ids = index.search(queries, 10)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert ids == [[f"item{p:04}" for p in row] for row in positions]
    assert scores.dtype == np.float32


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_factory_finds_most_of_the_exact_neighbours(built, vectors, queries, factory):
    index = _item_index(built(factory), **WIDE.get(factory, {"nprobe": 8}))
    exact, _ = _brute_force(queries, vectors, 10)
    scores, nearest = index.nearest(queries, 10)
    overlap = np.mean([len(np.intersect1d(n, e)) / 10 for n, e in zip(nearest, exact, strict=True)])
    assert overlap >= (0.3 if "PQ" in factory else 0.95)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_language_admits_its_items_only(built, vectors, queries, factory):
    index = _item_index(built(factory), **WIDE.get(factory, {"nprobe": 8}))
    mask = index.languages == b"zh-Hant"
    _, nearest = index.nearest(queries, 10, "zh-Hant")
    assert mask[nearest].all()
    exact, _ = _brute_force(queries, vectors, 10, mask)
    overlap = np.mean([len(np.intersect1d(n, e)) / 10 for n, e in zip(nearest, exact, strict=True)])
    assert overlap >= (0.3 if "PQ" in factory else 0.95)


@pytest.mark.parametrize("factory", ["IVF8,Flat", "OPQ8_16,IVF8,PQ8x4", "HNSW16", "IVF8,SQ8,RFlat"])
def test_a_narrow_search_still_returns_a_rare_language(built, queries, factory):
    index = _item_index(built(factory))  # nprobe 1, efSearch 16
    _, nearest = index.nearest(queries, 3, "eo")
    assert nearest.tolist() == [[5, -1, -1]] * len(queries)


def test_fewer_than_k(vectors, queries):
    index = _item_index(_build(vectors[:8]))
    scores, ids = index.search(queries, 50)
    assert [len(row) for row in ids] == [8] * len(queries)
    assert scores.shape == (len(queries), 50)
    assert np.isneginf(scores[:, 8:]).all()


@pytest.mark.parametrize(("language", "same"), [("zh_hant", "zh-Hant"), ("EN", "en"), (" de ", "de")])
def test_a_language_is_one_in_every_spelling(built, queries, language, same):
    index = _item_index(built("Flat"))
    assert index.positions(language).tolist() == index.positions(same).tolist()
    assert index.search(queries, 5, language)[1] == index.search(queries, 5, same)[1]


def test_items_of_version_0_1_are_met_too(built, queries):
    """They carry their language as the source wrote it."""
    index = _item_index(built("Flat"))
    index.languages[index.languages == b"de"] = b"de_AT"
    index.languages[index.languages == b"eo"] = b"?"
    assert (index.languages[index.positions("de-AT")] == b"de_AT").all()
    assert len(index.positions("de_at")) > 10


def test_what_is_no_language_is_refused_by_name(built, queries):
    with pytest.raises(QueryError, match="'English' is not a language: want a tag") as caught:
        _item_index(built("Flat")).search(queries, 3, "English")
    assert caught.value.field == "language"


def test_an_unknown_language_is_named_with_the_known_ones(built, queries):
    with pytest.raises(ValueError, match="is in language 'fr'; the languages are: de, en, eo, zh-Hant"):
        _item_index(built("Flat")).search(queries, 3, "fr")


@pytest.mark.parametrize("factory", FACTORIES)
def test_equal_scores_go_in_item_order(built, vectors, factory):
    index = _item_index(built(factory), **WIDE.get(factory, {"nprobe": 8}))
    _, nearest = index.nearest(vectors[10:11], 40)
    assert nearest[0].tolist().index(10) + 1 == nearest[0].tolist().index(400)
    if factory == "Flat":
        assert index.nearest(vectors[10:11], 1)[1].tolist() == [[10]]


def test_many_equal_items_at_the_end_of_the_list_fall_in_item_order(vectors):
    same = np.repeat(vectors[:1], TIES, axis=0)
    index = _item_index(_build(np.concatenate([vectors[:300], same, vectors[300:]])))
    assert index.nearest(vectors[:1], 4)[1].tolist() == [[0, 300, 301, 302]]


@pytest.mark.parametrize("factory", FACTORIES)
def test_scores_of_single_items_are_those_of_the_search(built, queries, factory):
    index = _item_index(built(factory), **WIDE.get(factory, {"nprobe": 8}))
    scores, nearest = index.nearest(queries, 10)
    for query, row, positions in zip(queries, scores, nearest, strict=True):
        np.testing.assert_allclose(index.scores(query, positions), row, atol=1e-5)


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_same_inputs_give_the_same_bytes(built, vectors, tmp_path, factory):
    save_index(tmp_path / "a", built(factory))
    save_index(tmp_path / "b", _build(vectors, factory))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_saved_index_answers_as_before(built, queries, tmp_path):
    index = _item_index(built("IVF8,Flat"), nprobe=3)
    save_index(tmp_path / index_file("image"), built("IVF8,Flat"))
    save_array(tmp_path / IDS, index.ids)
    save_array(tmp_path / LANGUAGES, index.languages)
    stage = StageFolder(tmp_path, "build_index", {})
    stage.commit("all", "", dict.fromkeys((index_file("image"), IDS, LANGUAGES), N), {})
    loaded = ItemIndex.load(stage, "image", {"nprobe": 3})
    for a, b in zip(index.search(queries, 9, "en"), loaded.search(queries, 9, "en"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_memory_is_known_before_adding(built, vectors, factory):
    index = built(factory)
    empty = faiss.index_factory(C, factory, faiss.METRIC_INNER_PRODUCT)
    if not empty.is_trained:
        empty.train(vectors[:400])
    foreseen = index_bytes(empty, vectors[:400], N)
    assert foreseen == pytest.approx(len(faiss.serialize_index(index)), rel=0.02)


def test_an_index_above_the_cap_is_refused_before_a_vector_is_added(vectors):
    def blocks():
        raise AssertionError("a block was read")
        yield

    with pytest.raises(ConfigError, match=r"'Flat' of 80,000,000 vectors takes 10.2 GB, index.max_memory_gb is 4"):
        build_index(IndexConfig(), C, 80_000_000, lambda n: vectors[:n], blocks())
    with pytest.raises(ConfigError, match=r"training sample of 600 vectors .* takes 7.68e-05 GB.*is 1e-05"):
        build_index(IndexConfig(factory="IVF4,Flat", max_memory_gb=1e-5), C, N, lambda n: vectors[:n], blocks())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factory": "Nonsense"}, "'Nonsense' cannot hold vectors of width 32 for inner products: could not parse"),
        ({"factory": "IVF512,Flat"}, r"Number of training points \(400\) should be at least"),
        ({"factory": "IVF8,PQ7"}, "cannot hold"),
        ({"gpu": True}, "this FAISS has no GPU"),
    ],
)
def test_a_refusal_of_faiss_is_one_sentence(vectors, fields, message):
    if fields.get("gpu") and hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this FAISS has a GPU")
    with pytest.raises(ConfigError, match=message) as error:
        _build(vectors, **fields)
    assert ".cpp" not in str(error.value)


def test_an_unknown_search_parameter_is_refused(built):
    with pytest.raises(ConfigError, match=r"index.search.efSearch: 9: .*could not set parameter"):
        _item_index(built("IVF8,Flat"), efSearch=9)


def test_an_index_of_nothing_answers_with_nothing(queries):
    index = build_index(IndexConfig(), C, 0, lambda n: np.empty((n, C), np.float32), iter([]))
    items = ItemIndex(index, np.empty(0, "S24"), np.empty(0, "S2"), {})
    assert items.search(queries, 3)[1] == [[]] * len(queries)


def test_items_are_found_by_id(built):
    index = _item_index(built("Flat"))
    wanted = ["item0399", "no item", "item0000", "item0599", "", "item00000", "item0007 and more", "zzz", "item0399"]
    assert index.find(wanted).tolist() == [399, -1, 0, 599, -1, -1, -1, -1, 399]
    assert index.find([]).tolist() == []
    assert index.item_id(399) == "item0399"
    empty = build_index(IndexConfig(), C, 0, lambda n: np.empty((n, C), np.float32), iter([]))
    assert ItemIndex(empty, np.empty(0, "S24"), np.empty(0, "S2"), {}).find(["item0001"]).tolist() == [-1]


def test_a_language_that_no_item_has_is_an_empty_subset(built, queries):
    index = _item_index(built("Flat"))
    assert (index.in_language("fr").count, index.in_language(None).count) == (0, N)
    assert index.in_language("EO").count == 1
    scores, nearest = index.nearest(queries, 3, subset=index.in_language("fr"))
    assert (nearest == -1).all()
    assert np.isneginf(scores).all()


def test_inner_products_are_those_of_a_search_bit_for_bit(built, vectors, queries):
    index = _item_index(built("Flat"))
    scores, nearest = index.nearest(queries, 50)
    for query, row_scores, row in zip(queries, scores, nearest, strict=True):
        np.testing.assert_array_equal(index.scores(query, row), row_scores)
        np.testing.assert_array_equal(inner_products(query, vectors[row].astype(np.float64)), row_scores)
