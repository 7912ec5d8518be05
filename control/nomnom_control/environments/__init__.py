"""One interface to a pipeline, wherever it runs: on this machine, on a kind cluster, on any Kubernetes context.

Screens and commands use only this interface. Every long operation is an asynchronous iterator of :class:`Progress`:
closing the iterator (or cancelling its task) cancels the operation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nomnom.presentation.marks import Health, Step
from nomnom.scaling import CLUSTER_LIMIT, ScalingPolicy
from nomnom.settings.streams import StreamSettings
from nomnom_control.environments.variables import Variables, check_changes
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    from nomnom.schema import Schema

WORKER = "worker"
"""The component that scales with the backlog."""
HOUSEKEEPER = "housekeeper"
"""The component that moves what is too old."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One event of a long operation. ``step`` is the name of the step, the same in all its events."""

    step: str
    state: Step
    text: str = ""
    seconds: float | None = None
    """How long the step took; set when it is done or failed."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One process or pod of a component."""

    name: str
    state: str
    ready: bool
    started_at: datetime | None = None
    restarts: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the pipeline: desired and ready replicas, its health and the reason for it."""

    name: str
    desired: int
    ready: int
    health: Health
    version: str = ""
    detail: str = ""
    replicas: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of the pipeline's components for this user. Fields that may contain a password are not in repr."""

    api: str
    nats: str = field(repr=False)
    nats_monitor: str
    database: str = field(repr=False)
    dashboard: str | None = None
    api_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One log line of a component. ``fields`` is the structured part of a JSON line."""

    component: str
    replica: str
    at: datetime | None
    level: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Scaling:
    """The current scaling of the workers: numbers, and the last decision with its reason."""

    policy: ScalingPolicy
    lag: int | None
    desired: int
    actual: int
    ready: int
    paused: bool
    decided_at: datetime | None
    decision: str
    """The last decision and its reason, in one sentence."""


@dataclass(frozen=True, slots=True)
class ScalingSample:
    """The scaling at one moment: the lag, the desired and the actual number of workers."""

    at: datetime
    lag: int | None
    desired: int
    actual: int


@dataclass(frozen=True, slots=True)
class Revision:
    """One rollout of a component."""

    number: int
    at: datetime
    cause: str
    current: bool
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    """Set for this revision; secrets are hidden."""


@dataclass(frozen=True, slots=True)
class StartOption:
    """An option for starting an environment: a directory, a port, a schema."""

    name: str
    label: str
    value: str
    """The current value; empty if the environment chooses."""
    hint: str = ""
    check: Callable[[str], str | None] = field(default=lambda _: None, repr=False)
    """Returns what is wrong with a value, or None."""


@dataclass(frozen=True, slots=True)
class EnvironmentAction:
    """A long operation that an environment offers in addition to start, stop and destroy.

    ``values`` are the chosen values by option name.
    """

    name: str
    """The name on the command line, as in ``nomnom upgrade``."""
    title: str
    """What it does, in the imperative: Upgrade the release."""
    begin: Callable[[Mapping[str, str]], AsyncIterator[Progress]] = field(repr=False)
    command: Callable[[Mapping[str, str]], str] = field(repr=False)
    """Returns the equivalent command line."""
    options: tuple[StartOption, ...] = ()
    plan: Callable[[Mapping[str, str]], Sequence[str]] = field(default=lambda _: (), repr=False)
    losses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvironmentTemplate:
    """A kind of environment that can be created."""

    name: str
    title: str
    options: tuple[StartOption, ...]
    """The options that must be set before it can be started."""
    make: Callable[[Mapping[str, str]], Environment] = field(repr=False)
    """Returns the environment for these values without starting anything. Raises ControlError."""
    keep: Callable[[Mapping[str, str]], None] = field(default=lambda _: None, repr=False)
    """Saves the environment in the user's configuration file. Called when the environment is started."""


