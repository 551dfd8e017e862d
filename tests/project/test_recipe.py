"""The recipe of the contributing page: its commands add a control file that works everywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "fsmount/docs/contributing.md"

# In a set-up checkout scripts/setup compares these with what it would do.
SET_UP = 'printf "%s %s %s\\n" "$PWD" "$1" "$("$1" -VV)" >.venv/made-of'


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of this checkout, with its build, as a repository with one commit."""
    root = tmp_path / "fsmount"
    listed = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=CHECKOUT, capture_output=True, check=True).stdout.split(b"\0")
    built = [os.fsencode(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("fsmount/**/*.so")]
    for name in filter(None, [*names, *built]):
        path = os.fsdecode(name)
        if (CHECKOUT / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / path, root / path, follow_symlinks=False)
    venv = root / ".venv"
    venv.mkdir()
    for part in ("bin", "lib"):
        (venv / part).symlink_to(CHECKOUT / ".venv" / part)
    for file in ("pyvenv.cfg", "built-from"):
        shutil.copy(CHECKOUT / ".venv" / file, venv / file)
    python = (CHECKOUT / ".venv/made-of").read_text().split()[1]
    subprocess.run(["bash", "-c", SET_UP, "-", python], cwd=root, check=True)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "before"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def commands() -> str:
    """The commands of the recipe; a comment `# -> TEXT` checks the output of its line."""
    section = PAGE.read_text().split("## Add a control file\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    lines = "\n".join(map(textwrap.dedent, blocks)).splitlines()
    return "\n".join(re.sub(r"^(.*?) +# -> (.*)$", _check, line) for line in lines)


def _check(found: re.Match[str]) -> str:
    return f'[[ $({found[1]}) == "{found[2]}" ]] || {{ echo "not {found[2]}: $({found[1]})" >&2; exit 1; }}'


def test_the_recipe_adds_a_control_file_by_changing_three_files(copy: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(copy), "TMPDIR": str(copy.parent), "MANPAGER": "cat"}
    script = f"set -euo pipefail\n{commands()}\n"
    done = subprocess.run(
        ["bash", "-c", script], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if (mountpoint := line.split()[1]).startswith(str(copy.parent)):
            subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    changed = ["git", "status", "--porcelain"]
    status = subprocess.run(changed, cwd=copy, capture_output=True, text=True, check=True).stdout
    assert status.splitlines() == [
        " M fsmount/control_files/values.py",
        " M fsmount/docs/files.md",
        " M man/fsmount.5",
    ]


DECLARATIONS = """
import sys
from fsmount.control_files import table
from fsmount.control_files.control_file import CounterFile
from fsmount.protocol.file_names import KINDS_MAX
assert not {"pyfuse3", "trio", "fsmount.engine", "fsmount.shm", "fsmount.filesystem"} & set(sys.modules)
assert KINDS_MAX >= 64
assert {kind.number: kind.file_name("R" if kind.scope == "resource" else "") for kind in table.KINDS} == {
    0: "R.usage", 1: "R.limit", 2: "R.soft_limit", 3: "R.max_usage", 4: "R.failcnt", 5: "R.stat", 6: "R.charge",
    7: "R.uncharge", 8: "R.force_empty", 9: "R.lease", 10: "R.holders", 11: "R.events", 12: "R.threshold", 13: "R.why",
    14: "R.probe", 15: "lease", 16: ".fsmount", 17: ".fsmount.status", 18: "metrics", 19: ".R.groups",
}
for number, manual in ((3, "text"), (KINDS_MAX, "text"), (-1, "text"), (KINDS_MAX - 1, " ")):
    try:
        type("AnotherFile", (CounterFile,), {"number": number, "manual": manual, "name": "another", "mode": 0o444})
    except TypeError:
        continue
    raise AssertionError(number)
"""


def test_the_table_keeps_its_numbers_and_needs_neither_fuse_nor_the_engine() -> None:
    subprocess.run([sys.executable, "-c", DECLARATIONS], cwd=CHECKOUT, check=True)


def test_the_engine_and_the_table_have_room_for_the_same_kinds() -> None:
    broken = "import fsmount.protocol.file_names as f; f.KINDS_MAX = 65; import fsmount.shm"
    done = subprocess.run([sys.executable, "-c", broken], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ImportError: the engine has attributes for 64 kinds of files")
