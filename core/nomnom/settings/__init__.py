"""All settings of all components, declared once: name, type, unit, default, limits, meaning, secret or not.

Validation at start, ``nomnom config``, docs/settings.md and the check of the chart's variables derive from these
declarations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nomnom.settings.api import ApiSettings
from nomnom.settings.common import Settings, without_secrets
from nomnom.settings.dashboard import DashboardSettings
from nomnom.settings.declaration import HIDDEN, Declaration, Setting, SettingsError, UnknownSettingError
from nomnom.settings.housekeeper import HousekeeperSettings
from nomnom.settings.program import ProgramSettings
from nomnom.settings.setup import SetupSettings
from nomnom.settings.worker import WorkerSettings

__all__ = [
    "COMPONENTS",
    "HIDDEN",
    "SERVICES",
    "ApiSettings",
    "DashboardSettings",
    "Declaration",
    "HousekeeperSettings",
    "ProgramSettings",
    "Setting",
    "Settings",
    "SettingsError",
    "SetupSettings",
    "UnknownSettingError",
    "WorkerSettings",
    "check_variables",
    "show_variables",
    "without_secrets",
]

SERVICES: Mapping[str, type[Settings]] = {
    "api": ApiSettings,
    "worker": WorkerSettings,
    "dashboard": DashboardSettings,
    "housekeeper": HousekeeperSettings,
}
"""The components that run all the time and can be configured one by one."""
COMPONENTS: Mapping[str, type[Declaration]] = {**SERVICES, "setup": SetupSettings, "nomnom": ProgramSettings}


def check_variables(component: str, variables: Mapping[str, str], hidden: Collection[str] = ()) -> None:
    """Raise SettingsError if the component would not start with these variables.

    ``hidden`` variables are set and their values not known here: what depends on them is not checked.
    """
    declaration = COMPONENTS[component]
    if declaration.TOGETHER.isdisjoint(hidden):
        declaration.from_environment(variables)
    else:
        declaration.read(variables)


def show_variables(component: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Variables as people may see them: secrets are hidden, and so are values that no declaration describes."""
    known = COMPONENTS[component].declared()
    return {name: known[name].show(value) if name in known else HIDDEN for name, value in variables.items()}
