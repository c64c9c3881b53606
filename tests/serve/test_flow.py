"""A request's way through the deployments: every mode, streamed or not, alone or among others, equals the library."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from support.serving import NOT_STORED, FinishedRun, Served, image_of, row, wait_until
from support.tiny import image

from comem_ray.answers import Question
from comem_ray.client import Client, ServiceError
from comem_ray.pipeline import Pipeline
from comem_ray.retrieval.retriever import Query

MODES: list[Any] = ["none", "rag", "memory"]


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_equals_the_library(client: Client, pipeline: Pipeline, mode: Any) -> None:
    question = "What is shown?", row(7)["image"], mode
    answer, expected = client.answer(*question), pipeline.answer(*question)
    assert (answer.text, answer.mode, answer.usage) == (expected.text, mode, expected.usage)
    assert [s.item_id for s in answer.sources] == [s.item_id for s in expected.sources]
    assert expected.usage.memory_vectors == (24 if mode == "memory" else 0)


def test_sources_are_the_retrieved_items(client: Client, run: FinishedRun) -> None:
    answer = client.answer("What is shown?", row(7)["image"], k=4)
    best = answer.sources[0]
    assert len(answer.sources) == 4
    assert best.item_id == run.ids[7]
    assert (best.title, best.text, best.image_url) == (row(7)["title"], row(7)["text"], row(7)["image_url"])
    assert best.score == pytest.approx(1, abs=1e-2)
    scores = [source.score for source in answer.sources]
    assert scores == sorted(scores, reverse=True)
    assert answer.timings_ms.keys() == {"retrieve", "items", "memory", "answer", "total"}


def test_mode_none_has_no_sources_and_needs_no_image(client: Client) -> None:
    answer = client.answer("Who?", mode="none")
    assert answer.sources == []
    assert answer.timings_ms.keys() == {"answer", "total"}


def test_memory_is_the_default_mode(served: Served) -> None:
    assert served.ask("What is shown?", image=image_of(7)).json()["mode"] == "memory"


def test_a_data_uri_is_the_same_image(served: Served) -> None:
    plain = served.ask("What is shown?", image=image_of(7)).json()
    uri = served.ask("What is shown?", image=f"data:image/png;base64,{image_of(7)}").json()
    assert (uri["answer"], uri["sources"]) == (plain["answer"], plain["sources"])


def test_a_language_admits_only_its_items(client: Client) -> None:
    answer = client.answer("What is shown?", row(7)["image"], language="es", k=5)
    assert [client.item(source.item_id).language for source in answer.sources] == ["es"] * 5


def test_an_item_that_the_store_lacks_is_encoded(client: Client, run: FinishedRun, pipeline: Pipeline) -> None:
    # Twice: encoded for the first, kept by the ingress for the second.
    for _ in range(2):
        answer = client.answer("What is shown?", row(NOT_STORED)["image"])
        assert answer.sources[0].item_id == run.ids[NOT_STORED]
        assert answer.text == pipeline.answer("What is shown?", row(NOT_STORED)["image"]).text
        assert answer.usage.memory_vectors == 24


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_is_the_answer_in_pieces(client: Client, mode: Any) -> None:
    fields = ("Where is it?", row(3)["image"], mode, None, None, 20)
    whole, stream = client.answer(*fields), client.stream(*fields)
    assert "".join(stream) == whole.text
    answer = stream.answer
    assert (answer.text, answer.mode, answer.sources, answer.usage) == (whole.text, mode, whole.sources, whole.usage)
    assert answer.timings_ms.keys() == whole.timings_ms.keys()


def test_a_stream_starts_with_the_sources(served: Served) -> None:
    response = served.ask("Where is it?", image=image_of(3), stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("event: ") for line in response.text.splitlines() if line.startswith("event: ")]
    assert events[0] == "sources"
    assert events[-1] == "done"
    assert set(events[1:-1]) == {"token"}


def test_what_fails_after_the_start_of_a_stream_is_an_error_event(client: Client) -> None:
    with pytest.raises(ServiceError) as raised:
        list(client.stream("Why?", row(3)["image"], "rag", k=20))
    assert raised.value.type == "prompt_too_long"


def test_a_user_who_leaves_does_not_hold_others_up(served: Served, client: Client) -> None:
    body = {"question": "Gone?", "mode": "none", "max_new_tokens": 400, "stream": True}
    for _ in range(4):
        with served.http.stream("POST", "/v1/answer", json=body) as response:
            next(response.iter_text())
    assert client.answer("Still there?", mode="none").text


def test_a_plain_request_that_is_left_ends_too(served: Served, client: Client) -> None:
    """Not only streams: the reasoner writes no line for an answer that it did not finish."""
    body = {"question": "Gone?", "mode": "none", "max_new_tokens": 400}
    whole = time.monotonic()
    served.http.post("/v1/answer", json=body, headers={"X-Request-ID": "stayed-1"})
    whole = time.monotonic() - whole
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served.url}/v1/answer", json=body, headers={"X-Request-ID": "left-1"}, timeout=whole / 4)
    assert client.answer("Still there?", mode="none", max_new_tokens=2).text
    time.sleep(1.5 * whole)  # by then it would have been done

    def lines(request_id: str) -> list[str]:
        return [line for line in served.log.read_text().splitlines() if f"{request_id} -- " in line]

    def is_done(request_id: str) -> bool:
        return any("_Reasoner " in line and "done" in line for line in lines(request_id))

    wait_until(lambda: is_done("stayed-1"), 10, served)
    assert lines("left-1")  # it reached the service
    assert not is_done("left-1")


def test_users_at_once_get_the_answers_they_get_alone(client: Client) -> None:
    questions = [Question(f"Question {i}?", row(i)["image"], MODES[i % 3], k=1 + i % 4) for i in range(12)]
    alone = [client.answer(q.text, q.image, q.mode, q.k) for q in questions]
    for one, other in zip(alone, client.answer_batch(questions), strict=True):
        assert (other.text, other.sources, other.usage) == (one.text, one.sources, one.usage)


def test_control_tokens_in_a_question_are_text(client: Client) -> None:
    text = "<|im_end|><|image_pad|>"
    plain, more = client.answer("a", mode="none"), client.answer(f"a{text}", mode="none")
    assert more.usage.prompt_tokens == plain.usage.prompt_tokens + len(text)


@pytest.mark.parametrize("by", ["image", "text", "both"])
def test_retrieval_equals_the_library(client: Client, pipeline: Pipeline, by: Any) -> None:
    r = row(11)
    query_image = image(11, r["width"], r["height"])
    query = Query(query_image if by != "text" else None, r["text"] if by != "image" else None)
    expected = pipeline.retriever.retrieve([query], 5, by)[0]
    sources = client.retrieve(r["image"], r["text"], k=5, by=by)
    assert [s.item_id for s in sources] == [h.item_id for h in expected]
    assert [s.score for s in sources] == pytest.approx([h.score for h in expected], abs=1e-4)


def test_all_that_is_given_is_compared(client: Client) -> None:
    data = row(11)["image"]
    assert client.retrieve(data, "other", k=4) == client.retrieve(data, "other", k=4, by="both")
    assert client.retrieve(data, k=4) == client.retrieve(data, k=4, by="image")


def test_text_weight(served: Served) -> None:
    fields = {"image": image_of(11), "text": row(20)["text"], "by": "both", "top_k": 1}
    for weight, best in ((0.0, 11), (1.0, 20)):
        body = served.http.post("/v1/retrieve", json={**fields, "text_weight": weight}).json()
        assert body["sources"][0]["item_id"] == row(best)["item_id"]
        assert body["timings_ms"].keys() == {"retrieve", "items", "total"}


def test_retrieval_in_a_language(client: Client) -> None:
    sources = client.retrieve(row(11)["image"], language="de", k=20)
    assert all(int(s.title.split()[1]) % 3 == 1 for s in sources)
    assert len(sources) == 13  # all German ones of the 40 items
