import json

import pyarrow as pa
import pytest
from support.sources import write_dataset, write_tar

from comem_ray.config import ConfigError
from comem_ray.knowledge.sources.folders import folder_shards

SCHEMA = pa.schema([("text", pa.string())])


def shards(folder, format: str = "auto") -> list[tuple[str, str, str]]:
    """Path below the folder, format and name of its label."""
    return [
        (shard.path.relative_to(folder).as_posix(), shard.format, shard.name)
        for shard in folder_shards(folder, format, "field")
    ]


def test_img2dataset_has_numbered_shards(tmp_path):
    folder = tmp_path / "cc"
    folder.mkdir()
    for name in ("00001.tar", "00000.tar", "00000.parquet", "00000_stats.json", "00002.parquet", "notes.tar"):
        (folder / name).touch()
    assert shards(folder) == [
        ("00000.parquet", "img2dataset", "cc_00000"),
        ("00001.tar", "webdataset", "cc_00001"),
        ("00002.parquet", "img2dataset", "cc_00002"),
    ]
    assert shards(folder, "webdataset") == [
        ("00000.tar", "webdataset", "cc_00000"),
        ("00001.tar", "webdataset", "cc_00001"),
        ("notes.tar", "webdataset", "cc_notes"),
    ]


def test_other_tars_are_webdataset(tmp_path):
    write_tar(tmp_path / "train-1.tar", {})
    assert shards(tmp_path) == [("train-1.tar", "webdataset", f"{tmp_path.name}_train-1")]


def test_a_dataset_on_disk_names_its_shards(tmp_path):
    folder = write_dataset(tmp_path / "flickr", [[], []], SCHEMA)
    assert shards(folder) == [
        (f"data-0000{n}-of-00002.arrow", "hf_dataset", f"flickr_data-0000{n}-of-00002") for n in (0, 1)
    ]


def test_splits_come_in_their_order(tmp_path):
    folder = tmp_path / "flickr"
    for split in ("test", "train"):
        write_dataset(folder / split, [[]], SCHEMA)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert [path for path, _, _ in shards(folder)] == [
        "train/data-00000-of-00001.arrow",
        "test/data-00000-of-00001.arrow",
    ]
    assert shards(folder)[0][2] == "flickr_train_data-00000-of-00001"


@pytest.mark.parametrize(
    "state", ["", "{}", '{"_data_files": 3}', '{"_data_files": [{"filename": "../x.arrow"}]}', '{"_data_files": ["x"]}']
)
def test_a_damaged_list_of_shards_is_refused(tmp_path, state):
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(ConfigError, match=r"field: .*state\.json"):
        shards(tmp_path)


def test_embedding_folders_in_the_order_of_their_numbers(tmp_path):
    for name in ("img_emb", "metadata"):
        (tmp_path / "e" / name).mkdir(parents=True)
    for n in (10, 2, 0):
        (tmp_path / "e" / "metadata" / f"metadata_{n}.parquet").touch()
    assert [path for path, _, _ in shards(tmp_path / "e")] == [f"metadata/metadata_{n}.parquet" for n in (0, 2, 10)]
    assert {kind for _, kind, _ in shards(tmp_path / "e")} == {"clip_retrieval"}


def test_a_folder_of_images_is_one_shard(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.JPG").touch()
    assert shards(tmp_path) == [(".", "image_folder", "")]


@pytest.mark.parametrize("kind", ["auto", "hf_dataset", "clip_retrieval", "img2dataset", "webdataset", "wit_tsv"])
def test_another_folder_is_refused_with_what_it_holds(tmp_path, kind):
    (tmp_path / "a.tsv").touch()
    with pytest.raises(ConfigError, match=r"a\.tsv|state\.json|/\*"):
        shards(tmp_path, kind)
