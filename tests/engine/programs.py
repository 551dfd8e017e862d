"""Builds the C programs of this directory together with the engine's core, and runs them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from tests.companions import companion

HERE = Path(__file__).parent
ENGINE = HERE.parent.parent / "fsmount" / "engine"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-pthread", "-fno-omit-frame-pointer"]
FLAGS += ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wundef", "-Wvla", "-Werror"]


class Build:
    """A program that is being built of sources here and the engine's; gcc works while others are run."""

    def __init__(self, sources: str | tuple[str, ...], program: Path, *flags: str) -> None:
        own = (sources,) if isinstance(sources, str) else sources
        sources = (*(str(HERE / source) for source in own), *map(str, sorted(ENGINE.glob("*/*.c"))))
        self._command = ["gcc", *FLAGS, *flags, "-I", str(ENGINE), *sources, "-o", str(program)]
        self._compiler = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._said: str | None = None
        self._program = program

    def wait(self) -> str:
        """Until gcc has ended; what it had to say."""
        if self._said is None:
            self._said, _ = self._compiler.communicate()
        return self._said

    @property
    def program(self) -> Path:
        said = self.wait()
        assert (self._compiler.returncode, said) == (0, ""), " ".join(self._command)
        return self._program


def run(program: Path, *options: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs it where it is, with all addresses where they always are: ThreadSanitizer cannot do with more randomness."""
    command = companion(program, *options)
    fixed = ["setarch", platform.machine(), "--addr-no-randomize"]
    if shutil.which("setarch") and subprocess.run([*fixed, "true"], capture_output=True).returncode == 0:
        command = [*fixed, *command]
    return subprocess.run(
        command, env={**os.environ, **(environment or {})}, cwd=program.parent, capture_output=True, text=True
    )
