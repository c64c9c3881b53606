import numpy as np
import pyarrow as pa
import pytest
from support.tiny import item_row

from comem_ray.artifacts import write_parquet
from comem_ray.config import ConfigError
from comem_ray.knowledge.schema import item_schema
from comem_ray.retrieval.ready_embeddings import ReadyEmbeddings

C = 4


def vector(n: int) -> np.ndarray:
    return np.eye(C, dtype=np.float16)[n % C]


@pytest.fixture
def shard(tmp_path):
    """Items 0 to 3: 0 and 1 with an image embedding, 1 with one of its text too."""
    rows = [item_row(n) for n in range(4)]
    rows[0]["image_embedding"] = vector(0)
    rows[1] |= {"image_embedding": vector(1), "text_embedding": vector(2)}
    path = tmp_path / "part.parquet"
    write_parquet(path, pa.Table.from_pylist(rows, item_schema({"image_embedding": C, "text_embedding": C})))
    return path


def test_only_the_missing_vectors_are_computed(shard):
    ready, ids = ReadyEmbeddings(shard, C), [item_row(n)["item_id"] for n in (2, 1, 0, 3)]
    calls = []

    def encode(positions: list[int]) -> np.ndarray:
        calls.append(positions)
        return np.full((len(positions), C), 9, np.float32)

    images, texts = (ready.completed(kind, ids, encode) for kind in ("image", "text"))
    np.testing.assert_array_equal(images, [[9] * C, vector(1), vector(0), [9] * C])
    np.testing.assert_array_equal(texts, [[9] * C, vector(2), [9] * C, [9] * C])
    assert calls == [[0, 3], [0, 2, 3]]
    assert [i in ready for i in ids] == [False, True, True, False]


def test_an_item_with_other_vectors_has_another_content(shard):
    ready, (first, second, third, _) = ReadyEmbeddings(shard, C), [item_row(n)["item_id"] for n in range(4)]
    contents = [ready.content(item_id, b"0" * 16) for item_id in (first, second, third)]
    assert len(set(contents)) == 3
    assert contents[2] == b"0" * 16
    assert all(len(content) == 16 for content in contents)


def test_another_width_is_refused(shard):
    with pytest.raises(ConfigError, match=r"width 4, clip\.model makes 24"):
        ReadyEmbeddings(shard, 24)


def test_shards_of_other_sources_have_none(tmp_path):
    path = tmp_path / "part.parquet"
    write_parquet(path, pa.Table.from_pylist([item_row(0)], item_schema({})))
    assert item_row(0)["item_id"] not in ReadyEmbeddings(path, C)
