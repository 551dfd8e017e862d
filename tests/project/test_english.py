"""scripts/english finds the sentences that break the rules, in each kind of file, and passes the others."""

from __future__ import annotations

import subprocess
from pathlib import Path

ENGLISH = Path(__file__).parents[2] / "scripts" / "english"

BAD = {
    "open with a noun": "Wh" + "o dies gives everything back.",
    "say a plainer word": "The group is as of " + "now empty.",
    "say a noun": "The daemon ends, and h" + "is region stays.",
    "say otherwise": "Unmount it first, or e" + "lse the command fails.",
}
GOOD = (
    "When a process dies, everything it held is released.",
    "Who holds the lock?  The process that the message names.",
    "A daemon and the group else" + "where; nothing e" + "lse changes.",
)
KINDS = {
    "text.md": "# Title\n\nA line.\n{} More.\n\n```sh\necho Wh" + "o is here\n```\n",
    "code.py": "x = 1  # {}\n",
    "docs.py": 'def f() -> None:\n    """A line.\n\n    {}\n    """\n',
    "message.py": 'raise ValueError(f"{}")\n',
    "core.c": "/*\n * core.c - a file.\n *\n * {}\n */\nint x;\n",
    "message.c": 'const char *text = "{}";\n',
    "script": "#!/bin/sh\n# {}\nif true; then :; else the_command; fi\n",
    "unit.service": "[Service]\n# {}\nType=notify\n",
    "page.1": ".SH NAME\n{}\n",
}


def english(*paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(ENGLISH), *map(str, paths)], capture_output=True, text=True, check=False)


def test_a_bad_sentence_is_found_with_its_rule_and_line_in_each_kind_of_file(tmp_path: Path) -> None:
    expected = []
    for rule, sentence in BAD.items():
        for kind, text in KINDS.items():
            path = tmp_path / rule / kind
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


def test_a_phrase_that_a_line_break_divides_is_found(tmp_path: Path) -> None:
    path = tmp_path / "text.md"
    path.write_text("The group is as of\n" + "now empty.\n")
    assert english(path).stdout == f"{path}:1: say a plainer word: of " + "now\n"


def test_the_name_of_a_test_is_a_sentence_too(tmp_path: Path) -> None:
    path = tmp_path / "test_x.py"
    path.write_text("def test_wh" + "o_dies_holds_nothing() -> None: ...\n")
    assert english(path).stdout == f"{path}:1: open with a noun: Wh" + "o dies holds nothing\n"
