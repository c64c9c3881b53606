"""Running it: health, documents, logs, no room, a replica that is killed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
from fastapi.openapi.models import OpenAPI
from support.serving import Served, check_error, image_of, wait_until


def test_health(served: Served) -> None:
    assert served.client.get("/healthz").json() == {"status": "ok"}
    assert served.client.get("/readyz").json() == {"status": "ready"}


def document(served: Served) -> dict[str, Any]:
    response = served.client.get("/openapi.json")
    assert response.status_code == 200
    return dict(response.json())


def test_openapi_document_is_valid_and_whole(served: Served) -> None:
    api = document(served)
    OpenAPI.model_validate(api)
    assert set(api["paths"]) == {
        "/v1/answer",
        "/v1/retrieve",
        "/v1/items/{item_id}",
        "/v1/items/{item_id}/image",
        "/healthz",
        "/readyz",
    }
    statuses = set(api["paths"]["/v1/answer"]["post"]["responses"])
    assert statuses == {"200", "400", "413", "415", "422", "500", "503"}
    assert served.client.get("/docs").status_code == 200


def test_examples_of_the_document_are_right(served: Served) -> None:
    api = document(served)
    schemas = {"components": api["components"]}
    for name, path in (("AnswerRequest", "/v1/answer"), ("RetrieveRequest", "/v1/retrieve")):
        schema = api["components"]["schemas"][name]
        assert schema["additionalProperties"] is False
        for example in schema["examples"]:
            jsonschema.validate(example, {"$ref": f"#/components/schemas/{name}", **schemas})
            assert served.client.post(path, json=example).status_code == 200, example
    for response in api["paths"]["/v1/answer"]["post"]["responses"].values():
        for content in response["content"].values():
            if "example" in content:
                jsonschema.validate(content["example"], {**content["schema"], **schemas})


def test_a_real_error_is_as_documented(served: Served) -> None:
    api = document(served)
    error = served.ask("What?").json()
    jsonschema.validate(error, {"$ref": "#/components/schemas/ErrorReply", "components": api["components"]})


def test_each_replica_logs_a_line_with_the_request_id(served: Served) -> None:
    served.client.post(
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


def test_no_room_is_a_503_that_says_when_to_come_back(served: Served) -> None:
    def ask(i: int) -> httpx.Response:
        return httpx.post(
            f"{served.url}/v1/answer", json={"question": f"{i}", "mode": "none", "max_new_tokens": 80}, timeout=120
        )

    with ThreadPoolExecutor(40) as threads:
        responses = list(threads.map(ask, range(40)))
    refused = [r for r in responses if r.status_code != 200]
    assert 0 < len(refused) < 40
    for response in refused:
        check_error(response, 503, "overloaded", None)
        assert int(response.headers["retry-after"]) >= 1
    assert served.ask("And now?", mode="none").status_code == 200


def test_a_killed_replica_is_replaced(served: Served) -> None:
    (victim,) = served.replicas("Reasoner")
    victim.kill()
    bad = []

    def answers() -> bool:
        response = served.ask("Are you back?", image=image_of(1))
        if response.status_code != 200:
            bad.append(response)
        return response.status_code == 200

    start = time.monotonic()
    wait_until(answers, 90, served)
    print(f"{len(bad)} requests refused, back after {time.monotonic() - start:.1f} s")
    for response in bad:
        check_error(response, 503, "overloaded", None)
    (replica,) = served.replicas("Reasoner")
    assert replica.pid != victim.pid
    wait_until(served.is_ready, 30, served)
