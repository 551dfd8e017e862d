"""fsmount get: the counters, as text and as JSON."""

from __future__ import annotations

import json

from tests.cli.place import refused, run_here
from tests.mounts import STAT_KEYS, UNLIMITED, GroupFiles


def printed(*arguments: object) -> str:
    done = run_here("get", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_without_keys_get_prints_every_counter(group: GroupFiles) -> None:
    group.charge(4096)
    group.charge(3, "tokens")
    lines = [line.split(" ") for line in printed(group.path).splitlines()]
    assert [name for name, _ in lines] == [f"{resource}.{key}" for resource in group.units for key in STAT_KEYS]
    numbers = {name: int(number) for name, number in lines}
    assert (numbers["memory.usage"], numbers["tokens.usage"], numbers["memory.limit"]) == (4096, 3, UNLIMITED)


def test_keys_choose_the_counters_and_their_order(group: GroupFiles) -> None:
    group.charge(4096)
    group.set_limit(100, "tokens")
    assert printed(group.path, "tokens.limit", "memory.usage") == "tokens.limit 100\nmemory.usage 4096\n"
    assert [line.split(".")[0] for line in printed(group.path, "tokens").splitlines()] == ["tokens"] * len(STAT_KEYS)


def test_a_single_key_prints_only_its_number(group: GroupFiles) -> None:
    group.charge(4096)
    assert printed(group.path, "memory.usage") == "4096\n"


def test_json_has_the_same_counters_in_one_object(group: GroupFiles) -> None:
    group.charge(4096)
    assert json.loads(printed("--json", group.path, "memory.usage")) == {"memory": {"usage": 4096}}
    everything = json.loads(printed(group.path, "--json"))
    assert {resource: list(stat) for resource, stat in everything.items()} == dict.fromkeys(group.units, STAT_KEYS)


def test_an_unknown_key_fails_with_the_known_keys(group: GroupFiles) -> None:
    assert (
        refused(run_here("get", group.path, "beans"), group.path)
        == "no resource 'beans' here; there are: memory, tokens"
    )
    error = refused(run_here("get", group.path, "memory.use"), group.path)
    assert error.startswith("there is no memory.use; the keys of memory are: usage, ")
