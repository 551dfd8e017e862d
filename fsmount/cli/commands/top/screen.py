"""fsmount top on a terminal: the application, its keys and the prompt for a limit.

prompt_toolkit draws.  It writes only changes, restores the terminal when the program ends or stops, decodes keys, and
edits the line of the prompt.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from typing import NamedTuple

from prompt_toolkit.application import Application
from prompt_toolkit.application.run_in_terminal import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition, Filter
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import BufferControl, ConditionalContainer, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.layout.processors import BeforeInput

from fsmount.admin.user_error import UserError
from fsmount.cli.commands.top.browser import Browser
from fsmount.cli.commands.top.drawing import HEADS, Area, content, keys
from fsmount.cli.commands.top.reader import Reader, Seen, Wanted
from fsmount.cli.ui.amounts import amount
from fsmount.cli.ui.cells import RED
from fsmount.cli.ui.columns import BOLD, DIM, shortened, shortened_path
from fsmount.cli.ui.group import advised, set_limit
from fsmount.cli.ui.numbers import number
from fsmount.cli.ui.printable import printable
from fsmount.cli.ui.report import FAILED
from fsmount.cli.ui.snapshot import Groups
from fsmount.cli.ui.terminal import glyphs
from fsmount.files import LeaseGroup


class _Setting(NamedTuple):
    """The limit that the prompt asks for: its counter, its key in R.stat, and its present value."""

    path: str
    resource: str
    key: str
    value: int | None


def show(groups: Groups, top: str, wanted: Wanted, order: str, interval: float, count: int | None) -> None:
    """Draws until the user quits, or for `count` looks.  Errors are those of look().

    A signal that ends the program ends it after the terminal is restored.
    """
    try:
        ended_by = asyncio.run(_Screen(Browser(groups, top, wanted, order), count).run(interval))
    except EOFError:  # the terminal is gone
        sys.exit(FAILED)
    if ended_by is not None:
        signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)


class _Screen:
    def __init__(self, browser: Browser, count: int | None) -> None:
        self._browser = browser
        self._looks_left = count
        self._glyphs = glyphs(sys.stdout.encoding)
        self._message = ""
        self._setting: _Setting | None = None

        self._typed = Buffer(multiline=False, accept_handler=self._accept)
        prompting = Condition(lambda: self._setting is not None)
        prompt = BufferControl(self._typed, [BeforeInput(self._prompt)])
        rows = Window(FormattedTextControl(self._content, focusable=True, show_cursor=False), always_hide_cursor=True)
        self._layout = Layout(
            HSplit(
                [
                    rows,
                    ConditionalContainer(Window(prompt, height=1, dont_extend_height=True), prompting),
                    ConditionalContainer(self._message_window(), ~prompting),
                    Window(FormattedTextControl(self._keys), height=1, dont_extend_height=True),
                ]
            ),
            rows,
        )
        self._rows_window, self._prompt_window = rows, prompt
        self._app: Application[signal.Signals | None] = Application(
            self._layout,
            key_bindings=self._bindings(~prompting, prompting),
            full_screen=True,
            terminal_size_polling_interval=None,  # SIGWINCH reports a new size
        )
        self._app.ttimeoutlen = self._app.timeoutlen = 0.05  # between Esc and the rest of a key that begins with it

    # ---- the run

    async def run(self, interval: float) -> signal.Signals | None:
        """Draws until the end, and returns the signal that ended it, if one did."""
        self._loop = asyncio.get_running_loop()
        for ending in (signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(ending, self._end, ending)
        self._loop.add_signal_handler(signal.SIGTSTP, self._stop)
        browser = self._browser
        self._reader = Reader(
            browser.groups, interval, browser.wanted, self._in_loop(self._show), self._in_loop(self._fail)
        )
        self._reader.start()
        try:
            return await self._app.run_async(set_exception_handler=False)
        finally:
            self._reader.end()

    def _in_loop(self, function: Callable[..., None]) -> Callable[..., object]:
        """For the reader's thread: calls a function in the event loop."""
        return lambda argument: self._loop.call_soon_threadsafe(function, argument)

    def _show(self, seen: Seen) -> None:
        wanted = self._browser.wanted
        error = self._browser.add(seen)
        if error is not None:
            self._message = f"{self._short_name(wanted.path)}: {_error_text(error)}"
            self._look()
        if self._looks_left is not None and seen.wanted == wanted:
            self._looks_left -= 1
            if self._looks_left == 0:
                self._end()
        self._app.invalidate()

    def _look(self) -> None:
        """Makes the reader look at once."""
        self._reader.want(self._browser.wanted)

    def _end(self, by: signal.Signals | None = None) -> None:
        if not self._app.is_done:
            self._app.exit(result=by)

    def _fail(self, error: BaseException) -> None:
        if not self._app.is_done:
            self._app.exit(exception=error)

    def _stop(self) -> None:
        """Stops the whole job, as ^Z stops a program that does not draw."""

        def stop() -> None:
            self._loop.remove_signal_handler(signal.SIGTSTP)
            os.kill(0, signal.SIGTSTP)
            self._loop.add_signal_handler(signal.SIGTSTP, self._stop)
            self._look()

        run_in_terminal(stop)

    # ---- the lines

    @property
    def _columns(self) -> int:
        return self._app.output.get_size().columns

    @property
    def _message_height(self) -> int:
        if not self._message:
            return 0
        return self._message_control.preferred_height(self._columns, sys.maxsize, True, None) or 0

    @property
    def _height(self) -> int:
        """The rows below the heads of a table."""
        below = 1 if self._setting else self._message_height
        return max(self._app.output.get_size().rows - HEADS - below - 1, 1)  # the last line shows the keys

    def _message_window(self) -> Window:
        self._message_control = FormattedTextControl(lambda: [(RED, textwrap.fill(self._message, self._columns))])
        return Window(
            self._message_control, height=lambda: self._message_height, dont_extend_height=True, wrap_lines=True
        )

    def _content(self) -> StyleAndTextTuples:
        return content(self._browser, Area(self._columns, self._height, self._glyphs))

    def _keys(self) -> StyleAndTextTuples:
        text = keys(self._browser)
        if self._setting is not None:
            resource, value = self._setting.resource, self._setting.value
            kept = "as it is" if value is None else f"at {number(value, self._browser.groups.units[resource])}"
            text = f"enter set  esc leave it {kept}"
        return [*shortened([(DIM, text)], self._columns, self._glyphs)]

    def _prompt(self) -> StyleAndTextTuples:
        assert self._setting is not None
        path, resource, key, _ = self._setting
        return [(BOLD, f"{key.replace('_', ' ')} of {printable(resource)} in {self._short_name(path)}: ")]

    def _short_name(self, path: str) -> str:
        return shortened_path(printable(os.path.basename(path)), self._columns // 3, self._glyphs)

    # ---- the keys

    def _bindings(self, browsing: Filter, prompting: Filter) -> KeyBindings:
        bindings = KeyBindings()
        browser = self._browser

        def on(*names: str, filter: Filter = browsing) -> Callable[[Callable[[], None]], None]:
            def bind(action: Callable[[], None]) -> None:
                def pressed(_event: KeyPressEvent) -> None:
                    if filter is browsing:
                        self._message = ""
                    action()

                for name in names:
                    bindings.add(name, filter=filter, eager=True)(pressed)

            return bind

        on("q", "c-c", "<sigint>")(self._end)
        on("c-c", "<sigint>", filter=prompting)(self._end)
        on("c-z")(self._stop)
        on("c-z", filter=prompting)(self._stop)
        on("up", "k")(lambda: browser.move(-1))
        on("down", "j")(lambda: browser.move(1))
        on("pageup")(lambda: browser.move(-self._height))
        on("pagedown")(lambda: browser.move(self._height))
        on("home")(browser.move_to_start)
        on("end")(browser.move_to_end)
        on("enter", "right")(self._then_look(browser.open))
        on("escape", "left", "backspace")(self._then_look(browser.back))
        on("s", ">")(lambda: browser.sort_by(1))
        on("S", "<")(lambda: browser.sort_by(-1))
        on("r")(self._then_look(browser.next_resource))
        on("l")(lambda: self._ask("limit"))
        on("L")(lambda: self._ask("soft_limit"))
        on("space")(self._look)
        on("?", "h")(browser.toggle_help)
        on("escape", filter=prompting)(self._end_prompt)
        return bindings

    def _then_look(self, action: Callable[[], None]) -> Callable[[], None]:
        """The action, followed by a look if it changes the object of the looks."""

        def act() -> None:
            before = self._browser.wanted
            action()
            if self._browser.wanted != before:
                self._look()

        return act

    # ---- setting a limit

    def _ask(self, key: str) -> None:
        browser = self._browser
        path = browser.path
        if path and browser.help is None:
            self._setting = _Setting(path, browser.wanted.resource, key, browser.value(key))
            self._layout.focus(self._prompt_window)

    def _end_prompt(self) -> None:
        self._setting = None
        self._typed.reset()
        self._layout.focus(self._rows_window)

    def _accept(self, typed: Buffer) -> bool:
        """Sets the typed amount.  False: the prompt does not keep the text."""
        setting, text = self._setting, typed.text.strip()
        assert setting is not None
        self._end_prompt()
        if text:
            try:
                limit = amount(text, limit=True)
            except ValueError as error:
                self._message = f"{printable(text)} is {error}"
            else:
                self._app.create_background_task(self._set(setting, limit, text))
        return False

    async def _set(self, setting: _Setting, limit: int, typed: str) -> None:
        path, resource, key, _ = setting
        try:
            counter = LeaseGroup.at(path, self._browser.groups.units)[resource]
            await asyncio.to_thread(set_limit, counter, key, limit, typed)
        except (OSError, UserError) as error:
            self._message = f"{self._short_name(path)}: {_error_text(error)}"
        self._look()
        self._app.invalidate()


def _error_text(error: OSError | UserError) -> str:
    """The message that a command prints for this error."""
    try:
        with advised():
            raise error
    except UserError as refused:
        return printable(str(refused))
    except OSError as other:
        return printable(other.strerror or str(other))
