"""
Parsers of untrusted bytes get any bytes: the numbers of a write, a config, the file of a region.

A soak runs libFuzzer, which follows the coverage of each input, for FSMOUNT_FUZZ_SECONDS a target (300 by default).
Otherwise each input of the corpus is run, and some thousand mutations. Inputs that once failed are in the corpus.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.programs import ENGINE, FLAGS, HERE, Build
from tests.fuzz.targets import TARGETS, corpus

pytestmark = pytest.mark.timeout(0)

ROOT = Path(__file__).parents[2]
REGION = Path(__file__).with_name("region.c")
CLEAR = ["-Wl,--wrap=mmap,--wrap=munmap", "-fwrapv", "-DTRIAL_ABORTS", "-O1", "-fno-sanitize-recover=all"]
SECONDS = int(os.environ.get("FSMOUNT_FUZZ_SECONDS") or 300)


def changed(data: bytes, others: list[bytes], source: random.Random) -> bytes:
    """The input with one to four changes, or with a part of another one."""
    text = bytearray(data)
    for _ in range(source.randrange(1, 5)):
        at = source.randrange(len(text) + 1)
        end = min(len(text), at + source.randrange(9))
        other = source.choice(others)
        start = source.randrange(len(other) + 1)
        text[at:end] = source.choice(
            [b"", source.randbytes(1), b"\xff\xff", other[start : start + source.randrange(40)]]
        )
    return bytes(text)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_accepted_or_refused(name: str, seed: int) -> None:
    inputs = [file.read_bytes() for file in corpus(name)]
    source = random.Random(seed)
    for data in inputs:
        TARGETS[name](data)
    for _ in range(3000):
        data = changed(source.choice(inputs), inputs, source)
        try:
            TARGETS[name](data)
        except Exception:
            print(f"it was {data!r}")
            raise


def test_any_file_is_opened_as_a_region_or_refused(tmp_path: Path, seed: int) -> None:
    flags = [*CLEAR, "-DSTANDALONE", "-fsanitize=address,undefined", "-I", str(HERE)]
    program = Build(str(REGION), tmp_path / "region", *flags).program
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    subprocess.run([program, "--seed-corpus", inputs], check=True)
    files = [*sorted(inputs.iterdir()), *corpus("region")]
    done = subprocess.run([program, "2000", str(seed), *files], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# ---- by libFuzzer ----------------------------------------------------------------------------------------------


def fuzz(command: list[str | Path], directory: Path, *corpora: Path) -> None:
    """Runs a target and reports its progress; for a crash, the input and how to repeat it."""
    new = directory / "new"
    new.mkdir(exist_ok=True)
    limits = [f"-max_total_time={SECONDS}", "-timeout=30", "-rss_limit_mb=2048", f"-artifact_prefix={directory}/"]
    done = subprocess.run([*command, *limits, new, *corpora], cwd=ROOT, capture_output=True, text=True)
    progress = re.findall(r"^#(\d+)\s+(?:INITED|DONE) +cov: (\d+) ft: (\d+)", done.stderr, re.MULTILINE)
    print(f"{SECONDS} s; executions, coverage, features at the start and at the end: {progress}")
    for crash in [*directory.glob("crash-*"), *directory.glob("timeout-*"), *directory.glob("oom-*")]:
        print(f"{crash.name}: {crash.read_bytes()[:4096]!r}\nagain with: {' '.join(map(str, command))} {crash}")
    assert done.returncode == 0, done.stderr[-8000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_libfuzzer_is_accepted_or_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: scripts/soak does it")
    fuzz([sys.executable, "-m", "tests.fuzz", name, "-max_len=5000"], tmp_path, corpus(name)[0].parent)


@pytest.mark.slow
def test_every_file_of_libfuzzer_is_opened_or_refused(tmp_path: Path) -> None:
    clang = shutil.which("clang") or pytest.skip("clang is not installed: scripts/soak does it")
    flags = [*FLAGS, *CLEAR, "-fsanitize=fuzzer,address,undefined", "-I", str(ENGINE), "-I", str(HERE)]
    target = tmp_path / "region"
    sources = [str(REGION), *map(str, sorted(ENGINE.glob("*/*.c")))]
    subprocess.run([clang, *flags, *sources, "-o", target], check=True)
    standalone = Build(str(REGION), tmp_path / "standalone", *CLEAR, "-DSTANDALONE", "-I", str(HERE)).program
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    subprocess.run([standalone, "--seed-corpus", inputs], check=True)
    fuzz([target, "-max_len=65536"], tmp_path, inputs, *{file.parent for file in corpus("region")})
