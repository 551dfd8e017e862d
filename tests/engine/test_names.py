"""The name table: without the key of the tree, no user can choose names that share a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount import Tree
from tests.engine.programs import Build

GROUPS = 4096
MANY = 1000
#: No bucket has this many random names: of 1,000 names in 4,096 buckets, 12 share one with a probability of 1e-15.
FEW = 12


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Build("collide.c", tmp_path_factory.mktemp("names") / "collide").program


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[list[Tree]]:
    trees = [Tree.create(tmp_path / name, groups=GROUPS) for name in ("one", "other")]
    yield trees
    for tree in trees:
        assert tree.check() == []
        tree.close()


def tell(program: Path, *arguments: object) -> list[str]:
    words = [str(program), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.split()


def longest(program: Path, tree: Tree) -> int:
    (number,) = tell(program, "longest", tree.path)
    return int(number)


def test_names_that_share_a_bucket_in_one_tree_do_not_in_another(program: Path, trees: list[Tree]) -> None:
    one, other = trees
    names = tell(program, "names", one.path, MANY)
    for name in names:
        one.root.mkdir(name)
        other.root.mkdir(name)
    assert longest(program, one) >= MANY, "the key of the tree makes them meet"
    assert longest(program, other) < FEW
    assert len(other.root.children()) == MANY
    assert all(other.root.find(name) for name in names)


def test_names_that_share_a_bucket_without_a_key_do_not(program: Path, trees: list[Tree]) -> None:
    """The hash without a key was FNV-1a, which any user can compute."""

    def fnv(name: bytes) -> int:
        found = 0xCBF29CE484222325 * 0x100000001B3 % 2**64
        for byte in name:
            found = (found ^ byte) * 0x100000001B3 % 2**64
        return (found ^ found >> 32) % GROUPS

    tree = trees[0]
    made = 0
    for number in range(1 << 21):
        name = b"%d" % number
        if fnv(name) == 0:
            tree.root.mkdir(name)
            made += 1
    assert made > 400
    assert longest(program, tree) < FEW


def test_a_copy_of_a_tree_finds_its_names(tmp_path: Path, trees: list[Tree]) -> None:
    tree = trees[0]
    for number in range(100):
        tree.root.mkdir(f"{number}")
    copy = tmp_path / "copy"
    copy.write_bytes(Path(tree.path).read_bytes())
    copy.chmod(0o600)
    with Tree.open(copy) as opened:
        assert all(opened.root.find(f"{number}") for number in range(100))
        assert opened.check() == []
        opened.repair()
        assert all(opened.root.find(f"{number}") for number in range(100))


@pytest.mark.parametrize("parent", [0, 1, 0xFFFFFFFE])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 100, 255])
def test_the_hash_is_pythons_siphash_of_bytes(program: Path, parent: int, length: int) -> None:
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip(f"this Python has {sys.hash_info.algorithm}")
    name = "".join(chr(ord("a") + number % 26) for number in range(length))
    code = f"print(hash(({parent}).to_bytes(8, 'little') + {name.encode()!r}) % 2**64)"
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert tell(program, "hash", parent, name) == said.split()
