"""Writes the text of a country in six languages, from its facts alone: an absent fact has no sentence.

The English text opens in the form that the demo's training uses: "This is X, a country in R. Its capital is ...,
its currency is the ..., its language is ...". In the other languages, names of countries come from `countryinfo`,
names of currencies and languages from `pycountry`'s catalogues; a capital keeps the name that the data has.
"""

from __future__ import annotations

import gettext
import re
from collections.abc import Callable, Sequence
from functools import cache

import pycountry

from examples.countries.world.countries import Country, load_countries

LANGUAGES = ("en", "de", "es", "fr", "it", "ja")
AREAS_WITH_ARTICLE = {"Americas", "Caribbean", "Channel Islands"}  # areas that take an article in English
REGIONS = {
    "de": {"Africa": "Afrika", "Americas": "Amerika", "Asia": "Asien", "Europe": "Europa", "Oceania": "Ozeanien"},
    "es": {"Africa": "África", "Americas": "América", "Asia": "Asia", "Europe": "Europa", "Oceania": "Oceanía"},
    "fr": {"Africa": "Afrique", "Americas": "Amérique", "Asia": "Asie", "Europe": "Europe", "Oceania": "Océanie"},
    "it": {"Africa": "Africa", "Americas": "America", "Asia": "Asia", "Europe": "Europa", "Oceania": "Oceania"},
    "ja": {
        "Africa": "アフリカ",
        "Americas": "アメリカ大陸",
        "Asia": "アジア",
        "Europe": "ヨーロッパ",
        "Oceania": "オセアニア",
    },
}


def name_in(country: Country, language: str) -> str | None:
    """The country's name in a language; None where the data has none, so that there is no text either."""
    return country.name if language == "en" else country.names.get(language)


def text_in(country: Country, language: str) -> str:
    """The country's text in a language that has its name. Raises KeyError for any other."""
    write = {"en": _english, "de": _german, "es": _spanish, "fr": _french, "it": _italian, "ja": _japanese}[language]
    return write(country)


def item_text(country: Country, language: str) -> str:
    """The text of a knowledge item as the ordinary reader makes it: title, colon, description."""
    name = country.name if language == "en" else country.names[language]
    return f"{name}: {text_in(country, language)}"


def facts_in(country: Country, language: str) -> tuple[str, str, str, str]:
    """Capital, currency, language, region of a complete country, as its text in de, es, fr, it or ja has them."""
    currency, main_language = _currency_in(country, language), _language_in(country, language)
    return country.capital, currency, main_language, REGIONS[language][country.region]


def summary_in_english(country: Country) -> str:
    """The first sentence of the English text."""
    kind = "a former country" if country.former else "a country"
    if not country.area:
        return f"This is {country.name}."
    return f"This is {country.name}, {kind} in {_the(country.area)}."


def opening_in_english(country: Country) -> str:
    """The first two sentences of the English text: the facts that the demo asks for."""
    facts = [
        f"its capital is {country.capital}" if country.capital else "",
        f"its currency is the {country.currency.word}" if country.currency else "",
        f"its language is {country.languages[0]}" if country.languages else "",
    ]
    return _joined(summary_in_english(country), _sentence(", ".join(f for f in facts if f)))


def _the(area: str) -> str:
    return f"the {area}" if area in AREAS_WITH_ARTICLE else area


def _english(c: Country) -> str:
    others = _listed(c.languages[1:], " and ")
    neighbours = _listed(_neighbours(c, "en"), " and ")
    parts = _listed(c.provinces[:5], " and ") if len(c.provinces) > 1 else ""
    return _joined(
        opening_in_english(c),
        f"The full name of the currency is {c.currency.name} ({c.currency.code})." if c.currency else "",
        f"Also spoken there: {others}." if others else "",
        f"About {c.population:,} people live there." if c.population else "",
        f"Its area is {_area(c)} square kilometres." if c.square_kilometres else "",
        f"It borders {neighbours}." if neighbours else "",
        f"It belongs to {_the(c.region)}." if c.region and c.region != c.area else "",
        f"Its own name is {c.native_name}." if c.native_name and c.native_name != c.name else "",
        f"Its people are called {c.demonym}." if c.demonym else "",
        f"Among its parts are {parts}." if parts else "",
    )


def _german(c: Country) -> str:
    where = f" und liegt in {REGIONS['de'][c.region]}" if c.region else ""
    return _european(
        c,
        "de",
        f"Dieses Land heißt {c.names['de']}{where}.",
        ("Seine Hauptstadt ist {}", "seine Währung heißt {}", "seine Sprache ist {}"),
        ("Dort leben etwa {} Menschen.", "Seine Fläche beträgt {} Quadratkilometer.", "Es grenzt an {}."),
        (" und ", "."),
    )


