"""The OpenAPI 3.1 document, generated from the operations and their parameter and response types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from nomnom import __version__
from nomnom.problems import MEDIA_TYPE, ProblemDetails
from nomnom_dashboard.answers import Snapshot
from nomnom_dashboard.operations import Operation

_REF = "#/components/schemas/{name}"
_PROBLEMS = {
    400: "A parameter is invalid; the detail says what is allowed.",
    401: "The token or password is missing or invalid.",
    404: "The requested object does not exist.",
    503: "PostgreSQL or NATS is unavailable or timed out. Retry after the time in Retry-After.",
}
_INTRODUCTION = """The current state and the history of a nomnom pipeline. Read-only.

Lists are paginated: pass `next` as `cursor` to get the next page. Small row counts are exact, large ones are estimates.
Every error is a problem details object (RFC 9457) whose `detail` says what to do."""


def document(operations: Iterable[Operation], *, title: str = "nomnom dashboard") -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    listed = list(operations)
    types = [each.answer for each in listed if each.answer is not None] + [each.query for each in listed]
    (_, components) = msgspec.json.schema_components([*types, Snapshot, ProblemDetails], ref_template=_REF)
    queries = {each.query.__name__ for each in listed}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": _INTRODUCTION},
        "security": [{}, {"token": []}, {"login": []}],
        "paths": {each.path: {"get": _operation(each, components)} for each in listed},
        "components": {
            "schemas": {name: _required(schema) for name, schema in components.items() if name not in queries},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "login": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _operation(each: Operation, components: Mapping[str, Any]) -> dict[str, Any]:
    query = components[each.query.__name__]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in each.path_parameters.items()
    ] + [_parameter(name, schema) for name, schema in query.get("properties", {}).items()]
    described: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "tags": [each.tag],
        "responses": _responses(each),
    }
    if parameters:
        described["parameters"] = parameters
    if each.open:
        described["security"] = [{}]
    return described


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    # A missing parameter is None in its type; a query string has no null.
    options = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    plain = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    default = schema.get("default")
    plain |= options[0] if options else {}
    if "enum" in plain:
        plain["enum"] = [each for each in plain["enum"] if each is not None]
    if default not in (None, []):
        plain["default"] = default
    parameter: dict[str, Any] = {"name": name, "in": "query", "required": False, "schema": plain}
    if description := plain.pop("description", None):
        parameter["description"] = description
    return parameter


def _responses(each: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    body = {"$ref": _REF.format(name=each.answer.__name__)} if each.answer else {"type": "string"}
    for status, description in each.answers.items():
        responses[str(status)] = {"description": description, "content": {each.media_type: {"schema": body}}}
    for status in each.problems:
        response: dict[str, Any] = {
            "description": _PROBLEMS[status],
            "content": {MEDIA_TYPE.decode(): {"schema": {"$ref": _REF.format(name="ProblemDetails")}}},
        }
        if status == 503:
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        responses[str(status)] = response
    return responses


def _required(schema: dict[str, Any]) -> dict[str, Any]:
    """Mark all properties as required: responses include fields that are null."""
    if schema.get("title") == "ProblemDetails" or "properties" not in schema:
        return schema
    return {**schema, "required": list(schema["properties"])}
