"""``nomnom scale``, ``restart``, ``config``, ``history`` and ``rollback``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom_cli.options import Flag, Json, Target, open_environment
from nomnom_cli.prompts import UsageError

if TYPE_CHECKING:
    from nomnom.settings import Declaration
    from nomnom_control.environments.variables import SettingValue

_Whole = Annotated[int | None, Parameter(validator=Number(gte=0), show_default=False)]


async def scale(
    replicas: _Whole = None,
    /,
    *,
    auto: Flag = False,
    pause: Flag = False,
    minimum: Annotated[_Whole, Parameter(name="--min")] = None,
    maximum: Annotated[_Whole, Parameter(name="--max")] = None,
    threshold: _Whole = None,
    cooldown: Annotated[float | None, Parameter(validator=Number(gte=0), show_default=False)] = None,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """Show or change how the workers scale.

    A number pins the workers to that number; the other options change the autoscaling policy.

    Parameters
    ----------
    replicas
        Pin that many workers; autoscaling is paused until --auto.
    auto
        Resume autoscaling.
    pause
        Pause autoscaling at the current number of workers.
    minimum
        Minimum workers; 0 allows scale to zero.
    maximum
        Maximum workers.
    threshold
        Target lag (pending messages) per worker.
    cooldown
        Seconds without lag before scaling to zero.
    """
    from nomnom_cli.output import as_json
    from nomnom_control.environments import WORKER

    if sum((replicas is not None, auto, pause)) > 1:
        raise UsageError("a number, --auto and --pause exclude each other")
    here = open_environment(target)
    given = {"minimum": minimum, "maximum": maximum, "threshold": threshold, "cooldown": cooldown}
    changes = {name: value for name, value in given.items() if value is not None}
    if changes:
        await here.set_scaling_policy(replace((await here.scaling()).policy, **changes))
    if replicas is not None:
        await here.scale(WORKER, replicas)
    if pause:
        await here.pause_autoscaling()
    if auto:
        await here.resume_autoscaling()
    now = await here.scaling()
    if json:
        as_json(now)
        return
    _describe(now)


def _describe(now: object) -> None:
    from nomnom_cli.output import Cell, print_labelled, print_result
    from nomnom_control.environments import Scaling

    assert isinstance(now, Scaling)
    policy = now.policy
    lines: dict[str, Cell] = {
        "workers": f"{now.ready} ready of {now.actual}, {now.desired} desired",
        Term.STREAM_LAG: figures.count(now.lag),
        "policy": f"1 worker per {policy.threshold:,} pending, {policy.minimum}–{policy.maximum} workers, "
        f"cooldown {figures.duration(policy.cooldown)}, polled every {figures.duration(policy.polling)}",
        "decision": f"{now.decision}; {figures.when(now.decided_at)}",
    }
    if now.paused:
        print_result("Autoscaling is PAUSED; resume it with `nomnom scale --auto`", "bold yellow")
    print_labelled(lines)


async def restart(component: str, /, *, target: Target | None = None) -> None:
    """Restart a component without losing a message.

    Replicas are replaced one at a time; a new one is ready before the old one stops.

    Parameters
    ----------
    component
        api, worker, dashboard or housekeeper.
    """
    from nomnom_cli.output import show_progress

    await show_progress(open_environment(target).restart(component))


async def config(
    component: Annotated[str | None, Parameter(show_default=False)] = None,
    /,
    *changes: str,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """Show the settings, or change those of a component.

    Without changes, every setting is listed with its value, default and meaning; * marks a value that is not the
    default. Changes are checked first and then rolled out as a new revision.

    Parameters
    ----------
    component
        api, worker, dashboard or housekeeper; all by default.
    changes
        NAME=VALUE; NAME= sets the default again. A secret is read from a file, NAME=@PATH, or asked for, NAME.
    """
    from nomnom.settings import SERVICES
    from nomnom_cli.output import as_json, show_progress
    from nomnom_control.environments.variables import declaration_of, describe_settings

    here = open_environment(target)
    if component is not None and changes:
        changed = read_changes(declaration_of(component), changes)
        await show_progress(here.configure(component, changed, f"set {', '.join(changed)}"))
        return
    chosen = [component] if component is not None else list(SERVICES)
    found = {each: describe_settings(each, await here.variables(each)) for each in chosen}
    if json:
        as_json([each for settings in found.values() for each in settings])
        return
    for each, settings in found.items():
        _show_settings(each if len(found) > 1 else "", settings)


def _show_settings(title: str, settings: Sequence[SettingValue]) -> None:
    from nomnom_cli.output import Column, print_result, show_table

    if title:
        print_result(title, "bold")
    columns = (Column(""), Column("SETTING"), Column("VALUE", grows=True), Column("DEFAULT", grows=True))
    columns = (*columns, Column("UNIT"), Column("MEANING", grows=True, wraps=True))
    rows = [
        (
            "*" if each.changed else "",
            each.name,
            "(managed)" if each.value is None else each.value,
            each.default,
            each.unit,
            each.meaning,
        )
        for each in settings
    ]
    show_table(columns, rows, "no settings", unfolds=True)
    if title:
        print_result("")


async def history(component: str, /, *, json: Json = False, target: Target | None = None) -> None:
    """List the revisions of a component's settings, without secrets.

    Parameters
    ----------
    component
        api, worker, dashboard or housekeeper.
    """
    from nomnom_cli.output import Column, as_json, show_table

    found = await open_environment(target).history(component)
    if json:
        as_json(found)
        return
    columns = (Column("REVISION", right=True), Column("AT"), Column(""), Column("CAUSE", grows=True))
    columns = (*columns, Column("SETTINGS", grows=True))
    rows = [
        (
            str(each.number),
            figures.moment(each.at, zone=True),
            "now" if each.current else "",
            each.cause,
            " ".join(f"{name}={value}" for name, value in each.variables.items()),
        )
        for each in found
    ]
    show_table(columns, rows, f"no revisions of {component}")


async def rollback(
    component: str,
    revision: Annotated[int | None, Parameter(show_default=False)] = None,
    /,
    *,
    target: Target | None = None,
) -> None:
    """Roll out an earlier revision's settings again.

    Parameters
    ----------
    component
        api, worker, dashboard or housekeeper.
    revision
        Revision number (`nomnom history`). Default: the previous revision.
    """
    from nomnom_cli.output import show_progress

    await show_progress(open_environment(target).rollback(component, revision))


def read_pairs(settings: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a mapping; raises UsageError if one is not of that form."""
    found: dict[str, str] = {}
    for each in settings:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise UsageError(f"expected NAME=VALUE, found {each!r}")
        found[name] = value
    return found


def read_changes(declaration: type[Declaration], changes: Sequence[str]) -> dict[str, str]:
    """Settings to change, by name. Raises UsageError for a malformed change, and UnknownSettingError."""
    from nomnom_cli.prompts import ask_secret

    found: dict[str, str] = {}
    for each in changes:
        name, equals, value = each.partition("=")
        setting = declaration.find(name)
        if setting.secret and not equals:
            found[name] = ask_secret(name)
        elif not equals:
            raise UsageError(f"expected NAME=VALUE, found {name!r}")
        elif value.startswith("@") and setting.secret:
            found[name] = _read_file(name, value[1:])
        elif setting.holds_secret(value):
            # Other users of the machine see command lines, and the shell's history keeps them.
            raise UsageError(f"{name} is a secret: give it in a file ({name}=@PATH), or only {name} to be asked for it")
        else:
            found[name] = value
    return found


def _read_file(name: str, path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: {path} cannot be read: {error}") from error
