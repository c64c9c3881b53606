"""The retriever against brute force over the CLIP vectors of all items."""

import io
import json
import re
import shutil

import faiss
import numpy as np
import pytest
from PIL import Image
from support.tiny import image, item_row
from support.tiny_clip import write_clip

from comem_ray.artifacts import ArtifactError, StageFolder, load_manifest
from comem_ray.config import Config
from comem_ray.retrieval.clip import ClipEncoder, locate
from comem_ray.retrieval.embeddings import Embeddings
from comem_ray.retrieval.index import STAGE, ItemIndex, save_index
from comem_ray.retrieval.retriever import Query, Retriever

N = 90


@pytest.fixture(scope="module")
def retriever(finished):
    return Retriever(finished)


@pytest.fixture(scope="module")
def rows():
    return [item_row(i) for i in range(N)]


@pytest.fixture(scope="module")
def item_vectors(finished, rows):
    encoder = ClipEncoder(finished.clip)
    images = encoder.embed_images([Image.open(io.BytesIO(row["image"])) for row in rows])
    return {"image": images, "text": encoder.embed_texts([row["text"] for row in rows])}


@pytest.fixture(scope="module")
def queries():
    return [Query(image(1000 + i, 50, 44), f"Title {7 * i}: something") for i in range(6)]


def scores_of(finished, item_vectors, query):
    encoder = ClipEncoder(finished.clip)
    vectors = {"image": encoder.embed_images([query.image]), "text": encoder.embed_texts([query.text])}
    return {kind: (vectors[kind] @ item_vectors[kind].T)[0] for kind in vectors}


def assert_best(hits, scores, rows, k, among=None):
    """`hits` are the `k` best by `scores` (N,), up to the rounding of stored vectors."""
    among = range(N) if among is None else among
    by_id = {rows[i]["item_id"]: scores[i] for i in among}
    np.testing.assert_allclose([by_id[h.item_id] for h in hits], [h.score for h in hits], atol=1e-3)
    np.testing.assert_allclose([h.score for h in hits], sorted(by_id.values(), reverse=True)[:k], atol=1e-3)
    assert len({h.item_id for h in hits}) == len(hits)


@pytest.mark.parametrize("by", ["image", "text"])
def test_one_kind_is_brute_force(finished, retriever, item_vectors, rows, queries, by):
    for query, hits in zip(queries, retriever.retrieve(queries, 10, by), strict=True):
        assert_best(hits, scores_of(finished, item_vectors, query)[by], rows, 10)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_both_is_the_weighted_mean(finished, retriever, item_vectors, rows, queries, weight):
    for query, hits in zip(queries, retriever.retrieve(queries, 10, "both", text_weight=weight), strict=True):
        scores = scores_of(finished, item_vectors, query)
        assert_best(hits, weight * scores["text"] + (1 - weight) * scores["image"], rows, 10)


def test_the_ends_of_the_weight_are_the_single_kinds(retriever, queries):
    for weight, kind in ((0.0, "image"), (1.0, "text")):
        fused = retriever.retrieve(queries, 5, "both", text_weight=weight)
        alone = retriever.retrieve(queries, 5, kind)
        assert [[h.item_id for h in hits] for hits in fused] == [[h.item_id for h in hits] for hits in alone]


def test_the_weight_of_the_configuration_is_the_default(finished, retriever, queries):
    assert retriever.retrieve(queries, 5, "both") == retriever.retrieve(queries, 5, "both", text_weight=0.5)


@pytest.mark.parametrize("by", ["image", "text", "both"])
def test_a_language_admits_its_items_only(finished, retriever, item_vectors, rows, queries, by):
    spanish = [i for i in range(N) if rows[i]["language"] == "es"]
    for query, hits in zip(queries, retriever.retrieve(queries, 8, by, language="es"), strict=True):
        scores = scores_of(finished, item_vectors, query)
        wanted = 0.5 * scores["text"] + 0.5 * scores["image"] if by == "both" else scores[by]
        assert_best(hits, wanted, rows, 8, spanish)


@pytest.mark.parametrize("by", ["image", "text", "both"])
def test_an_item_finds_itself_first(retriever, rows, by):
    queries = [Query(Image.open(io.BytesIO(rows[i]["image"])), rows[i]["text"]) for i in (0, 33, 89)]
    hits = retriever.retrieve(queries, 3, by)
    assert [h[0].item_id for h in hits] == [rows[i]["item_id"] for i in (0, 33, 89)]
    assert all(h[0].score == pytest.approx(1, abs=1e-3) for h in hits)


@pytest.mark.parametrize("by", ["image", "text", "both"])
def test_k_above_the_number_of_items_gives_all(retriever, queries, by):
    [hits] = retriever.retrieve(queries[:1], 1_000, by)
    assert len({h.item_id for h in hits}) == len(hits) == N
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


def test_a_question_alone_is_as_in_a_batch(retriever, queries):
    for by in ("image", "text", "both"):
        batch = retriever.retrieve(queries, 5, by)
        for query, hits in zip(queries, batch, strict=True):
            [alone] = retriever.retrieve([query], 5, by)
            assert [h.item_id for h in alone] == [h.item_id for h in hits]
            np.testing.assert_allclose([h.score for h in alone], [h.score for h in hits], atol=1e-6)
        assert retriever.retrieve([], 5, by) == []


