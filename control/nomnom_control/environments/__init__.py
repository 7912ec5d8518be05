"""One interface for wherever a pipeline runs: this machine, a kind cluster, any Kubernetes context.

Screens and commands use only this; what is behind it is the environment's own. Every long operation is an asynchronous
iterator of :class:`Progress`: closing the iterator (or cancelling its task) cancels the operation.
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


@dataclass(frozen=True, slots=True)
class Progress:
    """One event of a long operation. ``step`` names the step and stays the same over its events."""

    step: str
    state: Step
    text: str = ""
    seconds: float | None = None
    """How long the step took, once it is done or failed."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One process or pod of a component."""

    name: str
    state: str
    ready: bool
    started_at: datetime | None = None
    restarts: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the pipeline: what is wanted, what is there, how it is and why."""

    name: str
    desired: int
    ready: int
    health: Health
    version: str = ""
    detail: str = ""
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the pipeline's parts answer for this user. What may hold a password is left out of repr."""

    api: str
    nats: str = field(repr=False)
    nats_monitor: str
    database: str = field(repr=False)
    dashboard: str | None = None
    api_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a component wrote. ``fields`` is its structured part where it is JSON."""

    component: str
    instance: str
    at: datetime | None
    level: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Scaling:
    """The workers' scaling, now: numbers, and the last decision with its reason."""

    policy: ScalingPolicy
    lag: int | None
    desired: int
    actual: int
    ready: int
    paused: bool
    decided_at: datetime | None
    decision: str
    """What was decided last and why, as one sentence."""


@dataclass(frozen=True, slots=True)
class ScalingSample:
    """The scaling at one moment: what waited, how many workers were wanted, how many there were."""

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
    """Something that a person may choose when an environment is started: a directory, a port, a schema."""

    name: str
    label: str
    value: str
    """The present choice; empty where the environment chooses."""
    hint: str = ""
    check: Callable[[str], str | None] = field(default=lambda _: None, repr=False)
    """What is wrong with a value, or None."""


@dataclass(frozen=True, slots=True)
class EnvironmentAction:
    """A long operation that an environment offers beside starting, stopping and destroying it.

    ``values`` are the choices by the options' names.
    """

    name: str
    """Its name on the command line, as in ``nomnom upgrade``."""
    title: str
    """What it does, as an imperative: Upgrade the release."""
    begin: Callable[[Mapping[str, str]], AsyncIterator[Progress]] = field(repr=False)
    command: Callable[[Mapping[str, str]], str] = field(repr=False)
    """The command line that does the same."""
    options: tuple[StartOption, ...] = ()
    plan: Callable[[Mapping[str, str]], Sequence[str]] = field(default=lambda _: (), repr=False)
    losses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvironmentTemplate:
    """A kind of environment that can be made where none is yet."""

    name: str
    title: str
    options: tuple[StartOption, ...]
    """What has to be chosen before there is anything to start."""
    make: Callable[[Mapping[str, str]], Environment] = field(repr=False)
    """The environment of these choices; nothing is done yet. Raises ControlError."""
    keep: Callable[[Mapping[str, str]], None] = field(default=lambda _: None, repr=False)
    """Remember the environment, so that it is found again; called when it is started. It writes a file."""


class Environment(ABC):
    """A pipeline somewhere. Every method raises ControlError with what failed and what to do."""

    kind: str
    name: str
    selector: tuple[str, ...] = ()
    """The command line's options that choose this environment; none where it is the one chosen without options."""
    location: str = ""
    """Where it is, for people: a directory, a cluster's context."""
    worker_limit: int = CLUSTER_LIMIT
    """The most workers that a scaling policy or a person may ask for."""

    async def close(self) -> None:  # noqa: B027 (there may be nothing to close)
        """Close what was opened to look at it; the next look opens it again."""

    @abstractmethod
    async def components(self) -> list[Component]:
        """All components with desired, ready and health."""

    @abstractmethod
    async def endpoints(self) -> Endpoints:
        """Where the parts answer; on a cluster this opens the port-forwards."""

    @abstractmethod
    def logs(
        self, components: Sequence[str] = (), *, follow: bool = False, tail: int | None = 100
    ) -> AsyncIterator[LogLine]:
        """Lines of these components (all if none is named), merged; with ``follow``, through restarts until closed."""

    @abstractmethod
    async def scaling(self) -> Scaling:
        """The workers' scaling now."""

    async def scaling_history(self) -> list[ScalingSample]:
        """The last minutes of the scaling, oldest first; empty where nobody keeps it."""
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
        """The schema of the records that this pipeline takes."""
        raise ControlError(f"{self.name} does not tell its schema")

    async def metrics(self, component: str) -> dict[str, str]:
        """The Prometheus metrics of each instance, as text by instance name; who does not answer is left out."""
        return {}

    @abstractmethod
    def restart(self, component: str) -> AsyncIterator[Progress]:
        """Restart every instance, one after another, without losing or repeating a message."""

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
        """What may be chosen when it is started."""
        return ()

    def with_options(self, values: Mapping[str, str]) -> Environment:
        """The environment that :meth:`start` will start with these choices, by the options' names."""
        return self

    def command(self, operation: str) -> str:
        """The command line that does ``start``, ``stop`` or ``destroy``."""
        text = {"start": "up --detach", "stop": "down", "destroy": "destroy --yes"}[operation]
        return " ".join(("nomnom", text, *self.selector))

    def plan(self, operation: str) -> Sequence[str]:
        """What ``start``, ``stop`` or ``destroy`` would do, step by step, before it is done."""
        return ()

    def losses(self) -> Sequence[str]:
        """What :meth:`destroy` would remove for good."""
        return (f"everything in {self.location or self.name}",)

    def actions(self) -> Sequence[EnvironmentAction]:
        """What else can be done to it as a whole."""
        return ()

    @abstractmethod
    def start(self) -> AsyncIterator[Progress]:
        """Bring the pipeline up: installed, set up and ready."""

    @abstractmethod
    def stop(self) -> AsyncIterator[Progress]:
        """Bring the pipeline down in order; data stay."""

    @abstractmethod
    def destroy(self) -> AsyncIterator[Progress]:
        """Stop, and remove the data."""
