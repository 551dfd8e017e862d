"""The file metrics of the root directory: every counter, and the daemon's own figures, as OpenMetrics text.

A resource is a label.  OpenMetrics wants the unit in the name of a metric, so an amount has a family for each unit:
fsmount_usage_bytes, and fsmount_usage for resources with the unit count.  failcnt is a counter, with the suffix _total,
and may fall back to 0.  All other figures are gauges.

All counters of a resource are from one moment.  There may be half a million groups, so this module writes their samples
itself, a few groups at a time and all families at once.  The library writes everything else.  It is imported when the
file is first read.

Paths of groups have no natural limit: a thousand nested groups have paths of 260 kB, and 130 MB in all.  So metrics
leave out each group whose path is longer than any system call takes, and beyond TEXT_MAX the deepest groups.
fsmount_groups_omitted counts them.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from fsmount.control_files.control_file import Figure, kinds
from fsmount.control_files.long_file import LongFile
from fsmount.control_files.text import Text
from fsmount.protocol.file_names import METRICS_FILE
from fsmount.protocol.names import PATH_MAX, escape
from fsmount.quantities import UNLIMITED

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from fsmount.control_files.mount import Mount
    from fsmount.interface.region import RegionGroup, Snapshot
    from fsmount.protocol.listings import CounterSnapshot

#: About how many bytes the samples of all groups take at most.
TEXT_MAX = 64 << 20

_LABELS = ("group", "resource")

_OMITTED = "Groups that are not shown here: their paths are too long, or there are too many."

#: About the bytes of a sample without its path.
_SAMPLE = 60

#: The bytes of all samples of a counter with a path of usual length, and of the daemon's own figures.
_GROUP, _OWN = 2048, 16384

#: The number of groups that a step adds.
_PAGE = 64

_END = b"# EOF\n"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class MetricsFile(LongFile):
    number = 18
    name = METRICS_FILE
    scope = "root"
    mode = 0o444
    timed = False
    manual = "In the root directory alone: all counters, and the figures of the daemon, as OpenMetrics text."

    __slots__ = ()

    @classmethod
    def length(cls, group: RegionGroup) -> int:
        return _OWN + _GROUP * group.tree.group_count * len(group.resources)

    def key(self) -> Hashable:
        return MetricsFile

    def make(self) -> Text:
        units = {resource: "" if unit == "count" else unit for resource, unit in self.group.units.items()}
        figures = [figure for kind in kinds() for figure in kind.figures]
        values = attrgetter(*(figure.key for figure in figures))
        families = {
            _family(figure, unit): (figure, unit, Text())
            for unit in dict.fromkeys(units.values())
            for figure in figures
        }
        omitted = 0
        for resource, unit in units.items():
            groups = _Groups(self.group.id, self.group[resource].take_snapshot(), len(figures), TEXT_MAX // len(units))
            names = [_family(figure, unit) for figure in figures]
            texts = [families[name][2] for name in names]
            samples = [f"{name}_total" if figure.total else name for name, figure in zip(names, figures, strict=True)]
            for page in groups.pages():
                ending = f'",resource="{resource.translate(_ESCAPES)}"}} '
                labelled = [(f'{{group="{path.translate(_ESCAPES)}{ending}', values(row)) for path, row in page]
                _add_samples(texts, samples, labelled)
            omitted = max(omitted, groups.omitted)
        text = Text()
        for name, (figure, unit, of_groups) in families.items():
            text.add(_exposed([_head(name, figure, unit)]).removesuffix(_END))
            text.extend(of_groups)
        text.add(_exposed(self._own_figures(omitted)))
        text.end()
        return text

    def _own_figures(self, omitted: int) -> Iterator[Metric]:
        from prometheus_client import ProcessCollector
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        mount = self.opening.mount
        processes, leases = self.group.tree.count_holders()
        requests = mount.requests_served()
        yield GaugeMetricFamily("fsmount_groups_omitted", _OMITTED, omitted)
        yield CounterMetricFamily("fsmount_requests", "Requests of the kernel that the daemon has served.", requests)
        yield GaugeMetricFamily("fsmount_open_files", "Open files of the mount.", mount.open_files())
        yield GaugeMetricFamily("fsmount_leases", "Open leases that are holders.", leases)
        yield GaugeMetricFamily("fsmount_processes", "Attached processes.", processes)
        yield from _capacity_figures(mount)
        yield from ProcessCollector(registry=None).collect()


def _family(figure: Figure, unit: str) -> str:
    """The name of a figure's family of metrics."""
    return f"fsmount_{figure.key}_{unit}" if figure.quantity and unit else f"fsmount_{figure.key}"


def _head(name: str, figure: Figure, unit: str) -> Metric:
    """The family without samples."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    if figure.total:
        return CounterMetricFamily(name, figure.about, labels=_LABELS)
    return GaugeMetricFamily(name, figure.about, labels=_LABELS, unit=unit if figure.quantity else "")


def _capacity_figures(mount: Mount) -> Iterator[Metric]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    capacity = GaugeMetricFamily(
        "fsmount_capacity", "The number of each kind that the mount has room for.", labels=["what"]
    )
    used = GaugeMetricFamily("fsmount_capacity_used", "The number of each kind in use.", labels=["what"])
    for what, found in mount.capacity().items():
        capacity.add_metric([what], found.capacity)
        used.add_metric([what], found.used)
    yield capacity
    yield used


class _Groups:
    """The groups of a snapshot that metrics show, with their paths; `omitted` counts the others."""

    def __init__(self, root: int, snapshot: Snapshot, figures: int, room: int) -> None:
        self._root = root
        self._snapshot = snapshot
        self._depth, self._left = snapshot.fitting(PATH_MAX, figures * _SAMPLE, room)
        self._above: list[tuple[int, str | None, int]] = []  # id, path and its length, from the root down
        self.omitted = 0

    def pages(self) -> Iterator[list[tuple[str, CounterSnapshot]]]:
        for page in self._snapshot.pages(self._root, _PAGE):
            yield [(path or "/", row) for row in page if (path := self._path(row)) is not None]

    def _path(self, row: CounterSnapshot) -> str | None:
        """The path of the next group, None if it is left out; that of the root is empty."""
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


def _add_samples(texts: Sequence[Text], names: Sequence[str], rows: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    """Adds a sample of each group, given by its labels and values, to the text of each family."""
    for number, (text, name) in enumerate(zip(texts, names, strict=True)):
        text.add("".join([f"{name}{labels}{_number(values[number])}\n" for labels, values in rows]).encode())


def _number(amount: int) -> str:
    return "+Inf" if amount == UNLIMITED else str(amount)


def _exposed(families: Iterable[Metric]) -> bytes:
    """The text of the library."""
    from prometheus_client.openmetrics.exposition import generate_latest

    return generate_latest(_Collected(families))  # type: ignore[no-any-return]


class _Collected:
    """The part of a registry that the library needs."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