@pytest.mark.parametrize(
    ("query", "k", "by", "language", "message"),
    [
        (Query(None, "text"), 3, "image", None, "needs an image in every query, 1 of 1 have none"),
        (Query(None, "text"), 3, "both", None, "needs an image"),
        (Query(image(0), None), 3, "text", None, "needs a text"),
        (Query(image(0), ""), 3, "both", None, "needs a text"),
        (Query(image(0), "text"), 0, "image", None, "k must be 1 at least, got 0"),
        (Query(image(0), "text"), 3, "colour", None, "by must be"),
        (
            Query(image(0), "text"),
            3,
            "image",
            "fr",
            "is in language 'fr'; the languages are: de, en, es",
        ),
    ],
)
def test_an_impossible_query_is_refused(retriever, query, k, by, language, message):
    with pytest.raises(ValueError, match=message):
        retriever.retrieve([query], k, by, language)


def test_an_index_of_version_0_1_is_read(finished, retriever, queries, tmp_path):
    home = tmp_path / "old"
    shutil.copytree(finished.folder("index"), home / "index")
    text = (home / "index" / "manifest.json").read_text()
    for shard in load_manifest(home / "index", "build_index").shards():  # no digest in a name, and "picture"
        old_name = shard.logical_name.replace("image", "picture")
        (home / "index" / shard.name).rename(home / "index" / old_name)
        text = text.replace(shard.name, old_name)
    manifest = json.loads(text)
    manifest["extra"] = {"kinds": ["picture", "text"]}
    (home / "index" / "manifest.json").write_text(json.dumps(manifest))
    old = Retriever(finished.model_copy(update={"root": str(home)}))
    for by in ("image", "text", "both"):
        assert old.retrieve(queries, 5, by) == retriever.retrieve(queries, 5, by)


def test_a_run_without_texts_retrieves_by_image_only(make_run, queries):
    retriever = Retriever(make_run("images", [30], texts=False))
    assert len(retriever.retrieve(queries, 3)[0]) == 3
    for by in ("text", "both"):
        with pytest.raises(ValueError, match="this run embedded none"):
            retriever.retrieve(queries, 3, by)


def test_an_approximate_index_fuses_too(make_run, queries):
    config = make_run("approximate", [60], factory="IVF4,SQ8", search={"nprobe": 4})
    for hits in Retriever(config).retrieve(queries, 5, "both"):
        assert len(hits) == 5


def test_an_index_of_another_model_is_refused_with_both_fingerprints(finished, home):
    other, _ = write_clip(home, "other", seed=9)
    clip = finished.clip.model_copy(update=other)
    with pytest.raises(ArtifactError) as error:
        Retriever(finished.model_copy(update={"clip": clip}))
    assert locate(clip).fingerprint in str(error.value)
    assert locate(finished.clip).fingerprint in str(error.value)


def test_without_an_index_the_stage_to_run_is_named(finished, tmp_path):
    with pytest.raises(ArtifactError, match="run the stage 'build_index'"):
        Retriever(finished.model_copy(update={"root": str(tmp_path)}))


def other_index(finished, tmp_path, factory: str) -> Config:
    """A copy of the run, with an image index that a version built which did not try its indexes."""
    root = tmp_path / "root"
    shutil.copytree(finished.root, root)
    config = finished.model_copy(update={"root": str(root)})
    manifest = load_manifest(config.folder("index"), STAGE)
    stage = StageFolder(config.folder("index"), STAGE, manifest.identity)
    embeddings = Embeddings(config.folder("embeddings"))
    vectors = np.concatenate(list(embeddings.blocks("image")))
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    save_index(stage.path / "image.faiss", index)
    stage.commit("image", "", {"image.faiss": len(vectors)}, {})
    extra = {name: value for name, value in manifest.extra.items() if name not in ("probed", "made_from")}
    stage.close([record.unit for record in manifest.records], extra)
    return config


@pytest.mark.parametrize(
    ("factory", "fault"),
    [("PQ4x4", "search among the items of one language"), ("IVF2,PQ4x4fs", "give its vectors back"), ("Flat", "")],
)
def test_an_index_of_before_is_tried_when_it_is_opened(finished, tmp_path, factory, fault):
    config = other_index(finished, tmp_path, factory)
    if not fault:
        Retriever(config)
        return
    with pytest.raises(ArtifactError, match=rf"the index \S+image\S+ cannot {fault}.* Factories that do all"):
        Retriever(config)


@pytest.mark.parametrize("name", ["image.faiss", "text.faiss", "ids.npy", "languages.npy"])
@pytest.mark.parametrize("cut", [1, 100, None])
def test_a_file_of_the_index_that_is_cut_short_or_gone_is_named(finished, tmp_path, name, cut):
    shutil.copytree(finished.root, tmp_path / "root")
    config = finished.model_copy(update={"root": str(tmp_path / "root")})
    folder = config.folder("index")
    path = folder / load_manifest(folder, STAGE).shard(name).name
    if cut is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ArtifactError, match=rf"{re.escape(str(path))} (has [\d,]+ bytes|is missing)"):
        Retriever(config)


def test_counts_that_do_not_belong_together_are_refused(finished):
    index = Retriever(finished).index
    with pytest.raises(ArtifactError, match=r"90 vectors, 89 ids and 90 languages"):
        ItemIndex(index._index, index.ids[:-1], index.languages, {})
