"""From a tree to the text and back: nothing is lost, and equal trees have equal texts."""

from __future__ import annotations

import os
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount import Tree, config
from fsmount.config import Access, GroupDescription, TreeDescription
from fsmount.config.writing import write
from fsmount.control_files import table
from fsmount.shm import UNLIMITED
from tests.mounts import AS_ROOT

US = os.geteuid(), os.getegid()

amounts = st.one_of(
    st.integers(0, UNLIMITED), st.integers(0, 63).map(lambda n: 1 << n).filter(lambda n: n <= UNLIMITED)
)
resource_names = st.one_of(
    st.sampled_from(["memory", "owner", "group", "mode", "files", "*", "%41", 'q"\\', "é"]),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=10).filter(
        lambda name: name.isprintable() and name[0] != "-" and not any(c in "/.:=," or c.isspace() for c in name)
    ),
)
names = st.one_of(
    st.sampled_from(
        [b"web", b"%", b"%41", b"\xff\xfe", b'"', b"'", b"\\", b"\x01\x7f", b" ", b"*", "é\u2028".encode()]
    ),
    st.binary(min_size=1, max_size=20),
).filter(lambda name: name not in (b".", b"..") and not any(c in b"/\n\0" for c in name))
ids = st.sampled_from([None, 0, 1, 1234, 2**32 - 2] if AS_ROOT else [None, US[0]])
gids = st.sampled_from([None, 0, 1, 1234, 2**32 - 2] if AS_ROOT else [None, US[1]])
modes = st.none() | st.integers(0, 0o7777)


@st.composite
def descriptions(draw: st.DrawFn) -> TreeDescription:
    resources = draw(st.dictionaries(resource_names, st.sampled_from(["bytes", "count"]), min_size=1, max_size=3))
    group_names = names.map(os.fsdecode).filter(lambda name: name not in table.reserved_names(resources, root=True))
    paths = draw(st.sets(st.lists(group_names, max_size=3).map(tuple), max_size=5))
    limits = st.dictionaries(st.sampled_from(list(resources)), amounts)
    of_file = st.builds(Access, ids, gids, modes).filter(lambda access: access != Access())
    of_files = st.dictionaries(st.sampled_from(list(table.owned_files(resources))), of_file, max_size=3)
    tree = [
        GroupDescription(
            path,
            access=draw(st.builds(Access, ids, gids, modes)),
            all_files=draw(st.builds(Access, ids, gids, st.none())),
            files=draw(of_files),
            settings={name: draw(limits) for name in table.SAVED},
        )
        for path in sorted(paths)
    ]
    return TreeDescription(
        resources=resources,
        batch=draw(st.sampled_from([None, 0, 4096])),
        groups=draw(st.integers(20, 64)),
        holders=draw(st.sampled_from([1, 4096])),
        cells=draw(st.integers(1, 64)),
        tree=tree,
    )


def made(description: TreeDescription) -> Tree:
    assert description.resources is not None
    given = {name: getattr(description, name) for name in ("batch", "groups", "holders", "cells")}
    resources = [f"{name}:{unit}" for name, unit in description.resources.items()]
    tree = Tree.create(resources=resources, **{name: value for name, value in given.items() if value is not None})
    config.build(tree, description)
    return tree


@settings(deadline=None)
@given(descriptions())
def test_a_description_is_read_as_it_was_written(description: TreeDescription) -> None:
    assert config.read(write(description).encode()) == description


@settings(deadline=None)
@given(descriptions())
def test_a_tree_is_made_as_it_was_described(description: TreeDescription) -> None:
    with made(description) as tree:
        described = config.describe(tree)
        text = write(described)
        assert config.read(text.encode()) == described
        with made(described) as again:
            assert write(config.describe(again)) == text
            assert tree.check() == again.check() == []
            assert owners(tree) == owners(again)
        for group in description.tree:
            found = tree.root
            for name in group.path:
                found = found.child(name)
            attributes = found.attributes(0)
            wanted = group.access
            assert attributes.uid == (US[0] if wanted.uid is None else wanted.uid)
            assert attributes.gid == (US[1] if wanted.gid is None else wanted.gid)
            assert attributes.mode == (0o755 if wanted.mode is None else wanted.mode)
            for resource, limit in group.settings["limit"].items():
                assert found[resource].limit == limit


def owners(tree: Tree) -> dict[str, list[tuple[int, int]]]:
    """The owner of every group and of each of its files."""
    slots = [0, *(place.slot for place in table.owned_files(tree.resources).values())]
    found = {}
    pending = [tree.root]
    while pending:
        group = pending.pop()
        pending += group.children()
        found[group.path] = [(at.uid, at.gid) for at in map(group.attributes, slots)]
    return found


def test_the_written_text_is_short_and_in_order() -> None:
    with Tree.create(resources=["memory", "tokens:count"]) as tree:
        web = tree.root.mkdir("web")
        tree.root.mkdir("a")
        web.mkdir("api")["memory"].limit = 512 << 20
        web["memory"].soft_limit = 1025
        web["tokens"].limit = 2048
        web["memory"].charge_common(5)
        text = write(config.describe(tree))
    assert text.split("\n\n", 1)[1] == (
        '[resources]\nmemory = "bytes"\ntokens = "count"\n\n'
        '["/a"]\n\n'
        '["/web"]\nmemory.soft_limit = 1025\ntokens.limit = 2048\n\n'
        '["/web/api"]\nmemory.limit = "512M"\n'
    )
    assert all(line.startswith("#") for line in text.split("\n\n")[0].splitlines())
    assert tomllib.loads(text)["/web/api"] == {"memory": {"limit": "512M"}}
