from support.sources import outcomes, read_all, samples, source_file, write_tar
from support.tiny import png


def test_every_key_is_a_row(tmp_path):
    file = source_file(write_tar(tmp_path / "a.tar", samples(7)), "webdataset")
    rows = [row for _, row in read_all(file)]
    assert [row.text for row in rows] == [f"caption {n}" for n in range(7)]
    assert [row.image for row in rows] == [png(n, 4, 4) for n in range(7)]
    assert rows[3].image_url == "https://example.org/3.png"


def test_bad_keys_cost_themselves(tmp_path):
    files = {
        "a.jpg": b"image",  # without a text
        "b.txt": b"text",  # without an image
        "c.jpg": b"image",
        "c.txt": b"\xff",
        "d.jpg": b"image",
        "d.json": b"{",
        "e.json": b'{"caption": "named", "url": "https://example.org/e.jpg"}',
        "f.png": b"image",
        "f.txt": b"good",
        "f.cls": b"3",
        "readme": b"ignored",
    }
    expected = ["no_text", "no_image", "bad_utf8", "json_invalid", "named", "good"]
    assert outcomes(source_file(write_tar(tmp_path / "a.tar", files), "webdataset")) == expected


def test_columns_of_the_json_may_have_other_names(tmp_path):
    files = {"a.jpg": b"x", "a.json": b'{"alt": "An oak.", "name": "Oak"}'}
    columns = (("text", "alt"), ("title", "name"))
    file = source_file(write_tar(tmp_path / "a.tar", files), "webdataset", columns=columns)
    assert outcomes(file) == ["Oak: An oak."]


def test_the_key_at_a_break_is_the_rejected_row(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(3))
    path.write_bytes(path.read_bytes()[: 3 * 1024 + 1024 + 512 + 3])  # within the text of the second key
    assert outcomes(source_file(path, "webdataset")) == ["caption 0", "tar_truncated"]


def test_an_empty_tar_is_one_rejected_row(tmp_path):
    assert outcomes(source_file(write_tar(tmp_path / "a.tar", {}), "webdataset")) == ["source_empty"]
    assert outcomes(source_file(write_tar(tmp_path / "b.tar", {"a.cls": b"3"}), "webdataset")) == ["source_empty"]
    (tmp_path / "c.tar").write_bytes(b"")
    assert outcomes(source_file(tmp_path / "c.tar", "webdataset")) == ["source_empty"]
