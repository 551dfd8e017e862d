"""The manual pages: generated from the current program, and without an error of groff."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.cli import COMMANDS
from fsmount.control_files.table import files

ROOT = Path(__file__).parents[2]
PAGES = ["fsmount.1", "fsmount.5"]
WRITTEN = [*(f"man/{page}" for page in PAGES), "fsmount/docs/files.md"]


def shown(page: str) -> str:
    """A page as a reader sees it; groff must not complain."""
    command = ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=100n", str(ROOT / "man" / page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_pages_match_the_output_of_scripts_man(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"}
    subprocess.run([sys.executable, "-m", "manual", str(tmp_path)], env=environment, check=True)
    for page in WRITTEN:
        assert (ROOT / page).read_text() == (tmp_path / page).read_text(), f"{page} is old: run scripts/man"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_usual_sections(page: str) -> None:
    text = shown(page)
    assert re.match(r"FSMOUNT\(\d\) ", text)
    assert all(f"\n{title}\n" in text for title in ("NAME", "DESCRIPTION", "SEE ALSO"))


def test_the_manual_has_every_command_with_its_examples() -> None:
    text = shown("fsmount.1")
    assert all(f"\n   fsmount {command} " in text for command in COMMANDS)
    assert "\n         fsmount run -g /run/counters/web -r memory=2G -- make -j4\n" in text


def test_the_manual_describes_every_control_file_with_its_mode() -> None:
    text = shown("fsmount.5")
    for name, (_, kind) in files({"memory": "bytes"}).items():
        assert f"\n       {name} ({kind.mode:04o})\n" in text
        assert len(kind.manual.split()) >= 5
        assert " ".join(kind.manual.split()) in " ".join(text.split())
        for title, section in kind.sections:
            assert f"\n{title.upper()}\n" in text
            assert " ".join(section.split()) in " ".join(text.split())
