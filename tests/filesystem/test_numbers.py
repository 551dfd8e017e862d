"""Numbers in writes: the accepted texts and their values, and the refused texts and their errnos."""

from __future__ import annotations

import errno
import os
import re

import pytest

from tests.mounts import UNLIMITED, GroupFiles, fails_with

ACCEPTED: dict[bytes, int] = {
    b"0": 0,
    b"1": 1,
    b"4097": 4097,
    b"4096\n": 4096,
    b" 12288 ": 12288,
    b"\t4096\r\n": 4096,
    b"\n\n4096": 4096,
    b"\v4096\f": 4096,
    b"0k": 0,
    b"1k": 1 << 10,
    b"1K": 1 << 10,
    b"3m": 3 << 20,
    b"3M": 3 << 20,
    b"5g": 5 << 30,
    b"5G": 5 << 30,
    b"6t": 6 << 40,
    b"6T": 6 << 40,
    b"7p": 7 << 50,
    b"7P": 7 << 50,
    b"7e": 7 << 60,
    b"7E": 7 << 60,
    b"512M\n": 512 << 20,
    b"4k\r\n": 4096,
    b"0x0": 0,
    b"0x10": 16,
    b"0x10000": 65536,
    b"0xabcdef": 0xABCDEF,
    b"0xABCDEF": 0xABCDEF,
    b"0x10k": 16 << 10,
    b"0x1E": 0x1E,
    b"9223372036854775807": UNLIMITED,
    b"0x7fffffffffffffff": UNLIMITED,
    b"9007199254740991K": 9007199254740991 << 10,
    b"4096\0": 4096,
    b"4096\0 and more": 4096,
    b" 4096 \0": 4096,
    b" " * 4095 + b"5": 5,
    b"5" + b"\n" * 4095: 5,
}
UNLIMITED_WORDS = [b"-1", b" -1", b"-1 ", b"-1\n", b"max", b"max\n", b" max", b"max\0"]

NO_NUMBER = [
    *(b"\n", b" ", b" \t\r\n", b"\0", b"\x001"),
    *(b"-2", b"-0", b"--1", b"-", b"-1k", b"-1 1", b"- 1", b"-4096"),
    *(b"+4096", b"+", b"+0", b"+-1", b"-+1"),
    *(b"12abc", b"abc", b"12 13", b"1\n2", b"1,000", b"1'000", b"1_000", b"4 096", b"1;", b"#1", b"$1"),
    *(b"4kB", b"4KiB", b"4kb", b"4Ki", b"4B", b"4b", b"4kk", b"4mk", b"4 k", b"4z", b"k", b"K", b"4kx"),
    *(b"1.5M", b"1.0", b"1.", b".5", b"1e6", b"1E6"),
    *(b"nan", b"inf", b"maxx", b"max max", b"-max", b"maximum", b"unlimited", b"None", b"True"),
    *(b"0b10", b"0o17", b"010000", b"00", b"01", b"08", b"007", b"00x10", b"010k", b"00k"),
    *(b"0x", b"0xg", b"x10", b"0x-1", b"0x 1", b"0x1.8", b"0x_1", b"0x0x1", b"1x0", b"-0x1", b"0xk"),
    *("٤٢".encode(), "４２".encode(), "²".encode(), b"\xff", b"4\xff", b"\xa04", b"4\xa0", b"\x1c4", b"\x854"),
    *("4\u2003".encode(), "\ufeff4".encode(), b"4\x1f", b"\x1b[A", b"4\\n", b'"4"', b"'4'", b"$((1))", b"(4)"),
    b"x" * 4096,
    b" " * 4096,
]
TOO_LARGE = [
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"0x8000000000000000",
    b"0xffffffffffffffff",
    b"0x10000000000000000",
    b"8E",
    b"16E",
    b"16e\n",
    b"8192P",
    b"9007199254740992K",
    b"99999999999999999999999999999999",
    b"9" * 4096,
]
TOO_LONG = [b" " * 4096 + b"5", b"5" + b" " * 4096, b"5\0" + b"x" * 4095, b"9" * 4097, b"5" * 65536, b"5" * (1 << 20)]
LIMITS = ["limit", "soft_limit"]
AMOUNTS = ["charge", "uncharge", "lease"]
RESETS = ["max_usage", "failcnt", "force_empty"]


def short(data: bytes) -> str:
    return repr(data)[1:].strip("'\"") if len(data) < 30 else f"{len(data)} bytes of {data[:6]!r}"


@pytest.fixture
def charged(group: GroupFiles) -> GroupFiles:
    """A group in which any change is visible."""
    group.charge(1000)
    group.charge(100)
    group.uncharge(100)
    group.set_limit(100_000)
    group.write("soft_limit", 50_000)
    with fails_with(errno.ENOMEM):
        group.charge(200_000)
    return group


@pytest.mark.parametrize("data", ACCEPTED, ids=short)
@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_set_to_the_exact_number(group: GroupFiles, name: str, data: bytes) -> None:
    group.write(name, data)
    assert group.number(name) == ACCEPTED[data]


