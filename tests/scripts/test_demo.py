"""scripts/demo, as a new user runs it, but shorter."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.mounts import eventually

DEMO = Path(__file__).parents[2] / "scripts" / "demo"


def demo_directories(parent: Path) -> list[Path]:
    return list(parent.glob("fsmount-demo.*"))


def test_the_demo_succeeds_and_every_sum_is_equal(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(DEMO), "-d", "2"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DIFFERENT" not in done.stdout
    rows = re.findall(r"^  (\S+) +(?:memory|tokens) +(\d+) +(\d+) .*  (\S+)$", done.stdout, re.MULTILINE)
    assert len(rows) >= 16
    assert all(workers == usage and verdict == "OK" for _, workers, usage, verdict in rows)
    assert {"web/api/v1", "web/api/v2", "batch/night/mail", "web", "batch", "."} <= {row[0] for row in rows}
    assert demo_directories(tmp_path) == []


def test_a_report_that_arrives_in_two_parts_is_one_report(tmp_path: Path) -> None:
    """A slow machine may divide a line by more time than one read of the demo waits."""
    program = f"""
        eval "$(sed -n '/^collect() {{/,/^}}/p' {DEMO})"
        mkfifo reports && exec 8<>reports
        (printf 'held=3'; sleep 0.5; printf '678\\n') >&8 &
        reports=() seconds=1
        collect 1
        echo "${{reports[@]}}"
    """
    done = subprocess.run(
        ["bash", "-euc", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "held=3678\n", "")


def test_an_interrupted_demo_leaves_nothing_behind() -> None:
    with tempfile.TemporaryDirectory() as directory:
        demo = subprocess.Popen(
            [str(DEMO), "-d", "30"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": directory},
        )
        assert demo.stdout is not None
        for line in demo.stdout:
            if "batch/night/mail" in line and "charge.sh" in line:
                break
        (tree,) = (path / "tree" for path in demo_directories(Path(directory)))
        usage = tree / "memory.usage_in_bytes"
        eventually(lambda: int(usage.read_text()) > 0, what="the workers charge")
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        demo.stdout.close()
        assert demo.wait(30) == 130
        assert demo_directories(Path(directory)) == []
