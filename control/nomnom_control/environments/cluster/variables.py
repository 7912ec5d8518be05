"""The environment variables of a release's components, from their Deployments."""

from __future__ import annotations

from collections.abc import Iterator

from nomnom.settings import HIDDEN, SERVICES, Settings, show_variables
from nomnom.settings.streams import StreamSettings
from nomnom_control.environments.cluster.api import Object
from nomnom_control.environments.variables import Managed, Variables

_SECRET = Managed("it comes from a Secret: change it there, or by the chart's values", HIDDEN)
_VALUES = {"NATS_STREAM": "nats.stream", "NATS_CONSUMER": "nats.consumer", "NOMNOM_SCHEMA": "schema.name"}
"""The chart's values of the settings that all components share."""


def read_variables(workload: Object) -> Variables:
    """What a component's pods are started with. Values from Secrets are not read."""
    given: dict[str, str] = {}
    managed: dict[str, Managed] = {}
    shared = {name for name, setting in Settings.declared().items() if setting.shared}
    for name, value in _entries(workload):
        if value is None:
            managed[name] = _SECRET
        elif name in shared:
            managed[name] = Managed(f"all components share it: the chart's value {_VALUES[name]} sets it", value)
        elif value:
            given[name] = value
    return Variables(given, managed)


def shown_variables(component: str, workload: Object) -> dict[str, str]:
    """The variables with values of their own, secrets hidden; none for a component without settings."""
    given = {name: value for name, value in _entries(workload) if value}
    return show_variables(component, given) if component in SERVICES else dict.fromkeys(given, HIDDEN)


def read_streams(workload: Object) -> StreamSettings:
    """The names of the streams that a component uses."""
    return Settings.read({name: value for name, value in _entries(workload) if value}).streams


def _entries(workload: Object) -> Iterator[tuple[str, str | None]]:
    """Names and values; None for a value that is a Secret's, or holds one."""
    for each in workload["spec"]["template"]["spec"]["containers"][0].get("env") or []:
        value = None if "valueFrom" in each else str(each.get("value") or "")
        yield each["name"], None if value is not None and "$(" in value else value
