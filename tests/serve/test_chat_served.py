"""OpenAI's own client, unmodified, against the whole service: the same answers as /v1/answer, in its own shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from support.serving import FinishedRun, Served, image_of, row

from comem_ray.client import Client

MODES: list[Any] = ["none", "rag", "memory"]


@pytest.fixture(scope="module")
def chat(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def user(text: str, *images: int) -> Any:
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_of(i)}"}} for i in images
    ]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def ask(chat: openai.OpenAI, *messages: Any, **fields: Any) -> Any:
    return chat.chat.completions.create(model="tiny", messages=list(messages), **fields)


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_is_that_of_v1_answer(chat: openai.OpenAI, client: Client, mode: Any) -> None:
    expected = client.answer("What is shown?", row(7)["image"], mode, k=2)
    completion = ask(chat, user("What is shown?", 7), extra_body={"comem": {"mode": mode, "top_k": 2}})
    assert completion.choices[0].message.content == expected.text
    usage, comem = completion.usage.model_dump(), completion.comem
    assert usage["prompt_tokens"] == expected.usage.prompt_tokens
    assert usage["completion_tokens"] == expected.usage.completion_tokens
    assert usage["memory_vectors"] == expected.usage.memory_vectors
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert comem["mode"] == mode
    assert [s["item_id"] for s in comem["sources"]] == [s.item_id for s in expected.sources]
    assert len(completion.choices[0].message.annotations) == len(expected.sources)
    assert comem["timings_ms"].keys() == expected.timings_ms.keys()


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_is_the_answer_in_pieces(chat: openai.OpenAI, mode: Any) -> None:
    fields: Any = {"max_tokens": 20, "extra_body": {"comem": {"mode": mode}}}
    whole = ask(chat, user("Where is it?", 3), **fields)
    options = {"include_usage": True}
    *chunks, last = ask(chat, user("Where is it?", 3), stream=True, stream_options=options, **fields)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[0].comem["sources"] == whole.comem["sources"]
    assert last.usage == whole.usage


def test_images_of_a_question_are_retrieved_by_the_last_one(chat: openai.OpenAI, run: FinishedRun) -> None:
    completion = ask(chat, user("And this?", 3, 7))
    assert completion.comem["sources"][0]["item_id"] == run.ids[7]
    completion = ask(chat, user("This?", 9), {"role": "assistant", "content": "Yes."}, user("Where is it?"))
    assert completion.comem["mode"] == "memory"
    assert completion.comem["sources"][0]["item_id"] == run.ids[9]


def test_system_and_earlier_turns_are_in_the_prompt(chat: openai.OpenAI) -> None:
    alone = ask(chat, {"role": "user", "content": "Who?"})
    assert alone.comem == {"mode": "none", "sources": [], "timings_ms": alone.comem["timings_ms"]}
    system = {"role": "system", "content": "You are a careful guide through the mountains of this country."}
    guided = ask(chat, system, {"role": "user", "content": "Who?"})
    assert guided.usage.prompt_tokens > alone.usage.prompt_tokens
    longer = ask(chat, system, {"role": "user", "content": "Who?"}, guided.choices[0].message, user("And where?"))
    assert longer.usage.prompt_tokens > guided.usage.prompt_tokens


def test_control_tokens_in_a_message_are_text(chat: openai.OpenAI) -> None:
    text = "<|im_end|><|image_pad|>"
    for role in ("system", "user", "assistant"):
        counts = [
            ask(chat, *([] if role == "system" else [user("a")]), {"role": role, "content": content}, user("b"))
            for content in ("a", f"a{text}")
        ]
        plain, more = (completion.usage.prompt_tokens for completion in counts)
        assert more == plain + len(text)


def test_a_seed_draws_the_same_answer(chat: openai.OpenAI) -> None:
    fields: Any = {"temperature": 2, "max_tokens": 30}
    texts = [ask(chat, user("Why?"), seed=seed, **fields).choices[0].message.content for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(chat: openai.OpenAI) -> None:
    text = ask(chat, user("Why?"), max_tokens=30).choices[0].message.content
    stop = text[len(text) // 2 :][:2]
    completion = ask(chat, user("Why?"), max_tokens=30, stop=stop)
    assert completion.choices[0].message.content == text.partition(stop)[0]
    assert completion.choices[0].finish_reason == "stop"
    pieces = ask(chat, user("Why?"), max_tokens=30, stop=[stop, "never"], stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in pieces) == text.partition(stop)[0]


def test_max_tokens_ends_an_answer(chat: openai.OpenAI) -> None:
    completion = ask(chat, user("Why?"), max_completion_tokens=2)
    assert (completion.choices[0].finish_reason, completion.usage.completion_tokens) == ("length", 2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_has_openais_code(chat: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.APIError) as raised:
        list(ask(chat, user("Why?", 3), stream=stream, extra_body={"comem": {"mode": "rag", "top_k": 20}}))
    assert (raised.value.code, raised.value.type) == ("context_length_exceeded", "prompt_too_long")


def test_a_deadline_ends_an_answer(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError):
        ask(chat, user("Why?"), max_tokens=400, extra_body={"timeout": 0.05})


def test_faults_are_bad_requests(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="the limit is 400") as raised:
        ask(chat, user("Why?"), max_tokens=401)
    assert raised.value.param == "max_tokens"
    with pytest.raises(openai.BadRequestError, match="compares images"):
        ask(chat, user("Why?"), extra_body={"comem": {"mode": "memory"}})
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        chat.chat.completions.create(model="gpt-4o", messages=[user("Why?")])


def test_models(chat: openai.OpenAI) -> None:
    assert [model.id for model in chat.models.list()] == ["tiny"]


def test_who_leaves_a_stream_does_not_hold_others_up(chat: openai.OpenAI) -> None:
    for _ in range(4):
        with ask(chat, user("Gone?"), max_tokens=400, stream=True) as stream:
            next(stream)
    assert ask(chat, user("Still there?"), max_tokens=2).usage.completion_tokens == 2
