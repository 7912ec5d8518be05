"""The account of a pipeline: verified as far as the housekeeper has not done so, then read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nomnom.account import CONFIRMATION, Account, Verifier, read_account

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

TRUSTED = 60.0
"""Seconds for which a verification is trusted; the housekeeper verifies everything in this time."""
_LOOKS = 8
"""How often what is missing is looked up again; the last ones are for a stream whose leader changed."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Verifies and reads the account."""

    _pipeline: Pipeline

    async def read(
        self, since: datetime | None = None, until: datetime | None = None, *, trusted: float = TRUSTED
    ) -> Account:
        """The account of the messages received from ``since`` on and before ``until``.

        What was not verified in the last ``trusted`` seconds is verified first. If something is missing, this waits for
        several seconds and looks it up again. Raises NatsUnavailable, DatabaseUnavailable, NotSetUp or another
        RequestError if the account cannot be determined.
        """
        pipeline = self._pipeline
        verifier = Verifier(pipeline.database, pipeline.jetstream, pipeline.streams)
        result = await verifier.verify_all(trusted)
        for _ in range(_LOOKS):
            if not result.suspicious:
                break
            await asyncio.sleep(CONFIRMATION)
            result = await verifier.verify_all(TRUSTED)
        return await read_account(pipeline.database, pipeline.jetstream, pipeline.streams, since, until)
