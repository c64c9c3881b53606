import re
from dataclasses import replace

import pytest

from examples.countries.world.countries import load_countries
from examples.countries.world.sentences import LANGUAGES, name_in, text_in


def _country(code: str):
    return next(c for c in load_countries() if c.code == code)


def test_english_opens_in_the_shape_that_training_knows() -> None:
    text = text_in(_country("FRA"), "en")
    assert text.startswith(
        "This is France, a country in Western Europe. "
        "Its capital is Paris, its currency is the Euro, its language is French. "
    )
    assert "It borders Andorra, Belgium, Germany, Italy, Luxembourg, Monaco, Spain and Switzerland." in text


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("de", ["Frankreich", "Europa", "Französisch", "66.078.000"]),
        ("es", ["Francia", "Europa", "francés"]),
        ("fr", ["France", "Europe", "français", "Belgique"]),
        ("it", ["Francia", "Europa", "francese"]),
        ("ja", ["フランス", "ヨーロッパ", "フランス語", "ユーロ"]),
    ],
)
def test_each_language_has_names_of_its_own(language: str, words: list[str]) -> None:
    text = text_in(_country("FRA"), language)
    assert all(word in text for word in words)
    assert "Paris" in text


def test_every_text_is_clean_and_whole() -> None:
    for country in load_countries():
        for language in LANGUAGES:
            if name_in(country, language):
                text = text_in(country, language)
                assert not re.search(r'[\t\n"]|  |None|\(\)', text), text
                assert text[-1] in ".。", text
                assert name_in(country, language) in text


def test_an_absent_fact_has_no_sentence() -> None:
    bare = replace(
        _country("FRA"), capital="", currency=None, languages=(), population=None, square_kilometres=None, neighbours=()
    )
    for language in LANGUAGES:
        text = text_in(bare, language)
        assert "Paris" not in text
        assert not re.search(r"\d|[Cc]apital|Hauptstadt|首都|Euro |monn|mone|Währung|通貨", text), text


def test_five_languages_and_more_cover_most_countries() -> None:
    covered = {language: sum(name_in(c, language) is not None for c in load_countries()) for language in LANGUAGES}
    assert covered == {"en": 251, "de": 237, "es": 237, "fr": 237, "it": 237, "ja": 237}
