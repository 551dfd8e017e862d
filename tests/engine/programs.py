"""Builds the C programs of this directory together with the engine's core, and runs them."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

from tests.companions import companion

HERE = Path(__file__).parent
ENGINE = HERE.parent.parent / "fsmount" / "engine"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-pthread", "-fno-omit-frame-pointer"]
FLAGS += ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wundef", "-Wvla", "-Werror"]

Flags = tuple[str, ...]

# Flags that several programs share, and with them the engine's objects.
SHIPPED: Flags = ("-O2", "-fwrapv")
THREADS: Flags = ("-O1", "-fsanitize=thread", "-fno-sanitize-recover=all")
ADDRESSES: Flags = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


#: Objects of the engine and finished programs, by flags and compiler: the next run finds them.
KEPT = HERE.parent.parent / "build" / "tests"


class Build:
    """A program that gcc builds from sources here and in the engine, while other tests run."""

    def __init__(self, sources: str | tuple[str, ...], program: Path, *flags: str) -> None:
        own = [HERE / source for source in ((sources,) if isinstance(sources, str) else sources)]
        engine_flags = [*FLAGS, *(flag for flag in flags if flag.startswith(("-O", "-f", "-DFSM_")))]
        objects = _directory(engine_flags)
        kept = objects / f"{own[0].stem}-{_digest([*flags, *map(str, own)])}"
        variables = {
            "ENGINE": ENGINE, "ENGINE_FLAGS": shlex.join(engine_flags), "FLAGS": shlex.join([*FLAGS, *flags]),
            "SOURCES": " ".join(map(str, own)), "PROGRAM": kept,
        }  # fmt: skip
        make = ["make", "--silent", "--jobs=2", f"--directory={objects}", f"--file={HERE / 'programs.mk'}"]
        self._command = ["flock", str(objects), *make, *(f"{name}={value}" for name, value in variables.items())]
        self._compiler = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._said: str | None = None
        self._kept = kept
        self._program = program

    def wait(self) -> str:
        """Waits until the program is built, and returns the compiler's messages."""
        if self._said is None:
            self._said, _ = self._compiler.communicate()
        return self._said

    @property
    def program(self) -> Path:
        said = self.wait()
        assert (self._compiler.returncode, said) == (0, ""), shlex.join(self._command)
        if not self._program.exists():
            shutil.copy(self._kept, self._program)
        return self._program


def _directory(flags: list[str]) -> Path:
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout
    directory = KEPT / _digest([compiler, *flags])
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def run(program: Path, *options: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the program without address randomization, which ThreadSanitizer does not support in full."""
    command = companion(program, *options)
    fixed = ["setarch", platform.machine(), "--addr-no-randomize"]
    if shutil.which("setarch") and subprocess.run([*fixed, "true"], capture_output=True).returncode == 0:
        command = [*fixed, *command]
    return subprocess.run(
        command, env={**os.environ, **(environment or {})}, cwd=program.parent, capture_output=True, text=True
    )
