import pyarrow as pa
import pytest
from support.sources import IMAGE_TYPE, outcomes, read_all, source_file, write_dataset
from support.tiny import png

from comem_ray.knowledge.sources.rows import Row

SCHEMA = pa.schema([("image", IMAGE_TYPE), ("caption", pa.string()), ("label", pa.int64())])


def row(n: int, **changes):
    return {"image": {"bytes": png(n, 4, 4), "path": None}, "caption": f"caption {n}", "label": n, **changes}


def shard(folder, rows, schema=SCHEMA, **more):
    write_dataset(folder, [rows], schema)
    return source_file(folder / "data-00000-of-00001.arrow", "hf_dataset", **more)


def test_rows_with_the_feature_image(tmp_path):
    rows = [r for _, r in read_all(shard(tmp_path / "d", [row(n) for n in range(7)]))]
    assert [r.text for r in rows] == [f"caption {n}" for n in range(7)]
    assert [r.image for r in rows] == [png(n, 4, 4) for n in range(7)]


def test_bad_rows_cost_themselves(tmp_path):
    rows = [
        row(0, image=None),
        row(1, caption=None),
        row(2, image={"bytes": None, "path": "two.png"}),
        row(3, image={"bytes": b"", "path": None}),
        row(4),
    ]
    file = shard(tmp_path / "d", rows)
    assert outcomes(file) == ["no_image", "no_text", "caption 2", "no_image", "caption 4"]
    named = read_all(file)[2][1]
    assert isinstance(named, Row)
    assert named.image == "two.png"


def test_columns_of_other_names(tmp_path):
    schema = pa.schema([("photo", IMAGE_TYPE), ("alt", pa.list_(pa.string())), ("label", pa.int64())])
    rows = [
        {"photo": {"bytes": png(0, 4, 4), "path": None}, "alt": ["a", "b"], "label": 1},
        {"photo": {"bytes": None, "path": "one.png"}, "alt": ["c"], "label": 2},
    ]
    file = shard(tmp_path / "a", rows, schema, columns=(("text", "alt"),))
    assert outcomes(file) == ["a\nb", "c"]
    file = shard(tmp_path / "b", rows, schema, columns=(("image", "photo"), ("text", "alt")))
    assert [r.image for _, r in read_all(file)] == [png(0, 4, 4), "one.png"]
    file = shard(tmp_path / "c", rows, schema, columns=(("image", "photo"), ("text", "label")))
    assert outcomes(file) == ["value_type", "value_type"]
    file = shard(tmp_path / "e", rows, schema, columns=(("image", "photo"), ("title", "nothing")))
    assert outcomes(file) == ["arrow_columns"]


@pytest.mark.parametrize(("image", "kind"), [(png(0, 4, 4), pa.binary()), ("a.png", pa.string())])
def test_images_as_bytes_or_paths(tmp_path, image, kind):
    schema = pa.schema([("image", kind), ("text", pa.string())])
    assert read_all(shard(tmp_path / "d", [{"image": image, "text": "a"}], schema))[0][1].image == image


def test_images_that_are_not_files_are_rejected(tmp_path):
    schema = pa.schema([("image", pa.list_(pa.int64())), ("text", pa.string())])
    assert outcomes(shard(tmp_path / "d", [{"image": [1, 2], "text": "a"}], schema)) == ["value_type"]


def test_a_cut_shard_gives_what_comes_before(tmp_path):
    file = shard(tmp_path / "d", [row(n) for n in range(7)])
    path = tmp_path / "d" / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:-300])
    assert outcomes(file) == [*(f"caption {n}" for n in range(6)), "arrow_corrupt"]
    path.write_bytes(b"")
    assert outcomes(file) == ["arrow_corrupt"]
    assert outcomes(shard(tmp_path / "e", [])) == ["source_empty"]
