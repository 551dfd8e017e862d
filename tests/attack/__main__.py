"""The attack of a second user against root's commands and mounts; needs root.

usage: python -m tests.attack operations|races|windows [--seed N] [--count N] [--seconds S] [--on]

It runs in mount and pid namespaces of its own, with its own /dev/shm, users and process ids: nothing of it can reach
the machine, and all of it ends with the first process.  --on goes on after a finding, and --seconds ends it early.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time

_INSIDE = "FSMOUNT_ATTACK_INSIDE"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack")
    parser.add_argument("part", choices=["operations", "races", "windows"])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--on", action="store_true")
    options = parser.parse_args()
    if _INSIDE not in os.environ:
        os.environ[_INSIDE] = "1"
        enter = "unshare --mount --pid --fork --kill-child --mount-proc --propagation private --".split()
        os.execvp(enter[0], [*enter, sys.executable, "-m", "tests.attack", *sys.argv[1:]])
    from tests.attack.operations import operate
    from tests.attack.races import Length, race
    from tests.attack.scene import Scene
    from tests.attack.windows import open_windows

    parts = {"operations": operate, "races": race, "windows": open_windows}
    began = time.monotonic()
    scene = Scene()
    report = parts[options.part](scene, options.seed, Length(options.count, options.seconds, options.on))
    told = {
        "part": options.part,
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        "done": dict(report.done),
        "statuses": dict(report.statuses),
        "slowest": round(report.slowest, 1),
        "findings": report.findings,
    }
    print(json.dumps(told, indent=1))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
