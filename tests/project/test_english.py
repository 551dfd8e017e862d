"""scripts/english finds the sentences that break the rules, in each kind of file, and passes the others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ENGLISH = Path(__file__).parents[2] / "scripts" / "english"

BAD = (
    ("open with a noun", "Wh" + "o dies gives everything back."),
    ("open with a noun", "wh" + "o dies gives everything back"),
    ("open with a noun", "(Wh" + "atever it held is released.)"),
    ("open with a noun", "The process dies.  Wh" + "ose charges are released?  Its own; wh" + "at it held is free."),
    ("open with a noun", "The file has a limit.  H" + "ow many times a process may write to it."),
    ("open with a noun", "Th" + "ose that are open stay open."),
    ("open with a noun", "Th" + "e same for a group."),
    ("say a plainer word", "The group is as of " + "now empty."),
    ("say a plainer word", "The daemon can be " + "told to end."),
    ("say a noun", "The daemon ends, and h" + "is region stays."),
    ("say a noun", "A user can lock out h" + "imself."),
    ("say otherwise", "Unmount it first, or e" + "lse the command fails."),
)
GOOD = (
    "When a process dies, everything it held is released.",
    "Who holds the lock?  The process that the message names.",
    "The message names what it found, and the process whose lock it is.",
    "How many processes hold the lock?  The same process may take it again: count how often.",
    "The group `whoever` is no `is " + "told`.",
    "A daemon and the group else" + "where; nothing e" + "lse changes.",
)
KINDS = {
    "text.md": "# Title\n\nA line.\n{} More.\n\n```sh\necho Wh" + "o is here\n```\n",
    "title.md": "# {}\n\nA line.\n",
    "table.md": "| a | b |\n|---|---|\n| a line | {} |\n",
    "commands.md": "A line:\n\n```sh\nls    # {}\n```\n",
    "code.py": "x = 1  # {}\n",
    "middle.py": "# A line.  {}\nx = 1\n",
    "docs.py": 'def f() -> None:\n    """A line\n\n    {}\n    """\n',
    "message.py": 'x = 1\nraise ValueError(f"{x}: {}")\n',
    "longer.py": 'raise ValueError(\n    "a line: "\n    "{}"\n)\n',
    "core.c": "/*\n * core.c - a file.\n *\n * {}\n */\nint x;\n",
    "middle.c": "char c = '\"'; /* A line. {} */\n",
    "message.c": 'const char *text = "a line:\\n{}";\n',
    "script": "#!/bin/sh\n# {}\nif true; then :; else the_command; fi\n",
    "message": "#!/bin/sh\necho 'a line: {}'\n",
    "unit.service": "[Service]\n# {}\nType=notify\n",
    "page.1": ".SH NAME\n{}\n",
    "item.1": ".TP\na line.\n{}\n",
}


def english(*paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(ENGLISH), *map(str, paths)], capture_output=True, text=True, check=False)


def test_a_bad_sentence_is_found_with_its_rule_and_line_in_each_kind_of_file(tmp_path: Path) -> None:
    expected = []
    for number, (rule, sentence) in enumerate(BAD):
        for kind, text in KINDS.items():
            path = tmp_path / str(number) / kind
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.replace("{}", sentence))
            line = next(number for number, text in enumerate(text.split("\n"), 1) if "{}" in text)
            expected.append(f"{path}:{line}: {rule}")
    done = english(*tmp_path.glob("*/*"))
    assert done.returncode == 1
    assert sorted(line.rpartition(": ")[0] for line in done.stdout.splitlines()) == sorted(expected)


def test_good_sentences_pass(tmp_path: Path) -> None:
    for number, sentence in enumerate(GOOD):
        for kind, text in KINDS.items():
            (tmp_path / f"{number}-{kind}").write_text(text.replace("{}", sentence))
    done = english(*tmp_path.iterdir())
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("text.md", "The group is as of\n{}.\n"),
        ("text.py", "# The group is as of\n# {}.\n"),
        ("text.py", '"""The group is as of\n\n    {}.\n"""\n'),
        ("text.py", 'x = (\n    "The group is as of "\n    "{}."\n)\n'),
        ("text.c", "/* The group is as of\n * {}. */\n"),
        ("text.c", 'char *x = "The group is as of "\n          "{}.";\n'),
        ("text.1", "The group is as of\n{}.\n"),
        ("text.toml", "# The group is as of\n# {}.\n"),
    ],
)
def test_a_phrase_that_a_line_break_divides_is_found(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text.replace("{}", "now"))
    line = text[: text.index("as of")].count("\n") + 1
    assert english(path).stdout.split(":")[:3] == [str(path), str(line), " say a plainer word"]


def test_the_name_of_a_test_is_a_sentence_too(tmp_path: Path) -> None:
    path = tmp_path / "test_x.py"
    path.write_text("def test_wh" + "o_dies_holds_nothing() -> None: ...\n")
    assert english(path).stdout == f"{path}:1: open with a noun: Wh" + "o dies holds nothing\n"


@pytest.mark.parametrize("text", ["def t" + "old_of() -> None: ...\n", "int t" + "old_of(void);\n"])
def test_every_name_is_read_by_its_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / ("name.py" if text.startswith("def") else "name.c")
    path.write_text(text)
    assert english(path).stdout == f"{path}:1: say a plainer word: t" + "old of\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with a copy of the script, whose commit before the rules is its first."""
    repository = tmp_path / "clone"
    (repository / "scripts").mkdir(parents=True)
    git(repository, "init", "--quiet")
    commit(repository, "The last commit before the rules")
    before = git(repository, "rev-parse", "HEAD").stdout.strip()
    script = repository / "scripts" / "english"
    script.write_text(re.sub(r'(?<=BEFORE_THE_RULES = ")\w+', before, ENGLISH.read_text()))
    script.chmod(0o755)
    return repository


def test_the_subject_of_each_commit_since_the_rules_is_read(clone: Path) -> None:
    commit(clone, "engine: keep the lock")
    commit(clone, "tests/cli, docs: name every mount")
    assert of_clone(clone) == (0, "", "")
    bad = ["Keep the lock", "engine: Keep the lock", "engine: " + "k" * 70, 'Revert "engine: keep the lock"']
    for subject in bad:
        commit(clone, subject)
    status, found, _ = of_clone(clone)
    assert (status, [line.partition("characters: ")[2] for line in found.splitlines()]) == (1, bad[::-1])


def test_a_shallow_clone_lacks_the_history_and_its_texts_are_read(clone: Path, tmp_path: Path) -> None:
    (clone / "text.md").write_text("The group is as of " + "now empty.\n")
    git(clone, "add", ".")
    commit(clone, "A subject of any form")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{clone}", str(shallow))
    assert of_clone(shallow) == (1, "text.md:1: say a plainer word: of " + "now\n", "")


def test_a_copy_without_a_repository_is_an_error(clone: Path) -> None:
    (clone / ".git").rename(clone / "git")
    status, found, said = of_clone(clone)
    assert (status, found) == (1, "")
    assert "not a git repository" in said


def of_clone(clone: Path) -> tuple[int, str, str]:
    done = subprocess.run([str(clone / "scripts" / "english")], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def commit(repository: Path, subject: str) -> None:
    git(repository, "commit", "--quiet", "--allow-empty", "--message", subject)


def git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(directory), *settings, *arguments], capture_output=True, text=True, check=True
    )
