"""The OpenAPI document, and a self-contained page that shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from blacksheep import Content, Request, Response
from openapi_ui_bundles import swagger_ui

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
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
_PAGE_HEADERS = (
    (b"cache-control", b"no-cache"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        b"frame-ancestors 'none'; base-uri 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


def page_response(body: bytes) -> Response:
    """An HTML page that may load from its own server only."""
    return Response(200, list(_PAGE_HEADERS), Content(_HTML, body))


class Documents:
    """Serves ``/openapi.json``, ``/docs`` and ``/docs/{name}``."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = msgspec.json.encode(document)
        self._page = _PAGE.format(title=document["info"]["title"]).encode()
        folder = Path(swagger_ui.static_path)
        self._assets = {
            "swagger-ui.css": (_CSS, (folder / "swagger-ui.css").read_bytes()),
            "swagger-ui-bundle.js": (_SCRIPT, (folder / "swagger-ui-bundle.js").read_bytes()),
            "start.js": (_SCRIPT, _START),
        }

    async def openapi(self, _: Request) -> Response:
        """The document."""
        return Response(200, None, Content(b"application/json", self._document))

    async def page(self, _: Request) -> Response:
        """The page."""
        return page_response(self._page)

    def asset(self, request: Request) -> Response | None:
        """A file of the page, by the route's ``name``; None if there is none of that name."""
        found = self._assets.get((request.route_values or {}).get("name") or "")
        if found is None:
            return None
        return Response(200, [(b"cache-control", b"public, max-age=86400")], Content(*found))
