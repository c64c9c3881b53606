"""Images found by name in folders, zips and parquet files, and read."""

import unicodedata
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.scored import parquet
from support.tiny import png

from comem_ray.tasks.images import ImageAt, ImageReader, images_at


@pytest.fixture(params=["folder", "zip", "parquet"])
def held(request, tmp_path):
    """a.jpg, 04/b.JPEG and c (no ending), in each way of holding them."""
    names = ["a.jpg", "04/b.JPEG", "c"]
    if request.param == "folder":
        (tmp_path / "images" / "04").mkdir(parents=True)
        for n, name in enumerate(names):
            (tmp_path / "images" / name).write_bytes(png(n))
        return images_at([tmp_path / "images"])
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
            for n, name in enumerate(names):
                archive.writestr(name, png(n))
        return images_at([tmp_path / "p.zip"])
    rows = [{"image": {"bytes": png(n), "path": name}} for n, name in enumerate(names)]
    return images_at([parquet(tmp_path / "0.parquet", rows[:1]), parquet(tmp_path / "1.parquet", rows[1:])])


def test_found_by_name_or_by_an_id_with_an_ending(held):
    (held.folder.parent / "outside.jpg").write_bytes(png(9))
    reader = ImageReader()
    for names, seed in ((["a.jpg"], 0), (["a"], 0), (["no", "04/b"], 1), (["c"], 2), (["c", "a"], 2)):
        assert reader.read(held.find(names)) == png(seed), names
    for names in ([], ["d"], ["../outside.jpg"], ["/etc/passwd"], ["\0"], ["x" * 5_000]):
        assert held.find(names) is None


def test_parquet_by_columns_of_bytes_and_ids_in_any_row_group(tmp_path):
    rows = [{"image_id": f"oven_{n}", "image": png(n) if n else None} for n in range(7)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet", row_group_size=3)
    held, reader = images_at([tmp_path / "p.parquet"]), ImageReader()
    assert [reader.read(held.find([f"oven_{n}"])) for n in (6, 1, 3, 4)] == [png(n) for n in (6, 1, 3, 4)]
    assert reader.read(held.find(["oven_0"])) == b""


def test_several_places_are_looked_through_in_order(tmp_path):
    for n, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_bytes(png(n))
        (tmp_path / name / "both.jpg").write_bytes(png(10 + n))
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("zipped.jpg", png(2))
    table = parquet(tmp_path / "t.parquet", [{"image": {"bytes": png(3), "path": "row.jpg"}}])
    held, reader = images_at([tmp_path / "second", tmp_path / "first", tmp_path / "p.zip", table]), ImageReader()
    for name, seed in (("first", 0), ("second", 1), ("both.jpg", 11), ("zipped", 2), ("row", 3)):
        assert reader.read(held.find([name])) == png(seed), name
    assert held.find(["none"]) is None
    with pytest.raises(ValueError, match=r"third is not there"):
        images_at([tmp_path / "first", tmp_path / "third"])
    (tmp_path / "text.txt").write_text("no images")
    with pytest.raises(ValueError, match=r"want a folder, a zip, or parquet files .one or several., got .*text.txt"):
        images_at([tmp_path / "first", tmp_path / "text.txt"])


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("row", ["NFC", "NFD"])
def test_a_name_may_be_composed_or_decomposed(tmp_path, disk, row):
    name = unicodedata.normalize(disk, "Mañana")
    (tmp_path / f"{name}.jpg").write_bytes(png(1))
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(f"{name}.jpg", png(2))
    for place, seed in ((tmp_path, 1), (tmp_path / "p.zip", 2)):
        at = images_at([place]).find([unicodedata.normalize(row, "Mañana")])
        assert ImageReader().read(at) == png(seed)


def test_what_cannot_be_read_is_a_value_or_os_error(tmp_path):
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", png(0))
    at = images_at([path]).find(["a"])
    broken = bytearray(path.read_bytes())
    broken[60] ^= 255
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="CRC"):
        ImageReader().read(at)
    with pytest.raises(OSError, match="none"):
        ImageReader().read(ImageAt(str(tmp_path / "none.jpg")))


def test_what_holds_no_images_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none.zip is not there"):
        images_at([tmp_path / "none.zip"])
    with pytest.raises(ValueError, match=r"no column image or picture or bytes"):
        images_at([parquet(tmp_path / "p.parquet", [{"id": 1}])]).find(["1"])
