"""Single messages: accepted, or only validated."""

from __future__ import annotations

import asyncio
import time

import msgspec
from blacksheep import Content, Request, Response

from nomnom.envelope import idempotent_message_id, ingest_subject
from nomnom.grammar import Grammar, RecordError
from nomnom_api.answers import FieldProblem, ParsedRecord, Validation
from nomnom_api.bodies import receiver
from nomnom_api.identities import idempotency_key, timestamp
from nomnom_api.intake import Intake

JSON = b"application/json"
_LARGE = 32 * 1024
"""Payloads of at least this many bytes are parsed in a thread, to keep the event loop responsive."""
_PLACEHOLDER = "{message_id}"


class Messages:
    """Accepts and validates single messages."""

    def __init__(self, intake: Intake) -> None:
        self._schema, self._grammar = intake.schema, Grammar(intake.schema)
        self._bodies, self._publisher, self._keys = intake.bodies, intake.publisher, intake.keys
        self._clock, self._metrics = intake.clock, intake.metrics.requests

    async def accept(self, request: Request, caller: str) -> Response:
        """POST /api/ingest/message. Records are not validated here: invalid ones become dead letters."""
        given = dict(request.scope["headers"])
        key = given.get(b"idempotency-key")
        message_id = "" if key is None else idempotent_message_id(caller, idempotency_key(key))
        payload, text = await self._bodies.message(given, receiver(request))
        entity, duplicate = self._schema.entity_name(text), False
        begun = time.perf_counter()
        if key is None:
            message_id, received_at = await self._publisher.accept(entity, payload)
        else:
            subject = ingest_subject(entity, message_id)
            received_at, duplicate = await self._keys.publish(message_id, subject, payload, self._clock.now())
        self._metrics.accept(time.perf_counter() - begun)
        repeated = ""
        if duplicate:
            self._metrics.duplicates += 1
            repeated = ',"duplicate":true'
        # No part needs escaping; formatting takes half the time of an encoder.
        answer = f'{{"message_id":"{message_id}","status":"accepted","timestamp":"{timestamp(received_at)}"{repeated}}}'
        return Response(202, None, Content(JSON, answer.encode()))

    async def validate(self, request: Request, _: str) -> Response:
        """POST /api/ingest/validate."""
        given = dict(request.scope["headers"])
        payload, text = await self._bodies.message(given, receiver(request))
        answer = self._validation(text) if len(payload) < _LARGE else await asyncio.to_thread(self._validation, text)
        return Response(200, None, Content(JSON, answer))

    def _validation(self, text: str) -> bytes:
        entity = self._schema.entity_name(text)
        records: list[ParsedRecord] = []
        problems: list[FieldProblem] = []
        try:
            records = [ParsedRecord(each.entity.name, each.mapping()) for each in self._grammar.parse(text)]
        except RecordError as error:
            problems = [FieldProblem(*each) for each in error.problems]
        subject = ingest_subject(entity, _PLACEHOLDER)
        return msgspec.json.encode(Validation(not problems, entity, subject, records, problems))
