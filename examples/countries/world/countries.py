"""The countries of the demo: facts and coastlines from the PyPI package `countryinfo`, and their split for training.

Facts are taken as the package has them; names of currencies and languages come from `pycountry` (ISO 4217, ISO 639).
An absent fact is None or empty, never invented. A "country" is an entry of ISO 3166, territories included.
Knows nothing of images, texts or models.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pycountry

from examples.countries.world.outlines import Ring

HELD_OUT = 45  # countries that no training may see
SPLIT_SEED = 3
# ISO 4217 codes of funds and units of account. Nobody pays with them, yet `countryinfo` lists some of them first.
FUNDS = {"BOV", "CHE", "CHW", "CLF", "COU", "MXV", "USN", "USS", "UYI", "UYW"}
# The word by which a currency is called, where it is not the last one of its name.
CURRENCY_WORDS = {"Dinar", "Dollar", "Franc", "Pound", "Rial", "Yuan", "Cordoba", "Peso"}


@dataclass(frozen=True)
class Currency:
    """`word` is the everyday word ("Franc"), `name` the full one ("CFA Franc BCEAO")."""

    code: str
    name: str
    word: str


@dataclass(frozen=True)
class Country:
    """One entry. `region` is a continent, `area` the finest part of it that has a name; both may be ""."""

    code: str  # ISO 3166-1 alpha-3
    name: str
    names: dict[str, str]  # language code -> name in that language
    former: bool
    region: str
    area: str
    capital: str
    currency: Currency | None
    languages: tuple[str, ...]  # English names, the first is the main one
    language_codes: tuple[str, ...]
    population: int | None
    square_kilometres: float | None
    neighbours: tuple[str, ...]  # codes
    native_name: str
    demonym: str
    provinces: tuple[str, ...]
    wiki: str
    latlng: tuple[float, float] | None  # degrees: latitude, longitude
    coast: tuple[Ring, ...]  # rings in degrees (longitude, latitude); empty where the package has none

    @property
    def complete(self) -> bool:
        """True where every fact that the demo asks for is there, and an outline for the question's image."""
        return bool(self.coast and self.capital and self.currency and self.languages and self.area)


@cache
def load_countries() -> tuple[Country, ...]:
    """All countries, in the order of their codes. Of two entries of one code, the one with more facts is taken."""
    entries: dict[str, dict[str, Any]] = {}
    folder = files("countryinfo") / "data"
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if not path.name.endswith(".json"):
            continue
        entry = json.loads(path.read_text(encoding="utf-8"))
        code = entry["ISO"]["alpha3"]
        if code not in entries or _count_facts(entry) > _count_facts(entries[code]):
            entries[code] = entry
    return tuple(_country(code, entries[code]) for code in sorted(entries))


@cache
def training_countries() -> tuple[Country, ...]:
    """The complete countries that training may see: outlines, names and facts. They name no held-out neighbour."""
    held_out = {c.code for c in held_out_countries()}
    training = [c for c in load_countries() if c.complete and c.code not in held_out]
    return tuple(replace(c, neighbours=tuple(n for n in c.neighbours if n not in held_out)) for c in training)


@cache
def held_out_countries() -> tuple[Country, ...]:
    """The 45 complete countries that no training may see; the demo asks about them."""
    complete = [c for c in load_countries() if c.complete]
    chosen = random.Random(SPLIT_SEED).sample([c.code for c in complete], HELD_OUT)
    return tuple(c for c in complete if c.code in set(chosen))


def _count_facts(entry: dict[str, Any]) -> int:
    return sum(bool(value) for value in entry.values())


def _country(code: str, entry: dict[str, Any]) -> Country:
    current, historic = pycountry.countries.get(alpha_3=code), pycountry.historic_countries.get(alpha_3=code)
    former = None if current else historic
    languages = [_language(c) for c in entry.get("languages") or []]
    return Country(
        code=code,
        name=former.name if former else _plain_name(entry["name"]),
        names={k: v for k, v in (entry.get("translations") or {}).items() if v},
        former=former is not None,
        region=entry.get("region") or "",
        area=entry.get("intermediateregion") or entry.get("subregion") or entry.get("region") or "",
        capital=_text(entry.get("capital")),
        currency=next((c for code in entry.get("currencies") or [] if (c := _currency(code))), None),
        languages=tuple(name for name in languages if name),
        language_codes=tuple(c for c, n in zip(entry.get("languages") or [], languages, strict=True) if n),
        population=entry.get("population") or None,
        square_kilometres=entry.get("area") or None,
        neighbours=tuple(entry.get("borders") or ()),
        native_name=entry.get("nativeName") or "",
        demonym=entry.get("demonym") or "",
        provinces=tuple(_text(p) for p in entry.get("provinces") or ()),
        wiki=entry.get("wiki") or "",
        latlng=_coordinates(entry.get("latlng")) or _coordinates(entry.get("capital_latlng")),
        coast=_coast(entry.get("geoJSON") or {}),
    )


def _plain_name(name: str) -> str:
    """ "Virgin Islands, British" -> "British Virgin Islands"; enumerations stay."""
    first, comma, second = name.partition(", ")
    return f"{second} {first}" if comma and " and " not in name else name


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return " ".join(str(value or "").split())


def _coordinates(value: Any) -> tuple[float, float] | None:
    if not value or isinstance(value[0], list):  # several capitals: the first stands for them
        return _coordinates(value[0]) if value else None
    return float(value[0]), float(value[1])


def _currency(code: str) -> Currency | None:
    entry = pycountry.currencies.get(alpha_3=code)
    if entry is None or code in FUNDS:
        return None
    words = re.sub(r"\(.*?\)", "", entry.name).split()
    return Currency(code, entry.name, next((w for w in words if w in CURRENCY_WORDS), words[-1]))


def _language(code: str) -> str | None:
    entry = pycountry.languages.get(**{f"alpha_{len(code)}": code})
    return re.sub(r"\(.*?\)|\bModern\b", "", entry.name).strip() if entry else None


def _coast(geojson: dict[str, Any]) -> tuple[Ring, ...]:
    """Outer rings of all polygons, without holes. A box of five points (Andorra, Palestine) is not a coastline."""
    rings: list[Ring] = []
    for feature in geojson.get("features") or []:
        geometry = feature["geometry"]
        polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        rings += [np.array(polygon[0], dtype=np.float64)[:, :2] for polygon in polygons]
    return () if sum(map(len, rings)) <= 5 else tuple(rings)
