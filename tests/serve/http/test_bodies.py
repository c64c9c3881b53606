"""The OpenAPI document: valid, whole, and its examples work."""

from __future__ import annotations

from typing import Any

import jsonschema
from fastapi.openapi.models import OpenAPI
from support.serving import Served


def document(served: Served) -> dict[str, Any]:
    response = served.http.get("/openapi.json")
    assert response.status_code == 200
    return dict(response.json())


def test_openapi_document_is_valid_and_whole(served: Served) -> None:
    api = document(served)
    OpenAPI.model_validate(api)
    assert set(api["paths"]) == {
        "/healthz",
        "/readyz",
        "/v1/answer",
        "/v1/chat/completions",
        "/v1/items",
        "/v1/items/{item_id}",
        "/v1/items/{item_id}/image",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/retrieve",
    }
    statuses = set(api["paths"]["/v1/answer"]["post"]["responses"])
    assert statuses == {"200", "400", "401", "408", "413", "415", "421", "422", "429", "500", "503", "504"}
    own = set(api["components"]["schemas"]) - {"HTTPValidationError", "ValidationError"}  # FastAPI's
    assert own == {
        "AddItemsReply",
        "AddItemsRequest",
        "Annotation",
        "AnswerReply",
        "AnswerRequest",
        "AssistantMessage",
        "ChatChoice",
        "ChatErrorBody",
        "ChatErrorReply",
        "ChatMessage",
        "ChatReply",
        "ChatRequest",
        "ChatUsage",
        "ContentPart",
        "ErrorBody",
        "ErrorReply",
        "ImageUrl",
        "ItemBody",
        "ItemReply",
        "ItemStatus",
        "ItemsReply",
        "ListedItem",
        "ModelBody",
        "ModelList",
        "ReadyReply",
        "RetrievalOptions",
        "RetrievalReply",
        "RetrieveReply",
        "RetrieveRequest",
        "SourceBody",
        "StatusReply",
        "StreamOptions",
        "UrlCitation",
        "UsageBody",
    }
    assert served.http.get("/docs").status_code == 200


def test_examples_of_the_document_are_right(served: Served) -> None:
    api = document(served)
    schemas = {"components": api["components"]}
    for name, path in (("AnswerRequest", "/v1/answer"), ("RetrieveRequest", "/v1/retrieve")):
        schema = api["components"]["schemas"][name]
        assert schema["additionalProperties"] is False
        for example in schema["examples"]:
            jsonschema.validate(example, {"$ref": f"#/components/schemas/{name}", **schemas})
            assert served.http.post(path, json=example).status_code == 200, example
    for response in api["paths"]["/v1/answer"]["post"]["responses"].values():
        for content in response["content"].values():
            if "example" in content:
                jsonschema.validate(content["example"], {**content["schema"], **schemas})


def test_a_real_error_is_as_documented(served: Served) -> None:
    api = document(served)
    error = served.ask("What?").json()
    jsonschema.validate(error, {"$ref": "#/components/schemas/ErrorReply", "components": api["components"]})
