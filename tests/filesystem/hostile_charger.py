"""
A process that charges in a region while a test overwrites it. It attaches through the memory and charges, and starts
again after an error, until its input ends. It accepts any OSError, and a missing resource. Any other error ends it.

usage: hostile_charger.py GROUP SEED
"""

from __future__ import annotations

import errno
import json
import random
import select
import signal
import sys
from collections import Counter as Tally

import fsmount

#: No operation takes this long: the wait for the lock ends after 3 s.
SECONDS = 60


def is_stopped() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def work(group: fsmount.Group, source: random.Random) -> None:
    for _ in range(source.randrange(1, 200)):
        signal.alarm(SECONDS)
        memory = group[source.choice(["memory", "tokens"])]
        amount = source.randrange(1 << source.randrange(1, 30))
        match source.randrange(12):
            case 0:
                memory.charge_nofail(amount)
            case 1:
                memory.give(memory.held // 2)
            case 2:
                memory.stat()
            case 3:
                _ = memory.usage, memory.max_usage, memory.limit, memory.margin, group.children(), group.path
            case 4 | 5 | 6 | 7:
                memory.uncharge(min(amount, memory.held))
            case _:
                memory.charge(amount)


def main(path: str, seed: str) -> None:
    source = random.Random(seed)
    answers: Tally[str] = Tally()
    while not is_stopped():
        signal.alarm(SECONDS)
        try:
            with fsmount.attach(path, transport="memory") as group:
                assert isinstance(group, fsmount.Group)
                work(group, source)
            answers["ok"] += 1
            if answers["ok"] == 1:
                print("charged", flush=True)
        except OSError as error:
            answers[errno.errorcode.get(error.errno or 0, str(error))] += 1
        except KeyError:  # the name of a resource was overwritten before it was read
            answers["KeyError"] += 1
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
