"""Languages of a query."""

import pytest

from comem_ray.retrieval.languages import QueryError, UnknownLanguage, is_same_language, language_tag


def test_a_tag_has_one_form():
    assert language_tag(" pt_br ") == "pt-BR"
    with pytest.raises(QueryError, match="'English' is not a language") as error:
        language_tag("English")
    assert error.value.field == "language"


@pytest.mark.parametrize(("code", "same"), [("de_AT", True), ("DE-at", True), ("de", False), ("?", False), ("", False)])
def test_a_code_as_a_source_wrote_it(code, same):
    assert is_same_language(code, "de-AT") == same


def test_an_unknown_language_names_the_known_ones():
    error = UnknownLanguage("fr", ["de", "en"])
    assert str(error) == "no knowledge item is in language 'fr'; the languages are: de, en"
    assert error.field == "language"
