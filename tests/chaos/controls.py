"""Pipelines with a protection switched off. A run with one of them must fail."""

from __future__ import annotations

EARLY_ACKS = """
import asyncio
from nomnom_worker.intake import Intake

class AcknowledgingEarly(Intake):
    def _receive(self, message):
        super()._receive(message)
        if message.reply:
            self.acking = asyncio.get_running_loop().create_task(self._link.respond([message.reply]))

import nomnom_worker.service
nomnom_worker.service.Intake = AcknowledgingEarly
"""
"""A worker that acknowledges messages when it receives them, before the commit."""

NO_POSITIONS = """
import nomnom_worker.deliveries

nomnom_worker.deliveries.position_of = lambda incarnation, sequence: 0
"""
"""A worker that knows no position of any message, as if an earlier version had accepted it."""
