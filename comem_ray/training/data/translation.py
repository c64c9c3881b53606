"""Translation of kept samples into further languages, by a model behind an OpenAI-compatible endpoint.

A translator is a callable (texts, language) -> texts. Question and answer of a sample are translated, its image and
items stay. The samples are drawn by a digest of seed, language and sample, so that a draw does not depend on order.
Knows nothing of shards or Ray. Source: the paper translates 200 samples into each of 9 languages (arXiv 2505.17670).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from comem_ray.artifacts import fingerprint
from comem_ray.config import ConfigError, TranslationConfig
from comem_ray.prompts import translation_instruction

Translate = Callable[[Sequence[str], str], list[str]]
"""Texts in their order, translated into a language (BCP 47)."""

MAX_WAIT_S = 60.0  # the longest pause that an endpoint is granted
_ABOUT_THE_TEXT = {400, 413, 422}  # too long, or filtered: another text may pass
_RETRIED = {408, 425, 429}  # and every 5xx


class TranslationError(RuntimeError):
    """The endpoint did not translate. The message names it and its answer."""


def draw_samples(samples: Iterable[tuple[str, str]], language: str, count: int, seed: int) -> list[str]:
    """`count` of the sample ids of `samples` (id, language), seeded; none that is in `language` already."""
    ids = [sample_id for sample_id, own_language in samples if own_language != language]
    return sorted(ids, key=lambda sample_id: fingerprint([seed, language, sample_id]))[:count]


def translate_samples(
    rows: Sequence[dict[str, Any]], translate: Translate, language: str, model: str
) -> list[dict[str, Any]]:
    """Rows of TRAINING_SCHEMA with question and answer in `language`, an id of their own, and `model` in provenance.

    A row whose translation is empty, or lost or gained a box of the answer, is left out.
    """
    texts = translate([text for row in rows for text in (row["question"], row["answer"])], language)
    assert len(texts) == 2 * len(rows)
    samples = []
    for row, question, answer in zip(rows, texts[::2], texts[1::2], strict=True):
        if question.strip() and answer.strip() and _boxes(answer) == _boxes(row["answer"]):
            provenance = {**json.loads(row["provenance"]), "translated_from": row["sample_id"], "translator": model}
            changed = {"question": question, "answer": answer, "language": language}
            sample_id = fingerprint([row["sample_id"], language])[:24]
            samples.append(
                {**row, **changed, "sample_id": sample_id, "provenance": json.dumps(provenance, sort_keys=True)}
            )
    return samples


def _boxes(text: str) -> int:
    return text.count("\\boxed{")


class ChatTranslator:
    """A Translate over POST <endpoint>/chat/completions: one request per text, `parallel` at once.

    A text that the endpoint does not take is "", unless it takes none of them. Raises ConfigError where the variable of
    the key is not set; a call raises TranslationError where the endpoint refuses, answers with something else than a
    completion, or fails more often than `retries`.
    """

    def __init__(self, settings: TranslationConfig):
        self._settings, headers = settings, {}
        if settings.key_variable is not None:
            if not (key := os.environ.get(settings.key_variable)):
                raise ConfigError(f"synthesis.translation.key_variable: {settings.key_variable} is not set")
            headers["Authorization"] = f"Bearer {key}"
        self._url = settings.endpoint.rstrip("/") + "/chat/completions"
        self._client = httpx.Client(headers=headers, timeout=settings.timeout_s)

    def __call__(self, texts: Sequence[str], language: str) -> list[str]:
        instruction = translation_instruction(language)
        with ThreadPoolExecutor(self._settings.parallel, "translate") as pool:
            outcomes = list(pool.map(lambda text: self._translate(instruction, text), texts))
        refusals = [outcome for outcome in outcomes if isinstance(outcome, TranslationError)]
        if refusals and len(refusals) == len(outcomes):
            raise refusals[0]
        return ["" if isinstance(outcome, TranslationError) else outcome for outcome in outcomes]

    def _translate(self, instruction: str, text: str) -> str | TranslationError:
        """The translation, or why the endpoint does not take this text."""
        turns = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
        body = {"model": self._settings.model, "messages": turns, "temperature": 0}
        for attempt in range(self._settings.retries + 1):
            pause = self._settings.backoff_s * 2**attempt
            try:
                response = self._client.post(self._url, json=body)
            except httpx.TransportError as error:
                failure = f"{type(error).__name__} {error}".strip()
            else:
                if response.status_code == 200:
                    return _content(self._url, response)
                failure = f"HTTP {response.status_code}: {response.text[:200]}"
                if response.status_code in _ABOUT_THE_TEXT:
                    return TranslationError(f"{self._url} refused: {failure}")
                if response.status_code not in _RETRIED and response.status_code < 500:
                    raise TranslationError(f"{self._url} refused: {failure}")
                pause = max(pause, _retry_after(response))
            if attempt < self._settings.retries:
                time.sleep(min(pause, MAX_WAIT_S))
        raise TranslationError(f"{self._url} failed {self._settings.retries + 1} times, last: {failure}")


def _content(url: str, response: httpx.Response) -> str:
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise TranslationError(f"{url} answered with no completion: {response.text[:200]}") from error
    if not isinstance(content, str):
        raise TranslationError(f"{url} answered with no text: {response.text[:200]}")
    return content.strip()


def _retry_after(response: httpx.Response) -> float:
    """Seconds that a Retry-After header asks for; 0 where it holds none."""
    value = response.headers.get("Retry-After", "").strip()
    return float(value) if value.isdecimal() else 0.0
