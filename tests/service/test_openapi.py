from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import schemathesis
from jsonschema_rs import Draft202012Validator
from starlette.routing import Route
from starlette.testclient import TestClient

from features.schema import Schema
from service.app import App, create_app
from service.limits import Limits
from service.openapi import document
from service.settings import Settings
from tests.service.linear import NO_CONTEXT, REJECTING, SCHEMA

Json = dict[str, Any]
BODIES = Path(__file__).parent / "bodies"
# The description itself, and the page that shows it.
NOT_DESCRIBED = {"/openapi.json", "/docs", "/docs/{name}"}


def request_validator(whole: Json, route: str) -> Draft202012Validator:
    """Judges bodies of a route as the document does."""
    body = whole["paths"][route]["post"]["requestBody"]["content"]["application/json"]
    return Draft202012Validator(body["schema"] | {"components": whole["components"]})


def references(document: Any) -> set[str]:
    """All that is referred to in a document."""
    if isinstance(document, list):
        return {found for one in document for found in references(one)}
    if not isinstance(document, dict):
        return set()
    return {document["$ref"]} if "$ref" in document else references(list(document.values()))


def test_every_public_route_is_described(client: TestClient) -> None:
    routes = [route for route in cast(App, client.app).routes if isinstance(route, Route)]
    described = client.get("/openapi.json").json()["paths"]
    assert {route.path for route in routes} - NOT_DESCRIBED == described.keys()
    for route in routes:
        methods = route.methods or set()
        assert ("HEAD" in methods) == ("GET" in methods), route.path
        if route.path in described:
            assert methods - {"HEAD"} == {method.upper() for method in described[route.path]}


@pytest.mark.parametrize("has_keys", [True, False])
@pytest.mark.parametrize("schema", [None, SCHEMA, NO_CONTEXT, REJECTING])
def test_the_document_is_valid_and_refers_to_what_it_holds(
    schema: Schema | None, has_keys: bool
) -> None:
    whole = document(schema, Limits(), has_keys)
    schemathesis.openapi.from_dict(whole).validate()
    held = {
        f"#/components/{kind}/{name}" for kind in whole["components"] for name in
        whole["components"][kind]
    }  # fmt: skip
    assert references(whole) <= held


def test_before_a_model_is_loaded_no_scoring_route_is_described(tmp_path: Path) -> None:
    client = TestClient(create_app(Settings(bundle=tmp_path)))  # its lifespan does not run
    assert "/score" not in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("route", ["/score", "/rank"])
def test_the_example_works(client: TestClient, route: str) -> None:
    whole = client.get("/openapi.json").json()
    content = whole["paths"][route]["post"]["requestBody"]["content"]["application/json"]
    request_validator(whole, route).validate(content["example"])
    answer = client.post(route, json=content["example"])
    assert answer.status_code == 200
    assert "warnings" not in answer.json()


def test_every_field_is_typed(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["Context"]["properties"]["age"]["type"] == ["number", "null"]
    assert "item" in schemas["Candidate"]["properties"]
    assert "item" not in schemas["Context"]["properties"]
    assert schemas["Candidate"]["properties"]["tags"]["type"] == ["array", "null"]


def test_the_document_judges_the_nasty_bodies_as_the_service_does(client: TestClient) -> None:
    whole = client.get("/openapi.json").json()
    judges = {route: request_validator(whole, f"/{route}") for route in ("score", "rank")}
    otherwise = set()
    for file in BODIES.glob("*/*.json"):
        if file.name.startswith("400."):  # no JSON, or too deep: nothing that a schema judges
            continue
        is_valid = judges[file.parent.name].is_valid(json.loads(file.read_bytes()))
        if is_valid != file.name.startswith("200."):
            otherwise.add(file.stem)
    # What JSON Schema cannot say, see service/body_schemas.py.
    assert otherwise == {"422.unequal_lengths.columns", "422.wrong_type.top-k-is-float"}
