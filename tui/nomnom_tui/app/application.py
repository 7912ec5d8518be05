"""The app: screens, keys, command line and palette. All changes go through :meth:`NomnomApp.perform`."""

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
from nomnom_tui.app.heartbeat import Heartbeat, Sample, new_history, read_heartbeat
from nomnom_tui.app.operations import Operation, OperationState
from nomnom_tui.app.preferences import Preferences, log_file, read_preferences
from nomnom_tui.app.refresh import Feed, LoadError
from nomnom_tui.app.session import Session
from nomnom_tui.app.view import View
from nomnom_tui.screens import ROUTES, Route
from nomnom_tui.text.theme import DARK, LIGHT, THEMES, variables_for

HEARTBEAT = 2.0
"""Interval in seconds at which components and scaling are read."""
_TOAST = 5.0
_MAX_ERRORS = 20
"""Unexpected errors after which the app exits: rendering itself may be failing."""

_PAINT = 0.02
"""Seconds to wait for the first paint to reach the terminal before anything else starts."""

ChooseEnvironment = Callable[[], Environment]
"""Returns the initial environment; called in a thread after the first paint."""
FindEnvironments = Callable[[], Awaitable[list[Environment]]]
"""Lists the environments that can be selected."""
FindTemplates = Callable[[], Awaitable[Sequence[EnvironmentTemplate]]]
"""Lists the kinds of environments that can be created."""

logger = logging.getLogger(__name__)


