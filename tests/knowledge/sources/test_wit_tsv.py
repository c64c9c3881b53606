import gzip
import time
import tracemalloc

import pytest

from comem_ray.knowledge.sources import wit_tsv
from comem_ray.knowledge.sources.rows import Row
from comem_ray.knowledge.sources.wit_tsv import COLUMNS, split

HEADER = "\t".join(COLUMNS)
WIDTH = len(COLUMNS)


def line(
    title: str = "Oak", section: str = "A tree.", page: str = "", url: str = "oak.png", language: str = "en"
) -> str:
    fields = dict.fromkeys(COLUMNS, "")
    fields |= {"language": language, "page_url": "https://example.org", "image_url": url, "page_title": title}
    fields |= {"context_page_description": page, "context_section_description": section}
    return "\t".join(fields.values())


def read(tmp_path, *rows: str | bytes, header: str = HEADER, end: bytes = b"\n", limit: int = 3):
    """The text of each row, or the reason why it is none."""
    lines = [r if isinstance(r, bytes) else r.encode() for r in (header, *rows)]
    path = tmp_path / "wit.tsv"
    path.write_bytes(end.join(lines) + end)
    batches = list(wit_tsv.read(path, limit))
    assert all(batch.num_rows == limit for batch in batches[:-1])
    parsed = [pair for batch in batches for pair in wit_tsv.parse(batch)]
    return [row.text if isinstance(row, Row) else row.reason for _, row in parsed]


def test_plain_rows_in_chunks(tmp_path):
    rows = [line(f"T{n}") for n in range(8)]
    assert read(tmp_path, *rows) == [f"T{n}: A tree." for n in range(8)]
    assert read(tmp_path, *rows, end=b"\r\n") == [f"T{n}: A tree." for n in range(8)]


def test_the_section_goes_before_the_page(tmp_path):
    rows = [line(section="S", page="P"), line(section="", page="P"), line(section="", page=""), line("", "", "P")]
    assert read(tmp_path, *rows) == ["Oak: S", "Oak: P", "Oak", "P"]


def test_column_order_is_the_headers_and_further_columns_are_ignored(tmp_path):
    names = ["extra", *reversed(COLUMNS)]
    turned = "\t".join(["x", *reversed(line().split("\t"))])
    assert read(tmp_path, turned, header="\t".join(names)) == ["Oak: A tree."]
    quoted = "\t".join(f'"{name}"' for name in COLUMNS)
    assert read(tmp_path, line(), header="\ufeff" + quoted) == ["Oak: A tree."]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (line(), "header_missing"),
        ("", "source_empty"),
        ("\t".join(COLUMNS[:-1]), "header_columns"),
        ("\t".join([*COLUMNS, *"abcdefghij" * 5]), "header_columns"),
        ("PK\3\4 a zip file", "header_missing"),
    ],
)
def test_a_file_without_its_header_is_one_rejected_row(tmp_path, header, reason):
    assert read(tmp_path, line(), line(), header=header) == [reason]


def test_quotes(tmp_path):
    assert read(tmp_path, line('"Oak"'), line('"The ""old"" oak"'), line('The "old" oak')) == [
        "Oak: A tree.",
        'The "old" oak: A tree.',
        'The "old" oak: A tree.',
    ]


def test_stray_quotes_are_ordinary_characters(tmp_path):
    rows = [line('"Oak'), line('Oak"'), line('5" nails'), line('"Oak" of'), line(section='"A tree.'), line('"')]
    assert read(tmp_path, *rows) == [
        '"Oak: A tree.',
        'Oak": A tree.',
        '5" nails: A tree.',
        '"Oak" of: A tree.',
        'Oak: "A tree.',
        '": A tree.',
    ]


def test_tabs_and_line_ends_inside_quotes(tmp_path):
    rows = [line('"O\tak"'), line('"O\nak"'), line(section='"one\ntwo\n\nthree"'), line('"a\tb\n""c"""'), line()]
    assert read(tmp_path, *rows) == [
        "O\tak: A tree.",
        "O\nak: A tree.",
        "Oak: one\ntwo\n\nthree",
        'a\tb\n"c": A tree.',
        "Oak: A tree.",
    ]


def test_an_unclosed_quote_costs_its_own_line_alone(tmp_path):
    broken = '"never closed\tshort'
    assert read(tmp_path, line("A"), broken, line("B"), broken, line("C")) == [
        "A: A tree.",
        "unclosed_quote",
        "B: A tree.",
        "unclosed_quote",
        "C: A tree.",
    ]


def test_joining_is_bounded(tmp_path):
    endless = ['"open', *["more"] * 200, line('"closed"')]
    outcomes = read(tmp_path, *endless)
    assert outcomes == ["unclosed_quote", *["column_count"] * 200, "closed: A tree."]
    large = ['a\t"' + "x" * 100_000, *["y" * 100_000] * 4, line()]
    assert read(tmp_path, *large) == ["unclosed_quote", *["column_count"] * 4, "Oak: A tree."]


SENTENCE = "A sentence of the section, as long as they are."


@pytest.mark.parametrize("lines", [64, 65, 66, 500, 5_000])
def test_a_quoted_section_of_many_lines_is_one_item(tmp_path, lines):
    section = "\n".join(f"line {n}" for n in range(lines))
    assert read(tmp_path, line("A"), line("B", f'"{section}"'), line("C")) == [
        "A: A tree.",
        f"B: {section}"[:5_000],
        "C: A tree.",
    ]


