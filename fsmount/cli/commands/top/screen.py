"""fsmount top in a terminal: the screen and its keys.

prompt_toolkit draws: it writes only what has changed, has the terminal as it was when the program ends or is stopped,
and knows keys and how a line is edited.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import time
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
from fsmount.cli.commands.top.reader import GroupsSeen, HoldersSeen, Reader, Seen, Unseen, Wanted
from fsmount.cli.commands.top.views import ORDERS, History, Ordered, group_lines, holder_lines, ordered
from fsmount.cli.ui.amounts import amount
from fsmount.cli.ui.cells import RED
from fsmount.cli.ui.columns import BOLD, DIM, Cell, joined, shortened, shortened_path
from fsmount.cli.ui.group import advised, set_limit
from fsmount.cli.ui.numbers import number
from fsmount.cli.ui.printable import printable
from fsmount.cli.ui.report import FAILED
from fsmount.cli.ui.snapshot import Groups, full_path
from fsmount.cli.ui.terminal import glyphs
from fsmount.files import LeaseGroup
from fsmount.protocol.listings import CounterSnapshot
from fsmount.quantities import UNLIMITED

_KEYS = "q quit  ? help  arrows select  enter holders  s sort  r resource  l limit"
_KEYS_HOLDERS = "q quit  ? help  esc back  arrows scroll  r resource  l limit"
_KEYS_HELP = "q quit  esc back  arrows scroll"

_HELP = """\
arrows j k   select a group
PgUp PgDn    by a screen; Home, End
Enter        its holders; Esc: back
s S          sort by the next column, or the one before
r            the next resource
l L          set the limit, or the soft limit (4096, 64K, 2G, max)
Space        look now
^Z           stop; the shell's fg continues
q            the end

