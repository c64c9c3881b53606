"""Language tags: one form of each (BCP 47), wherever a language enters.

Items, configurations, requests and questions name languages by the same function, so `en_US` meets `en-US`. Checks the
form of a tag, not whether its language exists. A language's name (`English`, `français`) is not a tag.
Source: RFC 5646, sections 2.1 (grammar) and 2.1.1 (upper and lower case).
"""

from __future__ import annotations

import re

MAX_TAG_CHARS = 35  # RFC 5646, section 4.4.1, lets software count on no more

# Two codes of Wikipedia that are not tags, with the tags that Wikipedia's own pages carry.
_WIKIPEDIA = {"zh-classical": "lzh", "simple": "en-simple"}

# Registered before the grammar, and still valid.
_GRANDFATHERED = {
    *("en-gb-oed", "i-ami", "i-bnn", "i-default", "i-enochian", "i-hak", "i-klingon", "i-lux", "i-mingo", "i-navajo"),
    *("i-pwn", "i-tao", "i-tay", "i-tsu", "sgn-be-fr", "sgn-be-nl", "sgn-ch-de"),
}

# A language of 4 to 8 letters fits the grammar too, but none is registered: such a word is a name, or another column.
_LANGUAGE = re.compile(
    r"""
    [a-z]{2,3} (-[a-z]{3}){0,3}             # language, extended language
    (-[a-z]{4})?                            # script
    (-([a-z]{2}|[0-9]{3}))?                 # region
    (-([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*    # variants
    (-[a-wy-z0-9](-[a-z0-9]{2,8})+)*        # extensions
    (-x(-[a-z0-9]{1,8})+)?                  # private use
    | x(-[a-z0-9]{1,8})+
    """,
    re.VERBOSE | re.ASCII,
)


def normalize_language(tag: str) -> str:
    """The tag with hyphens, and with the upper and lower case of RFC 5646: `zh_hans_cn` -> `zh-Hans-CN`.

    Raises ValueError for what is not a tag.
    """
    text = tag.strip().replace("_", "-")
    lower = text.lower()
    lower = _WIKIPEDIA.get(lower, lower)
    if len(text) > MAX_TAG_CHARS:
        raise ValueError(f"a text of {len(text):,} characters is not a language: want a tag such as en, pt-BR, zh-Hans")
    if not text.isascii() or not (lower in _GRANDFATHERED or _LANGUAGE.fullmatch(lower)):
        raise ValueError(f"{tag!r} is not a language: want a tag (BCP 47) such as en, pt-BR, zh-Hans")
    first, *rest = lower.split("-")
    return "-".join([first, *_cased(rest, first)])


def _cased(subtags: list[str], first: str) -> list[str]:
    """The subtags behind the first: regions in upper case, scripts with a capital, until one is a single letter."""
    cased: list[str] = []
    single = len(first) == 1
    for subtag in subtags:
        single = single or len(subtag) == 1
        region, script = len(subtag) == 2 and not single, len(subtag) == 4 and subtag.isalpha() and not single
        cased.append(subtag.upper() if region else subtag.capitalize() if script else subtag)
    return cased
