"""Run helm for releases of the chart. Values are passed by file or by name; secrets are never passed."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nomnom_control.errors import ControlError
from nomnom_control.programs import ProgramError, run_lines, run_text

INSTALL = 180.0
"""Timeout of an installation or upgrade in seconds, without the wait for readiness."""


@dataclass(frozen=True, slots=True)
class HelmRevision:
    """One revision of a release."""

    number: int
    at: datetime
    status: str
    chart: str
    description: str


@dataclass(frozen=True)
class Helm:
    """helm for one release in one namespace of one context of a kubeconfig."""

    program: str
    namespace: str
    release: str
    context: str | None = None
    kubeconfig: Path | None = None

    def command(self, *arguments: str) -> list[str]:
        """A helm command line with namespace and context."""
        line = [self.program, *arguments, "--namespace", self.namespace]
        if self.context:
            line += ["--kube-context", self.context]
        if self.kubeconfig:
            line += ["--kubeconfig", str(self.kubeconfig)]
        return line

    async def upgrade(
        self,
        chart: Path,
        files: Sequence[Path] = (),
        values: Sequence[str] = (),
        *,
        reuse: bool = False,
        description: str = "",
        limit: float = INSTALL,
    ) -> AsyncIterator[str]:
        """Install the chart or upgrade the release; ``reuse`` keeps the values of the last revision."""
        arguments = ["upgrade", self.release, str(chart), "--install", "--create-namespace"]
        arguments += ["--timeout", f"{limit:.0f}s", "--history-max", "10"]
        if reuse:
            arguments.append("--reset-then-reuse-values")
        for each in files:
            arguments += ["--values", str(each)]
        for each in values:
            arguments += ["--set", each]
        if description:
            arguments += ["--description", description]
        async for line in run_lines(self.command(*arguments), limit=limit + 15):
            yield line

    async def uninstall(self, limit: float = 120.0) -> AsyncIterator[str]:
        """Remove the release and wait until its objects are deleted. Does nothing if it is not installed."""
        arguments = ["uninstall", self.release, "--ignore-not-found", "--wait", "--timeout", f"{limit:.0f}s"]
        arguments += ["--cascade", "foreground"]
        async for line in run_lines(self.command(*arguments), limit=limit + 15):
            yield line

    async def rollback(self, revision: int | None = None, limit: float = INSTALL) -> AsyncIterator[str]:
        """Roll back to a revision (default: the previous one)."""
        target = [] if revision is None else [str(revision)]
        arguments = ["rollback", self.release, *target, "--timeout", f"{limit:.0f}s", "--history-max", "10"]
        async for line in run_lines(self.command(*arguments), limit=limit + 15):
            yield line

    async def test(self, limit: float = 180.0) -> AsyncIterator[str]:
        """Run the chart's tests. Raises ProgramError if one fails."""
        arguments = ["test", self.release, "--timeout", f"{limit:.0f}s"]
        async for line in run_lines(self.command(*arguments), limit=limit + 15):
            yield line

    async def history(self) -> list[HelmRevision]:
        """The revisions of the release, newest first; empty if it is not installed."""
        try:
            text = await run_text(self.command("history", self.release, "--output", "json"))
        except ProgramError as error:
            if "not found" in str(error):
                return []
            raise
        found: list[dict[str, Any]] = json.loads(text)
        revisions = [
            HelmRevision(each["revision"], _moment(each["updated"]), each["status"], each["chart"], each["description"])
            for each in found
        ]
        return sorted(revisions, key=lambda each: -each.number)

    async def recover(self) -> AsyncIterator[str]:
        """Roll back an interrupted operation: helm refuses to change a release in a pending state."""
        revisions = await self.history()
        if not revisions or not revisions[0].status.startswith("pending-"):
            return
        last_good = next((each for each in revisions if each.status in ("deployed", "superseded")), None)
        step = self.uninstall() if last_good is None else self.rollback(last_good.number)
        yield f"rolling back an interrupted operation (status {revisions[0].status})"
        async for line in step:
            yield line


def _moment(text: str) -> datetime:
    # Go prints nanoseconds, and "Z" or an offset.
    microseconds = re.sub(r"(\.\d{6})\d+", r"\1", text)
    try:
        return datetime.fromisoformat(microseconds)
    except ValueError:
        raise ControlError(f"cannot parse the time that helm reported: {text}") from None
