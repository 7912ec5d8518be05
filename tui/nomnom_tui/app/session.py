"""The app's session: which environment was chosen, and what control opens to look into it."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

from nomnom_control.environments import Environment
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline


class NothingChosen(ControlError):  # noqa: N818  (it is a state more than an error)
    """No environment has been chosen yet."""

    def __init__(self) -> None:
        super().__init__("no environment is chosen: press 1 for the environments")


class Session:
    """Owns the chosen environment and, from the first use on, control's connections to its pipeline."""

    def __init__(self, environment: Environment | None = None, *, readonly: bool = False) -> None:
        self.readonly = readonly
        self._environment = environment
        self._pipeline: Pipeline | None = None
        self._opening = asyncio.Lock()

    @property
    def chosen(self) -> bool:
        """Whether an environment has been chosen."""
        return self._environment is not None

    @property
    def environment(self) -> Environment:
        """The chosen environment; raises NothingChosen."""
        if self._environment is None:
            raise NothingChosen
        return self._environment

    def command(self, text: str) -> str:
        """The command line that does this to the chosen environment."""
        return " ".join(("nomnom", text, *self.environment.selector))

    async def pipeline(self) -> Pipeline:
        """Control's connections to the pipeline, opened at the first use; raises ControlError where it is away."""
        async with self._opening:
            if self._pipeline is None:
                # Its libraries take a moment to import: keys are answered meanwhile.
                await asyncio.to_thread(import_module, "nomnom_control.session.pipeline")
                from nomnom_control.session.pipeline import Pipeline

                environment = self.environment
                self._pipeline = Pipeline(await environment.endpoints(), await environment.schema())
            return self._pipeline

    async def choose(self, environment: Environment) -> None:
        """Turn to another environment; what was open to the one before is closed."""
        await self.close()
        if self._environment is not None and self._environment is not environment:
            await self._environment.close()
        self._environment = environment

    async def close(self) -> None:
        """Close what is open."""
        async with self._opening:
            pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            await pipeline.close()
