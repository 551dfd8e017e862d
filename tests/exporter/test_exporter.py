"""fsmount exporter: the file metrics over HTTP, to whoever asks and to a real Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from fsmount.exporter import parse_address, told
from tests.cli.place import Place, refused, run
from tests.exporter import prometheus_server
from tests.mounts import eventually


class Exporter:
    """A running exporter and what it says."""

    def __init__(self, place: Place) -> None:
        command = [sys.executable, "-m", "fsmount", "exporter", str(place.path), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = self.line()
        found = re.fullmatch(
            rf"fsmount: {re.escape(str(place.path))}: serving http://(127\.0\.0\.1:\d+)/metrics\n", said
        )
        assert found, said
        self.address = found[1]

    def line(self) -> str:
        assert self.process.stderr
        return self.process.stderr.readline()

    def get(self, path: str = "/metrics") -> tuple[int, str, str]:
        """Status, content type and text."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read().decode()

    def end(self, number: signal.Signals) -> str:
        """What it says at its end, which must be a good one."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, said
        return str(said)


@pytest.fixture
def exporter(place: Place) -> Iterator[Exporter]:
    place.mount()
    made = Exporter(place)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def test_what_it_serves_is_the_file(place: Place, exporter: Exporter) -> None:
    place.root.mkdir("web").charge(4096)
    status, content_type, text = exporter.get()
    assert (status, content_type) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    (usage,) = [found for found in text_string_to_metric_families(text) if found.name == "fsmount_usage_bytes"]
    assert {sample.labels["group"]: sample.value for sample in usage.samples} == {"/": 4096, "/web": 4096}
    assert exporter.get("/metrics?a=b")[0] == 200
    assert exporter.get("/")[0] == exporter.get("/metricsx")[0] == 404
    assert exporter.end(signal.SIGTERM) == ""


def test_while_nothing_is_mounted_it_answers_503_and_says_so_once(place: Place, exporter: Exporter) -> None:
    place.umount()
    gone = "nothing of fsmount is mounted there: see fsmount mount"
    for _ in range(3):
        status, content_type, text = exporter.get()
        assert (status, content_type, text) == (503, "text/plain; charset=utf-8", f"{gone}\n")
    place.mount()
    assert exporter.get()[0] == 200
    assert [exporter.line(), exporter.line()] == [
        f"fsmount: {place.path}: {gone}\n",
        f"fsmount: {place.path}: there are metrics again\n",
    ]
    place.signal(signal.SIGKILL)
    status, _, text = exporter.get()
    assert status == 503 and text.startswith("the mount has lost its daemon")
    assert exporter.end(signal.SIGINT) == f"fsmount: {place.path}: {text}"


def test_what_keeps_it_from_serving_is_told(place: Place, exporter: Exporter) -> None:
    again = run("exporter", place.path, "--listen", exporter.address)
    assert refused(again, place.path) == f"Address already in use ({exporter.address})"
    elsewhere = run("exporter", place.path, "--listen", "192.0.2.1:0")
    assert refused(elsewhere, place.path) == "Cannot assign requested address (192.0.2.1:0)"
    place.umount()
    gone = "nothing of fsmount is mounted there: see fsmount mount"
    assert refused(run("exporter", place.path), place.path) == gone
    assert refused(run("exporter", "/proc"), "/proc") == gone


@pytest.mark.parametrize("address", ["", "9744", ":9744", "host", "host:", "host:x", "host:65536", "::1:9744", "[x]:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError):
        parse_address(address)


def test_a_bad_address_is_a_wrong_command_line() -> None:
    done = run("exporter", "--listen", "9744")
    assert done.returncode == 2 and "'9744' is no address such as 127.0.0.1:9744" in done.stderr, done


def test_an_address_of_ipv6_is_in_brackets() -> None:
    address = parse_address("[::1]:9744")
    assert (address, told(address)) == (("::1", 9744), "[::1]:9744")


def test_a_real_prometheus_scrapes_it(place: Place, exporter: Exporter, tmp_path: Path) -> None:
    reason = prometheus_server.install()
    if reason:
        pytest.skip(reason)
    api = place.root.mkdir("web").mkdir('a"\\%\udcff')
    place.root.child("web").set_limit("1M")
    api.charge(4096)
    with prometheus_server.scraping(exporter.address, tmp_path) as prometheus:
        eventually(lambda: prometheus.query("fsmount_usage_bytes"), what="the first scrape")
        assert prometheus.query("up") == {"": 1}
        path = '/web/a"\\%25%FF'
        assert prometheus.query("fsmount_usage_bytes") == {"/": 4096, "/web": 4096, path: 4096}
        infinite = float("inf")
        assert prometheus.query("fsmount_limit_bytes") == {"/": infinite, "/web": 1 << 20, path: infinite}
        assert prometheus.query("fsmount_failcnt_total") == {"/": 0, "/web": 0, path: 0}
        assert prometheus.query("fsmount_requests_total")[""] > 0
        assert (prometheus.kind("fsmount_failcnt"), prometheus.kind("fsmount_usage_bytes")) == ("counter", "gauge")
        api.uncharge(4096)
        eventually(lambda: prometheus.query("fsmount_usage_bytes")["/"] == 0, what="the next scrape")
        assert prometheus.complaint() == ""
