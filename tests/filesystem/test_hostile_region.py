"""A mount whose region is overwritten and truncated during use, through the memory and through the files."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import Mount

pytestmark = pytest.mark.timeout(0)  # FSMOUNT_SOAK=1 takes minutes

CHARGER = Path(__file__).with_name("hostile_charger.py")
OPTIONS = ["--resource", "memory", "--resource", "tokens:count", "--groups", "64", "--holders", "16", "--cells", "256"]
VALUES = [0, 1, 2, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]

#: A script that reads everything and writes some files until the file `go` is removed. A minute counts as a hang.
SHELL = """
while [ -e go ]; do
    for file in tree/*.usage* tree/*.stat tree/*/*.usage* tree/*/*.holders tree/*/*/*.max_usage*; do
        timeout 60 cat "$file" >/dev/null || [ $? != 124 ] || echo "HANG $file"
    done
    timeout 60 ls -lR tree >/dev/null || [ $? != 124 ] || echo "HANG ls"
    for write in 'echo 5 >tree/a/memory.charge' 'echo 1G >tree/a/memory.limit_in_bytes' 'mkdir tree/a/new' \
        'rmdir tree/a/new' 'mv tree/b tree/c' 'mv tree/c tree/b' 'echo 1 >tree/a/b/tokens.force_empty'; do
        timeout 60 sh -c "$write" || [ $? != 124 ] || echo "HANG $write"
    done
done
"""

#: Texts that a user never sees on the terminal.
NEVER = re.compile("Structure needs|Unknown error|Bad address|Bus error|Segmentation|Killed|not implemented|Traceback")


def corruptions(region: Path, source: random.Random) -> Iterator[None]:
    """Each step overwrites a word, some words or a bit at a random used place."""
    with region.open("r+b", buffering=0) as file:
        data = file.read()
        used = [start for start in range(0, len(data), 64) if any(data[start : start + 64])]
        while True:
            at = source.choice(used) + source.randrange(0, 64, 4)
            if source.random() < 0.3:
                file.seek(at)
                word = int.from_bytes(file.read(4), "little") ^ 1 << source.randrange(32)
            else:
                word = source.choice([*VALUES, source.randrange(64), source.randrange(1 << 32)])
            file.seek(at)
            file.write(struct.pack("=I", word) * source.choice([1, 1, 1, 2, 16]))
            yield


def damage(region: Path, source: random.Random, number: int, *, cut: bool) -> None:
    writes = corruptions(region, source)
    for _ in range(number):
        next(writes)
        time.sleep(source.choice([0, 0, 0.001, 0.01]))  # a varying number of operations between two writes
    if cut:
        size = region.stat().st_size
        os.truncate(region, source.choice([0, 100, 4096, source.randrange(size), size - 4096]))
        time.sleep(0.1)
        os.truncate(region, size)
        time.sleep(0.05)


def ended_well(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"{process.args!r} ended with {process.returncode}"
    return said


def use_while_it_is_damaged(mount: Mount, source: random.Random, number: int, *, cut: bool) -> Tally[str]:
    assert mount.region is not None
    for name in ("a", "a/b", "b"):
        mount.root.mkdir(name)
    go = mount.directory / "go"
    go.touch()
    chargers = [
        subprocess.Popen(
            [sys.executable, "-X", "faulthandler", CHARGER, mount.path / group, str(source.random())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for group in ("a/b", "b")
    ]
    errors = mount.directory / "errors"
    with errors.open("w") as stderr:
        shell = subprocess.Popen(
            ["bash", "-c", SHELL], cwd=mount.directory, stdout=subprocess.PIPE, stderr=stderr, text=True,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    answers: Tally[str] = Tally()
    try:
        for charger in chargers:
            assert charger.stdout is not None and charger.stdout.readline() == "charged\n"
        damage(mount.region, source, number, cut=cut)
    finally:
        go.unlink()
        said = ended_well(shell)
        for charger in chargers:
            answers.update(json.loads(ended_well(charger)))
    assert said == ""
    strange = [line for line in errors.read_text(errors="replace").splitlines() if NEVER.search(line)]
    assert not strange, "\n".join(strange[:20])
    return answers


def unmount_again(path: Path) -> None:
    """umount may refuse without --keep: a holder counts as alive if its pid namespace is damaged."""
    command = [sys.executable, "-m", "fsmount", "umount", str(path)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if refused.returncode != 0:
        assert "--keep" in refused.stderr
        subprocess.run([*command, "--keep"], check=True, timeout=60)


def check_the_end(mount: Mount) -> None:
    """The daemon runs or has logged why it ended; the next mount works, or its error says what to do."""
    assert mount.region is not None and mount.daemon is not None
    log = mount.log.read_text(errors="replace")
    assert "Traceback" not in log, log
    assert not mount.ended or (mount.daemon.returncode >= 0 and log), (mount.daemon.returncode, log)
    try:
        mount.umount()
    except AssertionError as refused:  # the lock's word names a live process: the counters are kept
        assert "--keep" in str(refused)
        try:
            mount.umount("--keep")
        except AssertionError as damaged:
            assert "kill that" in str(damaged)
            mount.kill()
    if mount.region.exists():
        command = [sys.executable, "-m", "fsmount", "mount", str(mount.path), "--region", str(mount.region)]
        again = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if again.returncode == 0:
            unmount_again(mount.path)
        else:
            assert re.fullmatch(r"fsmount: .*(remove (it|/.*) to .*|and mount again)\n", again.stderr), again
        mount.region.unlink(missing_ok=True)
    mount.start("--region", str(mount.region))
    mount.root.mkdir("new").charge(5)
    assert mount.root.usage == 5
    mount.root.child("new").uncharge(5)
    mount.umount()


def test_a_mount_survives_arbitrary_writes_to_its_region(seed: int, soak: bool) -> None:
    source = random.Random(seed)
    answers: Tally[str] = Tally()
    rounds = 200 if soak else 2
    first = int(os.environ.get("FSMOUNT_ROUND") or 0)
    for number in range(first, rounds):
        print(f"round {number}; from there: FSMOUNT_ROUND={number}")
        source = random.Random(f"{seed} {number}")
        mount = Mount(*OPTIONS)
        try:
            mount.expected_log = [""]  # errors must be logged
            mount.start("--region", str(mount.directory / "region"))
            answers += use_while_it_is_damaged(mount, source, source.choice([3, 10, 40]), cut=number % 2 == 0)
            check_the_end(mount)
        finally:
            mount.destroy()
    print(dict(answers))
