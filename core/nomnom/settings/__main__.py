"""``python -m nomnom.settings``: print docs/settings.md."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from nomnom.scaling import CLUSTER_LIMIT, LOCAL_LIMIT, ScalingPolicy, local_policy
from nomnom.settings import COMPONENTS, Settings
from nomnom.settings.declaration import Declaration, Setting

_INTRODUCTION = """\
# Settings

Every component reads its settings from environment variables. This page is generated from their declarations in
`core/nomnom/settings` (`python -m nomnom.settings > docs/settings.md`); `nomnom config` shows the same with the present
values.

- An empty variable means the default.
- A component that cannot use a setting does not start, and names the variable; it never repeats the value.
- Locally, variables in the environment of `nomnom up` apply to that run. `NATS_STREAM` and `NATS_CONSUMER` belong to
  the data and are kept. `nomnom config COMPONENT NAME=VALUE` changes one component and is kept, too.
- On a cluster, the chart's values set them. `nomnom config` changes the running components; an upgrade of the release
  sets what the chart sets again.
- Secrets are read from a file or a prompt (`nomnom config api NOMNOM_API_TOKENS=@tokens.txt`) and never shown.
"""
_TITLES = {
    "api": "api: ingest API",
    "worker": "worker",
    "dashboard": "dashboard: query API and page",
    "housekeeper": "housekeeper: expiry, archive and retention",
    "setup": "setup: `nomnom setup` and the chart's setup job",
    "nomnom": "nomnom: the program",
}


def document() -> str:
    """The text of docs/settings.md."""
    common = Settings.declared()
    parts = [_INTRODUCTION, _section("All components", Settings, Settings.declared().values())]
    for component, declaration in COMPONENTS.items():
        own = [each for name, each in declaration.declared().items() if name not in common]
        parts.append(_section(_TITLES[component], declaration, own))
    return "\n".join([*parts, _scaling()])


def _section(title: str, declaration: type[Declaration], settings: Iterable[Setting]) -> str:
    rows = [
        f"| `{each.name}` | {_code(each.default_text)} | {each.unit} | {each.expected} | "
        f"{each.meaning}{' (secret)' if each.secret else ''}{' (the same for all components)' if each.shared else ''} |"
        for each in settings
    ]
    head = ["| variable | default | unit | value | meaning |", "|---|---|---|---|---|"]
    return "\n".join([f"## {title}", "", str(declaration.__doc__), "", *head, *rows, ""])


def _scaling() -> str:
    cluster, local = ScalingPolicy(), local_policy()
    rows = {
        "minimum": (cluster.minimum, local.minimum, "", "Fewest workers; 0 allows scale to zero"),
        "maximum": (cluster.maximum, "CPUs, at least 2", "", "Most workers"),
        "threshold": (cluster.threshold, local.threshold, "messages", "Lag for each worker"),
        "cooldown": (
            f"{cluster.cooldown:g}",
            f"{local.cooldown:g}",
            "s",
            "Time without lag until the last worker ends",
        ),
        "polling": (f"{cluster.polling:g}", f"{local.polling:g}", "s", "Time between two readings of the lag"),
    }
    lines = [f"| {name} | {' | '.join(str(each) for each in cells)} |" for name, cells in rows.items()]
    return "\n".join(
        [
            "## Autoscaling policy\n",
            f"`nomnom scale` changes it; {LOCAL_LIMIT:,} workers at most locally, {CLUSTER_LIMIT:,} on a cluster.\n",
            "| value | default of the chart | default locally | unit | meaning |",
            "|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    sys.stdout.write(document())
