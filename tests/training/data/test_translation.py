"""Translation against a real local server: order, retries, refusals, and what becomes of a sample."""

from __future__ import annotations

import json

import pytest
from support.translating import translating

from comem_ray.config import ConfigError, TranslationConfig
from comem_ray.training.data.translation import ChatTranslator, TranslationError, draw_samples, translate_samples

ROW = {
    "sample_id": "0" * 24,
    "question": "Who?",
    "image": b"png",
    "item_ids": ["a", "b"],
    "answer": r"It is \boxed{Ann}",
    "language": "en",
    "rule": "exact",
    "gold": json.dumps(["Ann"]),
    "provenance": json.dumps({"source": "own", "score": 1.0}),
}


@pytest.fixture
def endpoint():
    with translating() as endpoint:
        yield endpoint


def translator(url: str, **changed) -> ChatTranslator:
    return ChatTranslator(TranslationConfig(endpoint=url, model="small", backoff_s=0.01, timeout_s=5, **changed))


def test_texts_come_back_in_order(endpoint):
    texts = [f"text {i}" for i in range(20)]
    assert translator(endpoint.url)(texts, "bg") == [f"<Bulgarian> {t}" for t in texts]
    assert all(body["model"] == "small" and body["temperature"] == 0 for body in endpoint.requests)
    assert set(endpoint.keys) == {None}


def test_the_key_comes_from_the_environment(endpoint, monkeypatch):
    monkeypatch.setenv("TRANSLATION_KEY", "secret")
    translator(endpoint.url, key_variable="TRANSLATION_KEY")(["a"], "fr")
    assert endpoint.keys == ["Bearer secret"]
    monkeypatch.delenv("TRANSLATION_KEY")
    with pytest.raises(ConfigError, match="TRANSLATION_KEY is not set"):
        translator(endpoint.url, key_variable="TRANSLATION_KEY")


def test_what_may_pass_is_tried_again(endpoint):
    endpoint.failures = [(503, {}, b"busy"), (429, {"Retry-After": "0"}, b"slow down"), (500, {}, b"")]
    assert translator(endpoint.url)(["a"], "fr") == ["<French> a"]
    assert len(endpoint.requests) == 4


@pytest.mark.parametrize(
    ("failures", "tries", "message"),
    [
        ([(401, {}, b"no such key")], 1, r"refused: HTTP 401: no such key"),
        ([(503, {}, b"busy")] * 3, 3, r"failed 3 times, last: HTTP 503: busy"),
        ([(200, {}, b"<html>")], 1, r"no completion: <html>"),
        ([(200, {}, b'{"choices": [{"message": {"content": null}}]}')], 1, r"no text"),
    ],
)
def test_what_will_not_pass_says_so(endpoint, failures, tries, message):
    endpoint.failures = list(failures)
    with pytest.raises(TranslationError, match=message):
        translator(endpoint.url, retries=2)(["a"], "fr")
    assert len(endpoint.requests) == tries


def test_a_text_that_the_endpoint_does_not_take_costs_itself(endpoint):
    endpoint.failures = [(400, {}, b"content filter")]
    assert translator(endpoint.url, parallel=1)(["a", "b"], "fr") == ["", "<French> b"]
    endpoint.failures = [(400, {}, b"no such model")] * 2
    with pytest.raises(TranslationError, match="refused: HTTP 400: no such model"):
        translator(endpoint.url, parallel=1)(["a", "b"], "fr")


def test_nobody_there_says_so():
    with pytest.raises(TranslationError, match=r"failed 2 times, last: ConnectError"):
        translator("http://127.0.0.1:9/v1", retries=1)(["a"], "fr")


def test_a_translated_sample(endpoint):
    (row,) = translate_samples([ROW], translator(endpoint.url), "fr", "small")
    assert (row["question"], row["answer"], row["language"]) == ("<French> Who?", r"<French> It is \boxed{Ann}", "fr")
    assert row["sample_id"] != ROW["sample_id"]
    assert len(row["sample_id"]) == 24
    assert all(row[name] == ROW[name] for name in ("image", "item_ids", "rule", "gold"))
    provenance = json.loads(row["provenance"])
    assert provenance == {"source": "own", "score": 1.0, "translated_from": "0" * 24, "translator": "small"}


@pytest.mark.parametrize("made", ["C'est Anne", "", r"\boxed{Anne} ou \boxed{Ann}"])
def test_a_translation_that_lost_the_box_is_left_out(made):
    assert translate_samples([ROW], lambda texts, language: ["Qui ?", made], "fr", "small") == []


def test_the_draw_is_seeded_and_leaves_out_the_language_itself():
    samples = [(f"{i:024x}", "fr" if i % 10 == 0 else "en") for i in range(100)]
    chosen = draw_samples(samples, "fr", 20, seed=1)
    assert len(set(chosen)) == 20
    assert not {int(i, 16) % 10 for i in chosen} & {0}
    assert draw_samples(samples[::-1], "fr", 20, seed=1) == chosen
    assert draw_samples(samples, "fr", 20, seed=2) != chosen
    assert draw_samples(samples, "pt", 20, seed=1) != chosen
    assert len(draw_samples(samples, "pt", 500, seed=1)) == 100
