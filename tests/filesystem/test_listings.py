"""The lines of R.holders and .R.groups, written and parsed."""

from __future__ import annotations

import os

import pytest

from fsmount.protocol.listings import (
    CounterSnapshot,
    HolderLine,
    groups_text,
    holders_text,
    parse_groups,
    parse_holders,
)

HOSTILE = [
    b"",
    b" ",
    b" a  b ",
    b"7 7 7 7",
    b"\"quoted'",
    b"\\040\\n",
    b"%s %d {}",
    b"\r\x0b\x0c\x1c\x85",
    "ü\u2028\u2029€".encode(),
    b"\xff\xc3",
    b"\t\x1b[31m",
    b"x" * 255,
]
NUMBERS = range(2**63 - len(CounterSnapshot._fields), 2**63)


def holder(command: str) -> HolderLine:
    return HolderLine(NUMBERS[0], NUMBERS[1], NUMBERS[2], NUMBERS[3], command)


def group(name: str) -> CounterSnapshot:
    return CounterSnapshot(NUMBERS[0], NUMBERS[1], name, *NUMBERS[2 : len(CounterSnapshot._fields) - 1])


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_name_survives_the_round_trip(name: bytes) -> None:
    named = os.fsdecode(name)
    holders, groups = [holder(named), holder("last")], [group(named), group("last")]
    assert parse_holders(holders_text(holders)) == holders
    assert parse_groups(groups_text(groups)) == groups


@pytest.mark.parametrize("name", ["\n", "a\nb", "a\n1 2 3 4 b\n"], ids=ascii)
def test_no_name_ends_its_line(name: str) -> None:
    tame = name.replace("\n", "?")
    assert parse_holders(holders_text([holder(name), holder("last")])) == [holder(tame), holder("last")]
    assert parse_groups(groups_text([group(name), group("last")])) == [group(tame), group("last")]


def test_the_common_holder_and_an_empty_list_survive_the_round_trip() -> None:
    pot = HolderLine(0, 0, 5, 0, "common")
    assert holders_text([pot]) == b"0 0 5 0 common\n"
    assert parse_holders(b"") == [] == parse_groups(b"")
