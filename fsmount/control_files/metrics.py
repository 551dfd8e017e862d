"""The file `metrics` of the root directory: every counter, and the daemon's own figures, as OpenMetrics text.

A resource is a label.  A figure in its unit is a family for each unit that there is, since OpenMetrics wants the unit
in the name: fsmount_usage_bytes, and fsmount_usage where things are counted.  failcnt is a counter, which may fall
back to 0, and as such has the suffix _total; all else goes up and down, and is a gauge.

All counters of a resource are of one moment.  The samples of the groups are written here, a few at a time and all
families at once, since there may be half a million; the library writes everything else.  It is imported when the file
is first read.

A label with the path of a group has no natural end: a thousand groups in each other have paths of 260 kB, and 130 MB
in all.  So a group is left out if its path is longer than any system call takes, and beyond TEXT_MAX the deepest
groups are.  fsmount_groups_omitted counts them.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar

from fsmount.control_files.long_file import LongFile
from fsmount.filesystem.request_loop import served
from fsmount.filesystem.shares import Shares
from fsmount.filesystem.texts.kept_texts import Text
from fsmount.protocol.listings import CounterSnapshot
from fsmount.protocol.names import escape
from fsmount.shm import PATH_MAX, ROOT, UNLIMITED, Group, Snapshot

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: About the bytes of all samples of groups.
TEXT_MAX = 64 << 20

_LABELS = ("group", "resource")

#: Field of a CounterSnapshot -> what it is; with the resource's unit, and without.
_QUANTITIES = {
    "usage": "What the group and all below it use.",
    "limit": "The hard limit.",
    "soft_limit": "The soft limit.",
    "max_usage": "The peak of the usage since the last reset.",
    "stock": "What holders have reserved in the subtree and do not use.",
}
_HOLDERS = "Processes and leases that hold something in this counter."
_FAILCNT = "Charges that this very group refused since the last reset."
_OMITTED = "Groups that are not shown here: their paths are too long, or there are too many."

#: About the bytes of a sample beside the path.
_SAMPLE = 60

#: The bytes of all samples of a counter, where its path is no longer than usual, and of the daemon's own figures.
_GROUP, _OWN = 2048, 16384

#: Groups whose samples are made at a time.
_PAGE = 64

_END = b"# EOF\n"

_VALUES: Callable[[CounterSnapshot], tuple[int, ...]] = attrgetter(*_QUANTITIES, "holders", "failcnt")

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class MetricsFile(LongFile):
    """An open `metrics`.  open_files: how many files of the mount are open."""

    timed: ClassVar[bool] = False

    __slots__ = ("_open_files", "_shares")

    @classmethod
    def length(cls, group: Group) -> int:
        return _OWN + _GROUP * group.tree.group_count * len(group.resources)

    def __init__(self, root: Group, inode: int, flags: int, open_files: Callable[[], int], shares: Shares) -> None:
        super().__init__(root, inode, flags)
        self._open_files = open_files
        self._shares = shares

    def key(self) -> Hashable:
        return MetricsFile

    def make(self) -> Text:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

        tree = self.group.tree
        units = {resource: "" if unit == "count" else unit for resource, unit in tree.resources.items()}
        families: list[Metric] = [
            GaugeMetricFamily(f"fsmount_{field}", about, labels=_LABELS, unit=unit)
            for unit in dict.fromkeys(units.values())
            for field, about in _QUANTITIES.items()
        ]
        families.append(GaugeMetricFamily("fsmount_holders", _HOLDERS, labels=_LABELS))
        families.append(CounterMetricFamily("fsmount_failcnt", _FAILCNT, labels=_LABELS))
        samples = {family.name: Text() for family in families}
        omitted = 0
        for resource, unit in units.items():
            names = [f"fsmount_{field}_{unit}".rstrip("_") for field in _QUANTITIES]
            names += "fsmount_holders", "fsmount_failcnt"
            groups = _Groups(tree.take_snapshot(resource), TEXT_MAX // len(units))
            texts = [samples[name] for name in names]
            _add_samples(texts, [*names[:-1], f"{names[-1]}_total"], groups, resource)
            omitted = max(omitted, groups.omitted)
        text = Text()
        for family in families:
            text.add(_exposed([family]).removesuffix(_END))
            text.extend(samples[family.name])
        text.add(_exposed(self._own_figures(omitted)))
        text.end()
        return text

    def _own_figures(self, omitted: int) -> "Iterator[Metric]":
        from prometheus_client import ProcessCollector
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        processes, leases = self.group.tree.count_holders()
        yield GaugeMetricFamily("fsmount_groups_omitted", _OMITTED, omitted)
        yield CounterMetricFamily("fsmount_requests", "Requests of the kernel that the daemon has served.", served())
        yield GaugeMetricFamily("fsmount_open_files", "Open files of the mount.", self._open_files())
        yield GaugeMetricFamily("fsmount_leases", "Open leases that are holders.", leases)
        yield GaugeMetricFamily("fsmount_processes", "Attached processes.", processes)
        yield from _capacity_figures(self._shares)
        yield from ProcessCollector(registry=None).collect()


def _capacity_figures(shares: Shares) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import GaugeMetricFamily

    capacity = GaugeMetricFamily("fsmount_capacity", "How many of each kind the mount has room for.", labels=["what"])
    used = GaugeMetricFamily("fsmount_capacity_used", "How many of each kind there are.", labels=["what"])
    for what, found in shares.report().items():
        capacity.add_metric([what], found.capacity)
        used.add_metric([what], found.used)
    yield capacity
    yield used


class _Groups:
    """The groups of a snapshot that are shown, with their paths; `omitted` counts the others."""

    def __init__(self, snapshot: Snapshot, room: int) -> None:
        self._snapshot = snapshot
        self._depth, self._left = snapshot.fitting(PATH_MAX, (len(_QUANTITIES) + 2) * _SAMPLE, room)
        self._above: list[tuple[int, str | None, int]] = []  # id, path and its length, from the root down
        self.omitted = 0

    def pages(self) -> Iterator[list[tuple[str, CounterSnapshot]]]:
        for page in self._snapshot.pages(ROOT, _PAGE):
            yield [(path or "/", row) for row in page if (path := self._path(row)) is not None]

    def _path(self, row: CounterSnapshot) -> str | None:
        """The path of the next group, None if it is left out; the root's is empty."""
        above = self._above
        while above and above[-1][0] != row.parent:
            above.pop()
        path: str | None = ""
        length = 0
        if above:
            _, parent, length = above[-1]
            length += 1 + len(os.fsencode(row.name))
            path = None if parent is None or length > PATH_MAX else f"{parent}/{escape(row.name)}"
        if len(above) > self._depth or (len(above) == self._depth and self._left == 0):
            path = None
        if path is None:
            self.omitted += 1
        elif len(above) == self._depth:
            self._left -= 1
        above.append((row.id, path, length))
        return path


def _add_samples(texts: Sequence[Text], names: Sequence[str], groups: _Groups, resource: str) -> None:
    """Adds a sample of each group to the text of each family."""
    ending = f'",resource="{resource.translate(_ESCAPES)}"}} '
    for page in groups.pages():
        labelled = [(f'{{group="{path.translate(_ESCAPES)}{ending}', _VALUES(row)) for path, row in page]
        for number, (text, name) in enumerate(zip(texts, names, strict=True)):
            text.add("".join([f"{name}{labels}{_number(row[number])}\n" for labels, row in labelled]).encode())


def _number(amount: int) -> str:
    return "+Inf" if amount == UNLIMITED else str(amount)


def _exposed(families: "Iterable[Metric]") -> bytes:
    """The text that the library writes."""
    from prometheus_client.openmetrics.exposition import generate_latest

    return generate_latest(_Collected(families))  # type: ignore[no-any-return]


class _Collected:
    """Stands for a registry, which is more than the library asks."""

    def __init__(self, families: "Iterable[Metric]") -> None:
        self._families = families

    def collect(self) -> "Iterable[Metric]":
        return self._families