def _spanish(c: Country) -> str:
    where = f" y está en {REGIONS['es'][c.region]}" if c.region else ""
    return _european(
        c,
        "es",
        f"Este país se llama {c.names['es']}{where}.",
        ("Su capital es {}", "su moneda se llama {}", "su idioma es el {}"),
        ("Viven allí unas {} personas.", "Su superficie es de {} kilómetros cuadrados.", "Tiene frontera con {}."),
        (" y ", "."),
    )


def _french(c: Country) -> str:
    where = f" et se trouve en {REGIONS['fr'][c.region]}" if c.region else ""
    return _european(
        c,
        "fr",
        f"Ce pays s'appelle {c.names['fr']}{where}.",
        ("Sa capitale est {}", "sa monnaie se nomme {}", "sa langue se nomme {}"),
        ("Environ {} personnes y vivent.", "Sa superficie est de {} kilomètres carrés.", "Pays voisins : {}."),
        (" et ", "\u202f"),
    )


def _italian(c: Country) -> str:
    where = f" e si trova in {REGIONS['it'][c.region]}" if c.region else ""
    return _european(
        c,
        "it",
        f"Questo paese si chiama {c.names['it']}{where}.",
        ("La sua capitale è {}", "la sua moneta si chiama {}", "la sua lingua si chiama {}"),
        ("Vi abitano circa {} persone.", "La sua superficie è di {} chilometri quadrati.", "Paesi confinanti: {}."),
        (" e ", "."),
    )


def _japanese(c: Country) -> str:
    where = f"で、{REGIONS['ja'][c.region]}にあります" if c.region else "です"
    facts = [f"首都は{c.capital}" if c.capital else ""]
    facts += [
        f"通貨は{_currency_in(c, 'ja')}" if c.currency else "",
        f"言語は{_language_in(c, 'ja')}" if c.languages else "",
    ]
    facts_clause = "、".join(f for f in facts if f)
    neighbours = "、".join(_neighbours(c, "ja"))
    return "".join(
        [
            f"この国は{c.names['ja']}{where}。",
            f"{facts_clause}です。" if facts_clause else "",
            f"人口は約{c.population:,}人です。" if c.population else "",
            f"面積は{_area(c)}平方キロメートルです。" if c.square_kilometres else "",
            f"隣国は{neighbours}です。" if neighbours else "",
        ]
    )


def _european(
    c: Country,
    language: str,
    opening: str,
    facts: tuple[str, str, str],
    further: tuple[str, str, str],
    style: tuple[str, str],
) -> str:
    """The form that de, es, fr and it share. `style`: the word before the last of a list, the thousands separator."""
    last, mark = style
    clauses = [
        facts[0].format(c.capital) if c.capital else "",
        facts[1].format(_currency_in(c, language)) if c.currency else "",
        facts[2].format(_language_in(c, language)) if c.languages else "",
    ]
    neighbours = _listed(_neighbours(c, language), last)
    return _joined(
        opening,
        _sentence(", ".join(clause for clause in clauses if clause)),
        further[0].format(f"{c.population:,}".replace(",", mark)) if c.population else "",
        further[1].format(_area(c).replace(",", mark)) if c.square_kilometres else "",
        further[2].format(neighbours) if neighbours else "",
    )


def _joined(*sentences: str) -> str:
    return " ".join(s for s in sentences if s)


def _sentence(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:]}." if clause else ""


def _area(c: Country) -> str:
    assert c.square_kilometres is not None
    return f"{c.square_kilometres:,.0f}" if c.square_kilometres >= 1 else f"{c.square_kilometres:g}"


def _listed(names: Sequence[str], last: str) -> str:
    return last.join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


@cache
def _by_code() -> dict[str, Country]:
    return {c.code: c for c in load_countries()}


def _neighbours(c: Country, language: str) -> list[str]:
    neighbours = [_by_code()[code] for code in c.neighbours if code in _by_code()]
    return [name for n in neighbours if (name := name_in(n, language))]


def _currency_in(c: Country, language: str) -> str:
    assert c.currency is not None
    return _without_notes(_catalogue("iso4217", language)(c.currency.name))


def _language_in(c: Country, language: str) -> str:
    code = c.language_codes[0]
    entry = pycountry.languages.get(**{f"alpha_{len(code)}": code})
    assert entry is not None
    name = _catalogue("iso639-3", language)(entry.name)
    if name == entry.name:  # not in the catalogue
        return c.languages[0]
    name = _without_notes(name)
    return name if language in ("de", "ja") else name.lower()  # es, fr and it write languages in lower case


def _without_notes(name: str) -> str:
    """The name without what a catalogue adds in brackets, and without a second name after a semicolon."""
    return re.sub(r"\s*[(（].*?[)）]", "", name).split(";")[0].strip()


@cache
def _catalogue(domain: str, language: str) -> Callable[[str], str]:
    return gettext.translation(domain, pycountry.LOCALES_DIR, languages=[language]).gettext
