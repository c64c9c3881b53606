"""The whole API, over real HTTP: every method of the client, then what only a browser or a monitor sees."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from support.serving import FinishedRun, Served, check_error, row

from comem_ray.answers import Answer, Question
from comem_ray.client import Client, KnowledgeItem, ServiceError
from serve.start import check_artifacts


def test_answer(client: Client, run: FinishedRun) -> None:
    answer = client.answer("What is shown?", row(7)["image"], k=4, max_new_tokens=5)
    assert answer.mode == "memory"
    assert answer.sources[0].item_id == run.ids[7]
    assert len(answer.sources) == 4
    assert answer.usage.memory_vectors == 32
    assert 1 <= answer.usage.completion_tokens <= 5
    assert answer.timings_ms["total"] >= answer.timings_ms["answer"] > 0


def test_an_image_may_be_a_path_bytes_or_an_image(client: Client, tmp_path) -> None:
    data = row(7)["image"]
    (tmp_path / "a.png").write_bytes(data)
    images = [data, tmp_path / "a.png", str(tmp_path / "a.png"), Image.open(io.BytesIO(data))]
    answers = [client.answer("What is shown?", image) for image in images]
    assert all((a.text, a.sources) == (answers[0].text, answers[0].sources) for a in answers)


def test_answer_batch(client: Client) -> None:
    questions = [Question(f"Question {i}?", row(i)["image"], mode="rag", k=1 + i % 3) for i in range(6)]
    alone = [client.answer(q.text, q.image, q.mode, q.k) for q in questions]
    assert [without_times(a) for a in client.answer_batch(questions)] == [without_times(a) for a in alone]


def without_times(answer: Answer) -> tuple[object, ...]:
    return answer.text, answer.mode, answer.sources, answer.usage


def test_stream(client: Client) -> None:
    stream = client.stream("Where is it?", row(3)["image"], max_new_tokens=20)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.answer.text
    assert without_times(stream.answer) == without_times(
        client.answer("Where is it?", row(3)["image"], max_new_tokens=20)
    )


def test_retrieve(client: Client, run: FinishedRun) -> None:
    assert [s.item_id for s in client.retrieve(row(11)["image"], k=1)] == [run.ids[11]]
    assert [s.item_id for s in client.retrieve(text=row(11)["text"], k=1)] == [run.ids[11]]
    assert len(client.retrieve(row(11)["image"], row(11)["text"], k=5, by="both", language="de")) == 5


def test_item_and_its_image(client: Client, run: FinishedRun) -> None:
    fields = ("item_id", "language", "title", "text", "page_url", "image_url", "width", "height")
    assert client.item(run.ids[9]) == KnowledgeItem(**{f: row(9)[f] for f in fields})
    assert client.item_image(run.ids[9]) == row(9)["image"]


@pytest.mark.parametrize("item_id", ["abc", "0" * 24, "../../etc", "\0", "x" * 5_000])
def test_an_unknown_item(client: Client, item_id: str) -> None:
    for call in (client.item, client.item_image):
        with pytest.raises(ServiceError) as raised:
            call(item_id)
        assert raised.value.status == 404
        assert raised.value.type in ("unknown_item", "unknown_path")


def test_an_id_with_more_behind_it_is_another(served: Served, run: FinishedRun) -> None:
    check_error(served.http.get(f"/v1/items/{run.ids[9]}%00"), 404, "unknown_item", "item_id")


def test_a_refusal_has_its_field(client: Client) -> None:
    with pytest.raises(ServiceError) as raised:
        client.answer("What is shown?")
    assert (raised.value.status, raised.value.type, raised.value.field) == (422, "missing_field", "image")


def test_ready(client: Client, served: Served, run: FinishedRun) -> None:
    assert client.ready()
    assert served.http.get("/healthz").json() == {"status": "ok"}
    ready = served.http.get("/readyz").json()
    assert ready == {"status": "ready", "generations": check_artifacts(run.config).folders}


def test_a_browser_runs_nothing_of_an_image(served: Served, run: FinishedRun) -> None:
    headers = served.http.get(f"/v1/items/{run.ids[9]}/image").headers
    assert headers["content-type"] == "image/png"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("i", [0, 1, 2])
def test_where_the_source_has_no_url_the_image_is_ours(
    served: Served, run: FinishedRun, client: Client, i: int
) -> None:
    url = client.item(run.ids[i]).image_url
    assert url == f"/v1/items/{run.ids[i]}/image"
    assert served.http.get(url).content == row(i)["image"]
