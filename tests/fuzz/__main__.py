"""Fuzzes a Python target with atheris: libFuzzer, guided by the lines that ran.

usage: python -m tests.fuzz TARGET [LIBFUZZER OPTION...] NEW [CORPUS...]
       python -m tests.fuzz TARGET FILE...

Begins with the inputs in the directories, and writes useful new ones to the first. Files are only run.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["fsmount", "tomllib"]):
    from tests.fuzz.targets import TARGETS


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
