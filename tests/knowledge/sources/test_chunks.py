import json

from support.sources import samples, source_file, write_tar

from comem_ray.knowledge.sources.chunks import (
    from_bytes,
    parse_batch,
    read_chunks,
    related_files,
    rows_digest,
    to_bytes,
)
from comem_ray.knowledge.sources.files import SourceFile


def chunks(tmp_path, titles: list[str], rows: int):
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps({"image": "a.png", "title": t}) + "\n" for t in titles))
    return list(read_chunks(SourceFile("items", str(path), "jsonl", str(tmp_path)), rows))


def texts(batch) -> list[str]:
    return [row.text for _, row in parse_batch("jsonl", batch)]


def test_chunks_are_numbered_and_know_their_first_row(tmp_path):
    cut = chunks(tmp_path, list("abcdefg"), 3)
    assert [(c.number, c.first_row, c.batch.num_rows) for c in cut] == [(0, 0, 3), (1, 3, 3), (2, 6, 1)]
    assert [texts(c.batch) for c in cut] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


def test_a_chunk_survives_the_journey(tmp_path):
    (chunk,) = chunks(tmp_path, list("ab"), 3)
    copy = from_bytes(to_bytes(chunk.batch))
    assert copy.equals(chunk.batch, check_metadata=True)


def test_images_of_a_tar_travel_with_their_chunk_and_are_in_its_digest(tmp_path):
    file = source_file(write_tar(tmp_path / "a.tar", samples(3)), "webdataset")
    first = [rows_digest(parse_batch("webdataset", from_bytes(to_bytes(c.batch)))) for c in read_chunks(file, 2)]
    assert related_files(file) == []
    write_tar(tmp_path / "a.tar", {**samples(3), "000000002.png": b"another"})
    second = [rows_digest(parse_batch("webdataset", c.batch)) for c in read_chunks(file, 2)]
    assert (first[0] == second[0], first[1] == second[1]) == (True, False)


def test_the_digest_is_of_the_rows(tmp_path):
    def digests(titles: list[str]) -> list[str]:
        return [rows_digest(parse_batch("jsonl", c.batch)) for c in chunks(tmp_path, titles, 2)]

    first, second = digests(list("abcd"))
    assert digests(list("abcd")) == [first, second]
    changed = digests(list("abce"))
    assert changed[0] == first
    assert changed[1] != second