last minute  as high as its highest usage
red          nine tenths of the limit
yellow       three quarters, or the soft limit
holders      of this very group
common       what the group itself holds
stock        reserved, here and below"""

# Lines above a table: the title and those of its columns.
_HEADS = 2


class _Setting(NamedTuple):
    """The counter and key that a typed amount sets."""

    path: str
    resource: str
    key: str
    now: int | None


def show(groups: Groups, top: str, wanted: Wanted, order: str, interval: float, count: int | None) -> None:
    """Draws until the user ends it, or for `count` looks; errors as those of look().

    A signal that ends it does so when the terminal is as it was.
    """
    try:
        ended_by = asyncio.run(_Screen(groups, top, wanted, order, count).run(interval))
    except EOFError:  # the terminal is gone
        sys.exit(FAILED)
    if ended_by is not None:
        signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)


class _Screen:
    def __init__(self, groups: Groups, top: str, wanted: Wanted, order: str, count: int | None) -> None:
        self._groups = groups
        self._top = top
        self._wanted = wanted
        self._order = order
        self._left = count
        self._drawn = glyphs(sys.stdout.encoding)
        self._message = ""
        self._help: int | None = None  # the first line of it that is shown
        self._setting: _Setting | None = None
        # By resource.
        self._histories: dict[str, History] = {}
        self._last: dict[str, GroupsSeen] = {}
        # The content of the screen.
        self._seen: Seen | None = None
        self._ordered: Ordered | None = None
        # The id of the selected group, and where it is in the order; in the list of holders the latter alone counts.
        self._selected: int | None = None
        self._at = 0
        self._first = 0

        self._typed = Buffer(multiline=False, accept_handler=self._accept)
        prompting = Condition(lambda: self._setting is not None)
        prompt = BufferControl(self._typed, [BeforeInput(self._prompt)])
        rows = Window(FormattedTextControl(self._text, focusable=True, show_cursor=False), always_hide_cursor=True)
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
        """The signal that ended it, if one did."""
        self._loop = asyncio.get_running_loop()
        for ending in (signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(ending, self._end, ending)
        self._loop.add_signal_handler(signal.SIGTSTP, self._stop)
        self._reader = Reader(
            self._groups, interval, self._wanted, self._from_reader(self._show), self._from_reader(self._fail)
        )
        self._reader.start()
        try:
            return await self._app.run_async(set_exception_handler=False)
        finally:
            self._reader.end()

    def _from_reader(self, what: Callable[..., None]) -> Callable[..., object]:
        return lambda argument: self._loop.call_soon_threadsafe(what, argument)

    def _end(self, by: signal.Signals | None = None) -> None:
        if not self._app.is_done:
            self._app.exit(result=by)

    def _fail(self, error: BaseException) -> None:
        if not self._app.is_done:
            self._app.exit(exception=error)

    def _stop(self) -> None:
        """As the shell's ^Z does it to a program that leaves the terminal alone."""

        def stop() -> None:
            self._loop.remove_signal_handler(signal.SIGTSTP)
            os.kill(0, signal.SIGTSTP)
            self._loop.add_signal_handler(signal.SIGTSTP, self._stop)
            self._reader.want(self._wanted)

        run_in_terminal(stop)

    # ---- what was seen

    def _show(self, seen: Seen) -> None:
        if isinstance(seen, GroupsSeen):
            resource = seen.wanted.resource
            self._last[resource] = seen
            self._histories.setdefault(resource, History()).add(time.monotonic(), seen.rows)
        if seen.wanted != self._wanted:
            return
        if isinstance(seen, Unseen):
            self._want(seen.wanted._replace(path=""))
            self._message = f"{self._name(seen.wanted.path)}: {_said(seen.error)}"
        else:
            self._seen = seen
            self._order_groups()
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._end()
        self._app.invalidate()

    def _want(self, wanted: Wanted) -> None:
        """Shows what was last seen of it, until the reader has looked."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._seen = None if wanted.path else self._last.get(wanted.resource)
            self._first = 0
            self._order_groups()
        self._reader.want(wanted)

    def _order_groups(self) -> None:
        if isinstance(self._seen, GroupsSeen):
            self._ordered = ordered(self._seen.rows, self._order)
            self._find_selected()

    def _find_selected(self) -> None:
        """Follows the selected group to where it is now; the one that took its place if it is gone."""
        rows = self._rows
        self._at = next(
            (at for at, row in enumerate(rows) if row.id == self._selected), max(min(self._at, len(rows) - 1), 0)
        )
        self._selected = rows[self._at].id

    @property
    def _rows(self) -> list[CounterSnapshot]:
        return self._ordered.rows if self._ordered is not None else []

    # ---- what is drawn

    @property
    def _columns(self) -> int:
        return self._app.output.get_size().columns

    @property
    def _message_height(self) -> int:
        if not self._message:
            return 0
        return self._said.preferred_height(self._columns, sys.maxsize, True, None) or 0

    @property
    def _height(self) -> int:
        """How many rows of a table there is room for."""
        said = 1 if self._setting else self._message_height
        return max(self._app.output.get_size().rows - _HEADS - said - 1, 1)  # the last line tells the keys

    def _message_window(self) -> Window:
        self._said = FormattedTextControl(lambda: [(RED, textwrap.fill(self._message, self._columns))])
        return Window(self._said, height=lambda: self._message_height, dont_extend_height=True, wrap_lines=True)

    def _text(self) -> StyleAndTextTuples:
        if self._help is not None:
            return self._help_text(self._help)
        seen = self._seen
        if isinstance(seen, GroupsSeen) and self._ordered is not None:
            return self._groups_text(seen, self._ordered)
        if isinstance(seen, HoldersSeen):
            return self._holders_text(seen)
        return [(DIM, "reading...")]

    def _help_text(self, first: int) -> StyleAndTextTuples:
        told = _HELP.split("\n")
        self._help = max(min(first, len(told) - self._height - _HEADS), 0)
        return [*joined(shortened([("", line)], self._columns, self._drawn) for line in told[self._help :])]

    def _groups_text(self, seen: GroupsSeen, found: Ordered) -> StyleAndTextTuples:
        resource = seen.wanted.resource
        height = self._height
        self._first = max(min(self._first, self._at, len(found.rows) - height), self._at - height + 1, 0)
        shown = found.rows[self._first : self._first + height]
        head, *table = group_lines(
            shown,
            found,
            self._top,
            self._groups.units[resource],
            self._drawn,
            self._histories[resource],
            self._columns,
        )
        here = self._at - self._first
        table[here] = [(f"{style} reverse", text) for style, text in table[here]]
        count = f"{len(found.rows):,} group{'s' if len(found.rows) > 1 else ''}"
        title = self._title(f"{printable(resource)} of {count} by {self._order}", self._top)
        return [*joined([title, head, *table])]

    def _holders_text(self, seen: HoldersSeen) -> StyleAndTextTuples:
        resource = seen.wanted.resource
        unit = self._groups.units[resource]
        height = self._height
        self._first = max(min(self._first, len(seen.holders) - height), 0)
        shown = seen.holders[self._first : self._first + height]
        table = holder_lines(shown, seen.stat["usage"], unit, self._drawn, self._columns)
        limit = seen.stat["limit"]
        of = "" if limit == UNLIMITED else f" of {number(limit, unit)}"
        usage, local = seen.stat["usage"], seen.stat["usage_local"]
        below = "" if usage == local else f", {number(usage - local, unit)} in the groups below"
        count = f"{len(seen.holders):,} holder{'' if len(seen.holders) == 1 else 's'}"
        title = self._title(f"{printable(resource)}: {number(usage, unit)}{of}{below}, {count}", seen.wanted.path)
        if not seen.holders:
            table.append([(DIM, "nobody holds anything in this very group")])
        return [*joined([title, *table])]

    def _title(self, what: str, where: str) -> Cell:
        path = shortened_path(printable(where), self._columns - len(what) - 2, self._drawn)
        return shortened([(BOLD, what), ("", f"  {path}")], self._columns, self._drawn)

    def _keys(self) -> StyleAndTextTuples:
        return [*shortened([(DIM, self._keys_now())], self._columns, self._drawn)]

    def _keys_now(self) -> str:
        if self._setting is not None:
            resource, now = self._setting.resource, self._setting.now
            kept = "as it is" if now is None else f"at {number(now, self._groups.units[resource])}"
            return f"enter set  esc leave it {kept}"
        if self._help is not None:
            return _KEYS_HELP
        return _KEYS_HOLDERS if self._wanted.path else _KEYS

    def _prompt(self) -> StyleAndTextTuples:
        assert self._setting is not None
        path, resource, key, _ = self._setting
        return [(BOLD, f"{key.replace('_', ' ')} of {printable(resource)} in {self._name(path)}: ")]

    def _name(self, path: str) -> str:
        """Of a group, in a sentence."""
        return shortened_path(printable(os.path.basename(path)), self._columns // 3, self._drawn)

    # ---- what the keys do

    def _bindings(self, browsing: Filter, prompting: Filter) -> KeyBindings:
        bindings = KeyBindings()

        def on(*keys: str, filter: Filter = browsing) -> Callable[[Callable[[], None]], None]:
            def bind(action: Callable[[], None]) -> None:
                def pressed(_event: KeyPressEvent) -> None:
                    if filter is browsing:
                        self._message = ""
                    action()

                for key in keys:
                    bindings.add(key, filter=filter, eager=True)(pressed)

            return bind

        on("q", "c-c", "<sigint>")(self._end)
        on("c-c", "<sigint>", filter=prompting)(self._end)
        on("c-z")(self._stop)
        on("c-z", filter=prompting)(self._stop)
        on("up", "k")(lambda: self._move(-1))
        on("down", "j")(lambda: self._move(1))
        on("pageup")(lambda: self._move(-self._height))
        on("pagedown")(lambda: self._move(self._height))
        on("home")(lambda: self._move(-sys.maxsize))
        on("end")(lambda: self._move(sys.maxsize))
        on("enter", "right")(self._open)
        on("escape", "left", "backspace")(self._back)
        on("s", ">")(lambda: self._sort(1))
        on("S", "<")(lambda: self._sort(-1))
        on("r")(self._next_resource)
        on("l")(lambda: self._ask("limit"))
        on("L")(lambda: self._ask("soft_limit"))
        on("space")(lambda: self._reader.want(self._wanted))
        on("?", "h")(self._toggle_help)
        on("escape", filter=prompting)(self._end_prompt)
        return bindings

    def _move(self, step: int) -> None:
        if self._help is not None:
            self._help += step
        elif self._wanted.path:
            self._first = max(self._first + step, 0)
        elif self._rows:
            self._at = max(min(self._at + step, len(self._rows) - 1), 0)
            self._selected = self._rows[self._at].id

    def _selected_path(self) -> str:
        """Of the group that is shown or selected; empty before anything was read."""
        if self._wanted.path or self._ordered is None or not isinstance(self._seen, GroupsSeen):
            return self._wanted.path
        assert self._selected is not None
        return full_path(self._groups.path, self._ordered.paths[self._selected])

    def _open(self) -> None:
        path = self._selected_path()
        if path and self._help is None:
            self._want(self._wanted._replace(path=path))

    def _back(self) -> None:
        if self._help is not None:
            self._help = None
        elif self._wanted.path:
            self._want(self._wanted._replace(path=""))

    def _toggle_help(self) -> None:
        self._help = 0 if self._help is None else None

    def _sort(self, step: int) -> None:
        self._order = ORDERS[(ORDERS.index(self._order) + step) % len(ORDERS)]
        self._order_groups()

    def _next_resource(self) -> None:
        names = list(self._groups.units)
        self._want(self._wanted._replace(resource=names[(names.index(self._wanted.resource) + 1) % len(names)]))

    # ---- setting a limit

    def _ask(self, key: str) -> None:
        path = self._selected_path()
        if path and self._help is None:
            self._setting = _Setting(path, self._wanted.resource, key, self._limit_now(key))
            self._layout.focus(self._prompt_window)

    def _limit_now(self, key: str) -> int | None:
        """Of the group that is shown or selected, as it was last seen."""
        if isinstance(self._seen, HoldersSeen):
            return self._seen.stat[key]
        found: int | None = getattr(self._rows[self._at], key) if self._seen is not None else None
        return found

    def _end_prompt(self) -> None:
        self._setting = None
        self._typed.reset()
        self._layout.focus(self._rows_window)

    def _accept(self, typed: Buffer) -> bool:
        """Whether the text stays: that of an amount that is none can be mended."""
        setting, text = self._setting, typed.text.strip()
        assert setting is not None
        self._end_prompt()
        if text:
            try:
                wanted = amount(text, limit=True)
            except ValueError as error:
                self._message = f"{printable(text)} is {error}"
            else:
                self._app.create_background_task(self._set(setting, wanted, text))
        return False

    async def _set(self, setting: _Setting, wanted: int, typed: str) -> None:
        path, resource, key, _ = setting
        counter = LeaseGroup(path, self._groups.units)[resource]
        try:
            await asyncio.to_thread(set_limit, counter, key, wanted, typed)
        except (OSError, UserError) as error:
            self._message = f"{self._name(path)}: {_said(error)}"
        self._reader.want(self._wanted)
        self._app.invalidate()


def _said(error: OSError | UserError) -> str:
    """The message of a command for the same error."""
    try:
        with advised():
            raise error
    except UserError as refused:
        return printable(str(refused))
    except OSError as other:
        return printable(other.strerror or str(other))
