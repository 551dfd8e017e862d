"""Every command that README.md and the pages of fsmount/docs show runs here and does what the page says."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "fsmount/docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]

#: Programs that some pages need beside fsmount.
NEEDED = {
    "delegation": ("setpriv",),
    "containers": ("unshare", "nsenter"),
    "programs": ("awk", "busybox", "cgexec", "dash", "jq", "make", "node", "perl"),
}
FOR_ROOT = {"delegation", "containers"}

#: Pages with commands of a checkout, which other tests run.
OF_THE_PROJECT = {"bench", "contributing"}


def checked(line: str) -> str:
    """The line with its comment, `# -> OUTPUT` or `# fails: ERROR`, as a check."""
    command, arrow, said = line.partition("# -> ")
    if arrow:
        return f'said "$({command.strip()})" {said.strip()!r}'
    command, arrow, said = line.partition("# fails: ")
    if arrow:
        return f'fails "$( {{ {command.strip()}; }} 2>&1 && echo it did not fail)" {said.strip()!r}'
    return line


def checked_python(code: str) -> str:
    """The code, with an assertion in the place of each print()."""
    return re.sub(r"print\((.*)\)  # -> (.*)$", r"assert said(\1) == '\2', said(\1)", code, flags=re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


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
        elif language == "python":
            said = "def said(*values): return ' '.join(map(str, values))"
            parts += ["python - <<'END'", said, checked_python(text), "END"]
        else:
            assert language == "text", f"{language} is no language that this test can run"
    return "\n".join(parts) + "\n"


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that other users can enter, unlike pytest's own; mounts that are left in it are unmounted."""
    directory = Path(tempfile.mkdtemp(prefix="fsmount-page-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        for path in reversed(mounts_in(directory)):
            unmount = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
            subprocess.run([*unmount, path], check=False)
        shutil.rmtree(directory)


def mounts_in(directory: Path) -> list[str]:
    paths = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [path for path in paths if path.startswith(f"{directory}/")]


def runs(typed: list[tuple[str, str]], directory: Path, start: Path) -> None:
    """The blocks do what they say when they are typed in `start`, and leave nothing mounted in `directory`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script(typed)],
        cwd=start,
        env={**os.environ, "TMPDIR": str(directory), "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the page" not in done.stderr
    assert mounts_in(directory) == []


def test_the_example_that_opens_the_readme_runs() -> None:
    with scratch() as directory:
        runs(blocks(README)[:1], directory, directory)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and page.stem not in OF_THE_PROJECT], ids=lambda page: page.stem
)
def test_every_command_of_the_page_does_what_it_says(page: Path) -> None:
    if page.stem in FOR_ROOT and os.geteuid():
        pytest.skip("only root can act as two users or make a container")
    if missing := [program for program in NEEDED.get(page.stem, ()) if not shutil.which(program)]:
        pytest.skip(f"missing: {', '.join(missing)}")
    typed = blocks(page)
    if page == README:  # the example has a test of its own, and the two commands after it are longer than a test
        assert "scripts/test" in typed[1][1]
        typed = typed[2:]
    with scratch() as directory:
        runs(typed, directory, ROOT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_script_that_a_page_names_is_there(page: Path) -> None:
    for name in set(re.findall(r"`(scripts/[\w/.]+|\.ci/\w+)[ `]", page.read_text())):
        path = ROOT / name
        assert path.is_dir() or path.suffix in (".py", ".toml") or os.access(path, os.X_OK), name


@pytest.mark.parametrize("page", [DOCS / "design.md", DOCS / "contributing.md"], ids=lambda page: page.stem)
def test_every_source_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`([a-z_]+(?:/\w+)*/\w+\.[a-z]+)`", page.read_text())
    places = [ROOT, ROOT / "fsmount", ROOT / "fsmount/engine"]
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_a_page_leads_to_a_page_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE) if heading else []
        anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not heading or heading in anchors, (target, anchors)


def test_the_readme_lists_every_page() -> None:
    linked = set(re.findall(r"\]\(fsmount/docs/([\w-]+\.md)\)", README.read_text()))
    assert linked == {page.name for page in DOCS.glob("*.md")}


def texts_of_the_program() -> str:
    """Every text in the sources of the package, one a line, with `...` for each value that is filled in."""
    texts = []
    for path in sorted((ROOT / "fsmount").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                values = [value.value if isinstance(value, ast.Constant) else "..." for value in node.values]
                texts.append("".join(map(str, values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%[dgs]", "...", node.value))
    return "\n".join(text.replace("\n", " ") for text in texts)


def test_every_message_that_the_page_of_errors_quotes_is_in_the_program() -> None:
    tables = (DOCS / "errors.md").read_text().partition("## Messages of commands\n")[2]
    rows = re.findall(r"^\| (`.*?) \|", tables, re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(messages) > 60
    texts = texts_of_the_program()
    for message in messages:
        parts = re.split(r"\.\.\.|\b[A-Z]+\b", message)  # N, GROUP and the like are filled in
        assert re.search(r"\.\.\.".join(map(re.escape, parts)), texts), message
