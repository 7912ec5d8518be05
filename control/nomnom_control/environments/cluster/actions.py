"""What can be done to a release as a whole, beside bringing it up and removing it."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nomnom_control.environments import EnvironmentAction, Progress, StartOption
from nomnom_control.environments.cluster.configuration import words
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    from nomnom_control.environments.cluster.configuration import ClusterConfiguration
    from nomnom_control.environments.cluster.environment import KubeEnvironment


def value_options(configuration: ClusterConfiguration, values: str = "", single: str = "") -> tuple[StartOption, ...]:
    """The choice of values files and single values, checked while typing."""

    def check(text: str) -> str | None:
        try:
            chosen_values(configuration, {"values": text})
        except ControlError as error:
            return str(error)
        return None

    return (
        StartOption("values", "Values files", values, "dev, prod, tpch, ecommerce or paths", check),
        StartOption("set", "Values", single, "name=value, with spaces between", _check_pairs),
    )


def chosen_values(configuration: ClusterConfiguration, values: Mapping[str, str]) -> tuple[list[Path], list[str]]:
    """The files and the single values of such choices; raises ControlError for a file that there is not."""
    return [configuration.values_file(each) for each in words(values.get("values", ""))], words(values.get("set", ""))


def value_arguments(values: Mapping[str, str]) -> str:
    """The command line's options for such choices."""
    found = [word for each in words(values.get("values", "")) for word in ("--values", each)]
    found += [word for each in words(values.get("set", "")) for word in ("--set", each)]
    return shlex.join(found)


def release_actions(here: KubeEnvironment) -> tuple[EnvironmentAction, ...]:
    """Upgrade, roll back, uninstall."""
    name, where = here.release.name, here.location

    def command(text: str, *more: str) -> str:
        return " ".join(each for each in ("nomnom", text, *more, *here.selector) if each)

    def upgrade(values: Mapping[str, str]) -> AsyncIterator[Progress]:
        return here.installation.install(*chosen_values(here.configuration, values), description="nomnom upgrade")

    def upgrade_plan(values: Mapping[str, str]) -> Sequence[str]:
        kept = "these values" if values.get("values") else "the values of before, and these"
        return (f"upgrade {name} on {where} to this chart with {kept}", "replace pods one by one, and wait until ready")

    def rollback(values: Mapping[str, str]) -> AsyncIterator[Progress]:
        return here.installation.rollback(int(values["revision"]) if values.get("revision") else None)

    def rollback_plan(values: Mapping[str, str]) -> Sequence[str]:
        which = f"revision {values['revision']}" if values.get("revision") else "the revision before"
        return (f"take back {name} on {where} to {which}", "tables and streams stay as they are")

    revision = StartOption("revision", "Revision", "", "empty: the one before (nomnom history release)", _check_number)
    return (
        EnvironmentAction(
            "upgrade",
            f"Upgrade {name}",
            upgrade,
            lambda values: command("upgrade --yes", value_arguments(values)),
            value_options(here.configuration),
            upgrade_plan,
        ),
        EnvironmentAction(
            "rollback",
            f"Roll {name} back",
            rollback,
            lambda values: command("rollback release", values.get("revision", "")),
            (revision,),
            rollback_plan,
        ),
        EnvironmentAction(
            "uninstall",
            f"Uninstall {name}, keep its data",
            lambda _: here.installation.uninstall(data=False),
            lambda _: command("uninstall --keep-data --yes"),
            plan=lambda _: (f"helm uninstall {name} on {where}", "wait until its pods are gone"),
            losses=(f"the pipeline on {where}; its volume claims stay",),
        ),
    )


def _check_pairs(text: str) -> str | None:
    try:
        wrong = next((each for each in words(text) if not each.partition("=")[1] or each.startswith("=")), None)
    except ControlError as error:
        return str(error)
    return None if wrong is None else f"expected name=value, found {wrong}"


def _check_number(text: str) -> str | None:
    return None if not text or (text.isdecimal() and int(text) > 0) else f"expected a number from 1 on, found {text}"
