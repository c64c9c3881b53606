r"""WIT's TSV: a header row, 17 columns split by tabs, and quotes around some fields.

A row is a physical line. A field that starts and ends with a double quote is unquoted ("" inside stands for "). Any
other quote is an ordinary character. If the count of columns is wrong, the line is split again, with tabs inside quoted
fields taken as text. A line whose last field opens a quote without closing it is joined with the following lines until
the quote is closed and the columns are complete. If that never happens, or a line that has all columns by itself comes
first, nothing is joined: every line is a row of its own. A quoted field that goes on beyond MAX_JOINED_BYTES is one
rejected row, up to the line that closes it. No more than that many bytes are held.

Empty lines, wrong counts of columns, bad UTF-8 and NUL bytes each make one rejected row. The header gives the order of
the columns. Further columns are ignored. A file without the header is one rejected row.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa

from comem_ray.knowledge.sources.framed import FramedRow, batches, rows_of
from comem_ray.knowledge.sources.lines import RAW_BYTES, Line, read_lines
from comem_ray.knowledge.sources.rows import ParsedRow, Row, RowFault, make_row

COLUMNS = (
    "language",
    "page_url",
    "image_url",
    "page_title",
    "section_title",
    "hierarchical_section_title",
    "caption_reference_description",
    "caption_attribution_description",
    "caption_alt_text_description",
    "mime_type",
    "original_height",
    "original_width",
    "is_main_image",
    "attribution_passes_lang_id",
    "page_changed_recently",
    "context_page_description",
    "context_section_description",
)
MAX_JOINED_BYTES = 2**20  # of a row over several lines; the longest section of Wikipedia has a quarter of it
MAX_CHECKS = 16  # lines at which the quotes add up, but not the columns; then the first quote counts as a stray one
MAX_COLUMNS = 64  # of a header

_QUOTED = re.compile(rb'"(?:[^"]++|"")*+"(?=\t|\Z)')  # possessive, so that it is linear


def read(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of a file, each of at most `rows` rows."""
    lines = read_lines(path)
    first, fault = next(lines, (b"", None))
    header = [unquote(f).decode("utf-8", "replace").strip() for f in first.split(b"\t")]
    fault = fault or _header_fault(first, header)
    if fault is not None:
        return batches(iter([(first, fault)]), rows, {})
    return batches(_framed(lines, len(header)), rows, {"columns": json.dumps(header)})


def parse(batch: pa.RecordBatch) -> Iterator[ParsedRow]:
    """The rows of a chunk: the bytes of each in the file, with the Row or the RowFault made of them."""
    header = json.loads(batch.schema.metadata[b"columns"]) if b"columns" in (batch.schema.metadata or {}) else []
    columns = {name: header.index(name) for name in COLUMNS if name in header}
    for raw, fault in rows_of(batch):
        yield raw, fault or _row(raw, len(header), columns)


def _header_fault(line: bytes, header: list[str]) -> RowFault | None:
    missing = [name for name in COLUMNS if name not in header]
    if not line:
        return RowFault("source_empty", "the file is empty or starts with an empty line, wanted a header row")
    if len(missing) == len(COLUMNS):
        return RowFault("header_missing", f"the first line must name the {len(COLUMNS)} columns of WIT, split by tabs")
    if missing or len(header) > MAX_COLUMNS:
        return RowFault(
            "header_columns", f"the header row has {len(header)} columns, missing: {', '.join(missing) or 'none'}"
        )
    return None


def _framed(lines: Iterator[Line], width: int) -> Iterator[FramedRow]:
    """Rows made of lines. Lines that were read ahead, but not joined, wait in `ahead`."""
    ahead: deque[Line] = deque()
    while True:
        line = ahead.popleft() if ahead else next(lines, None)
        if line is None:
            return
        raw, fault = line
        if fault is not None or _complete(raw, width):
            yield line
        elif b'"' in raw and _quote_aware(raw, width)[1] and (joined := _join(raw, lines, ahead, width)) is not None:
            yield joined
        else:
            yield raw, _width_fault(raw, width)


def _complete(raw: bytes, width: int) -> bool:
    """Whether a line is a row by itself."""
    fields = raw.split(b"\t")
    if len(fields) == width and not _unclosed(fields[-1]):
        return True
    return b'"' in raw and _closed_row(raw, width)


def _closed_row(raw: bytes, width: int) -> bool:
    fields, opens = _quote_aware(raw, width)
    return len(fields) == width and not opens


