"""Log lines of the components, wherever they run: the formats of nomnom, nats-server and PostgreSQL."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec

from nomnom_control.environments import LogLine

_NATS = re.compile(r"\[\d+\] (?P<at>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d+) \[(?P<level>\w{3})\] (?P<text>.*)")
_NATS_LEVELS = {"INF": "info", "DBG": "debug", "TRC": "debug", "WRN": "warning", "ERR": "error", "FTL": "error"}
_POSTGRES = re.compile(r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) \w+ \[\d+\] (?P<level>[A-Z]+\d?):\s+(?P<text>.*)")
_POSTGRES_LEVELS = {"WARNING": "warning", "ERROR": "error", "FATAL": "error", "PANIC": "error"}


def parse_line(component: str, line: str) -> LogLine:
    """Parse a log line: nomnom's JSON, the formats of nats-server and PostgreSQL, or plain text."""
    if line.startswith("{"):
        try:
            given = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            return LogLine(component, component, None, "info", line)
        at, level, event = given.pop("timestamp", None), given.pop("level", "info"), given.pop("event", "")
        moment = datetime.fromisoformat(at) if at else None
        return LogLine(component, component, moment, str(level), str(event), given)
    for pattern, levels, form in (
        (_NATS, _NATS_LEVELS, "%Y/%m/%d %H:%M:%S.%f"),
        (_POSTGRES, _POSTGRES_LEVELS, "%Y-%m-%d %H:%M:%S.%f"),
    ):
        if match := pattern.match(line):
            moment = datetime.strptime(match["at"], form).astimezone()
            return LogLine(component, component, moment, levels.get(match["level"], "info"), match["text"])
    return LogLine(component, component, None, "info", line)
