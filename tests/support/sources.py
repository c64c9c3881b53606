"""Tiny files of other projects' formats, and what their readers make of them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from support.tiny import png

from comem_ray.knowledge.sources.chunks import from_bytes, parse_batch, read_chunks, rows_digest, to_bytes
from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.rows import ParsedRow, Row

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    """A tar of files by name, in this order."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(count: int) -> dict[str, bytes]:
    """The members of `count` webdataset samples: an image, a caption, and JSON as img2dataset writes it."""
    files = {}
    for n in range(count):
        key = f"{n:09d}"
        meta = {"key": key, "status": "success", "url": f"https://example.org/{n}.png", "caption": f"caption {n}"}
        files |= {f"{key}.png": png(n, 4, 4), f"{key}.txt": f"caption {n}".encode()}
        files[f"{key}.json"] = json.dumps(meta).encode()
    return files


def write_dataset(folder: Path, shards: list[list[dict[str, Any]]], schema: pa.Schema) -> Path:
    """A dataset as `datasets.save_to_disk` leaves it."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05d}-of-{len(shards):05d}.arrow" for n in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for start in range(0, len(rows), 2):
                writer.write_table(pa.Table.from_pylist(rows[start : start + 2], schema))
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train", "_fingerprint": "0"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def source_file(path: Path, format: str, images: Path | None = None, **more: Any) -> SourceFile:
    """A file as the configuration would give it."""
    return SourceFile(path.stem, str(path), format, str(images or path.parent), **more)


def read_all(file: SourceFile, sizes: tuple[int, ...] = (1, 2, 3, 1_000)) -> list[ParsedRow]:
    """All rows of a file. They are the same in chunks of any size, and after a journey to another process."""
    every = []
    for size in sizes:
        rows, numbers = list[ParsedRow](), []
        for chunk in read_chunks(file, size):
            parsed = parse_batch(file.format, from_bytes(to_bytes(chunk.batch)))
            assert rows_digest(parsed) == rows_digest(parse_batch(file.format, chunk.batch))
            assert 0 < len(parsed) <= size
            numbers.append((chunk.number, chunk.first_row))
            assert chunk.first_row == len(rows)
            rows += parsed
        assert [number for number, _ in numbers] == list(range(len(numbers)))
        every.append(rows)
    assert all(rows == every[0] for rows in every)
    return every[0]


def outcomes(file: SourceFile) -> list[str]:
    """The text of each item, or the reason of each rejected row."""
    return [row.text if isinstance(row, Row) else row.reason for _, row in read_all(file)]
