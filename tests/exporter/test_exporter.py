"""fsmount exporter: the file metrics over HTTP, for any client and for a real Prometheus."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from fsmount.exporter import address_text, parse_address
from tests.cli.place import Place, refused, run
from tests.exporter import prometheus_server
from tests.mounts import AS_ROOT, eventually


class Exporter:
    """A running exporter and its output."""

    def __init__(self, path: Path, host: str = "127.0.0.1") -> None:
        command = [sys.executable, "-m", "fsmount", "exporter", str(path), "--listen", f"{host}:0"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = self.line()
        found = re.fullmatch(
            rf"fsmount: {re.escape(str(path))}: serving http://({re.escape(host)}:\d+)/metrics\n", said
        )
        assert found, said
        self.address = found[1]

    def line(self) -> str:
        assert self.process.stderr
        return self.process.stderr.readline()

    def get(self, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str, str]:
        """Status, content type and text."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            text = answer.read()
            if answer.headers["Content-Encoding"] == "gzip":
                text = gzip.decompress(text)
            return answer.status, answer.headers["Content-Type"], text.decode()

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A client that has sent this part of a request."""
        client = socket.create_connection(self.socket_address, timeout=60)
        client.sendall(sent)
        return client

    @property
    def socket_address(self) -> tuple[str, int]:
        host, port = self.address.split(":")
        return host, int(port)

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def end(self, number: signal.Signals) -> str:
        """Ends the exporter, which must succeed, and returns its messages."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, said
        return str(said)


@pytest.fixture
def exporter(place: Place) -> Iterator[Exporter]:
    place.mount()
    made = Exporter(place.path)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


