"""What the HTTP services share: sockets, shutdown and the documentation page."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from blacksheep import Request

from nomnom.http.documents import Documents
from nomnom.http.openapi import openapi_document
from nomnom.http.server import Server, listen, server_config
from nomnom.settings import SettingsError


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_port_in_use_is_reported_with_its_setting(host: str, shown: str) -> None:
    with listen("API_PORT", host, 0) as taken:
        port = taken.getsockname()[1]
        expected = f"API_PORT: cannot listen on {shown}:{port}: Address already in use; choose another port"
        with pytest.raises(SettingsError) as refused:
            listen("API_PORT", host, port)
    assert str(refused.value).startswith(expected)


def test_a_host_without_an_address_is_reported_with_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"API_PORT: cannot listen on nowhere\.invalid:80: .*Name or service"):
        listen("API_PORT", "nowhere.invalid", 80)


async def _application(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _serve(drain: float) -> tuple[Server, list[str], asyncio.Task[None]]:
    stopped: list[str] = []
    server = Server(server_config(_application, grace=1), lambda: stopped.append("stopping"), drain)
    serving = asyncio.create_task(server.serve([listen("PORT", "127.0.0.1", 0)]))
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.01)
    return server, stopped, serving


async def test_the_first_signal_drains_and_then_stops_the_server() -> None:
    server, stopped, serving = await _serve(drain=0.3)
    server.handle_exit(signal.SIGTERM, None)
    await asyncio.sleep(0.1)
    assert (stopped, server.should_exit) == (["stopping"], False)
    async with asyncio.timeout(10):
        await serving
    assert (stopped, server.force_exit) == (["stopping"], False)


async def test_a_second_signal_ends_the_drain_and_a_third_one_open_requests() -> None:
    server, stopped, serving = await _serve(drain=60)
    for expected in ((False, False), (True, False), (True, True)):
        server.handle_exit(signal.SIGTERM, None)
        assert (server.should_exit, server.force_exit) == expected
    async with asyncio.timeout(10):
        await serving
    assert stopped == ["stopping"]


async def test_the_documentation_page_needs_no_other_server() -> None:
    documents = Documents(openapi_document("some API", "", {}, {}, security=[], security_schemes={}))
    page = await documents.page(Request("GET", b"/docs", None))
    assert page.content is not None
    assert b"<title>some API</title>" in page.content.body
    assert b"http" not in page.content.body
    assert b"default-src 'self'" in (page.get_first_header(b"content-security-policy") or b"")
    request = Request("GET", b"/docs/x", None)
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        request.route_values = {"name": name}
        assert documents.asset(request) is not None
    request.route_values = {"name": "../secret"}
    assert documents.asset(request) is None
