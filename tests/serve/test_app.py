"""The application as it runs: its graph, its logs, a full queue, a replica that is killed."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml
from PIL import Image
from support.serving import ROOT, FinishedRun, Served, as_base64, check_error, image_of, wait_until

from serve.app import build_app
from serve.start import StartError


@pytest.mark.parametrize("path", sorted((ROOT / "serve").glob("*.yaml")), ids=lambda p: p.name)
def test_the_deployments_of_the_files_are_those_of_the_graph(run: FinishedRun, path) -> None:
    ingress = build_app({"config": str(run.path)})._bound_deployment
    others = [argument._bound_deployment for argument in ingress.init_args[2:]]
    names = ["Ingress", "Knowledge", "Retriever", "MemoryEncoder", "Reasoner"]
    assert [deployment.name for deployment in (ingress, *others)] == names
    (application,) = yaml.safe_load(path.read_text())["applications"]
    assert [deployment["name"] for deployment in application["deployments"]] == names


def test_a_wrong_configuration_builds_nothing(run: FinishedRun) -> None:
    with pytest.raises(StartError, match=r"configuration: .*retrieval\.top_k"):
        build_app({"config": str(run.path), "overrides": ["retrieval.top_k=0"]})
    with pytest.raises(ValueError, match="configuration"):
        build_app({"configuration": str(run.path)})


@pytest.mark.parametrize("mode", ["none", "memory"])
def test_an_image_of_over_4_mb_reaches_every_deployment(served: Served, mode: str) -> None:
    """gRPC refuses messages over 4 MB by default: such a question was a 500."""
    file = io.BytesIO()
    Image.effect_noise((2_400, 2_100), 60).save(file, "PNG")
    assert file.tell() > 4.2e6
    response = served.ask("What is this?", mode=mode, image=as_base64(file.getvalue()))
    assert response.status_code == 200, response.text


def test_each_replica_logs_a_line_with_the_request_id(served: Served) -> None:
    served.http.post(
        "/v1/answer", json={"question": "Logged?", "image": image_of(1)}, headers={"X-Request-ID": "find-me-1"}
    )

    def lines() -> list[str]:
        return [line for line in served.log.read_text().splitlines() if "find-me-1" in line]

    wait_until(lambda: len(lines()) >= 3, 10, served)
    for who in ("Ingress", "Retriever", "Reasoner"):
        (line,) = [line for line in lines() if f"_{who} " in line]
        assert "ms=" in line
    (ingress,) = [line for line in lines() if "_Ingress " in line]
    assert "status=200" in ingress
    assert "retrieve_ms=" in ingress


def test_no_room_is_a_429_that_says_when_to_try_again(served: Served) -> None:
    def ask(i: int) -> httpx.Response:
        # Long answers over kept connections: all 40 requests are there before the first answer is.
        return served.ask(f"{i}", mode="none", max_new_tokens=400)

    with ThreadPoolExecutor(40) as threads:
        responses = list(threads.map(ask, range(40)))
    refused = [r for r in responses if r.status_code != 200]
    assert 0 < len(refused) < 40
    for response in refused:
        check_error(response, 429, "overloaded", None)
        assert int(response.headers["retry-after"]) >= 1
    assert served.ask("And now?", mode="none").status_code == 200


def test_a_killed_replica_is_replaced(served: Served) -> None:
    (victim,) = served.replicas("Reasoner")
    victim.kill()
    errors = []

    def answers() -> bool:
        response = served.ask("Are you back?", image=image_of(1))
        if response.status_code != 200:
            errors.append(response)
        return response.status_code == 200

    start = time.monotonic()
    wait_until(answers, 90, served)
    print(f"{len(errors)} requests refused, back after {time.monotonic() - start:.1f} s")
    for response in errors:
        check_error(response, 503, "restarting", None)
        assert int(response.headers["retry-after"]) >= 1
    (replica,) = served.replicas("Reasoner")
    assert replica.pid != victim.pid
    wait_until(served.is_ready, 30, served)