OPENMETRICS = "application/openmetrics-text"
PLAIN_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
GET = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def everything(client: socket.socket) -> bytes:
    """The bytes that a client receives until the connection ends."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while block := client.recv(65536):
            found += block
    return found


# ---- the pages that it serves


def test_a_client_that_accepts_openmetrics_gets_the_file(place: Place, exporter: Exporter) -> None:
    place.root.mkdir("web").charge(4096)
    status, content_type, text = exporter.get(Accept=OPENMETRICS)
    assert (status, content_type) == (200, OPENMETRICS_TYPE)
    (usage,) = [found for found in text_string_to_metric_families(text) if found.name == "fsmount_usage_bytes"]
    assert {sample.labels["group"]: sample.value for sample in usage.samples} == {"/": 4096, "/web": 4096}
    assert exporter.get("/metrics?a=b")[0] == exporter.get("http://here/metrics")[0] == 200
    assert exporter.get("/")[0] == exporter.get("/metricsx")[0] == exporter.get("//[")[0] == 404
    assert exporter.end(signal.SIGTERM) == ""


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/html, application/json", False),
        (OPENMETRICS, True),
        (OPENMETRICS.upper() + " ; version=1.0.0", True),
        (f"{OPENMETRICS};version=1.0.0;q=0.5,{OPENMETRICS};version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3", True),
        (f"{OPENMETRICS};version=0.0.1", False),
        (f"text/plain;version=0.0.4;q=0.5,{OPENMETRICS};q=0.4,*/*;q=0.2", False),
        (f"{OPENMETRICS};q=0", False),
        (f"{OPENMETRICS};q=x", False),
        (f"{OPENMETRICS};q=0.4, */*;q=0.1", True),
    ],
)
def test_any_other_client_gets_plain_text(exporter: Exporter, accept: str, is_openmetrics: bool) -> None:
    content_type = OPENMETRICS_TYPE if is_openmetrics else PLAIN_TYPE
    assert exporter.get(Accept=accept)[:2] == (200, content_type)
    zipped = exporter.get(Accept=accept, Accept_Encoding="gzip, deflate")
    assert zipped[:2] == (200, content_type) and "fsmount_usage_bytes" in zipped[2]


def test_both_formats_have_the_same_figures(place: Place, exporter: Exporter) -> None:
    place.root.mkdir('a"\\%\udcff\t').charge(4096)
    place.root.set_limit("1M")
    figures = []
    for accept in (OPENMETRICS, "text/plain"):
        lines = (line.rpartition(" ") for line in exporter.get(Accept=accept)[2].splitlines())
        figures.append({name: float(value) for name, _, value in lines if name.startswith("fsmount_")})
        del figures[-1]["fsmount_requests_total"]
    assert figures[0] == figures[1] and len(figures[0]) > 14


def test_the_plain_text_equals_that_of_the_metrics_library(place: Place, exporter: Exporter) -> None:
    place.root.mkdir('a"\\%\udcff\t').charge(4096)
    whole = exporter.get(Accept=OPENMETRICS)[2]

    class Parsed(Collector):
        def collect(self) -> Iterable[Metric]:
            return text_string_to_metric_families(whole)  # type: ignore[no-any-return]

    def without_figures(text: str) -> list[str]:
        return [line if line.startswith("#") else line.rpartition(" ")[0] for line in text.splitlines()]

    assert without_figures(exporter.get()[2]) == without_figures(generate_latest(Parsed()).decode())


def test_promtool_accepts_the_plain_text(place: Place, exporter: Exporter) -> None:
    if reason := prometheus_server.install():
        pytest.skip(reason)
    place.root.mkdir('a"\\%\udcff').charge(4096)
    text = exporter.get()[2]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_head_has_the_headers_alone_and_other_methods_are_refused(exporter: Exporter) -> None:
    with exporter.connect(GET.replace(b"GET", b"HEAD") + GET.replace(b"HTTP/1.1", b"HTTP/1.0")) as client:
        head, _, rest = everything(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and int(re.findall(rb"Content-Length: (\d+)", head)[0]) > 1000
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n") and b"fsmount_usage_bytes" in rest
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        assert exporter.get(method=method)[::2] == (405, "/metrics is for GET, HEAD\n")
    body = b"POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 100000000\r\n\r\n" + bytes(1 << 20)
    with exporter.connect(body) as client:
        assert everything(client).startswith(b"HTTP/1.1 405 ")


def test_requests_that_are_sent_at_once_are_all_answered_in_order(exporter: Exporter) -> None:
    last = b"GET /nowhere HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    with exporter.connect(GET * 20 + last) as client:
        found = re.findall(rb"HTTP/1\.1 (\d+)", everything(client))
    assert found == [b"200"] * 20 + [b"404"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: here\r\n" + b"X: " + b"x" * 100_000, 431),
        (b"GET /" + b"x" * (1 << 20), 431),
        (b"GET /metrics HTTP/1.1\r\nHost: here\r\n" + b"X: y\r\n" * 100_000, 431),
    ],
)
def test_an_invalid_request_is_answered_by_one_line(exporter: Exporter, sent: bytes, status: int) -> None:
    with exporter.connect() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(sent)
        head, _, text = everything(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status) and text.count(b"\n") == 1, head
    assert exporter.get()[0] == 200


# ---- clients that take their time


@pytest.mark.parametrize("sent", [b"", b"GET /metr", GET], ids=["silent", "slow", "idle"])
def test_a_crowd_that_holds_connections_delays_nobody_and_costs_no_threads(exporter: Exporter, sent: bytes) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(exporter.connect(sent)) for _ in range(500)]
        assert exporter.get()[0] == 200
        assert exporter.threads < 10 and exporter.descriptors < 300
        assert all(everything(client) is not None for client in crowd[:100])  # closed, with an answer or without
        with exporter.connect(GET) as other:
            assert other.recv(4096).startswith(b"HTTP/1.1 200 OK")
    assert exporter.end(signal.SIGTERM) == ""


def test_a_client_that_sends_a_byte_at_a_time_is_ended_within_the_limit(exporter: Exporter) -> None:
    with exporter.connect(b"G") as client:
        client.settimeout(0.2)
        said = b""
        for byte in GET[1:] * 100:
            with contextlib.suppress(TimeoutError):
                if said := client.recv(4096):
                    break
            client.sendall(bytes([byte]) if byte not in b"\r\n" else b"x")
        assert said.startswith(b"HTTP/1.1 408 ")
    assert exporter.get()[0] == 200


def test_clients_that_receive_nothing_delay_nobody_and_cost_bounded_memory(place: Place, exporter: Exporter) -> None:
    for number in range(3000):
        place.root.mkdir(f"group-{number}-{'x' * 200}")
    with contextlib.ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(exporter.connect(GET))
        assert exporter.get()[0] == 200
        for _ in range(60):  # each gets a text of its own, of 6 MB
            client = stack.enter_context(socket.socket())
            client.settimeout(60)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(exporter.socket_address)
            client.sendall(GET)
            assert client.recv(1, socket.MSG_PEEK)
        status = Path(f"/proc/{exporter.process.pid}/status").read_text()
        assert int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) < 300 << 10
        assert exporter.get()[0] == 200
        assert exporter.end(signal.SIGTERM) == ""


def test_it_ends_at_sigterm_whatever_its_clients_do(exporter: Exporter) -> None:
    with exporter.connect(), exporter.connect(b"GET"), exporter.connect(GET):
        assert exporter.end(signal.SIGTERM) == ""


# ---- mounts that fail


@contextlib.contextmanager
def odd_mount(place: Place, behaviour: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.exporter.odd_mount", str(place.path), behaviour]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "mounted\n"
            yield process
        finally:
            unmount = ["umount", "--lazy"] if AS_ROOT else ["fusermount3", "-uz"]
            subprocess.run([*unmount, place.path], check=True)
            process.kill()


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("EAGAIN", "metrics cannot be read: Resource temporarily unavailable"),
        ("EIO", "metrics cannot be read: Input/output error"),
        ("ENOSYS", "metrics cannot be read: Function not implemented"),
        ("EBADMSG", "metrics cannot be read: Bad message"),
        ("ENOTCONN", "the mount has lost its daemon: `fsmount mount` takes it over"),
        ("endless", "metrics is longer than 256 MiB"),
        ("nonsense", "metrics is not a complete OpenMetrics text"),
        ("hang", "the daemon gave no metrics within 8 s: continue it if it is stopped"),
    ],
)
def test_a_mount_that_fails_is_answered_by_503_and_the_reason(
    place: Place, exporter: Exporter, behaviour: str, reason: str
) -> None:
    place.umount()
    with odd_mount(place, behaviour):
        for _ in range(2):
            status, _, text = exporter.get()
            assert (status, text[: len(reason)], text.count("\n")) == (503, reason, 1)
    place.mount()
    assert exporter.get()[0] == 200
    assert exporter.threads < 10


def test_a_stopped_daemon_costs_a_scrape_its_time_and_the_exporter_few_threads(
    place: Place, exporter: Exporter
) -> None:
    late = "the daemon gave no metrics within 8 s: continue it if it is stopped"
    os.kill(place.daemon, signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            for found in [pool.submit(exporter.get) for _ in range(200)]:
                status, _, text = found.result()
                assert (status, text) == (503, f"{late}\n")
        assert exporter.threads < 10
        assert refused(run("exporter", place.path), place.path) == late
    finally:
        for pid in place.daemons:
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: exporter.get()[0] == 200, what="metrics of the daemon that goes on")
    assert exporter.line() == f"fsmount: {place.path}: {late}\n"
    assert exporter.line() == f"fsmount: {place.path}: the metrics can be read again\n"


def test_while_nothing_is_mounted_it_answers_503_and_says_so_once(place: Place, exporter: Exporter) -> None:
    place.umount()
    gone = "no fsmount mount is there: mount one with fsmount mount"
    for _ in range(3):
        status, content_type, text = exporter.get()
        assert (status, content_type, text) == (503, "text/plain; charset=utf-8", f"{gone}\n")
    place.mount()
    assert exporter.get()[0] == 200
    assert [exporter.line(), exporter.line()] == [
        f"fsmount: {place.path}: {gone}\n",
        f"fsmount: {place.path}: the metrics can be read again\n",
    ]
    place.signal(signal.SIGKILL)
    status, _, text = exporter.get()
    assert status == 503 and text.startswith("the mount has lost its daemon")
    assert exporter.end(signal.SIGINT) == f"fsmount: {place.path}: {text}"


def test_an_error_names_the_reason_that_prevents_serving(place: Place, exporter: Exporter) -> None:
    again = run("exporter", place.path, "--listen", exporter.address)
    assert refused(again, place.path) == f"Address already in use ({exporter.address})"
    elsewhere = run("exporter", place.path, "--listen", "192.0.2.1:0")
    assert refused(elsewhere, place.path) == "Cannot assign requested address (192.0.2.1:0)"
    place.umount()
    gone = "no fsmount mount is there: mount one with fsmount mount"
    assert refused(run("exporter", place.path), place.path) == gone
    assert refused(run("exporter", "/proc"), "/proc") == gone


@pytest.mark.parametrize("address", ["", "9744", ":9744", "host", "host:", "host:x", "host:65536", "::1:9744", "[x]:1"])
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError):
        parse_address(address)


def test_a_bad_address_is_a_wrong_command_line() -> None:
    done = run("exporter", "--listen", "9744")
    assert done.returncode == 2 and "'9744' is not an address such as 127.0.0.1:9744" in done.stderr, done


def test_an_address_of_ipv6_is_in_brackets() -> None:
    address = parse_address("[::1]:9744")
    assert (address, address_text(address)) == (("::1", 9744), "[::1]:9744")


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["[::1]", "[::]"])
def test_it_listens_on_addresses_of_ipv6(place: Place, host: str) -> None:
    place.mount()
    exporter = Exporter(place.path, host)
    try:
        port = exporter.address.rpartition(":")[2]
        for asked in ["[::1]", *(["127.0.0.1"] if host == "[::]" else [])]:
            with contextlib.closing(http.client.HTTPConnection(f"{asked}:{port}", timeout=60)) as connection:
                connection.request("GET", "/metrics")
                assert connection.getresponse().status == 200
        again = run("exporter", place.path, "--listen", exporter.address)
        assert refused(again, place.path) == f"Address already in use ({exporter.address})"
    finally:
        exporter.process.kill()
        exporter.process.communicate()


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
