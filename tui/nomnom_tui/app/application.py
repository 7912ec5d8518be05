"""The app: its screens, keys, command line and palette; the one place where changes are made."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.signal import Signal
from textual.theme import Theme

from nomnom.errors import NomnomError
from nomnom_control.environments import Environment, EnvironmentTemplate
from nomnom_tui.app.changes import Change
from nomnom_tui.app.commands import Command, find
from nomnom_tui.app.heartbeat import Heartbeat, Sample, new_history, take_heartbeat
from nomnom_tui.app.operations import Operation, Outcome
from nomnom_tui.app.preferences import Preferences, log_file, read_preferences
from nomnom_tui.app.refresh import Feed, LoadError
from nomnom_tui.app.session import Session
from nomnom_tui.app.view import View
from nomnom_tui.screens import PLACES, Place
from nomnom_tui.text.theme import DARK, LIGHT, THEMES, variables_for

HEARTBEAT = 2.0
"""Seconds between two looks at components and scaling."""
_TOAST = 5.0
_MOST_FAULTS = 20
"""Faults after which the app ends after all: it may be the drawing itself that fails."""

_PAINT = 0.02
"""Seconds that the first paint gets to reach the terminal before anything else is done."""

ChooseEnvironment = Callable[[], Environment]
"""Makes the environment to begin with; called in a thread, after the first paint."""
FindEnvironments = Callable[[], Awaitable[list[Environment]]]
"""Finds the environments that can be chosen."""
FindTemplates = Callable[[], Awaitable[Sequence[EnvironmentTemplate]]]
"""Finds the kinds of environments that can be made."""

logger = logging.getLogger(__name__)


class NomnomApp(App[int]):
    """The terminal app over one session."""

    TITLE = "nomnom"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    DEFAULT_MODE = "overview"
    MODES: ClassVar[dict[str, Any]] = {place.name: place.open for place in PLACES}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(place.key, f"go('{place.name}')", place.title, show=False, id=f"go.{place.name}")
            for place in PLACES
        ),
        Binding("escape", "back", "Back", show=False, id="app.back"),
        Binding("colon", "prompt", "Command line", show=False, id="app.command"),
        Binding("question_mark,f1", "help", "Help", show=False, id="app.help"),
        Binding("ctrl+t", "toggle_theme", "Light or dark", show=False, id="app.theme"),
        Binding("ctrl+o", "operations", "The last operation's steps", show=False, id="app.operations"),
        Binding("q,ctrl+q", "leave", "Quit", show=False, id="app.quit"),
    ]
    CSS = """
    Toast { background: $panel; border-left: outer $accent; padding: 0 1; width: 70; }
    Toast.-warning { border-left: outer $warning; }
    Toast.-error { border-left: outer $error; }
    ToastRack { margin-bottom: 1; }
    """

    def __init__(
        self,
        session: Session,
        preferences: Preferences | None = None,
        *,
        choose: ChooseEnvironment | None = None,
        known: FindEnvironments | None = None,
        templates: FindTemplates | None = None,
    ) -> None:
        super().__init__()
        self.session = session
        self.connected = False
        """Whether the first paint is out, and views may load."""
        self._connectable = asyncio.Event()
        self._choose = choose
        self._find = known
        self._templates = templates
        self._offered = False
        self._faults = 0
        self.preferences = preferences or read_preferences()
        self.places: tuple[Place, ...] = PLACES
        self.heartbeat = Heartbeat()
        self.heartbeat_signal: Signal[Heartbeat] = Signal(self, "pulse")
        self.history = new_history()
        self.operations: list[Operation] = []
        self._visited: list[str] = []
        self._feed: Feed[Heartbeat] | None = None
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self._chosen_theme()
        self.set_keymap(self.preferences.keys)

    # Life

    def on_mount(self) -> None:
        """Say what is wrong with the settings; everything else waits until the first paint is out."""
        if self.preferences.problem:
            self.notify(self.preferences.problem, severity="warning", title="Settings", timeout=10, markup=False)
        if not self.is_headless and threading.current_thread() is threading.main_thread():
            # Ended from outside (kill, a closed terminal or ssh connection), it gives the terminal back as well.
            for each in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(each, self.exit, 0, 128 + each)
        self.call_after_refresh(self.set_timer, _PAINT, self._painted)

    async def on_unmount(self) -> None:
        """Close what the session opened, while its event loop still runs."""
        await self.session.close()
        if self.session.chosen:
            await self.session.environment.close()

    def _painted(self) -> None:
        if not self.is_headless:
            # What has been made by now stays for good: collections need not look at it while keys wait.
            gc.freeze()
        self._connectable.set()
        self.run_worker(self._connect(), name="connect")

    async def _connect(self) -> None:
        """Choose the environment, in a thread since that imports what it needs, and let the views load."""
        if self._choose is not None:
            try:
                environment = await asyncio.to_thread(self._choose)
            except NomnomError as error:
                self.tell_problem("Environment", error)
            else:
                await self.session.choose(environment)
        self.connected = True
        for view in self._views():
            view.start_feeds()
        self._feed = Feed("pulse", HEARTBEAT, self._take_heartbeat, self._beat, self._no_heartbeat)
        self.run_worker(self._feed.run(), name="pulse", group="pulse")

    async def _take_heartbeat(self) -> Heartbeat:
        return await take_heartbeat(self.session.environment)

    async def known_environments(self) -> list[Environment]:
        """Every environment that can be chosen; the one that is, first."""
        chosen = [self.session.environment] if self.session.chosen else []
        found = [] if self._find is None else await self._find()
        names = {(each.kind, each.name) for each in chosen}
        return [*chosen, *(each for each in found if (each.kind, each.name) not in names)]

    async def templates(self) -> Sequence[EnvironmentTemplate]:
        """What can be made; raises ControlError."""
        return () if self._templates is None else await self._templates()

    def _beat(self, heartbeat: Heartbeat) -> None:
        restarted = self.heartbeat.stopped and not heartbeat.stopped
        self.heartbeat = heartbeat
        if restarted:
            # It may answer elsewhere than before.
            self.run_worker(self.session.close(), name="reconnect")
        if not self._offered:
            self._offered = True
            if heartbeat.stopped and not self.session.readonly and len(self.screen_stack) == 1:
                self._offer_start()
        if heartbeat.scaling is not None and heartbeat.at is not None:
            scaling = heartbeat.scaling
            self.history.append(Sample(heartbeat.at, scaling.lag, scaling.desired, scaling.actual, scaling.ready))
        self.heartbeat_signal.publish(heartbeat)

    def _offer_start(self) -> None:
        """Nothing runs: the first thing a person wants is to start it."""
        from nomnom_tui.screens.environments import EnvironmentsView

        self.action_go("environments")

        def offer() -> None:
            if isinstance(self.screen, EnvironmentsView):
                self.screen.offer(self.session.environment)

        self.call_after_refresh(offer)

    def _no_heartbeat(self, problem: LoadError | None) -> None:
        if problem is not None:
            self.heartbeat = replace(self.heartbeat, problem=problem)
            self.heartbeat_signal.publish(self.heartbeat)

    async def choose(self, environment: Environment) -> None:
        """Turn to another environment: every view starts anew on it."""
        await self.session.choose(environment)
        self.heartbeat = Heartbeat()
        self.history.clear()
        self.heartbeat_signal.publish(self.heartbeat)
        self.refresh_heartbeat()
        for view in self._views():
            view.restart_feeds()

    def _views(self) -> list[View]:
        """Every view that was opened so far, seen or not."""
        return [each for stack in self._screen_stacks.values() for each in stack if isinstance(each, View)]

    def refresh_heartbeat(self) -> None:
        """Look at the components now."""
        if self._feed is not None:
            self._feed.refresh()

    def _handle_exception(self, error: Exception) -> None:
        """What nobody expected, in a handler: written to the log and told; the app goes on.

        Textual's own ends the app and prints a traceback over the person's terminal. Without a terminal (in a test) it
        does so here too, or faults would go unseen.
        """
        if self.is_headless or not self.is_running or self._faults >= _MOST_FAULTS:
            super()._handle_exception(error)
            return
        self._faults += 1
        logger.error("unexpected", exc_info=error)
        self.tell_problem(f"Unexpected {type(error).__name__}", f"{error}\nwritten to {log_file()}")

    async def import_later(self, module: str) -> None:
        """Import something heavy after the first paint, in a thread: keys are answered meanwhile."""
        await self._connectable.wait()
        await asyncio.to_thread(import_module, module)

    # Themes

    def _chosen_theme(self) -> str:
        wanted = self.preferences.theme
        if wanted is None:
            return DARK.name
        names = {"dark": DARK.name, "light": LIGHT.name}
        name = names.get(wanted, wanted)
        if name in self.available_themes:
            return name
        self.preferences = replace(self.preferences, problem=f"{self.preferences.path}: there is no theme {wanted!r}")
        return DARK.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our variables, for themes that do not have them."""
        theme: Theme = self.current_theme
        return variables_for(theme)

    def action_toggle_theme(self) -> None:
        """From dark to light and back."""
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name

    # Ways

    @property
    def breadcrumbs(self) -> list[str]:
        """The environment, the screen, and the details upon it."""
        nowhere = "no environment" if self.connected else "…"
        name = self.session.environment.name if self.session.chosen else nowhere
        return [name, *(screen.crumb for screen in self.screen_stack if isinstance(screen, View))]

    def action_go(self, name: str) -> None:
        """Go to a numbered screen; it is as it was left."""
        if name != self.current_mode:
            self._visited = [*self._visited[-50:], self.current_mode]
            self.switch_mode(name)

    async def action_back(self) -> None:
        """From a detail to what it is a detail of; from a screen to the one before."""
        if len(self.screen_stack) > 1:
            self.pop_screen()
        elif self._visited:
            self.switch_mode(self._visited.pop())

    def action_help(self) -> None:
        """Every key that works here."""
        from nomnom_tui.widgets.help import HelpDialog, describe_keys

        crumb = self.screen.crumb if isinstance(self.screen, View) else "this dialog"
        self.push_screen(HelpDialog(f"Keys in {crumb}", describe_keys(self)))

    def action_operations(self) -> None:
        """The steps of the last operation, under way or not."""
        from nomnom_tui.screens.operation import OperationView

        if not self.operations:
            self.notify("nothing has been started, stopped or restarted yet", timeout=_TOAST)
        elif not isinstance(self.screen, OperationView):
            self.push_screen(OperationView(self.operations[-1]))

    def action_help_quit(self) -> None:
        """ctrl+c quits, as it does everywhere else."""
        self.action_leave()

    def action_leave(self) -> None:
        """Quit; asks while an operation is under way, since it ends with the app."""
        running = tuple(each.title for each in self.operations if each.running)
        if not running:
            self.exit(0)
            return
        from nomnom_tui.widgets.dialogs import AskDialog

        question = Change("Quit", "nomnom", loses=tuple(f"{each}: it is cancelled" for each in running))
        self.push_screen(AskDialog(question), lambda yes: self.exit(0) if yes else None)

    # Commands

    def action_prompt(self) -> None:
        """Ask for a command."""
        from nomnom_tui.widgets.prompt import Prompt

        commands = self.all_commands()
        self.push_screen(Prompt(commands), lambda line: self.run_command(line) if line else None)

    def all_commands(self) -> list[Command]:
        """What can be typed now: screens, what the present view offers, the keys' actions here, and the app's own."""
        commands = [
            Command(place.name, place.summary, lambda _, name=place.name: self.action_go(name), aliases=place.aliases)
            for place in self.places
        ]
        if isinstance(self.screen, View):
            commands += self.screen.commands()
            commands += self._key_commands(self.screen, {each.name for each in commands})
        return [
            *commands,
            Command("theme", "choose a theme", self._set_theme, "NAME", lambda _: sorted(self.available_themes)),
            Command("operations", "the last operation's steps", lambda _: self.action_operations()),
            Command("help", "every key of this screen", lambda _: self.action_help()),
            Command("log", "where the app writes what it did not expect", lambda _: self._tell_log()),
            Command("quit", "leave the app", lambda _: self.action_leave(), aliases=("q", "exit")),
        ]

    def _key_commands(self, view: View, taken: set[str]) -> Iterable[Command]:
        """The actions behind the view's keys, by the last part of their ids."""
        for active in view.active_bindings.values():
            binding = active.binding
            group, _, name = (binding.id or "").partition(".")
            if not name or group in ("table", "app", "go") or not active.enabled or name in taken:
                continue
            taken.add(name)
            run: Callable[[str], None] = self._action_runner(binding.action, active.node)
            yield Command(name, f"{binding.description} ({self.get_key_display(binding)})", run)

    def _action_runner(self, action: str, node: Any) -> Callable[[str], None]:
        return lambda _: self.call_next(self.run_action, action, node)

    def run_command(self, line: str) -> None:
        """Run one line of the command line."""
        name, _, argument = line.strip().partition(" ")
        command = find(name, self.all_commands())
        if command is None:
            self.notify(f"there is no command {name!r} here; : lists them", severity="warning", markup=False)
            return
        self.run_worker(self._run_command(command, argument.strip()), name=f"command {name}", group="commands")

    async def _run_command(self, command: Command, argument: str) -> None:
        try:
            waiting = command.run(argument)
            if waiting is not None:
                await waiting
        except (NomnomError, OSError) as error:
            self.tell_problem(command.name, error)

    def _set_theme(self, name: str) -> None:
        name = {"dark": DARK.name, "light": LIGHT.name}.get(name, name)
        if name in self.available_themes:
            self.theme = name
        else:
            self.notify(f"there is no theme {name!r}; :theme and tab list them", severity="warning", markup=False)

    def _tell_log(self) -> None:
        self.notify(str(log_file()), title="Log of this app", timeout=10, markup=False)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: exactly what applies now."""
        for command in self.all_commands():
            if not command.argument:
                yield SystemCommand(command.name, command.summary, lambda name=command.name: self.run_command(name))

    # Changes

    def perform(self, change: Change, after: Callable[[bool], None] | None = None) -> None:
        """Make a change: refuse it in a read-only session, ask where it loses something, do it, tell how it went."""

        async def work() -> None:
            done = await self.carry_out(change)
            if after is not None:
                after(done)

        self.run_worker(work(), name=change.title, group="changes")

    async def carry_out(self, change: Change) -> bool:
        """As :meth:`perform`, in a worker that waits; true where it was done."""
        if self.session.readonly:
            self.notify(
                f"{change.title}: refused, the app was started with --readonly",
                title="Read-only",
                severity="warning",
                timeout=_TOAST,
                markup=False,
            )
            return False
        if change.asks:
            from nomnom_tui.widgets.dialogs import AskDialog

            if not await self.push_screen_wait(AskDialog(change)):
                return False
        logger.info("%s: %s", change.title, change.command)
        if change.begin is not None:
            return await self._begin(change)
        return change.act is None or await self._act(change)

    async def _act(self, change: Change) -> bool:
        assert change.act is not None
        try:
            async with asyncio.timeout(change.timeout):
                await change.act()
        except TimeoutError:
            self.tell_problem(change.title, f"no answer within {change.timeout:g} s; it may still happen")
            return False
        except (NomnomError, OSError) as error:
            self.tell_problem(change.title, error)
            return False
        self.notify(f"{change.told or change.title}\n$ {change.command}", timeout=_TOAST, markup=False)
        self._refresh_all()
        return True

    async def _begin(self, change: Change) -> bool:
        from nomnom_tui.screens.operation import OperationView

        assert change.begin is not None
        operation = Operation(change.title, change.command, change.begin)
        self.operations = [*self.operations[-9:], operation]
        self.push_screen(OperationView(operation))
        return await self._watch(operation)

    def run_operation(self, operation: Operation) -> None:
        """Run an operation again."""
        self.run_worker(self._watch(operation), name=operation.title, group="changes")

    async def _watch(self, operation: Operation) -> bool:
        outcome = await operation.run()
        if outcome is Outcome.DONE:
            self.notify(f"{operation.title}: done\n$ {operation.command}", timeout=_TOAST, markup=False)
        elif outcome is Outcome.FAILED:
            self.tell_problem(operation.title, operation.problem)
        else:
            self.notify(f"{operation.title}: cancelled", severity="warning", timeout=_TOAST, markup=False)
        self._refresh_all()
        return outcome is Outcome.DONE

    def tell_problem(self, title: str, problem: object) -> None:
        """Tell what went wrong."""
        logger.warning("%s: %s", title, problem)
        self.notify(str(problem), title=title, severity="error", timeout=12, markup=False)

    def _refresh_all(self) -> None:
        self.refresh_heartbeat()
        for screen in self.screen_stack:
            if isinstance(screen, View):
                screen.action_refresh()
