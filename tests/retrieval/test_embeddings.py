"""Reading embeddings shard by shard."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.tiny import rename_to_old_columns, shard_paths

from comem_ray.artifacts import ArtifactError
from comem_ray.knowledge.items import ItemStore
from comem_ray.retrieval.embeddings import Embeddings


def test_blocks_are_the_shards_in_item_order(finished):
    embeddings = Embeddings(finished.folder("embeddings"))
    assert len(embeddings) == 90
    assert embeddings.item_ids() == ItemStore(finished.folder("items")).ids
    for kind in embeddings.kinds:
        blocks = list(embeddings.blocks(kind))
        assert [b.shape for b in blocks] == [(50, 24), (40, 24)]
        assert {b.dtype for b in blocks} == {np.dtype(np.float32)}
        np.testing.assert_allclose(np.linalg.norm(np.concatenate(blocks), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("positions", [[], [0], [49, 50], [3, 20, 89], range(90)])
def test_rows_are_rows_of_the_blocks(finished, positions):
    embeddings = Embeddings(finished.folder("embeddings"))
    whole = np.concatenate(list(embeddings.blocks("text")))
    rows = embeddings.rows("text", np.array(positions, np.int64))
    np.testing.assert_array_equal(rows, whole[list(positions)])


def test_embeddings_of_version_0_1_are_read(finished, tmp_path):
    new = Embeddings(finished.folder("embeddings"))
    shutil.copytree(finished.folder("embeddings"), tmp_path, dirs_exist_ok=True)
    rename_to_old_columns(tmp_path)
    assert "picture_embedding" in pq.read_schema(shard_paths(tmp_path)[0]).names
    old = Embeddings(tmp_path)
    for kind in new.kinds:
        np.testing.assert_array_equal([*old.blocks(kind)][1], [*new.blocks(kind)][1])
        np.testing.assert_array_equal(old.rows(kind, np.array([3, 60])), new.rows(kind, np.array([3, 60])))


def test_an_unfinished_stage_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="run the stage 'embed_items'"):
        Embeddings(tmp_path)
