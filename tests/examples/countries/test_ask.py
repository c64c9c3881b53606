"""`python -m examples.countries.ask` against a real HTTP server that records its requests."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.endpoint import ANSWER, Endpoint, listening

from comem_ray.client import ServiceError
from examples.countries.ask import main
from examples.countries.world.questions import demo_questions, write_questions


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening() as endpoint:
        yield endpoint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the demo's questions, below $COMEM_HOME."""
    monkeypatch.setenv("COMEM_HOME", str(tmp_path))
    write_questions(tmp_path / "demo" / "questions")
    return tmp_path / "demo" / "questions"


def ask(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["ask", *map(str, words)])
    main()


def test_every_question_is_put_in_both_modes(
    endpoint: Endpoint, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, "--url", endpoint.url, "--count", 3)
    questions = demo_questions()[:3]
    assert endpoint.requests == [
        (
            "/v1/answer",
            {
                "question": question.question,
                "image": base64.b64encode((folder / question.image).read_bytes()).decode(),
                "mode": mode,
            },
        )
        for question in questions
        for mode in ("memory", "rag")
    ]
    printed = capsys.readouterr().out
    headings = [line for line in printed.splitlines() if line.startswith("Q: ")]
    assert len(headings) == len(questions)
    for question, heading in zip(questions, headings, strict=True):
        assert all(text in heading for text in (question.question, question.image, f"expected: {question.answer}"))
    assert printed.count(repr(ANSWER["answer"])) == 6
    assert printed.count("0.900  Bulgaria") == 6  # the source of each answer


def test_a_refusal_of_the_service_is_not_hidden(
    endpoint: Endpoint, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.fail(503, "not_ready", "the models are still loading")
    with pytest.raises(ServiceError, match="503 not_ready: the models are still loading"):
        ask(monkeypatch, "--url", endpoint.url)
    assert len(endpoint.requests) == 1
