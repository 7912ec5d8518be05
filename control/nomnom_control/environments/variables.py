"""A component's environment variables: which are set, what they mean, and which changes are possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nomnom.settings import SERVICES, Declaration, SettingsError, check_variables
from nomnom_control.errors import ControlError


@dataclass(frozen=True, slots=True)
class Managed:
    """A variable that the environment sets by itself."""

    how: str
    """How its value is changed, as in "set it with nomnom up --port"."""
    value: str | None = field(default=None, repr=False)
    """None if the replicas have different values."""


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables that a component is started with. The values include secrets: they must not be shown."""

    given: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    managed: Mapping[str, Managed] = field(default_factory=dict[str, Managed])


@dataclass(frozen=True, slots=True)
class SettingValue:
    """A setting of a component as shown to users, without secrets."""

    component: str
    name: str
    value: str | None
    """None if the replicas have different values."""
    default: str
    changed: bool
    """Whether the value differs from the default."""
    unit: str
    expected: str
    meaning: str
    secret: bool
    managed: str
    """How the environment changes it; empty if ``nomnom config`` does."""


def declaration_of(component: str) -> type[Declaration]:
    """The settings that a component declares. Raises ControlError if it has none that can be changed."""
    if component not in SERVICES:
        raise ControlError(f"{component} has no settings of its own; {', '.join(SERVICES)} have")
    return SERVICES[component]


def describe_settings(component: str, variables: Variables) -> list[SettingValue]:
    """Every setting of a component, in the order of its declaration."""
    found: list[SettingValue] = []
    for name, setting in declaration_of(component).declared().items():
        managed = variables.managed.get(name)
        text = managed.value if managed else variables.given.get(name, "")
        found.append(
            SettingValue(
                component,
                name,
                text if text is None else setting.show(text or setting.default_text),
                setting.show(setting.default_text),
                text is None or (text != "" and setting.differs(text)),
                setting.unit,
                setting.expected,
                setting.meaning,
                setting.secret,
                managed.how if managed else "",
            )
        )
    return found


def check_changes(component: str, variables: Variables, changes: Mapping[str, str]) -> None:
    """Raise SettingsError if a component cannot be started with these changes. Nothing is changed by this."""
    declaration = declaration_of(component)
    for name in changes:
        declaration.find(name)
        if name in variables.managed:
            raise SettingsError(f"{name} cannot be set for one component: {variables.managed[name].how}")
    wanted = {name: value for name, value in {**variables.given, **changes}.items() if value}
    check_variables(component, wanted, hidden=variables.managed.keys())
