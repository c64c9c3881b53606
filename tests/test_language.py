import pytest

from comem_ray.language import normalize_language


@pytest.mark.parametrize(
    ("tag", "want"),
    [
        ("en", "en"),
        ("EN", "en"),
        (" en_US ", "en-US"),
        ("en-us", "en-US"),
        ("zh_Hans_CN", "zh-Hans-CN"),
        ("ZH-hANT-tw", "zh-Hant-TW"),
        ("zh-cmn-hans-cn", "zh-cmn-Hans-CN"),
        ("es-419", "es-419"),
        ("pt_br", "pt-BR"),
        ("sr-latn", "sr-Latn"),
        ("de-ch-1996", "de-CH-1996"),
        ("sl-rozaj-biske-1994", "sl-rozaj-biske-1994"),
        ("und", "und"),
        # case behind a single letter, as in the examples of RFC 5646, section 2.1.1
        ("en-ca-x-CA", "en-CA-x-ca"),
        ("AZ-latn-X-Latn", "az-Latn-x-latn"),
        ("de-DE-u-CO-phonebk", "de-DE-u-co-phonebk"),
        ("x-klingon", "x-klingon"),
        ("X-Whatever", "x-whatever"),
        # registered before the grammar
        ("i-klingon", "i-klingon"),
        ("EN-gb-OED", "en-GB-oed"),
        ("SGN-be-fr", "sgn-BE-FR"),
        ("art-lojban", "art-lojban"),
        ("zh-min-nan", "zh-min-nan"),
        # Wikipedia's own
        ("be-tarask", "be-tarask"),
        ("be-x-old", "be-x-old"),
        ("roa-rup", "roa-rup"),
        ("nds-nl", "nds-NL"),
        ("zh-classical", "lzh"),
        ("simple", "en-simple"),
    ],
)
def test_one_form_of_each_tag(tag, want):
    assert normalize_language(tag) == want
    assert normalize_language(want) == want


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "français", "English", "Deutsch", "e", "en-", "-en", "en--US", "en US", "en/US", "*", "en-US.UTF-8"),
        *("12", "a-b", "x", "x-", "en-u", "i-unknown", "en-toolongsubtag", "日本語", "\ud800", "en\0", "ⅻ", "en\nUS"),
        *("A tower in Paris, 330 metres high.", "https://example.org/a", "x" * 5_000, "en-" + "a1b2c3d4-" * 9),
    ],
)
def test_what_is_not_a_tag_is_refused_by_name(text):
    with pytest.raises(ValueError, match="is not a language: want a tag") as caught:
        normalize_language(text)
    assert len(str(caught.value)) < 200
    str(caught.value).encode()
