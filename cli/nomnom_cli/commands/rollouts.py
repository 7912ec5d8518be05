"""``nomnom scale``, ``restart``, ``config``, ``history`` and ``rollback``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom_cli.options import Flag, Json, Target, open_environment
from nomnom_cli.prompts import UsageError

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
        await here.set_scaling_rule(replace((await here.scaling()).rule, **changes))
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
    from nomnom_cli.output import print_result, styled
    from nomnom_control.environments import Scaling

    assert isinstance(now, Scaling)
    rule = now.rule
    lines = {
        "workers": f"{now.ready} ready of {now.actual}, {now.desired} desired",
        Term.LAG: figures.count(now.lag),
        "policy": f"1 worker per {rule.threshold:,} pending, {rule.minimum}–{rule.maximum} workers, "
        f"cooldown {figures.duration(rule.cooldown)}, polled every {figures.duration(rule.polling)}",
        "decision": f"{now.decision}; {figures.when(now.decided_at)}",
    }
    if now.paused:
        print_result("Autoscaling is PAUSED; resume it with `nomnom scale --auto`", "bold yellow")
    for label, text in lines.items():
        print_result(styled(label.ljust(10), "dim").append(text, ""))


async def restart(component: str, /, *, target: Target | None = None) -> None:
    """Restart a component without losing a message.

    Replicas are replaced one at a time; a new one is ready before the old one stops.

    Parameters
    ----------
    component
        api, worker or dashboard.
    """
    from nomnom_cli.output import show_progress

    await show_progress(open_environment(target).restart(component))


async def config(component: str, /, *settings: str, json: Json = False, target: Target | None = None) -> None:
    """Change a component's settings, or show them.

    Changes are rolled out as a new revision; without any, the settings of now are shown.

    Parameters
    ----------
    component
        api, worker or dashboard.
    settings
        NAME=VALUE, as the component reads them from its environment; NAME= takes one back to its default.
    """
    from nomnom_cli.output import Column, as_json, show_progress, show_table

    here = open_environment(target)
    if settings:
        changed = read_pairs(settings)
        await show_progress(here.configure(component, changed, f"set {', '.join(changed)}"))
        return
    now = next((dict(each.settings) for each in await here.history(component) if each.current), {})
    if json:
        as_json(now)
    else:
        columns = (Column("SETTING"), Column("VALUE", grows=True))
        show_table(columns, sorted(now.items()), f"{component} has its defaults")


async def history(component: str, /, *, json: Json = False, target: Target | None = None) -> None:
    """List the revisions of a component's settings.

    Parameters
    ----------
    component
        api, worker or dashboard.
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
            " ".join(f"{name}={value}" for name, value in each.settings.items()),
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
        api, worker or dashboard.
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
