import json
from pathlib import Path

import pytest
from support.sources import outcomes, read_all, source_file
from support.tiny import png

from comem_ray.knowledge.sources.chunks import related_files
from comem_ray.knowledge.sources.scan import saved_scan, scan


def folder(path: Path, files: dict[str, bytes | str]):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return source_file(path, "image_folder", images=path)


def test_images_with_captions_beside_them(tmp_path):
    files = {
        "b.jpg": b"image",
        "b.txt": "An oak.",
        "a/v1.2.png": b"image",
        "a/v1.2.txt": "\ufeffA lime.",
        "c.PNG": b"image",
        "c.json": '{"title": "Fir", "caption": "A fir."}',
        "d.jpg": b"image",
        "readme.txt": "no image",
        ".hidden.jpg": b"image",
        ".git/e.jpg": b"image",
        "e.cls": b"3",
    }
    file = folder(tmp_path / "trees", files)
    rows = [row for _, row in read_all(file)]
    assert outcomes(file) == ["A lime.", "An oak.", "Fir: A fir.", "no_text", "no_image"]
    assert [getattr(row, "image", None) for row in rows[:3]] == ["a/v1.2.png", "b.jpg", "c.PNG"]


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.jsonl"])
def test_one_file_of_lines_for_all(tmp_path, name):
    lines = [
        {"file_name": "a.jpg", "text": "An oak.", "label": 3},
        {"file_name": "b/b.jpg", "text": "A lime.", "title": "Lime"},
        {"text": "nothing to see"},
    ]
    text = "\n".join([*map(json.dumps, lines), "{", "", "[]"])
    file = folder(tmp_path / "trees", {"a.jpg": b"image", "c.txt": "not read", name: text})
    assert outcomes(file) == ["An oak.", "Lime: A lime.", "no_image", "json_invalid", "json_invalid", "json_type"]
    assert [row.image for _, row in read_all(file)[:2]] == ["a.jpg", "b/b.jpg"]
    assert json.loads(read_all(file)[3][0]) == {"line": "{"}


@pytest.mark.parametrize("name", ["metadata.csv", "captions.csv"])
def test_one_table_for_all(tmp_path, name):
    table = b'file_name,text,other\na.jpg,"An oak,\ntall",1\nb.jpg,\xff,2\nc.jpg,short\n\n"d.jpg",A lime.,4\n'
    file = folder(tmp_path / "trees", {name: table})
    assert outcomes(file) == ["An oak,\ntall", "bad_utf8", "column_count", "empty_line", "A lime."]


def test_columns_of_other_names(tmp_path):
    file = folder(tmp_path / "trees", {"captions.csv": "photo,alt\na.jpg,An oak.\n"})
    assert outcomes(file) == ["header_columns"]
    named = source_file(Path(file.path), "image_folder", columns=(("image", "photo"), ("text", "alt")))
    assert outcomes(named) == ["An oak."]
    assert read_all(named)[0][1].image == "a.jpg"


def test_a_csv_field_without_end_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("comem_ray.knowledge.sources.image_folder.MAX_FILE_BYTES", 100)
    table = "file_name,text\na.jpg,An oak.\nb.jpg," + "x" * 200 + "\nc.jpg,A lime.\n"
    assert outcomes(folder(tmp_path / "trees", {"metadata.csv": table})) == ["An oak.", "csv_invalid", "A lime."]


def test_an_empty_folder_is_one_rejected_row(tmp_path):
    assert outcomes(folder(tmp_path / "trees", {"notes": "x"})) == ["source_empty"]
    assert outcomes(folder(tmp_path / "more", {"metadata.csv": ""})) == ["header_columns"]


def test_a_changed_caption_is_a_changed_source(tmp_path):
    file = folder(tmp_path / "trees", {"a.jpg": png(0), "a.txt": "An oak."})
    first = scan(file, 10, tmp_path / "scan")
    assert saved_scan(file, 10, tmp_path / "scan") is not None
    (tmp_path / "trees" / "a.txt").write_text("A lime.")
    assert saved_scan(file, 10, tmp_path / "scan") is None
    assert scan(file, 10, tmp_path / "scan").chunks != first.chunks
    assert [path.name for path in related_files(file)] == ["a.jpg", "a.txt"]
