"""A Prometheus that scrapes one address during a test, and its Debian package."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "prometheus"


def install() -> str:
    """The reason why there is no Prometheus; empty if there is one. As root on Debian this installs it."""
    if shutil.which(PACKAGE):
        return ""
    if os.geteuid() or not shutil.which("apt-get"):
        return f"the Debian package {PACKAGE} is missing, and only root can install it"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ("update -qq", f"install -qq --yes --no-install-recommends {PACKAGE}"):
        done = subprocess.run(["apt-get", *command.split()], capture_output=True, text=True, env=environment)
        if done.returncode:
            return f"the Debian package {PACKAGE} cannot be installed: {done.stderr.strip().rpartition(os.linesep)[2]}"
    # The Debian package also starts a service, which the tests do not use.
    for command in (f"service {PACKAGE} stop", f"update-rc.d {PACKAGE} disable"):
        subprocess.run(command.split(), check=False, capture_output=True)
    return ""


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> dict[str, float]:
        """The present values by the label `group`."""
        answer = self._get("query", query=expression)
        return {found["metric"].get("group", ""): float(found["value"][1]) for found in answer["result"]}

    def kind(self, metric: str) -> str:
        return str(self._get("metadata", metric=metric)[metric][0]["type"])

    def complaint(self) -> str:
        """The error of the last scrape; empty after a success."""
        return str(self._get("targets")["activeTargets"][0]["lastError"])

    def _get(self, what: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]


@contextlib.contextmanager
def scraping(address: str, directory: Path) -> Iterator[Prometheus]:
    """Scrapes HOST:PORT five times a second and keeps what it needs in the directory."""
    config = directory / "prometheus.yml"
    every = {"scrape_interval": "200ms", "scrape_timeout": "200ms"}
    jobs = [{"job_name": "fsmount", "static_configs": [{"targets": [address]}]}]
    config.write_text(json.dumps({"global": every, "scrape_configs": jobs}))  # which YAML is too
    command = [
        *("setpriv", "--pdeathsig", "KILL", PACKAGE, "--web.listen-address=127.0.0.1:0"),
        *(f"--config.file={config}", f"--storage.tsdb.path={directory}/data"),
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        try:
            lines: list[str] = []
            found, is_ready = None, False
            for line in server.stderr:  # in either order
                lines.append(line)
                found = re.search(r'msg="Listening on" address=(\S+)', line) or found
                is_ready = is_ready or "Server is ready" in line
                if found and is_ready:
                    break
            assert found, "".join(lines)
            yield Prometheus(f"http://{found[1]}")
        finally:
            server.kill()
