"""Languages of a query: a tag in its one form, and an error that names the languages that there are."""

from __future__ import annotations

from collections.abc import Iterable

from comem_ray.language import normalize_language


class QueryError(ValueError):
    """A query that this index cannot answer. `field` is what of it is wrong: image, text, k, by or language."""

    def __init__(self, message: str, field: str):
        super().__init__(message)
        self.field = field


class UnknownLanguage(QueryError):
    """A language in which there is no item. `known` are those that there are."""

    def __init__(self, language: str, known: Iterable[str]):
        message = f"no knowledge item is in language {language!r}; the languages are: {', '.join(known)}"
        super().__init__(message, "language")


def language_tag(language: str) -> str:
    """The one form of a tag. Raises QueryError for what is not one."""
    try:
        return normalize_language(language)
    except ValueError as error:
        raise QueryError(str(error), "language") from error


def is_same_language(code: str, tag: str) -> bool:
    """Whether a language as a source wrote it is the one of `tag`."""
    try:
        return normalize_language(code) == tag
    except ValueError:
        return False
