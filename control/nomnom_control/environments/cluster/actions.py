"""Operations on a whole release: upgrade, rollback, uninstall."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nomnom_control.environments import EnvironmentAction, Progress, StartOption
from nomnom_control.environments.cluster.configuration import split_args
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    from nomnom_control.environments.cluster.configuration import ClusterConfiguration
    from nomnom_control.environments.cluster.environment import KubeEnvironment


def value_options(configuration: ClusterConfiguration, values: str = "", single: str = "") -> tuple[StartOption, ...]:
    """The options for values files and single values, checked while typing."""

    def check(text: str) -> str | None:
        try:
            chosen_values(configuration, {"values": text})
        except ControlError as error:
            return str(error)
        return None

    return (
        StartOption(
            "values", "Values files", values, "dev, prod, tpch, ecommerce or paths, separated by spaces", check
        ),
        StartOption("set", "Values", single, "name=value, separated by spaces", _check_pairs),
    )


def chosen_values(configuration: ClusterConfiguration, values: Mapping[str, str]) -> tuple[list[Path], list[str]]:
    """The files and the single values of these options. Raises ControlError for a file that does not exist."""
    return [configuration.values_file(each) for each in split_args(values.get("values", ""))], split_args(
        values.get("set", "")
    )


def value_arguments(values: Mapping[str, str]) -> str:
    """The equivalent command line options."""
    found = [argument for each in split_args(values.get("values", "")) for argument in ("--values", each)]
    found += [argument for each in split_args(values.get("set", "")) for argument in ("--set", each)]
    return shlex.join(found)


def release_actions(here: KubeEnvironment) -> tuple[EnvironmentAction, ...]:
    """Upgrade, roll back, uninstall."""
    name, where = here.release.name, here.location

    def command(text: str, *more: str) -> str:
        return " ".join(each for each in ("nomnom", text, *more, *here.selector) if each)

    def upgrade(values: Mapping[str, str]) -> AsyncIterator[Progress]:
        return here.installation.install(*chosen_values(here.configuration, values), description="nomnom upgrade")

    def upgrade_plan(values: Mapping[str, str]) -> Sequence[str]:
        chosen = "these values" if values.get("values") else "the current values and these"
        return (
            f"upgrade {name} on {where} to this chart with {chosen}",
            "replace the pods one by one; wait until ready",
        )

    def rollback(values: Mapping[str, str]) -> AsyncIterator[Progress]:
        return here.installation.rollback(int(values["revision"]) if values.get("revision") else None)

    def rollback_plan(values: Mapping[str, str]) -> Sequence[str]:
        target = f"revision {values['revision']}" if values.get("revision") else "the previous revision"
        return (f"roll {name} on {where} back to {target}", "tables and streams are not changed")

    revision = StartOption(
        "revision", "Revision", "", "default: the previous one; list: nomnom history release", _check_number
    )
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
            f"Uninstall {name} and keep its data",
            lambda _: here.installation.uninstall(data=False),
            lambda _: command("uninstall --keep-data --yes"),
            plan=lambda _: (f"helm uninstall {name} on {where}", "wait until its pods have terminated"),
            losses=(f"the pipeline on {where}; its volume claims are kept",),
        ),
    )


def _check_pairs(text: str) -> str | None:
    try:
        invalid = next((each for each in split_args(text) if not each.partition("=")[1] or each.startswith("=")), None)
    except ControlError as error:
        return str(error)
    return None if invalid is None else f"expected name=value, found {invalid}"


def _check_number(text: str) -> str | None:
    return (
        None if not text or (text.isdecimal() and int(text) > 0) else f"expected a number of at least 1, found {text}"
    )