def test_quotes_and_tabs_inside_many_lines(tmp_path):
    section = "\n".join(f'""line {n}"",\t""he said""' for n in range(300))
    stray = line('5" nails', f'"{section}"')
    text = '5" nails: ' + section.replace('""', '"')
    assert read(tmp_path, stray, line()) == [text[:5_000], "Oak: A tree."]


@pytest.mark.parametrize("end", ['the end"', "the end", 'the "end" of it"'])
def test_a_quoted_section_beyond_the_bytes_is_one_rejected_row(tmp_path, monkeypatch, end):
    monkeypatch.setattr(wit_tsv, "MAX_JOINED_BYTES", 10_000)
    long = line("B", '"' + "\n".join([SENTENCE] * 1_000 + [end]))
    outcomes = read(tmp_path, line("A"), long, line("C"), line("D"))
    assert outcomes == ["A: A tree.", "quoted_too_long", "C: A tree.", "D: A tree."]


def test_a_rejected_section_says_how_long_it_is_and_keeps_its_start(tmp_path, monkeypatch):
    monkeypatch.setattr(wit_tsv, "MAX_JOINED_BYTES", 10_000)
    path = tmp_path / "wit.tsv"
    path.write_text("\n".join([HEADER, line("B", '"' + "\n".join([SENTENCE] * 1_000) + '"'), line(), ""]))
    (raw, fault), (_, row) = [pair for batch in wit_tsv.read(path, 100) for pair in wit_tsv.parse(batch)]
    assert raw == line("B", '"' + SENTENCE).encode()
    assert "1,000 lines, the limit is 10,000 bytes" in fault.detail
    assert not fault.retryable
    assert isinstance(row, Row)


def test_a_section_beyond_the_bytes_ends_where_another_section_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(wit_tsv, "MAX_JOINED_BYTES", 10_000)
    rows = [line("B", '"' + "\n".join([SENTENCE] * 1_000)), line("C", '"one\ntwo"'), line("D")]
    assert read(tmp_path, *rows) == ["quoted_too_long", "C: one\ntwo", "D: A tree."]


def test_memory_stays_bounded_in_an_endless_section(tmp_path):
    """14 MB behind one quote: at most a few MiB are held."""
    path = tmp_path / "wit.tsv"
    with open(path, "w") as file:
        file.write(HEADER + "\n" + line("B", '"start') + "\n")
        for _ in range(15):
            file.write(f"{SENTENCE}\n" * 20_000)
        file.write(line("C") + "\n")
    tracemalloc.start()
    outcomes = [row for batch in wit_tsv.read(path, 10) for _, row in wit_tsv.parse(batch)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [getattr(row, "reason", None) for row in outcomes] == ["quoted_too_long", None]
    assert peak < 6 * 2**20


@pytest.mark.parametrize(
    "part", ['"a', '"a""', 'x\t"a', '"', 'a"b"c"', '"a\t"b\t"c'], ids=["open", "three", "tab", "lone", "stray", "tabs"]
)
def test_many_stray_quotes_take_no_more_than_linear_time(tmp_path, part):
    path = tmp_path / "wit.tsv"
    path.write_text(HEADER + "\n" + f"{part}\n" * 10_000)
    start = time.perf_counter()
    rows = sum(batch.num_rows for batch in wit_tsv.read(path, 1_000))
    assert rows <= 10_000
    assert time.perf_counter() - start < 20


def test_two_fragments_that_add_up_to_a_row_are_not_one(tmp_path):
    head, tail = '"stray' + "\t" * 5, "\t" * (WIDTH - 6)
    assert read(tmp_path, head, tail, line()) == ["unclosed_quote", "column_count", "Oak: A tree."]


def test_languages_and_lengths_are_checked(tmp_path):
    rows = [line(language="français"), line(language="en_US"), line(language=""), line("x" * 2_000), line("last")]
    assert read(tmp_path, *rows) == [
        "language_invalid",
        "Oak: A tree.",
        "Oak: A tree.",
        "field_too_long",
        "last: A tree.",
    ]


def test_every_other_breakage_has_a_reason(tmp_path):
    rows = [
        "",
        "one\ttwo",
        line() + "\tmore",
        line().encode("utf-16-le"),
        line("Öl").encode("latin-1"),
        line("O\0k"),
        line("", ""),
        line(url=""),
        line("last"),
    ]
    assert read(tmp_path, *rows) == [
        "empty_line",
        "column_count",
        "column_count",
        "nul_byte",
        "bad_utf8",
        "nul_byte",
        "no_text",
        "no_image",
        "last: A tree.",
    ]


def test_a_truncated_gzip_is_its_rows_and_one_more(tmp_path):
    path = tmp_path / "wit.tsv.gz"
    data = gzip.compress("\n".join([HEADER, *(line(f"T{n}") for n in range(50))]).encode(), 0)
    path.write_bytes(data[: len(data) // 2])
    parsed = [row for batch in wit_tsv.read(path, 1_000) for _, row in wit_tsv.parse(batch)]
    assert all(isinstance(row, Row) for row in parsed[:-1])
    assert len(parsed) > 20
    assert parsed[-1].reason == "gz_truncated"


def test_split_of_many_quotes_is_not_quadratic():
    assert len(split(b'"a\tb' * 500_000, WIDTH)) == WIDTH + 1
