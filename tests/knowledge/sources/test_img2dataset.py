from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.sources import outcomes, read_all, samples, source_file, write_tar
from support.tiny import png

from comem_ray.config.ingest import FetchConfig
from comem_ray.knowledge.fetch import Fetcher
from comem_ray.knowledge.images import ImageError
from comem_ray.knowledge.sources.chunks import related_files
from comem_ray.knowledge.sources.image_bytes import image_bytes


def write_metadata(path: Path, count: int, failed: tuple[int, ...] = (), **more: list) -> Path:
    numbers = range(count)
    columns = {
        "url": [f"https://example.org/{n}.png" for n in numbers],
        "caption": [f"caption {n}" for n in numbers],
        "key": [f"{n:09d}" for n in numbers],
        "status": ["failed_to_download" if n in failed else "success" for n in numbers],
        "error_message": ["HTTP Error 404: Not Found" if n in failed else None for n in numbers],
        "width": list(numbers),
    }
    pq.write_table(pa.table({**columns, **more}), path, row_group_size=4)
    return path


@pytest.fixture
def tars(tmp_path):
    kept = {name: data for name, data in samples(7).items() if not name.startswith("000000002")}
    write_tar(tmp_path / "00000.tar", kept)
    return source_file(write_metadata(tmp_path / "00000.parquet", 7, failed=(2,)), "img2dataset")


def test_rows_are_those_of_the_parquet_with_images_of_the_tar(tars):
    rows = [row for _, row in read_all(tars)]
    assert [getattr(row, "text", None) for row in rows] == [f"caption {n}" if n != 2 else None for n in range(7)]
    assert rows[5].image == png(5, 4, 4)
    assert rows[5].image_url == "https://example.org/5.png"
    assert rows[2].reason == "download_failed"
    assert "404" in rows[2].detail
    assert [path.name for path in related_files(tars)] == ["00000.tar", "00000"]


def test_a_cut_tar_costs_the_images_behind_the_break(tars):
    tar = Path(tars.path).with_suffix(".tar")
    tar.write_bytes(tar.read_bytes()[:3600])
    assert outcomes(tars) == [
        "caption 0",
        "tar_truncated",
        "download_failed",
        *["image_missing"] * 4,
        "tar_truncated",
    ]


def test_images_in_files(tmp_path):
    file = source_file(write_metadata(tmp_path / "00000.parquet", 3), "img2dataset")
    (tmp_path / "00000").mkdir()
    for n in (0, 1):
        (tmp_path / "00000" / f"{n:09d}.png").write_bytes(png(n, 4, 4))
    rows = [row for _, row in read_all(file)]
    assert [row.image for row in rows] == ["00000/000000000.png", "00000/000000001.png", "00000/000000002.jpg"]


def test_a_key_is_not_a_way_out_of_the_folder(tmp_path):
    (tmp_path / "shards" / "00000").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png(0, 4, 4))
    path = write_metadata(tmp_path / "shards" / "00000.parquet", 1, key=["../../secret"])
    ((_, row),) = read_all(source_file(path, "img2dataset"))
    with pytest.raises(ImageError, match="leads out of the source's folder"):
        image_bytes(row.image, tmp_path / "shards", Fetcher(FetchConfig(), 1_000), 1_000)


def test_images_in_the_parquet_itself(tmp_path):
    path = write_metadata(tmp_path / "00000.parquet", 2, jpg=[png(0, 4, 4), png(1, 4, 4)])
    assert [row.image for _, row in read_all(source_file(path, "img2dataset"))] == [png(0, 4, 4), png(1, 4, 4)]


def test_other_files_are_one_rejected_row(tmp_path):
    path = tmp_path / "00000.parquet"
    path.write_bytes(b"PAR1")
    assert outcomes(source_file(path, "img2dataset")) == ["parquet_corrupt"]
    pq.write_table(pa.table({"caption": ["a"]}), path)
    assert outcomes(source_file(path, "img2dataset")) == ["parquet_columns"]
    write_metadata(path, 0)
    assert outcomes(source_file(path, "img2dataset")) == ["source_empty"]
