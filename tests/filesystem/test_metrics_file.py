"""The file metrics of the root directory: every counter as OpenMetrics text, made while other requests are served."""

from __future__ import annotations

import errno
import math
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.filesystem.bystander import served_while
from tests.holder_process import HolderProcess
from tests.mounts import AS_ROOT, GroupFiles, Mount, fails_with, mounted

NAME = "metrics"
COUNTED = ("usage", "limit", "soft_limit", "max_usage", "stock")


def families(mount: Mount) -> dict[str, Metric]:
    """The result of the reference parser, which refuses any text that is not OpenMetrics."""
    text = (mount.path / NAME).read_bytes().decode()
    parsed = list(text_string_to_metric_families(text))
    found = {family.name: family for family in parsed}
    assert len(found) == len(parsed)
    return found


def value(found: dict[str, Metric], family: str, **labels: str) -> float:
    (only,) = [sample.value for sample in found[family].samples if sample.labels == labels]
    return only


def test_metrics_contain_every_figure_of_every_counter(mount: Mount, group: GroupFiles) -> None:
    child = group.mkdir("child")
    group.set_limit(1 << 20)
    group.write("soft_limit", 1000)
    child.charge(4096)
    child.charge(7, "tokens")
    with fails_with(errno.ENOMEM):
        child.charge(1 << 20)
    with HolderProcess(child.path, transport="memory") as process:
        process.charge(100)
        found = families(mount)
        for each in (mount.root, group, child):
            path = f"/{os.path.relpath(each.path, mount.path)}".removesuffix("/.") or "/"
            for resource, ending in (("memory", "_bytes"), ("tokens", "")):
                expected = each.stat(resource)
                labels = {"group": path, "resource": resource}
                for field in COUNTED:
                    number = math.inf if expected[field] == 2**63 - 1 else expected[field]
                    assert value(found, f"fsmount_{field}{ending}", **labels) == number, (path, field)
                assert value(found, "fsmount_holders", **labels) == expected["holders"]
                assert value(found, "fsmount_failcnt", **labels) == expected["failcnt"]
        assert value(found, "fsmount_processes") == 1


def test_names_types_and_units_follow_openmetrics(mount: Mount) -> None:
    found = families(mount)
    own = {name: (family.type, family.unit) for name, family in found.items() if name.startswith("fsmount_")}
    assert own == {
        **{f"fsmount_{field}_bytes": ("gauge", "bytes") for field in COUNTED},
        **{
            f"fsmount_{field}": ("gauge", "")
            for field in (
                *(*COUNTED, "holders", "groups_omitted", "open_files", "leases", "processes"),
                *("capacity", "capacity_used"),
            )
        },
        "fsmount_failcnt": ("counter", ""),
        "fsmount_requests": ("counter", ""),
    }
    assert {sample.name for sample in found["fsmount_failcnt"].samples} == {"fsmount_failcnt_total"}


def test_figures_of_the_daemon_are_current(mount: Mount, group: GroupFiles) -> None:
    before = families(mount)
    assert mount.daemon is not None
    with group.lease() as lease, (mount.path / "memory.stat").open():
        lease.write("5")
        after = families(mount)
        assert value(after, "fsmount_leases") == 1
        assert value(after, "fsmount_open_files") == 3, "the lease, the stat and the metrics"
    assert value(after, "fsmount_requests") > value(before, "fsmount_requests")
    itself = value(after, "process_open_fds") - len(os.listdir(f"/proc/{mount.daemon.pid}/fd"))
    assert 0 <= itself <= 2, "it counts what it looks with"
    assert value(after, "process_resident_memory_bytes") > 1 << 20
    assert 0 < time.time() - value(after, "process_start_time_seconds") < 3600


def test_capacity_and_use_are_figures_for_each_kind(mount: Mount, group: GroupFiles) -> None:
    def of(name: str) -> dict[str, float]:
        return {sample.labels["what"]: sample.value for sample in families(mount)[name].samples}

    kinds = {"groups", "processes", "leases", "cells", "marks", "waiters", "open_files", "removed_groups"}
    capacity, before = of("fsmount_capacity"), of("fsmount_capacity_used")
    assert capacity.keys() == before.keys() == kinds
    assert (capacity["groups"], capacity["processes"], capacity["leases"]) == (65536, 4096, 1 << 20)
    child = group.mkdir("child")
    with group.lease() as lease, (group / "memory.threshold").open("r+b", buffering=0) as threshold:
        lease.write("5")
        threshold.write(b"above 1\nbelow 2")
        after = of("fsmount_capacity_used")
        changed = {"groups": 1, "leases": 1, "cells": 1, "marks": 2, "open_files": 2}
        assert after == {what: used + changed.get(what, 0) for what, used in before.items()}
    child.remove()


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        *(
            (text.encode(), text)
            for text in ('"', "\\", "\\n", "a\rb", "\x01\x7f", "ü€😀", ' {a="b"} 1 # ', "\u2028\x85")
        ),
        (b"\xff%\xc3", "%FF%25%C3"),
        (b"%FF", "%25FF"),
    ],
)
def test_a_hostile_name_is_an_escaped_label(mount: Mount, group: GroupFiles, name: bytes, escaped: str) -> None:
    directory = os.fsencode(group.path) + b"/" + name
    os.mkdir(directory)
    try:
        labels = {"group": f"/{group.path.name}/{escaped}", "resource": "memory"}
        assert value(families(mount), "fsmount_usage_bytes", **labels) == 0
    finally:
        os.rmdir(directory)


