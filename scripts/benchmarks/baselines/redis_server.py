"""A Redis server while a part measures, and its Debian package."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = "redis-server"
PATIENCE = 20.0
READY = "ready to accept connections"


def install() -> bool:
    """True if there is a redis-server. As root on Debian, installs a missing one."""
    if shutil.which("redis-server"):
        return True
    if os.geteuid() or not shutil.which("apt-get"):
        return False
    print(f"bench: installing the Debian package {PACKAGE}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ("update -qq", f"install -qq --yes --no-install-recommends {PACKAGE}"):
        subprocess.run(["apt-get", *command.split()], check=True, stdout=subprocess.DEVNULL, env=environment)
    # Debian starts a service from the package; the bench starts a server of its own.
    for command in ("service redis-server stop", "update-rc.d redis-server disable"):
        subprocess.run(command.split(), check=False, capture_output=True)
    return True


@contextmanager
def redis_server() -> Iterator[str]:
    """A server on the yielded unix socket, without a port or a database file; it ends with this process."""
    with tempfile.TemporaryDirectory(prefix="fsmount-bench-") as directory:
        socket = str(Path(directory) / "redis.sock")
        options = {
            "port": "0",
            "unixsocket": socket,
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "logfile": "",
            "dir": directory,
        }
        command = ["setpriv", "--pdeathsig", "TERM", "redis-server"]
        for name, value in options.items():
            command += [f"--{name}", value]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as server:
            try:
                _await_ready(server)
                yield socket
            finally:
                server.terminate()
                try:
                    server.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    server.kill()


def _await_ready(server: subprocess.Popen[str]) -> None:
    assert server.stdout
    last = ""
    for last in server.stdout:
        if READY in last:
            return
    raise RuntimeError(f"redis-server ended before it was ready: {last.strip()}")
