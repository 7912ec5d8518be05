"""Which variables the local environment sets by itself, and which it takes from the shell of ``nomnom up``."""

from __future__ import annotations

from collections.abc import Mapping

from nomnom.settings import COMPONENTS, SERVICES, check_variables
from nomnom_control.environments import HOUSEKEEPER, WORKER
from nomnom_control.environments.local.instance import InstanceError, State
from nomnom_control.environments.variables import Managed, Variables

STREAMS = ("NATS_STREAM", "NATS_CONSUMER")
"""They name what is stored: an instance keeps them."""
_SERVERS = ("NATS_URL", "DATABASE_URL")
_READERS = ("setup", *SERVICES)


def managed_variables(component: str, state: State, servers: Mapping[str, str]) -> dict[str, Managed]:
    """What the supervisor sets for a component; ``servers`` are the variables with their URLs."""
    started = "it is set by nomnom up"
    found = {name: Managed(started, servers.get(name)) for name in _SERVERS}
    found["NOMNOM_SCHEMA"] = Managed("all components share it: nomnom up --schema sets it", state.schema)
    streams = state.streams
    for name, value in zip(STREAMS, (streams.stream, streams.consumer), strict=True):
        found[name] = Managed(f"all components share it: {name}=... nomnom up sets it for a new instance", value)
    if "NATS_MONITOR_URL" in COMPONENTS[component].declared():
        found["NATS_MONITOR_URL"] = Managed(started, servers.get("NATS_MONITOR_URL"))
    match component:
        case "api":
            host, ports = "NOMNOM_API_HOST", {"NOMNOM_API_PORT": "api"}
        case "dashboard":
            host = "NOMNOM_DASHBOARD_HOST"
            ports = {"NOMNOM_DASHBOARD_PORT": "dashboard", "NOMNOM_DASHBOARD_PAGE_PORT": "page"}
        case _:
            assert component in (WORKER, HOUSEKEEPER)
            host, ports = f"{component.upper()}_HEALTH_HOST", {f"{component.upper()}_HEALTH_PORT": ""}
    found[host] = Managed("the local environment listens on loopback only", "127.0.0.1")
    for name, port in ports.items():
        option = f"nomnom up --{port}-port sets it" if port else f"each {component} gets a free port"
        found[name] = Managed(option, str(state.ports[port]) if port in state.ports else None)
    return found


def component_variables(component: str, state: State, servers: Mapping[str, str]) -> Variables:
    """What a component is started with: the shell's settings, those of its revision, and what the supervisor sets."""
    managed = managed_variables(component, state, servers)
    known = COMPONENTS[component].declared()
    shell = {name: value for name, value in state.variables.items() if name in known}
    given = {"LOG_FORMAT": "json", **shell, **state.revision(component)}
    return Variables({name: value for name, value in given.items() if name not in managed}, managed)


def take_variables(state: State, shell: Mapping[str, str]) -> None:
    """Take the settings of the shell of ``nomnom up`` into the state.

    Raises SettingsError for one that cannot be used, and InstanceError for another stream than the one that is there.
    """
    own = {name for component in SERVICES for name in managed_variables(component, state, {})} - set(STREAMS)
    names = {name for each in _READERS for name in COMPONENTS[each].declared()} - own
    given = {name: value for name, value in shell.items() if value and name in names}
    for component in _READERS:
        check_variables(component, given)
    kept = {name: value for name, value in state.variables.items() if name in STREAMS}
    before, state.variables = state.streams, {**kept, **given}
    if state.ports and state.streams != before:
        raise InstanceError(
            f"this instance keeps its messages in stream {before.stream} with consumer {before.consumer}: unset "
            f"{' and '.join(STREAMS)}, or start another instance with --dir"
        )
