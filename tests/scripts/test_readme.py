"""What README.md and the pages of the documentation tell a user to type, typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCS = ROOT / "fsmount/docs"
PAGES = ["wait", "python", "set-limits", "delegation", "containers", "programs"]

#: Programs that some pages need beside fsmount.
NEEDED = {
    "delegation": ("setpriv",),
    "containers": ("unshare", "nsenter"),
    "programs": ("awk", "busybox", "cgexec", "dash", "jq", "make", "node", "perl"),
}
FOR_ROOT = {"delegation", "containers"}

# Too long to be typed in a test: each is run by a test of its own, or runs the tests.
COMMANDS_OF_THE_PROJECT = {f"scripts/{name}" for name in ("demo", "test", "setup", "bench", "lint", "soak")}


def checked(line: str) -> str:
    """The line, as a shell function's business if a comment tells what comes of it."""
    command, arrow, said = line.partition("# -> ")
    if arrow:
        return f'said "$({command.strip()})" {said.strip()!r}'
    command, arrow, said = line.partition("# fails: ")
    if arrow:
        return f'fails "$( {{ {command.strip()}; }} 2>&1 && echo it did not fail)" {said.strip()!r}'
    return line


def checked_python(code: str) -> str:
    """The same for what a print() tells."""
    return re.sub(r"print\((.*)\)  # -> (.*)$", r"assert said(\1) == '\2', said(\1)", code, flags=re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def script(blocks: list[tuple[str, str]]) -> str:
    """The blocks as one shell script."""
    parts = [
        "set -eu",
        'said() { [ "$1" = "$2" ] || { echo "the page: said $1 and not $2" >&2; exit 1; }; }',
        'fails() { case $1 in *"$2"*) ;; *) echo "the page: $1 and not $2" >&2; exit 1 ;; esac; }',
    ]
    for language, text in blocks:
        if language == "sh":
            parts += map(checked, text.splitlines())
        else:
            assert language == "python", language
            said = "def said(*values): return ' '.join(map(str, values))"
            parts += ["python - <<'END'", said, checked_python(text), "END"]
    return "\n".join(parts) + "\n"


@pytest.mark.parametrize("page", ["README", *PAGES])
def test_every_command_of_the_page_does_what_it_says(page: str) -> None:
    if page in FOR_ROOT and os.geteuid():
        pytest.skip("only root can act as two users or make a container")
    if missing := [program for program in NEEDED.get(page, ()) if not shutil.which(program)]:
        pytest.skip(f"missing: {', '.join(missing)}")
    typed = blocks(README)[1:] if page == "README" else blocks((DOCS / f"{page}.md").read_text())
    directory = Path(tempfile.mkdtemp(prefix="fsmount-page-"))  # pytest's own directories are closed to other users
    directory.chmod(0o755)
    try:
        done = subprocess.run(
            ["bash", "-c", script(typed)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(directory)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the page" not in done.stderr
        assert mounts_in(directory) == []
    finally:
        for path in reversed(mounts_in(directory)):
            unmount = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
            subprocess.run([*unmount, path], check=False)
        shutil.rmtree(directory)


def mounts_in(directory: Path) -> list[str]:
    paths = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [path for path in paths if path.startswith(f"{directory}/")]


def test_the_first_block_names_scripts_that_are_there() -> None:
    directories = {"scripts/workloads", "scripts/benchmarks", "scripts/systemd"}
    named = set(re.findall(r"`?(scripts/\w+)(?=[` ])", README)) - directories
    assert named <= COMMANDS_OF_THE_PROJECT
    for command in COMMANDS_OF_THE_PROJECT:
        assert os.access(ROOT / command, os.X_OK), command
