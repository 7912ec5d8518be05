"""The OpenAPI 3.1 document, made from the operations and the types that they take and answer."""

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
    400: "A parameter cannot be used; the detail says what is allowed.",
    401: "No token or password, or a wrong one.",
    404: "It does not exist.",
    503: "PostgreSQL or NATS is away, or took too long. Retry-After says when to ask again.",
}
_INTRODUCTION = """What a nomnom pipeline does now, and what it has done. Read only.

Lists are paged by `next`, which is sent back as `cursor`. Numbers of rows are exact while they are few, and estimates
beyond. Every error is a problem (RFC 9457) whose `detail` says what to do."""


def document(operations: Iterable[Operation], *, title: str = "nomnom dashboard") -> dict[str, Any]:
    """The document of these operations."""
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
    # A parameter that is not given is the null of its type: on the wire there is no null.
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
    """An answer holds all its fields, the null ones too."""
    if schema.get("title") == "ProblemDetails" or "properties" not in schema:
        return schema
    return {**schema, "required": list(schema["properties"])}