class Environment(ABC):
    """Where a pipeline runs. Every method raises ControlError with what failed and what to do."""

    kind: str
    name: str
    selector: tuple[str, ...] = ()
    """The command line options that select this environment; none if it is selected without options."""
    location: str = ""
    """Where it runs, as shown to users: a directory, a cluster's context."""
    worker_limit: int = CLUSTER_LIMIT
    """The most workers that a scaling policy or an operator may request."""

    async def close(self) -> None:  # noqa: B027 (there may be nothing to close)
        """Close the connections; the next call opens them again."""

    @abstractmethod
    async def components(self) -> list[Component]:
        """All components with desired and ready replicas and health."""

    @abstractmethod
    async def endpoints(self) -> Endpoints:
        """The addresses of the components; on a cluster this opens the port-forwards."""

    @abstractmethod
    def logs(
        self, components: Sequence[str] = (), *, follow: bool = False, tail: int | None = 100
    ) -> AsyncIterator[LogLine]:
        """Log lines of these components (default: all), merged; with ``follow``, across restarts until closed."""

    @abstractmethod
    async def scaling(self) -> Scaling:
        """The current scaling of the workers."""

    async def scaling_history(self) -> list[ScalingSample]:
        """Samples of the last minutes, oldest first; empty if the environment keeps no history."""
        return []

    @abstractmethod
    async def set_scaling_policy(self, policy: ScalingPolicy) -> None:
        """Replace the policy; it is kept over restarts. Raises ScalingError for one beyond :attr:`worker_limit`."""

    @abstractmethod
    async def scale(self, component: str, replicas: int) -> None:
        """Scale by hand. For the workers this pins their number until autoscaling is resumed."""

    @abstractmethod
    async def pause_autoscaling(self) -> None:
        """Pin the workers at their present number."""

    @abstractmethod
    async def resume_autoscaling(self) -> None:
        """Let the policy decide again."""

    async def streams(self) -> StreamSettings:
        """The names of the pipeline's streams and consumer."""
        return StreamSettings()

    async def schema(self) -> Schema:
        """The schema of the records that this pipeline accepts."""
        raise ControlError(f"{self.name} does not provide its schema")

    async def metrics(self, component: str) -> dict[str, str]:
        """The Prometheus metrics of each replica, as text by replica name, without replicas that do not respond."""
        return {}

    @abstractmethod
    def restart(self, component: str) -> AsyncIterator[Progress]:
        """Restart every replica, one after another, without losing or repeating a message."""

    async def configure(self, component: str, changes: Mapping[str, str], cause: str) -> AsyncIterator[Progress]:
        """Roll out a component with changed environment variables, as a new revision; an empty one means the default.

        Raises SettingsError or ControlError for an unknown setting or an invalid value before anything is changed.
        """
        check_changes(component, await self.variables(component), changes)
        async for each in self.roll_out(component, changes, cause):
            yield each

    @abstractmethod
    async def variables(self, component: str) -> Variables:
        """What a component is started with, secrets included."""

    @abstractmethod
    def roll_out(self, component: str, changes: Mapping[str, str], cause: str) -> AsyncIterator[Progress]:
        """What :meth:`configure` does after its checks."""

    @abstractmethod
    async def history(self, component: str) -> list[Revision]:
        """The component's revisions, newest first, without secrets."""

    @abstractmethod
    def rollback(self, component: str, revision: int | None = None) -> AsyncIterator[Progress]:
        """Roll out an earlier revision's variables (the one before by default) as a new revision."""

    def start_options(self) -> Sequence[StartOption]:
        """The options of :meth:`start`."""
        return ()

    def with_options(self, values: Mapping[str, str]) -> Environment:
        """The environment with these values (by option name) for :meth:`start`."""
        return self

    def command(self, operation: str) -> str:
        """The command line equivalent to ``start``, ``stop`` or ``destroy``."""
        text = {"start": "up --detach", "stop": "down", "destroy": "destroy --yes"}[operation]
        return " ".join(("nomnom", text, *self.selector))

    def plan(self, operation: str) -> Sequence[str]:
        """The steps that ``start``, ``stop`` or ``destroy`` would take."""
        return ()

    def losses(self) -> Sequence[str]:
        """What :meth:`destroy` would delete permanently."""
        return (f"everything in {self.location or self.name}",)

    def actions(self) -> Sequence[EnvironmentAction]:
        """Further operations on the environment as a whole."""
        return ()

    @abstractmethod
    def start(self) -> AsyncIterator[Progress]:
        """Install and set up the pipeline, and wait until it is ready."""

    @abstractmethod
    def stop(self) -> AsyncIterator[Progress]:
        """Stop the pipeline gracefully; data is kept."""

    @abstractmethod
    def destroy(self) -> AsyncIterator[Progress]:
        """Stop the pipeline and remove its data."""