def test_only_the_root_has_metrics_and_reserves_the_name(mount: Mount, group: GroupFiles) -> None:
    assert NAME in os.listdir(mount.path)
    assert NAME not in os.listdir(group.path)
    assert not (group / NAME).exists()
    inner = group.mkdir(NAME)
    assert inner.usage == 0
    other = group.mkdir("other")
    os.rmdir(inner.path)
    for taken in (lambda: os.mkdir(mount.path / NAME), lambda: os.open(mount.path / NAME, os.O_CREAT | os.O_EXCL)):
        with fails_with(errno.EEXIST):
            taken()
    with fails_with(errno.ENOTDIR):
        os.rename(group.path, mount.path / NAME)
    with fails_with(errno.ENOTDIR):
        os.rmdir(mount.path / NAME)
    with fails_with(errno.EPERM):
        os.unlink(mount.path / NAME)
    os.rmdir(other.path)


def test_the_attributes_of_metrics_follow_the_root_directory(mount: Mount) -> None:
    path = mount.path / NAME
    status = path.stat()
    assert stat.filemode(status.st_mode) == "-r--r--r--"
    assert status.st_size >= 1 << 16 and status.st_size.bit_count() == 1
    assert (status.st_nlink, status.st_uid) == (1, os.geteuid())
    with fails_with(errno.EPERM):
        path.chmod(0o400)
    os.utime(path)
    if AS_ROOT:
        os.chown(mount.path, 1234, 2345)
        try:
            assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
        finally:
            os.chown(mount.path, 0, 0)


def test_metrics_cannot_be_written(mount: Mount) -> None:
    if not AS_ROOT:
        with fails_with(errno.EACCES):
            os.open(mount.path / NAME, os.O_WRONLY)
        return
    fd = os.open(mount.path / NAME, os.O_WRONLY)
    try:
        with fails_with(errno.EINVAL):
            os.write(fd, b"1")
    finally:
        os.close(fd)


# ---- many groups


@pytest.fixture(scope="module")
def crowded() -> Iterator[Mount]:
    with mounted() as tree:
        for number in range(2000):
            tree.root.mkdir(f"group-{number}")
        yield tree


def test_a_read_continues_in_the_text_that_it_started_with(crowded: Mount) -> None:
    group = crowded.root.child("group-1999")
    fd = os.open(crowded.path / NAME, os.O_RDONLY)
    try:
        begun = os.pread(fd, 1000, 0)
        group.charge(77)
        rest = b""
        while part := os.pread(fd, 1 << 16, len(begun) + len(rest)):
            rest += part
        text = (begun + rest).decode()
        assert text.endswith("# EOF\n")
        found = {family.name: family for family in text_string_to_metric_families(text)}
        labels = {"group": "/group-1999", "resource": "memory"}
        assert value(found, "fsmount_usage_bytes", **labels) == 0
        assert value(families(crowded), "fsmount_usage_bytes", **labels) == 77
    finally:
        os.close(fd)
        group.uncharge(77)


def test_other_requests_are_served_while_metrics_are_made(crowded: Mount) -> None:
    """If the event loop made the text, no request could pass between its first byte and its last."""
    sizes: list[int] = []

    def read() -> None:
        sizes.append(len(Path(crowded.path / NAME).read_bytes()))

    families(crowded)  # the first call imports the library
    served = served_while(read, crowded.path / "memory.failcnt")
    assert sizes[0] > 2000 * 7 * 40
    assert served > 5, served


def test_several_readers_get_complete_texts(crowded: Mount) -> None:
    texts: list[bytes] = []
    readers = [threading.Thread(target=lambda: texts.append(Path(crowded.path / NAME).read_bytes())) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(texts) == 4
    for text in texts:
        assert text.count(b"fsmount_usage_bytes{") == 2001 and text.endswith(b"# EOF\n")
