"""The OpenAPI document: complete, with examples, and nothing that it allows, or nearly allows, is a 500."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from prefrestore.serve.app import create_app
from prefrestore.serve.settings import Settings

ENDLESS = {"/api/v1/events"}
KNOWN = "ab" * 16


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of a service."""
    app = create_app(Settings(folder=tmp_path_factory.mktemp("served"), preset="tiny", example=False))
    document: dict[str, Any] = app.openapi()
    return document


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, one) for path, methods in document["paths"].items() for method, one in methods.items()]


def test_every_operation_says_what_it_is_and_how_it_fails(described: dict[str, Any]) -> None:
    for path, method, one in operations(described):
        assert one["summary"] and one["tags"], (method, path)
        failing = {status: answer for status, answer in one["responses"].items() if status >= "400"}
        assert {"401", "403"} <= set(failing), (method, path)
        for status, answer in failing.items():
            kinds = set(answer["content"])
            assert kinds == {"application/problem+json"} or (path, status) == ("/api/v1/health", "503"), (path, status)


def test_a_body_that_is_no_text_is_a_problem_that_is_told_of(client: Any, described: dict[str, Any]) -> None:
    tried = 0
    for path, method, one in operations(described):
        if "application/json" in one.get("requestBody", {}).get("content", {}):
            address = path.replace("{id}", KNOWN).replace("{k}", "0")
            answer = client.http.request(method, address, content=b"\xff", headers={"content-type": "application/json"})
            assert answer.status_code == 400 and answer.json()["detail"], (method, path, answer.text)
            assert "400" in one["responses"], (method, path)
            tried += 1
    assert tried == 5


def test_pictures_are_of_a_kind_that_is_told_of(client: Any, described: dict[str, Any]) -> None:
    from prefrestore.serve.routes.restorations import media_type

    for path in ("photo", "original"):
        told = described["paths"][f"/api/v1/restorations/{{id}}/{path}"]["get"]["responses"]["200"]["content"]
        for suffix in (".jpg", ".heic", ".jxl"):
            kind = media_type(Path(f"a{suffix}"))
            assert kind in told or (kind.startswith("image/") and "image/*" in told), kind


def test_what_is_sent_has_examples_that_are_accepted(described: dict[str, Any]) -> None:
    from prefrestore.serve import judgement_schemas, schemas

    shown = 0
    for name, schema in described["components"]["schemas"].items():
        for example in schema.get("examples", []):
            model = getattr(schemas, name, None) or getattr(judgement_schemas, name)
            if issubclass(model, schemas.Asked):
                model.model_validate_json(json.dumps(example))
                shown += 1
    assert shown >= 3


def test_the_docs_page_needs_nothing_from_elsewhere() -> None:
    page = Path(create_app.__code__.co_filename).parent / "page"
    for name in ("docs.html", "docs.js", "docs.css"):
        assert "://" not in (page / name).read_text()


def values(document: dict[str, Any], schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """JSON values that mostly fit a schema."""
    if "$ref" in schema:
        return values(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of([values(document, one) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        fields = {name: values(document, one) for name, one in schema.get("properties", {}).items()}
        required = {name: fields.pop(name) for name in schema.get("required", []) if name in fields}
        return st.fixed_dictionaries(required, optional=fields)
    if kind == "array":
        return st.lists(values(document, schema.get("items", {})), max_size=4)
    plain = {
        "integer": st.integers(-2, 12) | st.integers(),
        "number": st.floats(-1, 2) | st.floats(),
        "boolean": st.booleans(),
        "string": st.sampled_from([KNOWN, "first", "before"]) | st.text(max_size=20),
        "null": st.none(),
    }
    return plain.get(str(kind), st.none() | st.text(max_size=3))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(st.data())
def test_no_request_ends_in_an_error_of_the_service_s_own(
    client: Any, aunt: dict[str, Any], described: dict[str, Any], data: st.DataObject
) -> None:
    chosen = [one for one in operations(described) if one[0] not in ENDLESS]
    path, method, one = chosen[data.draw(st.integers(0, len(chosen) - 1))]
    query, headers = {}, {}
    for parameter in one.get("parameters", []):
        drawn = data.draw(values(described, parameter["schema"]) if data.draw(st.booleans()) else st.text(max_size=12))
        name, place = parameter["name"], parameter["in"]
        if place == "path":
            # What removes is asked of what is not there: the others go on to need it.
            known = name == "id" and method != "delete" and data.draw(st.booleans())
            text = aunt["id"] if known else quote(str(drawn).replace(".", ""), safe="", errors="replace") or "0"
            path = path.replace(f"{{{name}}}", text)
        elif place == "header":
            headers[name] = str(drawn).encode("ascii", "ignore").decode().replace("\r", "").replace("\n", "")
        else:
            query[name] = drawn if isinstance(drawn, (str, int, float, list)) else str(drawn)
    sent: dict[str, Any] = {}
    for kind, body in one.get("requestBody", {}).get("content", {}).items():
        drawn = data.draw(values(described, body["schema"]) if data.draw(st.booleans()) else ANYTHING)
        if kind == "application/json":
            sent = {"content": json.dumps(drawn), "headers": {"content-type": kind}}
        else:
            sent = {"files": {"photo": (data.draw(st.text(max_size=9)), data.draw(st.binary(max_size=99)))}}
            sent |= {"data": {"options": json.dumps(drawn)}}
    sent["headers"] = {**sent.get("headers", {}), **{name: value.strip() for name, value in headers.items()}}
    answer = client.http.request(method, path, params=query, **sent)
    assert answer.status_code < 500 or answer.status_code in (503, 507), answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", (method, path, answer.text)
        assert answer.json()["detail"]
