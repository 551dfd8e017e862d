"""Fixtures that the tests of several commands share."""

from __future__ import annotations

import pytest

from tests.mounts import GroupFiles


@pytest.fixture
def furnished(group: GroupFiles) -> GroupFiles:
    """A group with groups below, limits and charges."""
    web = group.mkdir("web")
    web.set_limit("1M")
    web.set_limit(10, "tokens")
    web.mkdir("api").charge("950K")
    web.mkdir("static").charge(3, "tokens")
    batch = group.mkdir("batch")
    batch.set_limit("2M")
    batch.charge("1000K")
    return group
