"""
A process that attaches to a group and charges on request, and that tests can kill and fork.

HolderProcess is the test's side; as a program, this file is the other side. Requests and answers are lines of JSON:
[resource or null, name, arguments] and {"value": ...} or {"error": class, "errno": ..., "details": attributes}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsmount


class Refused(OSError):
    """An exception of the other process, with its class and attributes."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["errno"], answer["text"])
        self.kind: str = answer["error"]
        self.details: dict[str, Any] = answer["details"]


class HolderProcess:
    """An attached process. Amounts are of the memory counter unless a resource is given."""

    def __init__(self, path: Path | str, *, on_exit: str = "release", transport: str = "auto") -> None:
        command = [sys.executable, "-P", __file__, str(path), on_exit, transport]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self._answer()
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> HolderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the attached process ended: {self.process.wait(60)}"
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer)
        return answer["value"]

    def tell(self, resource: str | None, name: str, *arguments: object) -> None:
        """Starts an operation; answer() waits for its result."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([resource, name, arguments]) + "\n")
        self.process.stdin.flush()

    def ask(self, resource: str | None, name: str, *arguments: object) -> Any:
        self.tell(resource, name, *arguments)
        return self._answer()

    answer = _answer

    def charge(self, amount: int, resource: str = "memory") -> None:
        self.ask(resource, "charge", amount)

    def try_charge(self, amount: int, resource: str = "memory") -> bool:
        return bool(self.ask(resource, "try_charge", amount))

    def charge_nofail(self, amount: int, resource: str = "memory") -> bool:
        return bool(self.ask(resource, "charge_nofail", amount))

    def uncharge(self, amount: int, resource: str = "memory") -> None:
        self.ask(resource, "uncharge", amount)

    def give(self, amount: int, resource: str = "memory") -> None:
        self.ask(resource, "give", amount)

    def take(self, amount: int, resource: str = "memory") -> None:
        self.ask(resource, "take", amount)

    def get(self, name: str, resource: str = "memory") -> Any:
        return self.ask(resource, name)

    @property
    def held(self) -> int:
        return int(self.get("held"))

    def kill(self) -> None:
        """Kills the process, which cannot prepare for that."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        self._close()

    def end(self) -> None:
        """Ends the input of the process, which then exits."""
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                assert self.process.wait(60) == 0, "the attached process ended badly"
            finally:
                self.kill()

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass


def serve(path: str, on_exit: Any, transport: Any) -> None:
    """Attaches, and does the operation in each line of the input."""

    def reply(answer: dict[str, Any]) -> None:
        print(json.dumps(answer, default=str), flush=True)

    def failed(error: OSError) -> None:
        carried = ("group", "resource", "requested", "usage", "limit", "held", "region")
        details = {key: getattr(error, key) for key in carried if hasattr(error, key)}
        reply({"error": type(error).__name__, "errno": error.errno, "text": error.strerror, "details": details})

    try:
        group = fsmount.attach(path, on_exit=on_exit, transport=transport)
    except OSError as error:
        failed(error)
        return
    reply({"value": os.getpid()})
    for line in sys.stdin:
        resource, name, arguments = json.loads(line)
        target = group if resource is None else group[resource]
        try:
            if name == "set":
                setattr(target, *arguments)
                reply({"value": None})
            else:
                value = getattr(target, name)
                reply({"value": value(*arguments) if callable(value) else value})
        except OSError as error:
            failed(error)


if __name__ == "__main__":
    serve(*sys.argv[1:])
