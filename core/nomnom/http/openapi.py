"""The frame of an OpenAPI 3.1 document, and the parts that every service describes alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nomnom import __version__
from nomnom.problems import MEDIA_TYPE, ProblemDetails

_REFERENCE = "#/components/schemas/{name}"
RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def openapi_document(
    title: str,
    description: str,
    paths: Mapping[str, Any],
    schemas: Mapping[str, Any],
    *,
    security: Sequence[Mapping[str, Any]],
    security_schemes: Mapping[str, Any],
    tags: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The document of these paths."""
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": description},
        "security": list(security),
        "paths": dict(paths),
        "components": {"schemas": dict(schemas), "securitySchemes": dict(security_schemes)},
    }
    return {**document, "tags": list(tags)} if tags else document


def component_schemas(types: Iterable[type[msgspec.Struct]]) -> dict[str, dict[str, Any]]:
    """The schemas of these types and of those that they contain, by name.

    A field is required if it is always encoded; that is, unless its type omits fields that have their default.
    """
    listed = [*types, ProblemDetails]
    omitting = {each.__name__ for each in listed if each.__struct_config__.omit_defaults}
    (_, schemas) = msgspec.json.schema_components(listed, ref_template=_REFERENCE)
    for name, schema in schemas.items():
        if name not in omitting and "properties" in schema:
            schema["required"] = list(schema["properties"])
    return schemas


def reference(kind: type) -> dict[str, str]:
    """A reference to the schema of this type."""
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def problem_response(
    description: str, examples: Mapping[str, Any] | None = None, headers: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A response with problem details (RFC 9457)."""
    content: dict[str, Any] = {"schema": reference(ProblemDetails)}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    response: dict[str, Any] = {"description": description, "content": {MEDIA_TYPE.decode(): content}}
    return {**response, "headers": dict(headers)} if headers else response
