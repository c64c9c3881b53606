import json

from comem_ray.knowledge.sources.chunks import from_bytes, parse_batch, read_chunks, rows_digest, to_bytes
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


def test_the_digest_is_of_the_rows(tmp_path):
    def digests(titles: list[str]) -> list[str]:
        return [rows_digest(parse_batch("jsonl", c.batch)) for c in chunks(tmp_path, titles, 2)]

    first, second = digests(list("abcd"))
    assert digests(list("abcd")) == [first, second]
    changed = digests(list("abce"))
    assert changed[0] == first
    assert changed[1] != second
