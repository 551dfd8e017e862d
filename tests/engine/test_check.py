"""The outside checker: each derived field is damaged once, and the checker must find, name and repair it."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fsmount import LimitExceeded, RegionCorrupt, Tree
from fsmount.engine import BELOW, LEASE, PERCENT, PROCESS, process_start_time, request
from tests.engine.programs import ADDRESSES, ENGINE, Build, run
from tests.engine.workers import Progress, Worker

SELF = os.getpid()
RESOURCES = ["memory", "tokens:count"]
SLOTS = 16 * len(RESOURCES)  # attributes of a group in its first bank
NONE = 0xFFFFFFFF
FAR = 0x7FFFFFF0
MAX = (1 << 63) - 1
FREE, LIVE, ENDING = 0, 1, 2


# ---- a region that has something in every list -----------------------------------------------------------


@dataclass
class Places:
    """The index of each record; of a counter it is group * resources + resource."""

    group: dict[str, int] = field(default_factory=dict)  # by path; free records as "free" and "free too"
    holder: dict[str, int] = field(default_factory=dict)


def furnish(path: Path) -> tuple[bytes, Places]:
    """A region as the death of this process would leave it."""
    places = Places()
    process = subprocess.Popen(["sleep", "1000"])
    with Tree.create(path, RESOURCES, groups=16, holders=8, cells=32) as tree:
        region = tree.region
        web = tree.root.mkdir("web")
        groups = [tree.root, web, web.mkdir("api"), web.mkdir("static"), tree.root.mkdir("batch"), web.mkdir("idle")]
        places.group = {group.path: group.id & NONE for group in groups}
        for name in ("free", "free too", "free again"):
            places.group[name] = tree.root.mkdir(name).id & NONE
        for name in ("free", "free too", "free again"):
            tree.root.rmdir(name)
        groups[4]["tokens"].limit = 9000
        with pytest.raises(LimitExceeded):
            groups[4]["tokens"].charge_common(9001)
        region.unwatch(region.watch(web.id, 0, [(10, 0), (20, BELOW)], []))
        region.watch(web.id, 0, [(1 << 40, 0), (80, PERCENT), (1 << 41, BELOW)], [])
        unwatched = region.watch(web.id, 1, [(10, 0), (20, BELOW)], [])
        region.unwatch(unwatched)

        with ExitStack() as ended:
            holders = {"free": PROCESS, "free too": PROCESS, "free lease": LEASE, "free lease too": LEASE}
            for name, kind in holders.items():
                holder = region.holder_create(SELF, process_start_time(SELF), kind, 0)
                region.holder_join(holder, web.id)
                ended.callback(region.holder_end, holder)
                places.holder[name] = holder & NONE
            lease = region.holder_create(SELF, process_start_time(SELF), LEASE, 0)
            region.holder_join_one(lease, groups[4].id, 0)
            living = region.holder_create(process.pid, process_start_time(process.pid), PROCESS, 0)
            region.holder_join_one(living, web.id, 0)
            ended.callback(region.holder_end, living)  # its process lives, so its cell goes into quarantine
            for on_exit in ("release", "keep"):
                for group in groups[1:5]:
                    attached = group.attach(on_exit=on_exit)
                    for resource in attached.resources:
                        attached[resource].charge(1000)
                        attached[resource].uncharge(400)
            static = groups[3].attach()
            static["memory"].limit = 1 << 20
            line = [
                request([static[resource] for resource in wanted], [1 << 20] * len(wanted))
                for wanted in (["memory"], ["memory", "tokens"], ["memory"], ["memory"], ["memory"])
            ]
            for asked in line[3:]:
                assert asked is not None
                assert not asked.end()
        process.kill()
        process.wait()
        places.holder |= {"lease": lease & NONE}
        own = [holder.id & NONE for holder in tree.holders() if holder.kind == PROCESS]
        places.holder |= {"releasing": own[0], "keeping": own[1]}
        groups[4]["memory"].charge_common(77)
        groups[4].set_attributes(1, 1, mode=0o600)
        assert tree.check() == []
        assert tree.root["memory"].stat()["stock"] > 0
        return path.read_bytes(), places


# ---- the layout -----------------------------------------------------------------------------------


def derived_fields() -> set[str]:
    """The fields that layout.h marks with (d)."""
    found = set()
    for record, body in re.findall(
        r"^typedef struct (\w+) \{\n(.*?)^\}", (ENGINE / "region/layout.h").read_text(), re.S | re.M
    ):
        for line in body.splitlines():
            if "(d)" in line:
                declared = re.fullmatch(r"\s*\w+ ([\w, ]+);.*", line)
                assert declared, line
                found |= {f"{record}.{name}" for name in declared[1].split(", ")}
    return found


@dataclass
class Layout:
    """The layout as the compiler sees it."""

    at: dict[str, int]
    size: dict[str, int]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Places, Layout]:
    directory = tmp_path_factory.mktemp("check")
    good, places = furnish(directory / "region")
    (directory / "good").write_bytes(good)
    names = {damaged.at for damaged in DERIVED} | {damage.at for damaged in TRUTH for damage in damaged.damages}
    names |= {"cell.owner", "cell.counter", "cell.words.state", "header.broken"}
    fields = " ".join(f"FIELD({', '.join(name.split('.', 1))})" for name in sorted(names) if "." in name)
    layout = Layout({}, {})
    said = run(Build("layout.c", directory / "layout", f"-DFIELDS={fields}").program, directory / "good").stdout
    for line in said.splitlines():
        name, at, size = line.split()
        layout.at[name], layout.size[name] = int(at), int(size)
    attempt = 0
    while not is_first_in_its_bucket(places.group["/web"], good, layout):  # the key of the hash is random
        attempt += 1
        good, places = furnish(directory / f"region-{attempt}")
    return good, places, layout


def is_first_in_its_bucket(group: int, region: bytes, layout: Layout) -> bool:
    start, size = layout.at["bucket"], layout.size["bucket"]
    return any(
        int.from_bytes(region[at : at + size], "little") == group for at in range(start, start + 64 * size, size)
    )


class Scene:
    """A copy of the furnished region, to be damaged."""

    def __init__(self, path: Path, furnished: tuple[bytes, Places, Layout]) -> None:
        self.good, self.places, self.layout = furnished
        path.write_bytes(self.good)
        self.path = path
        self.fd = os.open(path, os.O_RDWR)
        self.tree = Tree.open(path)

    def close(self) -> None:
        self.tree.close()
        os.close(self.fd)

    def restore(self) -> None:
        os.pwrite(self.fd, self.good, 0)

    def place(self, name: str, index: int) -> tuple[int, int, bool]:
        """The offset and size of a field of a record, and whether it is signed."""
        record, _, member = name.partition(".")
        start = self.layout.at[record] + index * self.layout.size[record]
        if not member:
            return start, self.layout.size[record], False
        return start + self.layout.at[name], self.layout.size[name], self.layout.size[name] == 8

    def get(self, name: str, index: int = 0) -> int:
        at, size, signed = self.place(name, index)
        return int.from_bytes(os.pread(self.fd, size, at), "little", signed=signed)

    def put(self, name: str, index: int, value: int | bytes) -> None:
        at, size, signed = self.place(name, index)
        data = value if isinstance(value, bytes) else value.to_bytes(size, "little", signed=signed)
        os.pwrite(self.fd, data, at)

    def group(self, path: str) -> int:
        return self.places.group[path]

    def counter(self, path: str, resource: int = 0) -> int:
        return self.group(path) * len(RESOURCES) + resource

    def holder(self, name: str) -> int:
        return self.places.holder[name]

    def cell_of(self, owner: int, counter: int | None = None) -> int:
        """The first cell of an owner (holder + 1; 0: free; NONE: in quarantine), in one counter or any."""
        for index in range(32):
            if self.get("cell.owner", index) == owner and counter in (None, self.get("cell.counter", index)):
                return index
        raise LookupError

    def cell(self, holder: str, path: str, resource: int = 0) -> int:
        return self.cell_of(self.holder(holder) + 1, self.counter(path, resource))

    def usages(self) -> list[int]:
        groups = [self.tree.group(index) for index in (0,)] + self.tree.root.children()
        return [group[resource].usage for group in groups for resource in group.resources]


@pytest.fixture
def scene(tmp_path: Path, furnished: tuple[bytes, Places, Layout]) -> Iterator[Scene]:
    scene = Scene(tmp_path / "region", furnished)
    yield scene
    scene.close()


# ---- derived fields ----------------------------------------------------------------------------------

Where = Callable[[Scene], int]


@dataclass
class Derived:
    """A derived field, a part of its finding, and wrong values for it; without them any other value is wrong."""

    at: str
    where: Where
    said: str
    values: tuple[int, ...] = ()


def group(path: str) -> Where:
    return lambda scene: scene.group(path)


def counter(path: str, resource: int = 0) -> Where:
    return lambda scene: scene.counter(path, resource)


def holder(name: str) -> Where:
    return lambda scene: scene.holder(name)


def cell(name: str, path: str, resource: int = 0) -> Where:
    return lambda scene: scene.cell(name, path, resource)


def the_header(_: Scene) -> int:
    return 0


def bucket_of(path: str) -> Where:
    """The first bucket whose list begins with this group."""
    return lambda scene: next(index for index in range(64) if scene.get("bucket", index) == scene.group(path))


def an_empty_bucket(scene: Scene) -> int:
    return next(index for index in range(64) if scene.get("bucket", index) == NONE)


def the_first_watch(scene: Scene) -> int:
    return scene.get("counter.watches_head", scene.counter("/web"))


def the_second_watch(scene: Scene) -> int:
    return scene.get("watch.next", the_first_watch(scene))


def the_first_free_watch(scene: Scene) -> int:
    return scene.get("header.watches.free")


def the_refusal(scene: Scene) -> int:
    return 0


def the_first_waiter(scene: Scene) -> int:
    return scene.get("header.queue_head")


def the_second_waiter(scene: Scene) -> int:
    return scene.get("waiter.next", the_first_waiter(scene))


def the_first_free_waiter(scene: Scene) -> int:
    return scene.get("header.waiters.free")


def the_first_free_cell(scene: Scene) -> int:
    return scene.get("header.cells.free")


DERIVED = [
    Derived("group.depth", group("/web/api"), "depth of /web/api: "),
    Derived("group.depth", group("/"), "depth of /: "),
    Derived("group.children", group("/web"), "children of /web: "),
    Derived("group.children", group("/web/idle"), "children of /web/idle: "),
    Derived("group.first_child", group("/web"), "children of /web: "),
    Derived("group.first_child", group("/web/idle"), "children of /web/idle: "),
    Derived("group.last_child", group("/web"), "last child of /web: "),
    Derived("group.last_child", group("/web/idle"), "last child of /web/idle: "),
    Derived("group.next_sibling", group("/web"), "children of /: "),
    Derived("group.next_sibling", group("/web/idle"), "children of /web: "),
    Derived("group.next_sibling", group("/"), "siblings of /: "),
    Derived("group.next_sibling", group("free too"), "free groups: "),
    Derived("group.prev_sibling", group("/web"), "children of /: "),
    Derived("group.prev_sibling", group("/web/idle"), "children of /web: "),
    Derived("group.prev_sibling", group("/"), "siblings of /: "),
    Derived("group.hash_next", group("/web"), "names of bucket "),
    Derived("group.hash_next", group("/"), "siblings of /: "),
    Derived("bucket", bucket_of("/web"), "name of /web: a lookup does not find the group"),
    Derived("bucket", an_empty_bucket, "names of bucket "),
    Derived("counter.reserved", counter("/web/api"), "reserved of /web/api memory: "),
    Derived("counter.reserved", counter("/", 1), "reserved of / tokens: "),
    Derived("counter.stock_cap", counter("/web"), "stock_cap of /web memory: "),
    Derived("counter.batch", counter("/web", 1), "batch of /web tokens: ", (-1, -MAX - 1)),
    Derived("counter.global_exit", counter("/web"), "global_exit of /web memory: ", (-1, -MAX - 1)),
    Derived("counter.global", counter("/web"), "global of /web memory: ", (1, 3, NONE)),
    Derived("counter.marked", counter("/web"), "marked of /web memory: "),
    Derived("counter.low", counter("/web"), "low of /web memory: "),
    Derived("counter.high", counter("/", 1), "high of / tokens: "),
    Derived("counter.watches_head", counter("/web"), "watches of /web memory: "),
    Derived("counter.watches_head", counter("/web/idle"), "watches of /web/idle memory: "),
    Derived("watch.next", the_first_watch, "watches of /web memory: "),
    Derived("watch.next", the_first_free_watch, "free watches: "),
    Derived("watch.prev", the_second_watch, "watches of /web memory: "),
    Derived("counter.waiting", counter("/web/static"), "waiting of /web/static memory: "),
    Derived("counter.waiting", counter("/", 1), "waiting of / tokens: "),
    Derived("waiter.next", the_first_waiter, "queue: "),
    Derived("waiter.next", the_first_free_waiter, "free waiters: "),
    Derived("waiter.prev", the_second_waiter, "queue: "),
    Derived("counter.cells_head", counter("/web"), "cells of /web memory: "),
    Derived("counter.cells_head", counter("/web/idle"), "cells of /web/idle memory: "),
    Derived("counter.cells", counter("/web"), "cells of /web memory: "),
    Derived("counter.open_head", counter("/web"), "open cells of /web memory: "),
    Derived("counter.open_head", counter("/web/idle"), "open cells of /web/idle memory: "),
    Derived("counter.open_below", counter("/", 1), "open_below of / tokens: "),
    Derived("counter.active_child", counter("/web"), "active children of /web memory: "),
    Derived("counter.active_child", counter("/web/api"), "active children of /web/api memory: "),
    Derived("counter.active_next", counter("/web"), "active children of / memory: "),
    Derived("counter.active_next", counter("/"), "active_next and active_prev of / memory: "),
    Derived("counter.active_next", counter("/web/idle"), "active_next and active_prev of /web/idle memory: "),
    Derived("counter.active_prev", counter("/web/api"), "active children of /web memory: "),
    Derived("counter.active_prev", counter("/web/idle"), "active_next and active_prev of /web/idle memory: "),
    Derived("holder.cells_head", holder("releasing"), "cells of process {releasing} (pid {pid}): "),
    Derived("holder.cells_head", holder("lease"), "cells of lease {lease} (pid {pid}): "),
    Derived("holder.cells", holder("keeping"), "cells of process {keeping} (pid {pid}): "),
    Derived("holder.cells", holder("lease"), "cells of lease {lease} (pid {pid}): "),
    Derived("holder.next_free", holder("free"), "free processes: "),
    Derived("holder.next_free", holder("free lease"), "free leases: "),
    Derived("cell.holder_next", cell("releasing", "/web/api"), "cells of process {releasing} (pid {pid}): "),
    Derived("cell.holder_next", the_first_free_cell, "free cells: "),
    Derived("cell.holder_prev", cell("keeping", "/web/api"), "cells of process {keeping} (pid {pid}): "),
    Derived("cell.counter_next", cell("keeping", "/web", 1), "cells of /web tokens: "),
    Derived("cell.counter_prev", cell("releasing", "/batch"), "cells of /batch memory: "),
    Derived("cell.open_next", cell("keeping", "/web"), "open cells of /web memory: "),
    Derived("cell.open_next", cell("lease", "/batch"), "of lease {lease} (pid {pid}) in /batch memory: "),
    Derived("cell.open_prev", cell("releasing", "/web"), "open cells of /web memory: "),
    Derived("cell.open_prev", cell("lease", "/batch"), "of lease {lease} (pid {pid}) in /batch memory: "),
    Derived("header.groups.free", the_header, "free groups: "),
    Derived("header.processes.free", the_header, "free processes: "),
    Derived("header.leases.free", the_header, "free leases: "),
    Derived("header.cells.free", the_header, "free cells: "),
    Derived("header.watches.free", the_header, "free watches: "),
    Derived("header.waiters.free", the_header, "free waiters: "),
    Derived("header.groups.spare", the_header, "free groups: "),
    Derived("header.processes.spare", the_header, "free processes: "),
    Derived("header.leases.spare", the_header, "free leases: "),
    Derived("header.cells.spare", the_header, "free cells: "),
    Derived("header.watches.spare", the_header, "free watches: "),
    Derived("header.waiters.spare", the_header, "free waiters: "),
    Derived("header.queue_head", the_header, "queue: "),
    Derived("header.queue_tail", the_header, "queue: the last is "),
    Derived("header.waiting", the_header, "requests that wait: "),
    Derived("header.cells.last_free", the_header, "free cells: the last is "),
    Derived("header.quarantined", the_header, "quarantined cells: "),
]


def test_every_derived_field_of_layout_h_is_damaged_here() -> None:
    pools = re.compile(r"header\.\w+\.(?=(last_)?free|spare)")
    assert {pools.sub("pool.", damaged.at) for damaged in DERIVED} - {"bucket"} == derived_fields()


def names(scene: Scene) -> dict[str, int]:
    """The names of the holders, the first watch and the first request in a report."""
    first_lease = 8
    holders = {name: index % first_lease for name, index in scene.places.holder.items()}
    return holders | {
        "pid": SELF,
        "watch": the_first_watch(scene),
        "waiter": the_first_waiter(scene),
        "second": the_second_waiter(scene),
    }


@pytest.mark.parametrize("damaged", DERIVED, ids=lambda damaged: f"{damaged.at}-{damaged.said.split(':')[0]}")
def test_a_damaged_derived_field_is_found_named_and_repaired(scene: Scene, damaged: Derived) -> None:
    index = damaged.where(scene)
    good = scene.get(damaged.at, index)
    long = scene.layout.size[damaged.at] == 8
    values = {0, 1, 2, good + 1 & (MAX if long else NONE), index, FAR, *((-1, MAX) if long else (NONE, NONE - 1))}
    said = damaged.said.format(**names(scene))
    usages = scene.usages()
    for value in damaged.values or values - {good}:
        scene.put(damaged.at, index, value)
        found = scene.tree.check()
        assert any(said in line for line in found), (value, said, found)
        assert scene.get(damaged.at, index) == value, "it was mended without being asked for"
        assert scene.tree.repair() == [] == scene.tree.check()
        assert scene.usages() == usages
        scene.restore()


# ---- the truth -------------------------------------------------------------------------------------------


@dataclass
class Damage:
    at: str
    where: Where
    value: int | bytes | Callable[[Scene], int]


MENDED, LEFT, CORRUPT = "mended", "left", "corrupt"


@dataclass
class Truth:
    """A damage to the truth, a part of its finding, and the result of repair()."""

    said: str
    fate: str
    damages: list[Damage]

    def __init__(self, said: str, fate: str, *damages: Damage) -> None:
        self.said, self.fate, self.damages = said, fate, list(damages)


def lone(at: str, where: Where, value: int | bytes | Callable[[Scene], int], said: str, fate: str) -> Truth:
    return Truth(said, fate, Damage(at, where, value))


WEB, API = counter("/web"), cell("releasing", "/web/api")

# The cell of API is in its first epoch. It has reserved 2000, of which 1400 are stock.
EPOCH = 1 << 40
STOCK_MAX = EPOCH - 1


def totals(even: int, odd: int) -> bytes:
    return struct.pack("=qq", even, odd)


def the_quarantined_cell(scene: Scene) -> int:
    return scene.cell_of(NONE)


def a_file_of_batch(scene: Scene) -> int:
    return scene.group("/batch") * SLOTS + 18


def with_state(number: int, state: int) -> int:
    return number << 32 | state


TRUTH = [
    lone("counter.limit", WEB, -5, "limit of /web memory: -5", CORRUPT),
    lone("counter.soft_limit", WEB, -1, "soft_limit of /web memory: -1", CORRUPT),
    lone("counter.common", WEB, -1, "common of /web memory: -1", CORRUPT),
    lone("counter.min_usage", WEB, -1, "min_usage of /web memory: -1", LEFT),
    lone("counter.min_usage", WEB, MAX, "min_usage of /web memory: 9223372036854775807, above its max_usage ", LEFT),
    lone("counter.max_usage", WEB, -1, "max_usage of /web memory: -1", LEFT),
    lone("counter.max_usage", WEB, 1 << 40, "peak_reserved of /web memory: ", MENDED),
    lone("counter.peak_reserved", WEB, 1, "peak_reserved of /web memory: 1, below ", MENDED),
    lone("counter.peak_reserved", WEB, -1, "peak_reserved of /web memory: -1", MENDED),
    lone("counter.refusals", WEB, -1, "refusals of /web memory: -1", LEFT),
    lone("counter.forgotten", WEB, 1, "forgotten of /web memory: 1, above its 0 refusals", LEFT),
    lone("counter.soft_crossings", WEB, 1, "reserved of /web memory: ", MENDED),
    lone("counter.past.refusals", WEB, -1, "past.refusals of /web memory: -1", LEFT),
    lone("counter.past.soft_crossings", WEB, -1, "past.soft_crossings of /web memory: -1", LEFT),
    lone("counter.refills", WEB, -1, "refills of /web memory: -1", LEFT),
    lone("counter.drains", WEB, -1, "drains of /web memory: -1", LEFT),
    lone("counter.limit", WEB, 1, "above the limit 1 with ", MENDED),
    lone("counter.common", counter("/"), MAX, "reserved of / memory: the sum of all cells is above ", CORRUPT),
    lone(
        "cell.words.state", API, EPOCH | 2001, "of process {releasing} (pid {pid}) in /web/api memory: stock ", CORRUPT
    ),
    lone("cell.words.state", API, EPOCH | STOCK_MAX, "in /web/api memory: stock 1099511627775 and used ", CORRUPT),
    lone("cell.words.total", API, totals(0, -1), "memory: stock 1400 and used -1401 are impossible", CORRUPT),
    lone("cell.words.total", API, totals(0, -MAX - 1), " and used 9223372036854774408 are impossible", CORRUPT),
    lone("cell.words.total", API, totals(0, MAX), "reserved of / memory: the sum of all cells is above ", CORRUPT),
    lone("cell.words.total", API, totals(0, 1400), "cap of cell ", MENDED),
    lone("cell.words.cap", API, 1399, "cap of cell ", MENDED),
    lone("cell.words.cap", API, 2001, "cap of cell ", MENDED),
    lone("cell.words.cap", API, -1, "cap of cell ", MENDED),
    lone("cell.words.state", the_first_free_cell, 5, "free cell ", MENDED),
    lone("cell.words.total", the_quarantined_cell, (5).to_bytes(8, "little"), "quarantined cell ", MENDED),
    lone("cell.owner", API, lambda scene: scene.holder("free") + 1, "does not exist", CORRUPT),
    lone("cell.owner", API, FAR, "does not exist", CORRUPT),
    lone("cell.counter", API, lambda scene: scene.counter("free"), "its counter ", CORRUPT),
    lone("cell.counter", API, FAR, "does not exist", CORRUPT),
    lone(
        "cell.counter",
        API,
        WEB,
        "of process {releasing} (pid {pid}) in /web memory: its holder has another cell there",
        LEFT,
    ),
    lone("watch.amount", the_first_watch, -1, "watch {watch}: amount -1, ", MENDED),
    lone("watch.flags", the_first_watch, 9, "flags 0x9 ", MENDED),
    lone("watch.flags", the_first_watch, PERCENT, "watch {watch}: amount ", MENDED),
    lone("watch.passed", the_first_watch, -1, " and -1 crossings are impossible", MENDED),
    lone("watch.passed", the_first_watch, 7, "reserved of /web memory: ", MENDED),
    lone("watch.counter", the_first_watch, FAR, "watch {watch}: its counter 2147483632 does not exist", MENDED),
    lone("watch.stamp", the_first_watch, with_state(1, 7), "watch {watch}: state 7 is impossible", MENDED),
    lone("fsm_refusal.number", the_refusal, 2, "refusal 0: number 2 of 1, resource 1, 1 times 9001, ", MENDED),
    lone("fsm_refusal.resource", the_refusal, 2, "refusal 0: number 1 of 1, resource 2, ", MENDED),
    lone("fsm_refusal.count", the_refusal, 0, "0 times 9001, ", MENDED),
    lone("fsm_refusal.amount", the_refusal, -1, "1 times -1, ", MENDED),
    lone("fsm_refusal.kind", the_refusal, 3, "kind 3 ", MENDED),
    lone("fsm_refusal.holders", the_refusal, 4, "and 4 largest holders are impossible together", MENDED),
    lone("fsm_refusal.looked", the_refusal, 3, "refusal 0: ", MENDED),
    lone("fsm_refusal.command", the_refusal, b"x" * 16, "refusal 0: ", MENDED),
    lone("waiter.amount", the_first_waiter, -1, "waiter {waiter}: a request of -1 for cell ", MENDED),
    lone("waiter.amount", the_first_waiter, 0, "waiter {waiter}: a request of 0 for cell ", MENDED),
    lone("waiter.cell", the_first_waiter, FAR, "for cell 2147483632 is impossible", MENDED),
    lone(
        "waiter.cell",
        the_first_waiter,
        the_quarantined_cell,
        "waiter {waiter}: a request of 1048576 for cell ",
        MENDED,
    ),
    lone("waiter.part", the_second_waiter, FAR, "waiter {second}: its next part cannot be 2147483632", MENDED),
    lone("waiter.part", the_second_waiter, NONE, "free waiters: ", MENDED),
    lone("waiter.part", the_second_waiter, the_first_waiter, "waiter {second}: its next part cannot be ", MENDED),
    lone("waiter.answer", the_first_waiter, 2, "waiter {waiter}: answer 2 is impossible", MENDED),
    lone("waiter.answer", the_first_waiter, 1, "requests that wait: 3, recomputed 2", MENDED),
    lone("waiter.ticket", the_first_waiter, MAX, "queue: waiter {waiter} comes before an earlier request", MENDED),
    lone("waiter.stamp", the_first_waiter, with_state(1, 7), "waiter {waiter}: state 7 is impossible", MENDED),
    lone("group.parent", group("/web/api"), group("free"), "parent of ", CORRUPT),
    lone("group.parent", group("/web/api"), FAR, "parent of ", CORRUPT),
    lone("group.parent", group("/web"), group("/web/api"), "parents of ", CORRUPT),
    lone("group.parent", group("/web"), group("/web"), "parents of ", CORRUPT),
    lone("group.parent", group("/"), 1, "the root group: ", CORRUPT),
    lone("group.stamp", group("/"), with_state(0, FREE), "the root group: ", CORRUPT),
    lone("group.stamp", group("/"), with_state(1, LIVE), "the root group: ", LEFT),
    lone("group.stamp", group("free"), with_state(1, 7), ": state 7 ", MENDED),
    lone("group.stamp", group("/web/idle"), with_state(1 << 28, LIVE), "generation 268435456 are impossible", LEFT),
    lone("group.name_length", group("/web"), 0, "(group 1): it is empty", LEFT),
    lone("group.name_length", group("/web"), 256, "(group 1): it is too long", CORRUPT),
    lone("group.name", group("/web"), b"w/b", "name of /w/b (group 1): it has a '/'", LEFT),
    lone("group.name", group("/web"), b"w\nb", "name of /w\\x0ab (group 1): it has a newline", LEFT),
    lone("group.name", group("/web"), b"w\0b", "name of /w\\x00b (group 1): it has a NUL", LEFT),
    Truth(
        "it means another directory",
        LEFT,
        Damage("group.name", group("/web"), b".."),
        Damage("group.name_length", group("/web"), 2),
    ),
    Truth(
        "name of /web: groups ",
        LEFT,
        Damage("group.name", group("/batch"), b"web"),
        Damage("group.name_length", group("/batch"), 3),
    ),
    lone("group.custom", group("/batch"), 16, "custom of /batch: 16 is impossible", LEFT),
    lone("group.directory.mode", group("/web"), 0o10000, "attributes of /web: mode 010000 ", LEFT),
    lone("group.directory.set", group("/web"), 32, "attributes of /web: mode 0755 and flags 0x20 are impossible", LEFT),
    lone("attributes.mode", a_file_of_batch, 0xFFFF, "attributes of /batch tokens, file 2: mode 0177777 ", LEFT),
    lone("holder.stamp", holder("lease"), with_state(1, ENDING), "its end is not finished", MENDED),
    lone("holder.stamp", holder("lease"), with_state(1, 9), ": state 9 is impossible", CORRUPT),
    lone("holder.kind", holder("keeping"), LEASE, "process {keeping} (pid {pid}): kind 2 ", LEFT),
    lone("holder.flags", holder("keeping"), 0x11, " and flags 0x11 are impossible", LEFT),
    lone("header.journal.step", the_header, 9, "the journal: step 9 is not finished", CORRUPT),
    Truth(
        "the journal: step 1 is not finished",
        MENDED,
        Damage("header.journal.index", the_header, API),
        Damage("header.journal.counter", the_header, counter("/web/api")),
        Damage("header.journal.used", the_header, 600),
        Damage("header.journal.common", the_header, 0),
        Damage("header.journal.step", the_header, 1),
    ),
    Truth(
        "the journal: step 5 is not finished",
        CORRUPT,
        Damage("header.journal.index", the_header, FAR),
        Damage("header.journal.step", the_header, 5),
    ),
    Truth(
        "the journal: step 6 is not finished",
        MENDED,
        Damage("header.journal.changes", the_header, 1),
        Damage("header.journal.change[0].cell", the_header, API),
        Damage("header.journal.change[0].used", the_header, 600),
        Damage("header.journal.step", the_header, 6),
    ),
    Truth(
        "the journal: step 6 is not finished",
        CORRUPT,
        Damage("header.journal.changes", the_header, FAR),
        Damage("header.journal.step", the_header, 6),
    ),
    Truth(
        "the journal: step 6 is not finished",
        CORRUPT,
        Damage("header.journal.changes", the_header, 1),
        Damage("header.journal.change[0].cell", the_header, FAR),
        Damage("header.journal.step", the_header, 6),
    ),
    Truth(
        "the journal: step 4 is not finished",
        MENDED,
        Damage("header.journal.index", the_header, group("/web/idle")),
        Damage("header.journal.step", the_header, 4),
    ),
    lone("header.magic", the_header, 5, "the header: magic 0x5, ", CORRUPT),
    lone("header.version", the_header, 99, "version 99, ", LEFT),
    lone("header.size", the_header, 99, "size 99", LEFT),
    lone("header.geometry.groups", the_header, 7, "the geometry: groups 7, ", LEFT),
    lone("header.geometry.resource", the_header, b"m-mory", "the geometry: groups 16, ", LEFT),
    lone("header.geometry.batch", the_header, -2, "batch -2; ", LEFT),
    lone("header.groups.high", the_header, 1000, "groups: 1000 were used, the capacity is 16", CORRUPT),
    lone("header.groups.high", the_header, 0, "the root group: 0 used", CORRUPT),
    lone("header.processes.high", the_header, FAR, "processes: 2147483632 were used, the capacity is 8", CORRUPT),
    lone("header.leases.high", the_header, NONE, "leases: 4294967295 were used, the capacity is 32", CORRUPT),
    lone("header.waiters.high", the_header, FAR, "waiters: 2147483632 were used, the capacity is 32", CORRUPT),
    lone("header.cells.high", the_header, NONE, "cells: 4294967295 were used, the capacity is 32", CORRUPT),
]


@pytest.mark.parametrize("truth", TRUTH, ids=lambda truth: f"{truth.damages[0].at} {truth.said}")
def test_an_impossible_truth_is_found_and_repaired_only_if_possible(scene: Scene, truth: Truth) -> None:
    usages = scene.usages()
    for damage in truth.damages:
        value = damage.value(scene) if callable(damage.value) else damage.value
        scene.put(damage.at, damage.where(scene), value)
    found = scene.tree.check()
    assert any(truth.said.format(**names(scene)) in line for line in found), found
    assert ("cannot be recomputed" in found[-1]) == (truth.fate == CORRUPT), found
    if truth.fate == CORRUPT:
        before = scene.path.read_bytes()
        with pytest.raises(RegionCorrupt) as caught:
            scene.tree.repair()
        assert caught.value.errno == errno.EUCLEAN
        assert scene.path.read_bytes() == before
        assert scene.tree.check() == found
    elif truth.fate == LEFT:
        left = scene.tree.repair()
        assert [line for line in left if truth.said.format(**names(scene)) in line], left
    else:
        assert scene.tree.repair() == []
        assert truth.damages[0].at in ("holder.stamp", "cell.words.total") or scene.usages() == usages


def test_a_damaged_number_of_children_is_an_error_and_repaired(scene: Scene) -> None:
    web = scene.tree.root.child("web")
    children = web.children()
    scene.put("group.children", scene.group("/web"), NONE)
    with pytest.raises(RegionCorrupt, match="children"):
        web.child_ids()
    assert len(web.child_ids()) == 8 * len(children)


def test_a_region_whose_lock_cannot_be_taken_is_checked_too(scene: Scene) -> None:
    scene.put("cell.words.total", scene.cell("releasing", "/web/api"), totals(-1, -1))
    scene.put("header.broken", 0, 1)
    with pytest.raises(RegionCorrupt):
        scene.tree.root["memory"].usage  # noqa: B018
    found = scene.tree.check()
    assert any("in /web/api memory: stock " in line for line in found)
    assert "cannot be recomputed" in found[-1]


@pytest.mark.timeout(0)
def test_the_checker_stays_within_the_bounds_of_a_region_of_nonsense(
    tmp_path: Path, furnished: tuple[bytes, Places, Layout], seed: int, soak: bool
) -> None:
    region = tmp_path / "region"
    region.write_bytes(furnished[0])
    # as shipped, sums of nonsense wrap
    checker = Build("checker.c", tmp_path / "checker", "-fwrapv", *ADDRESSES)
    result = run(checker.program, region, "--seed", seed, "--rounds", 100_000 if soak else 1000)
    print(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")


# ---- the report ------------------------------------------------------------------------------------------


def test_a_report_is_complete_and_each_line_names_its_record(
    tmp_path: Path, furnished: tuple[bytes, Places, Layout]
) -> None:
    layout = furnished[2]
    with Tree.create(tmp_path / "region", groups=3001) as tree:
        paths = [tree.root.mkdir(f"{number}".zfill(200)).path for number in range(3000)]
    # the offset of an array depends on the capacities, and this region has its own
    offset = next(
        int(line.split()[1])
        for line in run(layout_program(tmp_path), tmp_path / "region").stdout.splitlines()
        if line.startswith("counter ")
    )
    with (tmp_path / "region").open("r+b") as file:
        for number in range(1, 3001):
            file.seek(offset + number * layout.size["counter"] + layout.at["counter.reserved"])
            file.write((1).to_bytes(8, "little"))
    with Tree.open(tmp_path / "region") as tree:
        assert tree.check() == [f"reserved of {path} memory: 1, recomputed 0" for path in paths]
        assert tree.repair() == []


def layout_program(directory: Path) -> Path:
    return Build("layout.c", directory / "layout", "-DFIELDS=").program


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("one\rtwo\x7f", "one\\x0dtwo\\x7f"),
        ("back\\slash", "back\\x5cslash"),
        ("büro \u2028", "büro \u2028"),
        ("c1 \x9b2J", "c1 \udcc2\\x9b2J".encode(errors="surrogateescape").decode(errors="replace")),
        (os.fsdecode(b"\xff\xfe"), "\ufffd\ufffd"),
        ("\x01" * 255, "\\x01" * 255),
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_a_hostile_name_is_escaped_in_a_report(scene: Scene, name: str, said: str) -> None:
    group = scene.tree.root.child("web").mkdir(name)
    scene.put("counter.reserved", (group.id & NONE) * len(RESOURCES), 5)
    assert scene.tree.check() == [f"reserved of /web/{said} memory: 5, recomputed 0"]


def test_a_report_shows_the_end_of_a_very_long_path(scene: Scene) -> None:
    group = scene.tree.root
    for number in range(8):
        group = group.mkdir(f"{number}" * 250)
    scene.put("counter.reserved", (group.id & NONE) * len(RESOURCES), 5)
    (line,) = scene.tree.check()
    assert line.startswith("reserved of .../")
    assert line.endswith("7" * 250 + " memory: 5, recomputed 0")
    assert len(line) < 1200


# ---- a region in use ---------------------------------------------------------------------------------------------


def test_a_check_changes_no_byte(scene: Scene) -> None:
    scene.tree.check()  # the region notes the last owner of the lock
    before = scene.path.read_bytes()
    for _ in range(3):
        assert scene.tree.check() == []
    assert scene.path.read_bytes() == before


@pytest.mark.timeout(0)
@pytest.mark.parametrize("limit", [100_000_000, 20_000], ids=["with room", "near the limit"])
def test_a_check_finds_nothing_while_other_processes_charge(seed: int, soak: bool, limit: int) -> None:
    rounds = 5000 if soak else 150
    with ExitStack() as stack:
        tree = stack.enter_context(Tree.create(None, RESOURCES))
        progress = stack.enter_context(Progress())
        api = tree.root.mkdir("web").mkdir("api")
        tree.root.child("web")["memory"].limit = limit
        workers = [stack.enter_context(Worker(tree, progress, slot)) for slot in range(2)]
        for worker in workers:
            for group in (tree.root.child("web"), api):
                worker.attach(group)
            worker.start_work(seed + worker.slot, 1000)
        for number in range(rounds):
            assert tree.check() == [], f"round {number}"
            if number % 10 == 0:
                progress.wait_for([0, 1], 1)
        for worker in workers:
            worker.stop_work()
            worker.end()
