"""helm as a program: releases of the chart. Values go by file or by name, secrets never."""

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
"""Seconds that an installation or an upgrade may take; readiness is waited for elsewhere."""


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
    """helm for one release in one namespace of one context."""

    program: str
    namespace: str
    release: str
    context: str | None = None
    kubeconfig: Path | None = None

    def command(self, *arguments: str) -> list[str]:
        """A command line, with where it acts."""
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
        """Install the chart, or upgrade the release; ``reuse`` keeps the values of the last revision."""
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
        """Remove the release and wait until its objects are gone; nothing where there is none."""
        arguments = ["uninstall", self.release, "--ignore-not-found", "--wait", "--timeout", f"{limit:.0f}s"]
        arguments += ["--cascade", "foreground"]
        async for line in run_lines(self.command(*arguments), limit=limit + 15):
            yield line

    async def rollback(self, revision: int | None = None, limit: float = INSTALL) -> AsyncIterator[str]:
        """Take an earlier revision's objects again (the one before by default)."""
        which = [] if revision is None else [str(revision)]
        arguments = ["rollback", self.release, *which, "--timeout", f"{limit:.0f}s", "--history-max", "10"]
        async for line in run_lines(self.command(*arguments), limit=limit + 15):
            yield line

    async def test(self, limit: float = 180.0) -> AsyncIterator[str]:
        """Run the release's own tests; raises ProgramError where one fails."""
        arguments = ["test", self.release, "--timeout", f"{limit:.0f}s"]
        async for line in run_lines(self.command(*arguments), limit=limit + 15):
            yield line

    async def history(self) -> list[HelmRevision]:
        """The release's revisions, newest first; none where it is not installed."""
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

    async def mend(self) -> AsyncIterator[str]:
        """Clear what an interrupted run left: helm refuses a release that is still being changed."""
        revisions = await self.history()
        if not revisions or not revisions[0].status.startswith("pending-"):
            return
        good = next((each for each in revisions if each.status in ("deployed", "superseded")), None)
        step = self.uninstall() if good is None else self.rollback(good.number)
        yield f"the last run was interrupted ({revisions[0].status}): it is taken back first"
        async for line in step:
            yield line


def _moment(text: str) -> datetime:
    # Go writes nanoseconds, and "Z" or an offset.
    cut = re.sub(r"(\.\d{6})\d+", r"\1", text)
    try:
        return datetime.fromisoformat(cut)
    except ValueError:
        raise ControlError(f"helm told a time that cannot be read: {text}") from None
