from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.sources import outcomes, read_all, samples, source_file, write_tar
from support.tiny import png

from comem_ray.config import ClipConfig, ConfigError
from comem_ray.knowledge.sources.chunks import related_files
from comem_ray.knowledge.sources.clip_retrieval import refuse_other_clip
from comem_ray.knowledge.sources.rows import Row, RowFault

C = 8


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, C)).astype(np.float16) * np.float16(3)


def write(folder: Path, count: int, texts: bool = True, **changes: list):
    for kind, seed in (("img", 0), ("text", 1)):
        (folder / f"{kind}_emb").mkdir(parents=True)
        if kind == "img" or texts:
            np.save(folder / f"{kind}_emb" / f"{kind}_emb_0.npy", vectors(count, seed))
    (folder / "metadata").mkdir()
    numbers = range(count)
    columns = {"image_path": [f"{n}.png" for n in numbers], "caption": [f"caption {n}" for n in numbers]}
    path = folder / "metadata" / "metadata_0.parquet"
    pq.write_table(pa.table({**columns, **changes}), path, row_group_size=3)
    return source_file(path, "clip_retrieval", images=folder, clip_model="ViT-B-32", clip_pretrained="openai")


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def taken(file, kind: str) -> np.ndarray:
    rows = [row for _, row in read_all(file) if isinstance(row, Row)]
    return np.stack([np.frombuffer(getattr(row, f"{kind}_embedding"), np.float16) for row in rows])


def test_rows_bring_their_embeddings_along(tmp_path):
    file = write(tmp_path / "e", 7)
    assert outcomes(file) == [f"caption {n}" for n in range(7)]
    np.testing.assert_array_equal(taken(file, "image"), unit(vectors(7)))
    np.testing.assert_array_equal(taken(file, "text"), unit(vectors(7, 1)))
    assert read_all(file)[2][1].image == "2.png"


def test_texts_need_not_be_embedded(tmp_path):
    assert {row.text_embedding for _, row in read_all(write(tmp_path / "e", 3, texts=False))} == {None}


def test_bad_vectors_cost_their_rows(tmp_path):
    file = write(tmp_path / "e", 5)
    path = tmp_path / "e" / "img_emb" / "img_emb_0.npy"
    rows = vectors(5)
    rows[1, 2], rows[2], rows[4, 0] = np.nan, 0, np.inf
    np.save(path, rows)
    assert outcomes(file) == [
        "caption 0",
        "embedding_not_finite",
        "embedding_zero",
        "caption 3",
        "embedding_not_finite",
    ]


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("img", None, "embedding_missing"),
        ("img", vectors(4), "embedding_rows"),
        ("text", vectors(6), "embedding_rows"),
        ("img", vectors(5).ravel(), "embedding_corrupt"),
        ("img", np.ones((5, C), int), "embedding_corrupt"),
        ("img", np.array([[{}] * C] * 5), "embedding_corrupt"),
    ],
)
def test_other_files_of_embeddings_are_one_rejected_row(tmp_path, kind, content, reason):
    file = write(tmp_path / "e", 5)
    path = tmp_path / "e" / f"{kind}_emb" / f"{kind}_emb_0.npy"
    path.unlink()
    if content is not None:
        np.save(path, content, allow_pickle=True)
    assert outcomes(file) == [reason]


@pytest.mark.parametrize("cut", [0, 60, 200])
def test_a_cut_file_of_embeddings_is_one_rejected_row(tmp_path, cut):
    file = write(tmp_path / "e", 5)
    path = tmp_path / "e" / "img_emb" / "img_emb_0.npy"
    path.write_bytes(path.read_bytes()[:cut])
    assert outcomes(file) == ["embedding_corrupt"]


def test_a_damaged_row_group_does_not_shift_the_embeddings(tmp_path):
    file = write(tmp_path / "e", 9)
    path = Path(file.path)
    start = pq.read_metadata(path).row_group(1).column(1).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 30] = b"\xff" * 30
    path.write_bytes(bytes(data))
    assert outcomes(file) == [
        *(f"caption {n}" for n in range(3)),
        "parquet_corrupt",
        *(f"caption {n}" for n in (6, 7, 8)),
    ]
    np.testing.assert_array_equal(taken(file, "image"), unit(vectors(9))[[0, 1, 2, 6, 7, 8]])


def test_a_bare_key_is_an_image_of_the_tars(tmp_path):
    keys = [f"{n:09d}" for n in range(3)]
    write_tar(tmp_path / "00000.tar", samples(3))
    file = write(tmp_path / "e", 4, image_path=[*keys, "000019999"])
    file = source_file(Path(file.path), "clip_retrieval", images=tmp_path)
    assert outcomes(file) == ["caption 0", "caption 1", "caption 2", "image_missing"]
    assert read_all(file)[1][1].image == png(1, 4, 4)


def test_a_changed_tar_or_vector_is_a_changed_source(tmp_path):
    write_tar(tmp_path / "00000.tar", samples(1))
    file = source_file(Path(write(tmp_path / "e", 1).path), "clip_retrieval", images=tmp_path)
    assert [path.name for path in related_files(file)] == ["img_emb_0.npy", "text_emb_0.npy", "00000.tar"]


def test_without_its_tar_a_key_is_fetched_from_its_url(tmp_path):
    urls = ["https://example.org/0.png", None]
    file = write(tmp_path / "e", 2, image_path=["000000000", "000000001"], url=urls)
    first, second = (row for _, row in read_all(file))
    assert first.image == urls[0]
    assert isinstance(second, RowFault)
    assert second.reason == "image_missing"


def test_another_model_or_width_is_refused(tmp_path):
    file = write(tmp_path / "e", 3)
    clip = ClipConfig(model="ViT-B-32", pretrained="openai")
    refuse_other_clip([file], clip, C)
    with pytest.raises(ConfigError, match=r"width 8, clip.model 'ViT-B-32' makes 512"):
        refuse_other_clip([file], clip, 512)
    for other in (ClipConfig(model="ViT-L-14", pretrained="openai"), ClipConfig(model="ViT-B-32")):
        with pytest.raises(ConfigError, match="must be equal"):
            refuse_other_clip([file], other, C)
