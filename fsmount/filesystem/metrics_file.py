"""The file `metrics` of the root directory: every counter, and the daemon's own figures, as OpenMetrics text.

A resource is a label.  A figure in its unit is a family for each unit that there is, since OpenMetrics wants the unit
in the name: fsmount_usage_bytes, and fsmount_usage where things are counted.  failcnt is a counter, which may fall
back to 0, and as such has the suffix _total; all else goes up and down, and is a gauge.  Numbers are what OpenMetrics'
readers make of them, floating point: exact up to 2^53.

All counters of a resource are of one moment.  The text of many groups takes a while, so it is made in a worker thread
that asks for no more than its turn, and the library for it is imported when the file is first read.
"""

import math
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar

from ..names import escape
from ..tree import LEASE, PROCESS, ROOT, UNLIMITED, Group, Surveyed, Tree
from .guard import leave_loop
from .open_file import OpenFile
from .request_loop import served

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_LABELS = ("group", "resource")

#: Field of a Surveyed -> what it is; with the resource's unit, and without.
_QUANTITIES = {
    "usage": "What the group and all below it use.",
    "limit": "The hard limit.",
    "soft_limit": "The soft limit.",
    "max_usage": "The peak of the usage since the last reset.",
    "stock": "What holders have reserved in the subtree and do not use.",
}
_HOLDERS = "Processes and leases that hold something in this counter."
_FAILCNT = "Charges that this very group refused since the last reset."

Rows = list[tuple[list[str], Surveyed]]


class MetricsFile(OpenFile):
    """An open `metrics`.  open_files: how many files of the mount are open."""

    timed: ClassVar[bool] = False

    __slots__ = ("_open_files",)

    def __init__(self, root: Group, inode: int, flags: int, open_files: Callable[[], int]) -> None:
        super().__init__(root, inode, flags)
        self._open_files = open_files

    def text(self) -> bytes:
        leave_loop()
        from prometheus_client.openmetrics.exposition import generate_latest

        return generate_latest(self)  # type: ignore[no-any-return]

    def collect(self) -> "Iterator[Metric]":
        """The families, as the library asks for them: each is let go of before the next is made."""
        tree = self.group.tree
        by_unit: dict[str, Rows] = {}
        for resource, unit in tree.resources.items():
            by_unit.setdefault("" if unit == "count" else unit, []).extend(_rows(tree, resource))
        yield from _counters(by_unit)
        yield from self._own_figures(tree)

    def _own_figures(self, tree: Tree) -> "Iterator[Metric]":
        from prometheus_client import ProcessCollector
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        kinds = [holder.kind for holder in tree.holders()]
        yield CounterMetricFamily("fsmount_requests", "Requests of the kernel that the daemon has served.", served())
        yield GaugeMetricFamily("fsmount_open_files", "Open files of the mount.", self._open_files())
        yield GaugeMetricFamily("fsmount_leases", "Open leases that are holders.", kinds.count(LEASE))
        yield GaugeMetricFamily("fsmount_processes", "Attached processes.", kinds.count(PROCESS))
        yield from ProcessCollector(registry=None).collect()


def _rows(tree: Tree, resource: str) -> Rows:
    """The labels and the counter of every group."""
    rows = []
    paths: dict[int, str] = {}
    for row in tree.survey(resource):
        path = paths[row.id] = "" if row.id == ROOT else f"{paths[row.parent]}/{escape(row.name)}"
        rows.append(([path or "/", resource], row))
    return rows


def _counters(by_unit: dict[str, Rows]) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    for unit, rows in by_unit.items():
        for field, about in _QUANTITIES.items():
            gauge = GaugeMetricFamily(f"fsmount_{field}", about, labels=_LABELS, unit=unit)
            value = attrgetter(field)
            for labels, row in rows:
                amount = value(row)
                gauge.add_metric(labels, math.inf if amount == UNLIMITED else amount)
            yield gauge
    holders = GaugeMetricFamily("fsmount_holders", _HOLDERS, labels=_LABELS)
    failcnt = CounterMetricFamily("fsmount_failcnt", _FAILCNT, labels=_LABELS)
    for rows in by_unit.values():
        for labels, row in rows:
            holders.add_metric(labels, row.holders)
            failcnt.add_metric(labels, row.failcnt)
    yield holders
    yield failcnt
