"""Charges past the limits are reserved for root and the owner of the mount, under any delegation."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import fsmount
from fsmount.files import LeaseGroup
from tests.mounts import UNLIMITED, GroupFiles, Mount, as_user, fails_with, mounted

pytestmark = pytest.mark.any_user

root = pytest.mark.root

# User numbers without an account.
ALICE = 60_101
HUGE = "8191P"


@pytest.fixture(scope="module")
def shared() -> Iterator[Mount]:
    """A mount that every user sees."""
    with mounted("--resource", "memory", "--resource", "tokens:count", "-o", "allow_other") as mount:
        yield mount


@pytest.fixture
def delegated(shared: Mount, new_group: Callable[[Mount], GroupFiles]) -> Iterator[GroupFiles]:
    """A group of ALICE, with all its files, below root's limit of 1000."""
    above = new_group(shared)
    above.set_limit(1000)
    group = above.mkdir("delegated")
    for path in [group.path, *(group / name for name in os.listdir(group.path))]:
        os.chown(path, ALICE, ALICE)
    yield group
    shared.check()


def untouched(group: GroupFiles) -> bool:
    above = GroupFiles(group.path.parent, group.units)
    return (above.usage, above.max_usage, above.failcnt, group.usage, group.failcnt) == (0, 0, 0, 0, 0)


@root
@pytest.mark.parametrize("amount", ["0", "1", "1001", HUGE, str(UNLIMITED)])
def test_a_user_may_not_exceed_a_limit_with_a_lease(delegated: GroupFiles, amount: str) -> None:
    def charge() -> None:
        with delegated.lease() as lease:
            lease.write(f"nofail {amount}")

    with fails_with(errno.EPERM):
        as_user(ALICE, charge)
    assert untouched(delegated) and delegated.holders() == []


@root
def test_a_user_may_not_exceed_a_limit_with_a_lease_of_all_resources(delegated: GroupFiles) -> None:
    def charge(text: bytes) -> None:
        fd = os.open(delegated / "lease", os.O_RDWR)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)

    for text in (b"nofail memory=2000", b"nofail tokens=1"):
        with fails_with(errno.EPERM):
            as_user(ALICE, partial(charge, text))
    assert untouched(delegated)


@root
def test_a_refused_lease_keeps_its_charges(delegated: GroupFiles) -> None:
    def charge() -> list[int]:
        with delegated.lease() as lease:
            lease.write("600")
            with fails_with(errno.EPERM):
                lease.write(f"nofail {HUGE}")
            with fails_with(errno.ENOMEM):
                lease.write("+500")
            lease.write("+400")
            return [lease.held, delegated.usage]

    assert as_user(ALICE, charge) == [1000, 1000]


@root
@pytest.mark.parametrize("commands", [["give 900", "keep", "take 900", "+500"], ["900", "give 900", "900"]])
def test_no_other_command_of_a_lease_exceeds_a_limit(delegated: GroupFiles, commands: list[str]) -> None:
    def charge() -> None:
        with delegated.lease() as lease:
            for command in commands:
                try:
                    lease.write(command)
                except OSError as error:
                    assert error.errno in (errno.ENOMEM, errno.ERANGE), error
                assert GroupFiles(delegated.path.parent).usage <= 1000

    as_user(ALICE, charge)
    delegated.write("force_empty", 1)


@root
def test_a_delegated_limit_is_bounded_by_the_limits_above(delegated: GroupFiles) -> None:
    as_user(ALICE, lambda: delegated.set_limit("max"))
    with fails_with(errno.ENOMEM):
        as_user(ALICE, lambda: delegated.charge(1001))
    with fails_with(errno.EACCES):
        as_user(ALICE, lambda: GroupFiles(delegated.path.parent).set_limit("max"))


@root
def test_the_rights_of_the_user_who_opened_the_lease_count(delegated: GroupFiles) -> None:
    """A privileged program that writes to a descriptor does not lend its rights, and root may pass on its own lease."""

    def open_as(uid: int) -> int:
        before = os.geteuid()
        os.seteuid(uid)
        try:
            return os.open(delegated.file("lease"), os.O_RDWR)
        finally:
            os.seteuid(before)

    delegates, roots = open_as(ALICE), open_as(0)
    try:
        with fails_with(errno.EPERM):
            os.write(delegates, b"nofail 2000")
        as_user(ALICE, lambda: os.write(roots, b"nofail 2000"))
        assert delegated.usage == 2000
    finally:
        os.close(delegates)
        os.close(roots)


@root
def test_charge_nofail_through_files_is_a_permission_error(delegated: GroupFiles) -> None:
    def charge() -> str:
        with fsmount.attach(delegated.path) as attached:
            assert isinstance(attached, LeaseGroup)
            with pytest.raises(PermissionError) as raised:
                attached["memory"].charge_nofail(2000)
            assert raised.value.filename == str(delegated.path)
            return raised.value.strerror or ""

    assert as_user(ALICE, charge) == (
        "only root and the owner of the mount may charge past limits: charge without nofail"
    )
    assert untouched(delegated)


@root
def test_charge_nofail_in_a_region_opened_to_the_user_is_a_permission_error(delegated: GroupFiles) -> None:
    tree = fsmount.Tree.create()
    try:
        os.fchmod(tree.region.fd, 0o666)
        tree.root["memory"].limit = 10

        def charge() -> None:
            with fsmount.Tree.open(f"/dev/fd/{tree.region.fd}") as opened, opened.root.attach() as attached:
                assert attached["memory"].try_charge(5) and not attached["memory"].try_charge(6)
                attached["memory"].charge_nofail(6)

        with fails_with(errno.EPERM):
            as_user(ALICE, charge)
        assert tree.root["memory"].usage == 0
    finally:
        tree.close()


def test_root_and_the_owner_of_the_mount_may_exceed_limits(group: GroupFiles) -> None:
    group.set_limit(10)
    with group.lease() as lease:
        lease.write("nofail 11")
        assert group.usage == 11
    for transport in ("files", "memory"):
        with fsmount.attach(group.path, transport=transport) as attached:
            assert attached["memory"].charge_nofail(11) is False
            assert group.usage == 11
