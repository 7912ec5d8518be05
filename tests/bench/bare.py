"""The API's ceiling: bare BlackSheep with the same route, request body and response, without any processing."""

from blacksheep import Application, Content, Request, Response

app = Application()
_ANSWER = (
    b'{"message_id":"01890a5d-ac96-774b-bcce-b302099a8057","status":"accepted",'
    b'"timestamp":"2024-01-01T00:00:00.000000Z"}'
)


@app.router.post("/api/ingest/message")
async def accept(request: Request) -> Response:
    """Read the body and respond like the API."""
    await request.read()
    return Response(202, None, Content(b"application/json", _ANSWER))