@pytest.mark.parametrize("data", UNLIMITED_WORDS, ids=short)
@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("resource", ["memory", "tokens"])
def test_minus_1_and_max_mean_unlimited_where_a_limit_is_set(
    group: GroupFiles, resource: str, name: str, data: bytes
) -> None:
    group.write(name, 5, resource)
    group.write(name, data, resource)
    assert group.number(name, resource) == UNLIMITED


@pytest.mark.parametrize("data", ACCEPTED, ids=short)
def test_the_exact_number_is_charged_and_uncharged(group: GroupFiles, data: bytes) -> None:
    group.write("charge", data)
    assert group.usage == ACCEPTED[data]
    group.write("uncharge", data)
    assert group.usage == 0


@pytest.mark.parametrize("data", ACCEPTED, ids=short)
def test_a_lease_is_resized_to_the_exact_number(group: GroupFiles, data: bytes) -> None:
    with group.lease() as lease:
        lease.write(data)
        assert (lease.held, group.usage) == (ACCEPTED[data], ACCEPTED[data])


@pytest.mark.parametrize("data", [data for data in ACCEPTED if len(data) < 4000 and data.strip() == data], ids=short)
def test_a_lease_is_adjusted_by_the_exact_number(group: GroupFiles, data: bytes) -> None:
    with group.lease() as lease:
        lease.write(b"+" + data)
        assert lease.held == ACCEPTED[data]
        lease.write(b"-" + data)
        assert lease.held == 0


def adjusts(data: bytes) -> bool:
    """Whether the text is a signed number, which is a command of a lease only."""
    return re.fullmatch(rb"[-+](0x)?\d+[kK]?", data) is not None


@pytest.mark.parametrize(
    ("name", "data"),
    [(n, d) for n in [*LIMITS, *AMOUNTS] for d in NO_NUMBER if not (n == "lease" and adjusts(d))],
    ids=lambda value: value if isinstance(value, str) else short(value),
)
def test_a_malformed_number_is_einval_and_changes_nothing(charged: GroupFiles, name: str, data: bytes) -> None:
    before = charged.counters()
    with fails_with(errno.EINVAL):
        charged.write(name, data)
    assert charged.counters() == before


@pytest.mark.parametrize("data", UNLIMITED_WORDS, ids=short)
@pytest.mark.parametrize("name", ["charge", "uncharge"])
def test_minus_1_and_max_are_no_amounts(charged: GroupFiles, name: str, data: bytes) -> None:
    before = charged.counters()
    with fails_with(errno.EINVAL):
        charged.write(name, data)
    assert charged.counters() == before


@pytest.mark.parametrize("data", b"max +max ++1 +-1 -+1 --1 + - +010 -010 +1e6".split(), ids=short)
def test_a_lease_takes_one_sign_and_a_number(charged: GroupFiles, data: bytes) -> None:
    with charged.lease() as lease:
        lease.write("100")
        with fails_with(errno.EINVAL):
            lease.write(data)
        assert lease.held == 100


@pytest.mark.parametrize("data", TOO_LARGE, ids=short)
@pytest.mark.parametrize("name", [*LIMITS, *AMOUNTS])
def test_a_number_above_the_largest_is_erange_and_changes_nothing(charged: GroupFiles, name: str, data: bytes) -> None:
    before = charged.counters()
    with fails_with(errno.ERANGE):
        charged.write(name, data)
    assert charged.counters() == before


@pytest.mark.parametrize("data", TOO_LONG, ids=short)
@pytest.mark.parametrize("name", [*LIMITS, *AMOUNTS, *RESETS])
def test_more_than_4096_bytes_are_e2big_and_change_nothing(charged: GroupFiles, name: str, data: bytes) -> None:
    before = charged.counters()
    with fails_with(errno.E2BIG):
        charged.write(name, data)
    assert charged.counters() == before


@pytest.mark.parametrize("name", [*LIMITS, *AMOUNTS, *RESETS])
def test_a_write_of_zero_bytes_is_a_no_op(charged: GroupFiles, name: str) -> None:
    before = charged.counters()
    fd = os.open(charged.file(name), os.O_WRONLY)
    try:
        assert os.write(fd, b"") == 0
    finally:
        os.close(fd)
    assert charged.counters() == before


@pytest.mark.parametrize("name", [*LIMITS, *AMOUNTS])
def test_the_count_unit_reads_numbers_the_same_way(group: GroupFiles, name: str) -> None:
    group.charge(8192, "tokens")
    group.write(name, "0x10K" if name != "uncharge" else "0x1K", "tokens")
    for data in (b"4kB", b"010", b"\n"):
        with fails_with(errno.EINVAL):
            group.write(name, data, "tokens")
    with fails_with(errno.ERANGE):
        group.write(name, "8E", "tokens")


def test_the_smallest_charge_is_not_rounded(group: GroupFiles) -> None:
    group.charge(1)
    group.set_limit(1)
    assert (group.usage, group.limit) == (1, 1)
