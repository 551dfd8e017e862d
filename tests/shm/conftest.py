"""Trees without a mount, and children of this process."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsmount import Tree
from fsmount.shm import Counter, Group


@pytest.fixture
def tree() -> Iterator[Tree]:
    """A tree with one resource of each unit; nothing may be wrong with it at the end."""
    with Tree.create(resources=["memory", "tokens:count"]) as tree:
        yield tree
        if not tree.region.closed:
            assert tree.check() == []


@pytest.fixture
def group(tree: Tree) -> Group:
    return tree.root.mkdir("web").mkdir("api")


@pytest.fixture
def memory(group: Group) -> Counter:
    """A counter two levels below the root."""
    return group["memory"]


@pytest.fixture
def region_path(tmp_path: Path) -> Path:
    return tmp_path / "region"


def in_fork(function: Callable[[], Any]) -> Any:
    """The result or the exception of a function in a forked child. The child then ends at once, as if killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(30)
        try:
            result: tuple[str, object] = ("returned", function())
        except BaseException as error:
            result = ("raised", error)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    how, what = pickle.loads(answer)
    if how == "raised":
        raise what
    return what


def run_python(program: str, *arguments: str) -> str:
    """Runs a program in another Python. It must succeed and print nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