class NomnomApp(App[int]):
    """The terminal app for one session."""

    TITLE = "nomnom"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    DEFAULT_MODE = "overview"
    MODES: ClassVar[dict[str, Any]] = {route.name: route.open for route in ROUTES}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(route.key, f"go('{route.name}')", route.title, show=False, id=f"go.{route.name}")
            for route in ROUTES
        ),
        Binding("escape", "back", "Back", show=False, id="app.back"),
        Binding("colon", "prompt", "Command line", show=False, id="app.command"),
        Binding("question_mark,f1", "help", "Help", show=False, id="app.help"),
        Binding("ctrl+t", "toggle_theme", "Toggle dark/light", show=False, id="app.theme"),
        Binding("ctrl+o", "operations", "Last operation", show=False, id="app.operations"),
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
        """Whether the first paint is done, so that views may load."""
        self._connectable = asyncio.Event()
        self._open_initial = choose
        self._list_environments = known
        self._list_templates = templates
        self._start_offered = False
        self._error_count = 0
        self.preferences = preferences or read_preferences()
        self.routes: tuple[Route, ...] = ROUTES
        self.heartbeat = Heartbeat()
        self.heartbeat_signal: Signal[Heartbeat] = Signal(self, "heartbeat")
        self.history = new_history()
        self.operations: list[Operation] = []
        self._visited: list[str] = []
        self._feed: Feed[Heartbeat] | None = None
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self._chosen_theme()
        self.set_keymap(self.preferences.keys)

    # Lifecycle

    def on_mount(self) -> None:
        """Report problems in the settings file; everything else waits until the first paint is done."""
        if self.preferences.problem:
            self.notify(self.preferences.problem, severity="warning", title="Settings", timeout=10, markup=False)
        if not self.is_headless and threading.current_thread() is threading.main_thread():
            # Restore the terminal also when the process is signalled (kill, closed terminal or SSH connection).
            for each in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(each, self.exit, 0, 128 + each)
        self.call_after_refresh(self.set_timer, _PAINT, self._painted)

    async def on_unmount(self) -> None:
        """Close the session's connections while the event loop is still running."""
        await self.session.close()
        if self.session.chosen:
            await self.session.environment.close()

    def _painted(self) -> None:
        if not self.is_headless:
            # Objects created so far live as long as the app: exclude them from collections, which delay key presses.
            gc.freeze()
        self._connectable.set()
        self.run_worker(self._connect(), name="connect")

    async def _connect(self) -> None:
        """Select the initial environment (in a thread, because of its imports), then start the feeds of the views."""
        if self._open_initial is not None:
            try:
                environment = await asyncio.to_thread(self._open_initial)
            except NomnomError as error:
                self.show_problem("Environment", error)
            else:
                await self.session.choose(environment)
        self.connected = True
        for view in self._views():
            view.start_feeds()
        self._feed = Feed("heartbeat", HEARTBEAT, self._read_heartbeat, self._show_heartbeat, self._no_heartbeat)
        self.run_worker(self._feed.run(), name="heartbeat", group="heartbeat")

    async def _read_heartbeat(self) -> Heartbeat:
        return await read_heartbeat(self.session.environment)

    async def known_environments(self) -> list[Environment]:
        """List the environments that can be selected, the selected one first."""
        chosen = [self.session.environment] if self.session.chosen else []
        found = [] if self._list_environments is None else await self._list_environments()
        names = {(each.kind, each.name) for each in chosen}
        return [*chosen, *(each for each in found if (each.kind, each.name) not in names)]

    async def templates(self) -> Sequence[EnvironmentTemplate]:
        """List what can be created; raises ControlError."""
        return () if self._list_templates is None else await self._list_templates()

    def _show_heartbeat(self, heartbeat: Heartbeat) -> None:
        restarted = self.heartbeat.stopped and not heartbeat.stopped
        self.heartbeat = heartbeat
        if restarted:
            # Its addresses may have changed.
            self.run_worker(self.session.close(), name="reconnect")
        if not self._start_offered:
            self._start_offered = True
            if heartbeat.stopped and not self.session.readonly and len(self.screen_stack) == 1:
                self._offer_start()
        if heartbeat.scaling is not None and heartbeat.at is not None:
            scaling = heartbeat.scaling
            self.history.append(Sample(heartbeat.at, scaling.lag, scaling.desired, scaling.actual, scaling.ready))
        self.heartbeat_signal.publish(heartbeat)

    def _offer_start(self) -> None:
        """Open the start form: nothing is running, so starting it comes first."""
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
        """Switch to another environment; every view reloads from it."""
        await self.session.choose(environment)
        self.heartbeat = Heartbeat()
        self.history.clear()
        self.heartbeat_signal.publish(self.heartbeat)
        self.refresh_heartbeat()
        for view in self._views():
            view.restart_feeds()

    def _views(self) -> list[View]:
        """Every view opened so far, visible or not."""
        return [each for stack in self._screen_stacks.values() for each in stack if isinstance(each, View)]

    def refresh_heartbeat(self) -> None:
        """Read components and scaling now."""
        if self._feed is not None:
            self._feed.refresh()

    def _handle_exception(self, error: Exception) -> None:
        """Log an unexpected error in a handler, show it and keep running.

        Textual's own handler exits and prints a traceback over the user's terminal. Headless apps (in tests) still use
        it, otherwise errors would go unnoticed.
        """
        if self.is_headless or not self.is_running or self._error_count >= _MAX_ERRORS:
            super()._handle_exception(error)
            return
        self._error_count += 1
        logger.error("unexpected", exc_info=error)
        self.show_problem(f"Unexpected {type(error).__name__}", f"{error}\nDetails: {log_file()}")

    async def import_later(self, module: str) -> None:
        """Import an expensive module in a thread after the first paint, so that keys stay responsive."""
        await self._connectable.wait()
        await asyncio.to_thread(import_module, module)

    # Themes

    def _chosen_theme(self) -> str:
        theme = self.preferences.theme
        if theme is None:
            return DARK.name
        names = {"dark": DARK.name, "light": LIGHT.name}
        name = names.get(theme, theme)
        if name in self.available_themes:
            return name
        self.preferences = replace(self.preferences, problem=f"{self.preferences.path}: unknown theme {theme!r}")
        return DARK.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return our variables, for themes that do not define them."""
        theme: Theme = self.current_theme
        return variables_for(theme)

    def action_toggle_theme(self) -> None:
        """Switch between the dark and the light theme."""
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name

    # Navigation

    @property
    def breadcrumbs(self) -> list[str]:
        """The environment, the screen, and the detail views opened from it."""
        placeholder = "no environment" if self.connected else "…"
        name = self.session.environment.name if self.session.chosen else placeholder
        return [name, *(screen.crumb for screen in self.screen_stack if isinstance(screen, View))]

    def action_go(self, name: str) -> None:
        """Go to a numbered screen, in the state it was left in."""
        if name != self.current_mode:
            self._visited = [*self._visited[-50:], self.current_mode]
            self.switch_mode(name)

    async def action_back(self) -> None:
        """Close a detail view, or return to the previous screen."""
        if len(self.screen_stack) > 1:
            self.pop_screen()
        elif self._visited:
            self.switch_mode(self._visited.pop())

    def action_help(self) -> None:
        """Show every key of the current screen."""
        from nomnom_tui.widgets.help import HelpDialog, describe_keys

        crumb = self.screen.crumb if isinstance(self.screen, View) else "this dialog"
        self.push_screen(HelpDialog(f"Keys in {crumb}", describe_keys(self)))

    def action_operations(self) -> None:
        """Show the steps of the last operation, running or finished."""
        from nomnom_tui.screens.operation import OperationView

        if not self.operations:
            self.notify("no operation has been run yet", timeout=_TOAST)
        elif not isinstance(self.screen, OperationView):
            self.push_screen(OperationView(self.operations[-1]))

    def action_help_quit(self) -> None:
        """Quit on ctrl+c, like other terminal programs."""
        self.action_leave()

    def action_leave(self) -> None:
        """Quit; asks first while an operation is running, because quitting cancels it."""
        running = tuple(each.title for each in self.operations if each.running)
        if not running:
            self.exit(0)
            return
        from nomnom_tui.widgets.dialogs import ConfirmDialog

        question = Change("Quit", "nomnom", losses=tuple(f"{each} is cancelled" for each in running))
        self.push_screen(ConfirmDialog(question), lambda yes: self.exit(0) if yes else None)

    # Commands

    def action_prompt(self) -> None:
        """Open the command line."""
        from nomnom_tui.widgets.prompt import Prompt

        commands = self.all_commands()
        self.push_screen(Prompt(commands), lambda line: self.run_command(line) if line else None)

    def all_commands(self) -> list[Command]:
        """Return the available commands: screens, the current view's commands and key actions, and the app's own."""
        commands = [
            Command(route.name, route.summary, lambda _, name=route.name: self.action_go(name), aliases=route.aliases)
            for route in self.routes
        ]
        if isinstance(self.screen, View):
            commands += self.screen.commands()
            commands += self._key_commands(self.screen, {each.name for each in commands})
        return [
            *commands,
            Command("theme", "choose a theme", self._set_theme, "NAME", lambda _: sorted(self.available_themes)),
            Command("operations", "show the steps of the last operation", lambda _: self.action_operations()),
            Command("help", "show the keys of this screen", lambda _: self.action_help()),
            Command("log", "show the path of the log file", lambda _: self._show_log_path()),
            Command("quit", "quit the app", lambda _: self.action_leave(), aliases=("q", "exit")),
        ]

    def _key_commands(self, view: View, taken: set[str]) -> Iterable[Command]:
        """Offer the actions of the view's keys, named by the last part of their ids."""
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
        """Run a command line."""
        name, _, argument = line.strip().partition(" ")
        command = find(name, self.all_commands())
        if command is None:
            self.notify(
                f"unknown command {name!r} on this screen; press : for a list", severity="warning", markup=False
            )
            return
        self.run_worker(self._run_command(command, argument.strip()), name=f"command {name}", group="commands")

    async def _run_command(self, command: Command, argument: str) -> None:
        try:
            waiting = command.run(argument)
            if waiting is not None:
                await waiting
        except (NomnomError, OSError) as error:
            self.show_problem(command.name, error)

    def _set_theme(self, name: str) -> None:
        name = {"dark": DARK.name, "light": LIGHT.name}.get(name, name)
        if name in self.available_themes:
            self.theme = name
        else:
            self.notify(
                f"unknown theme {name!r}; type :theme and press tab for a list", severity="warning", markup=False
            )

    def _show_log_path(self) -> None:
        self.notify(str(log_file()), title="Log file", timeout=10, markup=False)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Fill the palette with the commands that apply now."""
        for command in self.all_commands():
            if not command.argument:
                yield SystemCommand(command.name, command.summary, lambda name=command.name: self.run_command(name))

    # Changes

    def perform(self, change: Change, after: Callable[[bool], None] | None = None) -> None:
        """Make a change: refuse it if read-only, ask for confirmation if needed, run it and report the result."""

        async def work() -> None:
            done = await self.carry_out(change)
            if after is not None:
                after(done)

        self.run_worker(work(), name=change.title, group="changes")

    async def carry_out(self, change: Change) -> bool:
        """Like :meth:`perform`, for a worker that waits for the result; true if the change was made."""
        if self.session.readonly:
            self.notify(
                f"{change.title}: refused because the app was started with --readonly",
                title="Read-only",
                severity="warning",
                timeout=_TOAST,
                markup=False,
            )
            return False
        if change.needs_confirmation:
            from nomnom_tui.widgets.dialogs import ConfirmDialog

            if not await self.push_screen_wait(ConfirmDialog(change)):
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
            self.show_problem(change.title, f"timed out after {change.timeout:g} s; the change may still take effect")
            return False
        except (NomnomError, OSError) as error:
            self.show_problem(change.title, error)
            return False
        self.notify(f"{change.success or change.title}\n$ {change.command}", timeout=_TOAST, markup=False)
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
        state = await operation.run()
        if state is OperationState.DONE:
            self.notify(f"{operation.title}: done\n$ {operation.command}", timeout=_TOAST, markup=False)
        elif state is OperationState.FAILED:
            self.show_problem(operation.title, operation.problem)
        else:
            self.notify(f"{operation.title}: cancelled", severity="warning", timeout=_TOAST, markup=False)
        self._refresh_all()
        return state is OperationState.DONE

    def show_problem(self, title: str, problem: object) -> None:
        """Log a problem and show it."""
        logger.warning("%s: %s", title, problem)
        self.notify(str(problem), title=title, severity="error", timeout=12, markup=False)

    def _refresh_all(self) -> None:
        self.refresh_heartbeat()
        for screen in self.screen_stack:
            if isinstance(screen, View):
                screen.action_refresh()
