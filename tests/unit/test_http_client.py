"""Control's HTTP client: what it follows, what it gives up on, and what it says then."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from conftest import free_port
from nomnom_control.http_client import HttpClient, HttpError
from nomnom_control.session.connections import Api, ApiRefused, ApiUnavailable

_LARGE = b"x" * 3_000_000


async def _answer(request: web.Request) -> web.StreamResponse:
    match request.path:
        case "/there":
            return web.Response(text="größer", headers={"X-Seen": request.headers.get("X-Given", "")})
        case "/moved":
            raise web.HTTPFound("/there")
        case "/size":
            return web.Response(text=str(len(await request.read())))
        case "/busy":
            return web.json_response({"detail": "the stream is full"}, status=503, headers={"Retry-After": "2"})
        case "/silent":
            await asyncio.sleep(30)
        case "/half":
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"half")
            assert request.transport is not None
            request.transport.abort()
            return response
        case "/cut":
            assert request.transport is not None
            request.transport.abort()
    return web.Response(status=404)


@pytest.fixture
async def address() -> AsyncIterator[str]:
    application = web.Application(client_max_size=16 * 1024 * 1024)
    application.router.add_route("*", "/{path:.*}", _answer)
    runner = web.AppRunner(application, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def nothing_left_open() -> AsyncIterator[None]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(each.message) for each in seen] == []


async def test_whole_response_is_read_for_any_status(address: str) -> None:
    async with nothing_left_open(), HttpClient(5, headers={"X-Given": "1"}) as client:
        found = await client.get(f"{address}/there")
        assert (found.status, found.text, found.headers["x-seen"]) == (200, "größer", "1")
        assert (await client.get(f"{address}/missing")).status == 404
        assert (await client.request("POST", f"{address}/size", content=_LARGE)).text == str(len(_LARGE))


async def test_redirects_are_optional(address: str) -> None:
    async with HttpClient(5) as client:
        assert (await client.get(f"{address}/moved")).status == 302
    async with HttpClient(5, redirects=True) as client:
        found = await client.get(f"{address}/moved")
        assert (found.status, found.url) == (200, f"{address}/there")


async def test_proxy_variables_are_optional(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with HttpClient(5) as client:
        assert (await client.get(f"{address}/there")).status == 200
    async with HttpClient(5, proxies=True) as client:
        with pytest.raises(HttpError, match=r"^connection refused$"):
            await client.get(f"{address}/there")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/silent", "timed out"),
        ("/cut", "the server closed the connection without a response"),
        ("/half", "the connection was closed during the response"),
    ],
)
async def test_failed_request_is_explained(address: str, path: str, problem: str) -> None:
    async with nothing_left_open(), HttpClient(0.3) as client:
        with pytest.raises(HttpError, match=f"^{problem}$"):
            await client.get(address + path)
        with pytest.raises(HttpError, match=f"^{problem}$"):
            await client.request("POST", address + path, content=b"x")


async def test_unavailable_api_and_error_response_are_different_errors(address: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    api = Api(nowhere)
    with pytest.raises(ApiUnavailable, match=f"the API at {nowhere} is .*: connection refused;"):
        await api.send("GET", "/there")
    await api.close()
    api = Api(address)
    with pytest.raises(ApiRefused, match="503: the stream is full") as refused:
        await api.send("POST", "/busy", content=b"x")
    assert (refused.value.status, refused.value.retry_after) == (503, 2.0)
    assert (await api.send("GET", "/there")).content == "größer".encode()
    await api.close()
