"""The settings of a configuration file, and the line of each error."""

from __future__ import annotations

import os
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsmount import config
from fsmount.config import ConfigError, TreeDescription
from fsmount.shm import UNLIMITED
from tests.mounts import AS_ROOT


def wrong(text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        config.read(text.encode() if isinstance(text, str) else text)
    return raised.value


def test_an_empty_file_changes_nothing() -> None:
    assert config.read(b"") == TreeDescription()


def test_every_setting_is_read() -> None:
    described = config.read(
        b"""
        batch = "64K"
        [resources]
        memory = "bytes"
        files = "count"
        [capacity]
        groups = 16
        holders = 5
        cells = 0x20

        ["/web/api"]
        mode = "0750"
        memory.limit = "512M"
        memory.soft_limit = "max"
        "files:count".limit = 7
        files."memory.stat".mode = "600"
        ["/"]
        memory = { limit = -1, soft_limit = 0 }
        """
    )
    assert described.resources == {"memory": "bytes", "files": "count"}
    assert (described.batch, described.groups, described.holders, described.cells) == (65536, 16, 5, 32)
    root, api = described.tree
    assert (root.path, root.settings) == ((), {"limit": {"memory": UNLIMITED}, "soft_limit": {"memory": 0}})
    assert (api.path, api.access.mode) == (("web", "api"), 0o750)
    assert api.settings == {"limit": {"memory": 512 << 20, "files": 7}, "soft_limit": {"memory": UNLIMITED}}
    assert api.files["memory.stat"].mode == 0o600


def test_a_tree_may_fill_its_room_exactly() -> None:
    described = config.read(b'["/a/b"]\n[capacity]\ngroups = 3\n')
    assert (described.groups, len(described.tree)) == (3, 1)


def test_a_childs_limit_may_be_above_its_parents() -> None:
    assert len(config.read(b'["/a"]\nmemory.limit = 5\n["/a/b"]\nmemory.limit = 6\n').tree) == 2


LONG = "x" * 256

# The text, with "<" at the end of the wrong line, and the message.
WRONG = [
    # syntax
    ("batch = 0\nx = <", "Invalid value"),
    ("[/web]<\n", "Invalid initial character for a key part"),
    ("batch = 0\n\nbatch = 0<\n", "Cannot overwrite a value"),
    ('["/web"]\nmemory.limit = 5\n["/web"]<\n', "Cannot declare ('/web',) twice"),
    ('batch = 0\nx = [<\n1,\n\n"]"\n', "Unclosed array"),
    ('batch = 0\n\nx = """<\n1\n]\n', "Unterminated string"),
    ('y = """\n"""\nbatch."a = 0<\n', "Illegal character"),
    ("batch = 0\n\ny = " + "[" * 5000 + "<\n", "nested too deeply"),
    ("batch = 0\n\ny = " + "1" * 5000 + "<\n", "a number that is too long"),
    ('["/a"]\n"a.b".c = 1\n"a.b" = 2<', "Cannot overwrite a value"),
    # the tables of a file
    ("\n\ncolour = 1<\n", "colour: unknown here; known are batch, resources, capacity, and groups"),
    ("[web]<\n", "web: unknown here"),
    ("batch = true<", "batch: true is not an amount (auto, 0, 4096, 64K)"),
    ('batch = "max"<', 'batch: "max" is not an amount'),
    ("batch = -1<", "batch: -1 is not an amount"),
    ('batch = [<\n  1,\n  "]",\n]', "batch: an array is not an amount"),
    # resources
    ("resources = 5<", "resources: 5 is not a table"),
    ("[resources]<", "resources: no resource"),
    ('[resources]\na = "bytes"\nb = "byte"<', 'resources.b: "byte" is not a unit (bytes, count)'),
    ('[resources]\na = "bytes"\n"b c" = "bytes"<', 'resources."b c": a resource\'s name has'),
    ('[resources]\n"b=c" = "bytes"<', 'resources."b=c": a resource\'s name has'),
    ('[resources]\n-b = "bytes"<', "resources.-b: a resource's name has"),
    ('[resources]\n"b:count" = "count"<', 'resources."b:count": a resource\'s name cannot contain a colon'),
    ("[resources]\n" + "".join(f'r{n} = "count"\n' for n in range(32)) + 'z = "count"<', "resources.z: too many"),
    # capacities
    ("[capacity]\ngroups = 0<", "capacity.groups: 0 is not a capacity (1 to 16777216)"),
    ('[capacity]\ngroups = 5\ncells = "64K"<', 'capacity.cells: "64K" is not a capacity (1 to 268435456)'),
    (f"[capacity]\nholders = {1 << 90}<", "capacity.holders: a number of 91 bits is not a capacity"),
    ("[capacity]\nroom = 3<", "capacity.room: unknown here; known are groups, holders, cells"),
    ('["/a/b/c"]\n[capacity]\nholders = 2\ngroups = 3<\n', "capacity.groups: 3 is too few: with the root there"),
    # groups
    ('["/web"]\n["/web/"]<', '"/web/": "" is not a valid name of a group'),
    ('["//web"]<', '"//web": "" is not a valid name of a group'),
    ('["/a/../b"]<', '"/a/../b": ".." is not a valid name of a group'),
    ('["/a\\nb"]<', '"/a\\nb": "a\\nb" is not a valid name of a group'),
    ('["/%00"]<', '"/%00": "%00" is not a valid name of a group'),
    ('["/%2f"]<', '"/%2f": "%2f" is not a valid name of a group'),
    ('["/50%"]<', '"/50%": a percent sign is written %25'),
    (f'["/{LONG}"]<', "is not a valid name of a group (1 to 255 bytes"),
    ('["/a"]\n["/%61"]<', '"/%61": the group occurs twice'),
    ('["/a/memory.stat"]<', '"/a/memory.stat": "memory.stat" is the name of a control file'),
    ('["/a/.fsmount/b"]<', '".fsmount" is the name of a control file'),
    ('["/metrics/a"]<', '"metrics" is the name of a control file'),
    ('["' + "/a" * 1025 + '"]<', "1025 levels deep, at most 1024 are possible"),
    ('"/a" = 5<', '"/a": 5 is not a table'),
    # settings of groups
    ('["/a"]\n\ndisk.limit = 1<', "disk: unknown here; known are the resources memory, and owner, group, mode, files"),
    ('["/a"]\n"memory:count".limit = 1<', '"memory:count": unknown here'),
    ('["/a"]\nmemory.limit = 1\n"memory:bytes".limit = 1<', '"memory:bytes": the resource occurs twice'),
    ('["/a"]\nmemory = 1<', "memory: 1 is not a table; expected a table with limit, soft_limit"),
    ('["/a"]\nmemory.usage = 1<', "memory.usage: unknown here; known are limit, soft_limit"),
    ('["/a"]\n[ "/a" . memory ]\nlimit = "4kB"<', 'memory.limit: "4kB" is not an amount (4096, 64K, max)'),
    ('["/a"]\nmemory = { soft_limit = 1,  limit = 1.5 }<', "memory.limit: 1.5 is not an amount (4096, 64K, max)"),
    ('["/a"]\nmemory.limit = false<', "memory.limit: false is not an amount"),
    ('["/a"]\nmemory.limit = 1979-05-27<', "memory.limit: 1979-05-27 is not an amount"),
    ('["/a"]\nmemory.limit = ""<', 'memory.limit: "" is not an amount'),
    ('["/a"]\nmemory.limit = -2<', "memory.limit: -2 is not an amount"),
    ('["/a"]\nmemory.limit = """<\n4\nkB"""', 'memory.limit: "4\\nkB" is not an amount'),
    ('["/a"]\nmemory.limit = "9E"<', f'memory.limit: "9E" is above {UNLIMITED}'),
    (f'["/a"]\nmemory.soft_limit = {1 << 63}<', f"memory.soft_limit: {1 << 63} is above {UNLIMITED}"),
    ('["/a"]\nmemory.limit = 0x' + "f" * 5000 + "<", f"memory.limit: a number of 20000 bits is above {UNLIMITED}"),
    ('["/a"]\nmode = "rwx"<', 'mode: "rwx" is not a mode (octal and in quotes, such as "0750")'),
    ('["/a"]\nmode = 750<', "mode: 750 is not a mode"),
    ('["/a"]\nmode = "10000"<', 'mode: "10000" is not a mode'),
    ('["/a"]\nowner = "nobody-of-this-name"<', 'owner: there is no user "nobody-of-this-name" here'),
    ('["/a"]\nowner = "\\u0000"<', 'owner: there is no user "\\u0000" here'),
    ('["/a"]\nowner = -1<', "owner: -1 is not a user (a name, or 0 to 4294967294)"),
    ('["/a"]\ngroup = 4294967295<', "group: 4294967295 is not a group (a name, or 0 to 4294967294)"),
    ('["/a"]\ngroup = true<', "group: true is not a group"),
    ('["/a"]\ngroup = "no group of this name"<', "group: there is no group"),
    # files
    ('["/a"]\nfiles = "all"<', 'files: "all" is not a table'),
    ('["/a"]\nfiles.memory.stat.mode = "0600"<', "files.memory: unknown here; known are"),
    ('["/a"]\nfiles."memory.stat".mode = "x"<', 'files."memory.stat".mode: "x" is not a mode'),
    ('["/a"]\nfiles."memory.stat" = 5<', 'files."memory.stat": 5 is not a table; expected a table with owner'),
    ('["/a"]\nfiles."memory.stat".size = 5<', 'files."memory.stat".size: unknown here; known are owner, group, mode'),
    ('["/a"]\nfiles."*".mode = "0600"<', 'files."*".mode: unknown here; known are owner, group'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_an_error_names_its_line(text: str, said: str) -> None:
    before, mark, after = text.partition("<")
    assert mark
    for ending in ("\n", "\r\n"):
        error = wrong((before + after).replace("\n", ending))
        assert said in error.text
        assert error.line == before.count("\n") + 1
        assert str(error) == f"line {error.line}: {error.text}"


def test_an_error_in_utf8_names_its_line() -> None:
    error = wrong(b'batch = 0\n["/\xff"]\n')
    assert (error.text, error.line) == ("not UTF-8: save the file in that encoding", 2)


@pytest.mark.skipif(AS_ROOT, reason="root may give to anybody")
def test_only_root_sets_another_owner() -> None:
    error = wrong(f'["/a"]\nowner = {os.geteuid()}\n["/b"]\nowner = 0\n')
    assert (error.text, error.line) == ("owner: only root can give a group to another user, 0", 4)
    error = wrong('["/a"]\n\nfiles."*".group = 4294967000\n')
    assert error.line == 3
    assert 'files."*".group: only root can give it to a group that you are not in' in error.text


def test_an_error_names_its_file(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "tree.toml")
    with open(path, "w") as file:
        file.write("batch = 0\nbtach = 0\n")
    with pytest.raises(ConfigError) as raised:
        config.load(path)
    assert str(raised.value).startswith(f"{path}:2: btach: unknown here")


PIECES = [
    '["/a"]\n', '["/a".memory]\n', "[resources]\n", "[capacity]\n", "[[x]]\n", "memory.limit = ", "limit = ", "mode = ",
    "owner = ", 'files."*" = ', "groups = ", "batch = ", '"4K"', '"0750"', "5", "{", "}", "[", "]", ",", "\n", "=",
    ".", "'''", '"""', '"', "'", "\\", "#", "1e400", "2020-01-01T00:00:00Z", "\r\n", " ", '"root"', "é", "\0", "%",
]  # fmt: skip

texts = st.one_of(
    st.binary(),
    st.text(string.printable).map(str.encode),
    st.lists(st.sampled_from(PIECES)).map(lambda pieces: "".join(pieces).encode()),
)


@settings(deadline=None)
@given(texts)
@example(b"[[a]]\n[[a]]\nb = 1\n")
@example(b"\xef\xbb\xbfbatch = 0")
def test_any_bytes_are_read_or_are_an_error_with_an_existing_line(text: bytes) -> None:
    try:
        config.read(text)
    except ConfigError as error:
        assert error.text and 1 <= error.line <= text.count(b"\n") + 1
