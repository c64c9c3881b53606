import csv
from pathlib import Path

import pytest
from PIL import Image

from comem_ray.knowledge.sources import wit_tsv
from comem_ray.knowledge.sources.rows import Row
from examples.countries.world.countries import load_countries
from examples.countries.world.knowledge import COLUMNS, write_knowledge_base
from examples.countries.world.outlines import IMAGE_SIZE

WIT_HEADER = (
    "language, page_url, image_url, page_title, section_title, hierarchical_section_title, "
    "caption_reference_description, caption_attribution_description, caption_alt_text_description, mime_type, "
    "original_height, original_width, is_main_image, attribution_passes_lang_id, page_changed_recently, "
    "context_page_description, context_section_description"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_knowledge_base(folder)
    return folder


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "countries.tsv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, delimiter="\t"))


def test_header_is_that_of_wit(folder: Path) -> None:
    first = (folder / "countries.tsv").read_text(encoding="utf-8").split("\n", 1)[0]
    assert first == "\t".join(WIT_HEADER.split(", ")) == "\t".join(COLUMNS)


def test_every_line_has_seventeen_columns_for_any_reader(folder: Path) -> None:
    lines = (folder / "countries.tsv").read_text(encoding="utf-8").splitlines()
    assert {line.count("\t") for line in lines} == {16}
    assert not any('"' in line for line in lines)


def test_english_comes_first_and_once_per_country(rows: list[dict[str, str]]) -> None:
    languages = [row["language"] for row in rows]
    assert languages[: len(load_countries())] == ["en"] * len(load_countries())
    assert len(set(languages)) == 6
    assert "en" not in languages[len(load_countries()) :]


def test_every_image_is_there_as_the_row_says(folder: Path, rows: list[dict[str, str]]) -> None:
    assert {row["image_url"] for row in rows} == {p.name for p in (folder / "images").iterdir()}
    for row in rows[: len(load_countries())]:
        with Image.open(folder / "images" / row["image_url"]) as image:
            assert image.size == IMAGE_SIZE == (int(row["original_width"]), int(row["original_height"]))
            assert Image.MIME[image.format] == row["mime_type"]


def test_what_is_missing_comes_back_with_the_same_bytes(folder: Path) -> None:
    gone = [folder / "countries.tsv", *(folder / "images" / f"{code}.png" for code in ("ATA", "FRA", "GUM"))]
    before = [path.read_bytes() for path in gone]
    for path in gone:
        path.unlink()
    write_knowledge_base(folder)
    assert [path.read_bytes() for path in gone] == before


def test_the_ordinary_reader_takes_every_row(folder: Path, rows: list[dict[str, str]]) -> None:
    batches = wit_tsv.read(folder / "countries.tsv", 200)
    parsed = [row for batch in batches for row in wit_tsv.parse(batch)]
    assert len(parsed) == len(rows)
    assert all(isinstance(outcome, Row) for _, outcome in parsed)
    first = parsed[0][1]
    assert first.text == f"{first.title}: {rows[0]['context_section_description']}"
