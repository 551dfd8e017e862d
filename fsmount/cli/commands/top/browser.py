"""The state of fsmount top on a terminal: the latest look, the order, the selected group and the scroll position."""

from __future__ import annotations

import sys
import time

from fsmount.cli.commands.top.reader import GroupsSeen, HoldersSeen, Seen, Unseen, Wanted
from fsmount.cli.commands.top.views import ORDERS, History, Ordered, ordered
from fsmount.cli.ui.snapshot import Groups, full_path
from fsmount.protocol.listings import CounterSnapshot


class Browser:
    """The groups of one resource, or the holders of one group, and the user's place among them."""

    def __init__(self, groups: Groups, top: str, wanted: Wanted, order: str) -> None:
        self.groups = groups
        self.top = top
        self.wanted = wanted
        self.order = order
        #: The content of the screen: a look at groups or holders; None before the first look.
        self.seen: GroupsSeen | HoldersSeen | None = None
        self.ordered: Ordered | None = None
        #: The row of the selected group, and the first row on the screen.
        self.row = 0
        self.first = 0
        #: The first line of the help on the screen; None: no help is shown.
        self.help: int | None = None
        #: Resource -> the usages of the last minute, and the latest look.
        self.histories: dict[str, History] = {}
        self._latest: dict[str, GroupsSeen] = {}
        self._selected: int | None = None

    # ---- looks

    def add(self, seen: Seen) -> OSError | None:
        """Adds a look.  The error: the holders cannot be read, and the groups are wanted again."""
        if isinstance(seen, GroupsSeen):
            resource = seen.wanted.resource
            self._latest[resource] = seen
            self.histories.setdefault(resource, History()).add(time.monotonic(), seen.rows)
        if seen.wanted != self.wanted:
            return None
        if isinstance(seen, Unseen):
            self.want(seen.wanted._replace(path=""))
            return seen.error
        self.seen = seen
        self._sort_groups()
        return None

    def want(self, wanted: Wanted) -> None:
        """Changes the object of the looks; the latest look at it is shown until the next one."""
        if wanted == self.wanted:
            return
        self.wanted = wanted
        self.seen = None if wanted.path else self._latest.get(wanted.resource)
        self.first = 0
        self._sort_groups()

    def _sort_groups(self) -> None:
        if isinstance(self.seen, GroupsSeen):
            self.ordered = ordered(self.seen.rows, self.order)
            self._find_selected()

    def _find_selected(self) -> None:
        """Moves the selection with its group; if the group is gone, the next group takes its place."""
        rows = self.rows
        same = (at for at, row in enumerate(rows) if row.id == self._selected)
        self.row = next(same, max(min(self.row, len(rows) - 1), 0))
        self._selected = rows[self.row].id

    @property
    def rows(self) -> list[CounterSnapshot]:
        """The groups in their order."""
        return self.ordered.rows if self.ordered is not None else []

    # ---- moving around

    def move(self, step: int) -> None:
        """Moves the selection, or scrolls the holders or the help, by a number of rows."""
        if self.help is not None:
            self.help += step
        elif self.wanted.path:
            self.first = max(self.first + step, 0)
        elif self.rows:
            self.row = max(min(self.row + step, len(self.rows) - 1), 0)
            self._selected = self.rows[self.row].id

    def move_to_start(self) -> None:
        self.move(-sys.maxsize)

    def move_to_end(self) -> None:
        self.move(sys.maxsize)

    def open(self) -> None:
        """From the groups to the holders of the selected group."""
        path = self.path
        if path and self.help is None:
            self.want(self.wanted._replace(path=path))

    def back(self) -> None:
        """From the help or the holders to the groups."""
        if self.help is not None:
            self.help = None
        elif self.wanted.path:
            self.want(self.wanted._replace(path=""))

    def toggle_help(self) -> None:
        self.help = 0 if self.help is None else None

    def sort_by(self, step: int) -> None:
        """Sorts by the next order (1) or the previous one (-1)."""
        self.order = ORDERS[(ORDERS.index(self.order) + step) % len(ORDERS)]
        self._sort_groups()

    def next_resource(self) -> None:
        names = list(self.groups.units)
        self.want(self.wanted._replace(resource=names[(names.index(self.wanted.resource) + 1) % len(names)]))

    # ---- the current group

    @property
    def path(self) -> str:
        """The path of the group that is open or selected; empty before the first look."""
        if self.wanted.path or self.ordered is None or not isinstance(self.seen, GroupsSeen):
            return self.wanted.path
        assert self._selected is not None
        return full_path(self.groups.path, self.ordered.paths[self._selected])

    def value(self, key: str) -> int | None:
        """A value of R.stat of that group, from the latest look."""
        if isinstance(self.seen, HoldersSeen):
            return self.seen.stat[key]
        found: int | None = getattr(self.rows[self.row], key) if self.seen is not None else None
        return found
