"""The OpenAPI document, and a self-contained page that shows it."""

from __future__ import annotations

from pathlib import Path

import msgspec
from blacksheep import Content, Request, Response
from openapi_ui_bundles import swagger_ui

from nomnom.schema import Schema
from nomnom_api.errors import NotFoundError
from nomnom_api.openapi import document
from nomnom_api.settings import ApiSettings

_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nomnom ingest API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = b'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
_HTML, _CSS, _SCRIPT = b"text/html; charset=utf-8", b"text/css; charset=utf-8", b"text/javascript; charset=utf-8"
_POLICY = b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


class Documents:
    """Serves the OpenAPI document and its page."""

    def __init__(self, settings: ApiSettings, schema: Schema) -> None:
        self._document = msgspec.json.encode(document(settings, schema))
        folder = Path(swagger_ui.static_path)
        self._assets = {
            "swagger-ui.css": (_CSS, (folder / "swagger-ui.css").read_bytes()),
            "swagger-ui-bundle.js": (_SCRIPT, (folder / "swagger-ui-bundle.js").read_bytes()),
            "start.js": (_SCRIPT, _START),
        }

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json."""
        return Response(200, None, Content(b"application/json", self._document))

    async def page(self, _: Request) -> Response:
        """GET /docs."""
        return Response(200, [(b"content-security-policy", _POLICY)], Content(_HTML, _PAGE))

    async def asset(self, request: Request) -> Response:
        """GET /docs/{name}: scripts and styles of the page."""
        found = self._assets.get((request.route_values or {}).get("name") or "")
        if found is None:
            raise NotFoundError("no such file; see /docs")
        return Response(200, [(b"cache-control", b"public, max-age=86400")], Content(*found))
