"""Writes the demo's knowledge base: a WIT-format TSV of all countries and a folder with their images.

One image per country (its map, north up, PNG) and one row per country and language. The English rows come first:
where two items have the same image, and so the same score, the earlier one ranks first. Same bytes on every run.
Format: the 17 columns of WIT (https://github.com/google-research-datasets/wit), with a header, tab-separated.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from comem_ray.artifacts import write_atomic
from comem_ray.knowledge.sources.wit_tsv import COLUMNS
from examples.countries.world.countries import Country, load_countries
from examples.countries.world.maps import country_map
from examples.countries.world.outlines import IMAGE_SIZE, draw, upright_view
from examples.countries.world.sentences import LANGUAGES, name_in, summary_in_english, text_in


def image_name(country: Country) -> str:
    """File name of a country's image, which is also its `image_url`."""
    return f"{country.code}.png"


def item_image(country: Country) -> Image.Image:
    """The image of a country's item."""
    return draw(country_map(country), upright_view(random.Random(country.code)))


def write_knowledge_base(folder: Path, countries: Sequence[Country] | None = None) -> int:
    """Writes `countries.tsv` and `images/` of `countries` (default: all) into `folder`.

    An image that is already there stays. Returns the number of rows written.
    """
    countries = load_countries() if countries is None else countries
    for country in countries:
        path = folder / "images" / image_name(country)
        if not path.exists():
            image = item_image(country)
            write_atomic(path, lambda p, image=image: image.save(p, format="PNG"))  # type: ignore[misc]
    rows = [_row(c, language) for language in LANGUAGES for c in countries if name_in(c, language)]
    write_atomic(folder / "countries.tsv", lambda p: p.write_text(_tsv(rows), encoding="utf-8") and None)
    return len(rows)


def _row(country: Country, language: str) -> dict[str, str]:
    name = name_in(country, language)
    assert name is not None
    width, height = IMAGE_SIZE
    kind_of_map = "Outline map of" if country.coast else "Locator map of"
    row = {
        "language": language,
        "page_url": country.wiki,
        "image_url": image_name(country),
        "page_title": name,
        "hierarchical_section_title": name,
        "caption_attribution_description": f"{kind_of_map} {country.name}",
        "mime_type": "image/png",
        "original_height": str(height),
        "original_width": str(width),
        "is_main_image": "true",
        "attribution_passes_lang_id": "true",
        "page_changed_recently": "false",
        "context_page_description": summary_in_english(country) if language == "en" else "",
        "context_section_description": text_in(country, language),
    }
    return {column: row.get(column, "") for column in COLUMNS}


def _tsv(rows: list[dict[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
