"""What we serve keeps to the contract, all of it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import ApiClient


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """tests/contract/check.py as it came with the contract."""
    path = Path(__file__).with_name("check.py")
    spec = importlib.util.spec_from_file_location("contract_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document() -> Any:
    response = ApiClient().get("/openapi.json")
    assert response.status_code == 200
    return response.json()


def test_the_whole_contract_is_served(check: ModuleType, document: Any) -> None:
    departures, kept = check.check(document)
    assert departures == []
    assert kept == len(check.CONTRACT["operations"])


def operations(document: Any) -> list[tuple[str, str, Any]]:
    return [
        (method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def test_each_operation_says_who_may_call_it_and_how_it_fails(document: Any) -> None:
    for method, path, operation in operations(document):
        label = f"{method} {path}"
        assert "security" in operation, label
        assert {"400", "500", "503"} <= set(operation["responses"]), label
        # What is open to everybody may still find that nobody has signed in.
        assert "401" in operation["responses"] or not operation["security"], label
        assert operation["tags"], label


def test_request_bodies_are_closed_and_json_only(document: Any) -> None:
    def check_closed(schema: Any, where: str) -> None:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            check_closed(document["components"]["schemas"][name], f"{where} ({name})")
        elif "properties" in schema:
            assert schema["additionalProperties"] is False, where
            for key, inner in schema["properties"].items():
                check_closed(inner, f"{where}.{key}")
        elif "items" in schema:
            check_closed(schema["items"], f"{where}[]")

    for method, path, operation in operations(document):
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]
            assert list(content) == ["application/json"], (method, path)
            check_closed(content["application/json"]["schema"], f"{method} {path}")


def test_every_route_of_the_document_asks_for_credentials_or_is_public(
    document: Any, anonymous_api: ApiClient, db: None
) -> None:
    for method, path, operation in operations(document):
        if operation["security"]:
            url = path.replace("{", "").replace("}", "")
            response = anonymous_api.generic(method, url)
            assert response.status_code == 401, (method, path)
            assert response["WWW-Authenticate"] == "Bearer"
            assert response.json()["code"] == "UNAUTHORIZED"


def test_the_document_is_the_same_each_time(document: Any) -> None:
    from opencrane.api import schema

    first = schema.document_json()
    schema.document_json.cache_clear()
    assert schema.document_json() == first
    assert json.loads(first) == document


def test_the_document_and_its_reading_room_need_no_credentials(anonymous_api: ApiClient, db: None) -> None:
    page = anonymous_api.get("/api/docs")
    assert page.status_code == 200
    assert b"//" not in page.content.replace(b"<!doctype", b"")
    for asset in ("drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js", "opencrane/docs.js"):
        assert asset.encode() in page.content
        response = anonymous_api.get(f"/static/{asset}")
        assert response.status_code == 200
        response.close()
