from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.place import Place


@pytest.fixture
def place() -> Iterator[Place]:
    """A mount point of the test's own."""
    made = Place()
    try:
        yield made
    finally:
        made.destroy()


@pytest.fixture
def other_place() -> Iterator[Place]:
    made = Place("other")
    try:
        yield made
    finally:
        made.destroy()
