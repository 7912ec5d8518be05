"""The app's session: the selected environment and the connections to its pipeline."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

from nomnom_control.environments import Environment
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline


class NothingChosen(ControlError):  # noqa: N818  (it is a state more than an error)
    """No environment has been selected yet."""

    def __init__(self) -> None:
        super().__init__("no environment selected; press 1 to select one")


class Session:
    """Owns the selected environment and, from the first use on, the connections to its pipeline."""

    def __init__(self, environment: Environment | None = None, *, readonly: bool = False) -> None:
        self.readonly = readonly
        self._environment = environment
        self._pipeline: Pipeline | None = None
        self._opening = asyncio.Lock()

    @property
    def chosen(self) -> bool:
        """Whether an environment has been selected."""
        return self._environment is not None

    @property
    def environment(self) -> Environment:
        """The selected environment; raises NothingChosen."""
        if self._environment is None:
            raise NothingChosen
        return self._environment

    def command(self, text: str) -> str:
        """Return the ``nomnom`` command line for the selected environment."""
        return " ".join(("nomnom", text, *self.environment.selector))

    async def pipeline(self) -> Pipeline:
        """Return the connections to the pipeline, opened on first use; raises ControlError if it is unavailable."""
        async with self._opening:
            if self._pipeline is None:
                # Its libraries take a moment to import: do it in a thread so that keys stay responsive.
                await asyncio.to_thread(import_module, "nomnom_control.session.pipeline")
                from nomnom_control.session.pipeline import Pipeline

                environment = self.environment
                self._pipeline = await Pipeline.of(environment)
            return self._pipeline

    async def choose(self, environment: Environment) -> None:
        """Switch to another environment; closes the connections to the previous one."""
        await self.close()
        if self._environment is not None and self._environment is not environment:
            await self._environment.close()
        self._environment = environment

    async def close(self) -> None:
        """Close the connections to the pipeline."""
        async with self._opening:
            pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            await pipeline.close()
