"""Live vectors beside an index: a search gives what one index of all the items would give."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import faiss
import numpy as np
import pytest
from PIL import Image
from support.live_items import rounded
from support.tiny import image, item_row

from comem_ray.artifacts import ArtifactError
from comem_ray.config import IndexConfig
from comem_ray.knowledge.live.journal import Changes, Vectors
from comem_ray.retrieval.embeddings import Embeddings, unit_vectors
from comem_ray.retrieval.index import ItemIndex, build_index
from comem_ray.retrieval.languages import QueryError
from comem_ray.retrieval.live import LiveVectors, MergedIndex
from comem_ray.retrieval.retriever import Query, Retriever

N, C, CLIP = 400, 16, "a model"
KINDS = ("image", "text")
LANGUAGES = ["en", "de", "pt-BR"]


def item_id(i: int) -> str:
    return f"{i:024x}"


def index_of(vectors: np.ndarray, ids: list[str], languages: list[str], factory: str = "Flat", **search) -> ItemIndex:
    config = IndexConfig(factory=factory, training_items=400)
    index = build_index(config, vectors.shape[1], len(vectors), lambda n: vectors[:n], iter([vectors]))
    return ItemIndex(index, np.array(ids, "S24"), np.array(languages, "S8"), search)


def base_index(factory: str = "Flat", kind: str = "image", **search) -> ItemIndex:
    """Items 0 to N - 1, a third of them in each language."""
    return index_of(
        base_vectors(kind), [item_id(i) for i in range(N)], [LANGUAGES[i % 3] for i in range(N)], factory, **search
    )


def base_vectors(kind: str) -> np.ndarray:
    return unit_vectors(rounded(np.random.default_rng(KINDS.index(kind)).standard_normal((N, C))))


def added(i: int, seed: int, language: str = "en", width: int = C) -> Vectors:
    rng = np.random.default_rng(seed)
    return Vectors(item_id(i), language, {kind: rounded(rng.standard_normal(width)) for kind in KINDS}, CLIP)


def empty(base: ItemIndex) -> LiveVectors:
    return LiveVectors(base, CLIP, dict.fromkeys(KINDS, C))


class Items:
    """What there is by id, in the order of the base and then of the last change: the reference."""

    def __init__(self, ids: list[str], languages: list[str], vectors: dict[str, np.ndarray]):
        rows = zip(ids, languages, *(vectors[kind] for kind in KINDS), strict=True)
        self.items = {i: (language, dict(zip(KINDS, both, strict=True))) for i, language, *both in rows}

    def apply(self, changes: Changes) -> None:
        for gone in [*changes.removed, *(v.item_id for v in changes.added)]:
            self.items.pop(gone, None)
        for v in changes.added:
            self.items[v.item_id] = v.language, {kind: unit_vectors(v.vectors[kind][None])[0] for kind in KINDS}

    def index(self, kind: str) -> ItemIndex:
        vectors = np.array([vectors[kind] for _, vectors in self.items.values()], np.float32)
        return index_of(vectors, list(self.items), [language for language, _ in self.items.values()])


def random_changes(
    rng: np.random.Generator, seq: int, known: list[str], twins: dict[str, np.ndarray], width: int
) -> Changes:
    """Additions (some with the vectors of items that are there), replacements and deletions."""
    ids = [*(f"{rng.integers(10**9):024x}" for _ in range(rng.integers(6))), *rng.choice(known, 3, replace=False)]
    put = []
    for new in ids:
        row = rng.integers(len(twins["image"]))
        kinds = {k: twins[k][row] if rng.random() < 0.3 else rounded(rng.standard_normal(width)) for k in KINDS}
        put.append(Vectors(new, str(rng.choice([*LANGUAGES, "en", "zh"])), kinds, CLIP))
    removed = [str(i) for i in rng.choice(known, rng.integers(12), replace=False) if i not in ids]
    return Changes(seq, put, [*removed, "f" * 24])


@pytest.mark.parametrize("seed", range(3))
def test_a_search_is_that_of_one_index_of_all_items(finished, seed):
    rng, retriever = np.random.default_rng(seed), Retriever(finished)
    embeddings = Embeddings(finished.folder("embeddings"))
    vectors = {kind: np.concatenate(list(embeddings.blocks(kind))) for kind in KINDS}
    base = retriever.index
    items = Items([i.decode() for i in base.ids], [code.decode() for code in base.languages], vectors)
    live, reference = retriever.live(), copy.copy(retriever)
    for seq in range(1, 5):
        changes = random_changes(rng, seq, list(items.items), vectors, embeddings.width)
        clip = replace_clip(changes, embeddings.clip)
        live = live.apply(clip)
        items.apply(changes)
        reference._indexes = {kind: items.index(kind) for kind in KINDS}
        assert (live.seq, live.is_empty) == (seq, False)
        assert_same(retriever, live, reference, [code.decode() for code in np.unique(reference.index.languages)])


def replace_clip(changes: Changes, clip: str) -> Changes:
    return replace(changes, added=[replace(v, clip=clip) for v in changes.added])


def assert_same(retriever: Retriever, live: LiveVectors, reference: Retriever, languages: list[str]) -> None:
    rows = [item_row(i) for i in range(5)]
    queries = [Query(Image.open(io.BytesIO(r["image"])), r["text"]) for r in rows] + [Query(image(99), "Some text")]
    for by in ("image", "text", "both"):
        for language in (None, *languages):
            for k in (1, 7, 300):
                merged = retriever.retrieve(queries, k, by, language, live=live)
                one = reference.retrieve(queries, k, by, language)
                assert [[(h.item_id, h.score) for h in hits] for hits in merged] == [
                    [(h.item_id, h.score) for h in hits] for hits in one
                ]
                assert {h.item_id for hits in merged for h in hits if h.live} <= set(live.ids)
                assert not {h.item_id for hits in merged for h in hits if not h.live} & set(live.ids)


FACTORIES = ["Flat", "IVF8,Flat", "IVF8,PQ8x4", "HNSW16", "SQ8", "OPQ8_16,IVF8,PQ8x4", "IVF8,SQ8,RFlat"]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("language", [None, "de", "zh"])
def test_every_factory_leaves_out_what_was_removed_and_has_what_was_added(factory, language):
    base = base_index(factory, **({"nprobe": 8} if "IVF" in factory else {}))
    removed = [item_id(i) for i in range(0, N, 2)]
    put = [added(i, i, LANGUAGES[i % 3] if i % 4 else "zh") for i in range(N - 5, N + 60)]
    live = empty(base).apply(Changes(1, put, removed))
    queries = np.concatenate([base_vectors("image")[:3], [unit_vectors(v.vectors["image"][None])[0] for v in put[:12]]])
    merged = MergedIndex(base, live, "image")
    scores, positions = merged.nearest(queries, 10, language)
    names = [[merged.item_id(p) for p in row if p >= 0] for row in positions]
    assert not {name for row in names for name in row} & set(removed) - {v.item_id for v in put}
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(row)) == len(row) == (10 if language != "zh" else min(10, len(row))) for row in names)
    for v, row, best in zip(put[:12], names[3:], scores[3:], strict=True):
        if language in (None, v.language):
            assert v.item_id in row
            assert best[row.index(v.item_id)] == pytest.approx(1, abs=1e-3)
    for query, row, row_scores in zip(queries, positions, scores, strict=True):
        hits = np.sort(row[row >= 0])
        by_position = dict(zip(hits.tolist(), merged.scores(query, hits), strict=True))
        exact = factory in ("Flat", "IVF8,Flat", "HNSW16")
        np.testing.assert_allclose(
            [by_position[p] for p in row.tolist() if p >= 0], row_scores[row >= 0], atol=1e-6 if exact else 0.01
        )


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_base_of_which_nothing_is_left(factory):
    base = base_index(factory)
    live = empty(base).apply(Changes(1, [added(1_000, 7, "zh")], [item_id(i) for i in range(N)]))
    merged = MergedIndex(base, live, "text")
    scores, positions = merged.nearest(base_vectors("text")[:2], 5)
    assert positions.tolist() == [[N, -1, -1, -1, -1]] * 2
    assert np.isneginf(scores[:, 1:]).all()
    assert MergedIndex(base, live, "text").nearest(base_vectors("text")[:2], 5, "zh")[1][:, 0].tolist() == [N, N]
    with pytest.raises(QueryError, match="is in language 'en'; the languages are: zh"):
        merged.nearest(base_vectors("text")[:2], 5, "en")
    gone = live.apply(Changes(2, [], [item_id(1_000)]))
    assert (MergedIndex(base, gone, "text").nearest(base_vectors("text")[:2], 5)[1] == -1).all()


def test_an_index_of_nothing_has_live_items():
    base = index_of(np.empty((0, C), np.float32), [], [])
    live = empty(base).apply(Changes(1, [added(1, 1), added(2, 2)], [item_id(3)]))
    positions = MergedIndex(base, live, "image").nearest(live._vectors["image"], 5)[1]
    assert positions[:, 0].tolist() == [0, 1]
    assert MergedIndex(base, live, "image").nearest(np.empty((0, C), np.float32), 5)[1].shape[0] == 0


def test_equal_items_go_in_the_order_of_the_base_and_then_of_their_last_change():
    base = base_index()
    twin = {kind: base_vectors(kind)[33] for kind in KINDS}
    live = empty(base).apply(Changes(3, [Vectors(item_id(i), "en", twin, CLIP) for i in (900, 901, 902)], []))
    live = live.apply(Changes(5, [Vectors(item_id(900), "en", twin, CLIP)], [item_id(901)]))
    merged = MergedIndex(base, live, "image")
    [row] = merged.nearest(base_vectors("image")[33:34], 3)[1]
    assert [merged.item_id(p) for p in row] == [item_id(33), item_id(902), item_id(900)]


def test_many_equal_live_items_at_the_end_of_the_list_fall_in_order():
    base = base_index()
    twin = {kind: base_vectors(kind)[33] for kind in KINDS}
    live = empty(base).apply(Changes(1, [Vectors(item_id(900 + i), "en", twin, CLIP) for i in range(17)], []))
    assert MergedIndex(base, live, "image").nearest(base_vectors("image")[33:34], 4)[1].tolist() == [
        [33, N, N + 1, N + 2]
    ]


def test_who_searches_the_earlier_vectors_sees_no_change():
    base = base_index()
    first = empty(base).apply(Changes(1, [added(900, 1)], [item_id(0)]))
    before = MergedIndex(base, first, "image").nearest(base_vectors("image")[:4], 20)
    second = first.apply(Changes(2, [added(901, 2)], [item_id(900), item_id(1)]))
    after = MergedIndex(base, first, "image").nearest(base_vectors("image")[:4], 20)
    np.testing.assert_array_equal(before[1], after[1])
    assert (first.ids, second.ids, len(second)) == ([item_id(900)], [item_id(901)], 1)
    assert second.apply(Changes(2, [], [])) is second


def test_without_changes_the_base_alone_is_searched():
    live = empty(base_index())
    assert live.is_empty
    assert live.base_items(None) is None
    added_only = live.apply(Changes(1, [added(900, 1)], []))
    assert (added_only.is_empty, added_only.base_items(None)) == (False, None)  # no selector
    assert live.apply(Changes(1, [], [item_id(12_345)])).is_empty  # an item that was never in the base


@pytest.mark.parametrize(
    "unfit",
    [
        replace(added(900, 1), clip="another model"),
        added(900, 1, width=C + 1),
        replace(added(900, 1), vectors={"image": added(900, 1).vectors["image"]}),
    ],
)
def test_vectors_of_another_model_are_refused(unfit):
    with pytest.raises(ArtifactError, match=r"vectors of live item 0*384 were made with .*: run jobs\.compact"):
        empty(base_index()).apply(Changes(1, [unfit], []))


def test_an_unknown_language_is_named_with_those_of_the_live_items():
    live = empty(base_index()).apply(Changes(1, [added(900, 1, "zh")], []))
    with pytest.raises(QueryError, match="is in language 'fr'; the languages are: de, en, pt-BR, zh"):
        live.base_items("fr")
    with pytest.raises(QueryError, match="'English' is not a language"):
        live.base_items("English")


def test_live_items_are_embedded_as_jobs_embed_items_does(finished):
    """The base's own items, embedded one by one, are nearest to themselves, with the vectors of the shards."""
    retriever, embeddings = Retriever(finished), Embeddings(finished.folder("embeddings"))
    rows = [item_row(i) for i in range(6)]
    embedded = retriever.embed_items([r["text"] for r in rows], [Image.open(io.BytesIO(r["image"])) for r in rows])
    for kind in KINDS:
        stored = embeddings.rows(kind, np.arange(6))
        vectors = np.array([vectors[kind] for vectors in embedded])
        np.testing.assert_array_equal(vectors, vectors.astype(np.float16).astype(np.float32))
        np.testing.assert_allclose(unit_vectors(vectors), stored, atol=1e-3)


def test_without_texts_items_have_an_image_vector_alone(make_run):
    retriever = Retriever(make_run("live-images", [30], texts=False))
    [vectors] = retriever.embed_items(["text"], [image(1)])
    assert vectors.keys() == {"image"}
    clip = retriever.manifest.identity["clip"]
    live = retriever.live().apply(Changes(1, [Vectors(item_id(1), "en", vectors, clip)], []))
    [hits] = retriever.retrieve([Query(image(1), None)], 3, live=live)
    assert (hits[0].item_id, hits[0].live, hits[1].live) == (item_id(1), True, False)
    assert hits[0].score == pytest.approx(1, abs=1e-3)


def test_live_vectors_belong_to_one_index(finished):
    with pytest.raises(AssertionError, match="the index that they were made for"):
        Retriever(finished).retrieve(
            [Query(image(1), None)], 3, live=empty(base_index()).apply(Changes(1, [added(1, 1)], []))
        )


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)
