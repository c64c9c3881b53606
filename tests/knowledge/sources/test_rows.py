import hashlib

import pytest

from comem_ray.knowledge.sources.rows import Row, RowFault, make_row

FULL = {
    "language": "en",
    "title": "Oak",
    "description": "A tree.",
    "page_url": "https://example.org/oak",
    "image_url": "https://example.org/oak.jpg",
    "image": None,
}


def row(**changes: object) -> Row:
    parsed = make_row(**{**FULL, **changes})
    assert isinstance(parsed, Row)
    return parsed


def test_fields():
    parsed = row()
    assert (parsed.text, parsed.title, parsed.language) == ("Oak: A tree.", "Oak", "en")
    assert (parsed.page_url, parsed.image_url, parsed.image) == (FULL["page_url"], FULL["image_url"], FULL["image_url"])


@pytest.mark.parametrize(
    ("title", "description", "want"),
    [("Oak", None, "Oak"), ("", " A tree. ", "A tree."), (" Oak ", "A tree.", "Oak: A tree.")],
)
def test_text_of_title_and_description(title, description, want):
    assert row(title=title, description=description).text == want


def test_text_is_cut_at_5000_characters():
    parsed = row(description="ß" * 9_000)
    assert parsed.text == "Oak: " + "ß" * 4_995


def test_no_text_and_no_image():
    assert make_row(**{**FULL, "title": " ", "description": "\t"}).reason == "no_text"
    assert make_row(**{**FULL, "image_url": ""}).reason == "no_image"


@pytest.mark.parametrize(("text", "reason"), [("a\0b", "nul_byte"), ("\ud800", "bad_utf8")])
def test_characters_that_no_shard_can_hold(text, reason):
    parsed = make_row(**{**FULL, "description": text})
    assert isinstance(parsed, RowFault)
    assert parsed.reason == reason


def test_unknown_language():
    assert row(language=None).language == "und"


def test_item_id_is_a_digest_of_what_makes_the_item():
    fields = ["en", FULL["page_url"], FULL["image_url"], "Oak", "Oak: A tree."]
    want = hashlib.blake2b("\0".join(fields).encode(), digest_size=12).hexdigest()
    assert row().item_id == want
    assert len(want) == 24
    changes = [{"language": "de"}, {"title": "Elm"}, {"description": "B"}, {"page_url": None}, {"image_url": "c.png"}]
    assert len({row(**change).item_id for change in [{}, *changes]}) == 6


def test_images_without_a_url_differ_by_their_content():
    ids = {row(image_url=None, image=data).item_id for data in (b"one", b"two")}
    assert len(ids) == 2
    assert row(image=b"one").item_id == row(image=b"two").item_id == row().item_id


@pytest.mark.parametrize("url", ["data:image/png;base64,AAAA", "images/a.png", "ftp://example.org/a.png"])
def test_only_web_addresses_are_kept_as_image_url(url):
    parsed = row(image_url=url)
    assert (parsed.image_url, parsed.image) == (None, url)


@pytest.mark.parametrize(
    ("language", "want"), [("en_US", "en-US"), ("ZH_hans_cn", "zh-Hans-CN"), (" x-klingon ", "x-klingon")]
)
def test_the_language_has_one_form_and_the_id_is_of_that_form(language, want):
    assert row(language=language).language == want
    assert row(language=language).item_id == row(language=want).item_id


@pytest.mark.parametrize("language", ["français", "English", "x" * 5_000, "A tree in a park.", "\ud800", "en US"])
def test_what_is_no_language_is_refused_with_a_reason(language):
    fault = make_row(**{**FULL, "language": language})
    assert isinstance(fault, RowFault)
    assert (fault.reason, fault.retryable) == ("language_invalid", False)
    assert "want a tag" in fault.detail
    fault.detail.encode()


@pytest.mark.parametrize(
    ("field", "limit"), [("title", 1_000), ("page_url", 8_192), ("image_url", 8_192), ("image", 8_192)]
)
def test_titles_and_addresses_are_bounded(field, limit):
    assert isinstance(make_row(**{**FULL, field: "x" * limit}), Row)
    fault = make_row(**{**FULL, field: "x" * (limit + 1)})
    assert isinstance(fault, RowFault)
    assert (fault.reason, fault.retryable) == ("field_too_long", False)
    assert f"{field} has {limit + 1:,} characters, the limit is {limit:,}" in fault.detail


def test_a_data_uri_may_be_as_long_as_an_image():
    uri = "data:image/png;base64," + "A" * 100_000
    assert row(image_url=None, image=uri).image == uri
    fault = make_row(**{**FULL, "image": "A" * 100_000})
    assert isinstance(fault, RowFault)
    assert "base64 wants data:image/jpeg;base64, before it" in fault.detail
