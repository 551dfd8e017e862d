"""Groups that are attached through each transport, or through both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import fsmount
from tests.mounts import GroupFiles

TRANSPORTS: tuple[fsmount.Transport, ...] = ("memory", "files")


@pytest.fixture(params=TRANSPORTS)
def attached(request: pytest.FixtureRequest, group: GroupFiles) -> Iterator[fsmount.Group]:
    with fsmount.attach(group.path, transport=request.param) as attached:
        yield attached


@pytest.fixture
def both(group: GroupFiles) -> Iterator[tuple[fsmount.Group, fsmount.Group]]:
    """The group through the region and through its files."""
    with (
        fsmount.attach(group.path, transport="memory") as memory,
        fsmount.attach(group.path, transport="files") as files,
    ):
        yield memory, files