def _join(raw: bytes, lines: Iterator[Line], ahead: deque[Line], width: int) -> FramedRow | None:
    """The row that starts with `raw`, its lines removed from `ahead`; None, with `ahead` complete, if there is none.

    The columns are counted only where the quotes add up, so that a long text of many lines is read once.
    """
    parts, size, quotes, checks = [raw], len(raw), _quote_aware(raw, width)[1], 0
    tabs = raw.count(b"\t")
    for taken in count(1):
        while len(ahead) < taken:
            line = next(lines, None)
            if line is None:
                return None
            ahead.append(line)
        part, fault = ahead[taken - 1]
        if fault is not None or _starts_row(part, width):
            return None
        parts.append(part)
        size, quotes, tabs = size + 1 + len(part), quotes + part.count(b'"'), tabs + part.count(b"\t")
        if size > MAX_JOINED_BYTES:
            return raw[:RAW_BYTES], _skip(lines, ahead, taken, quotes, width)
        if b'"' in part and quotes % 2 == 0:
            checks += 1
            if tabs + 1 >= width and _closed_row(joined := b"\n".join(parts), width):
                for _ in range(taken):
                    ahead.popleft()
                return joined, None
            if checks == MAX_CHECKS:
                return None
    raise AssertionError("the lines end, or the bytes do")


def _starts_row(part: bytes, width: int) -> bool:
    """Whether a line is a row, or the first line of one: it has all columns, whatever its last one opens."""
    columns = part.count(b"\t") + 1
    return columns == width or (columns > width and _complete(part, width))


def _skip(lines: Iterator[Line], ahead: deque[Line], taken: int, quotes: int, width: int) -> RowFault:
    """Drops the first `taken` lines of `ahead`, and those that follow until the quote closes or a row starts."""
    for _ in range(taken):
        ahead.popleft()
    number = taken + 1
    while quotes % 2:
        line = ahead.popleft() if ahead else next(lines, None)
        if line is None:
            break
        part, fault = line
        if fault is not None or _starts_row(part, width):
            ahead.appendleft(line)
            break
        number, quotes = number + 1, quotes + part.count(b'"')
    return RowFault(
        "quoted_too_long",
        f"a quoted field goes on over {number:,} lines, the limit is {MAX_JOINED_BYTES:,} bytes: is its quote closed?",
    )


def _width_fault(raw: bytes, width: int) -> RowFault | None:
    columns = raw.count(b"\t") + 1
    if not raw:
        return RowFault("empty_line", "the line is empty")
    if columns == width:
        return None  # a quote that is never closed, in a complete row: an ordinary character
    if _quote_aware(raw, width)[1]:
        return RowFault(
            "unclosed_quote", f"{columns} columns and a quote that is never closed, the header has {width} columns"
        )
    return RowFault("column_count", f"the line has {columns} columns, the header {width}")


def _unclosed(field: bytes) -> bool:
    return field.startswith(b'"') and field.count(b'"') % 2 == 1


def _quote_aware(raw: bytes, width: int) -> tuple[list[bytes], int]:
    """At most width + 1 fields split at the tabs outside quotes, and the quotes from the first field on that opens one
    without closing it (0 if none does).
    """
    fields: list[bytes] = []
    position = opens = 0
    while len(fields) <= width:
        if quoted := _QUOTED.match(raw, position):
            end = quoted.end()
        else:
            end = raw.find(b"\t", position) % (len(raw) + 1)  # the end if no tab follows
            if not opens and raw.startswith(b'"', position):
                quotes = raw.count(b'"', position)
                opens = quotes if quotes % 2 else 0
        fields.append(raw[position:end])
        if end == len(raw):
            break
        position = end + 1
    return fields, opens


def split(raw: bytes, width: int) -> list[bytes]:
    """The fields of a row, unquoted: split at every tab if that makes `width` fields, else at those outside quotes."""
    fields = raw.split(b"\t")
    if len(fields) != width and b'"' in raw:
        fields = _quote_aware(raw, width)[0]
    return [unquote(f) for f in fields]


def unquote(field: bytes) -> bytes:
    """The field without enclosing quotes, and doubled quotes inside made single; unchanged without enclosing quotes."""
    if len(field) >= 2 and field.startswith(b'"') and field.endswith(b'"'):
        return field[1:-1].replace(b'""', b'"')
    return field


def _row(raw: bytes, width: int, columns: dict[str, int]) -> Row | RowFault:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return RowFault("bad_utf8", f"byte {error.start} is not UTF-8")
    if b"\0" in raw:
        return RowFault("nul_byte", f"byte {raw.index(0)} is NUL")
    fields = split(raw, width)

    def field(name: str) -> str:
        return fields[columns[name]].decode("utf-8")

    return make_row(
        language=field("language"),
        title=field("page_title"),
        description=field("context_section_description").strip() or field("context_page_description"),
        page_url=field("page_url"),
        image_url=field("image_url"),
        image=None,
    )
