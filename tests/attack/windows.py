"""Windows between a check and a use: the attacker acts right before one system call of a command of root."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.attack import commands
from tests.attack.oracle import Oracle, mount_table
from tests.attack.races import Length, Report, clear, end_of_child
from tests.attack.scene import ATTACKER, SHM, Scene, end, process_of, wait_until
from tests.attack.traps import Traps, exchange

Act = Callable[[], object]


@dataclass(frozen=True)
class Swap:
    """An act of the attacker in a window, and its undoing."""

    act: Act
    undo: Act


@dataclass(frozen=True)
class Trial:
    """A command of root, the attacker's preparation, and the attacker's act in the window."""

    name: str
    arguments: list[str]
    prepare: Act
    swap: Swap
    #: Lists work that a successful command left undone in a run without an act of the attacker.
    left: Callable[[], list[str]] = list


def open_windows(scene: Scene, seed: int, length: Length) -> Report:
    """Opens the same number of windows in every trial: all of them, if the count allows it."""
    source = random.Random(seed)
    oracle = Oracle(scene)
    victims = [victim.pid for victim in oracle.victims]
    traps = Traps(scene, source, victims)
    end_of_child(process_of(ATTACKER, traps.furnish))
    known = {*victims, *scene.daemons}
    report = Report()
    trials = _trials(scene, traps)
    source.shuffle(trials)
    for trial in trials:
        whole = commands.Window(_address(scene), None)
        ended = _attempt(scene, trial, whole)
        report.findings += [f"{trial.name}: {it}" for it in (trial.left() if ended.status == 0 else [])]
        _check(report, oracle, trial, None, ended)
        report.findings += clear(scene, known)
        windows = list(range(1, whole.calls + 1))
        report.done["windows there are"] += whole.calls
        share = length.count // len(trials)
        for at in sorted(source.sample(windows, share)) if share < len(windows) else windows:
            ended = _attempt(scene, trial, commands.Window(_address(scene), at))
            report.done["windows"] += 1
            report.slowest = max(report.slowest, ended.seconds)
            report.statuses[f"{trial.name} {ended.status}"] += 1
            _check(report, oracle, trial, at, ended)
            report.findings += clear(scene, known)
            if report.findings:
                oracle.learn()
            if length.reached(report):
                return report
    return report


def _check(report: Report, oracle: Oracle, trial: Trial, at: int | None, ended: commands.Ended | None) -> None:
    found = oracle.differences() + (ended.differences() if ended else [])
    report.findings += [f"{trial.name}, before call {at}: {it}" for it in found]


def _address(scene: Scene) -> str:
    return str(scene.base / "tmp" / "window")


def _attempt(scene: Scene, trial: Trial, window: commands.Window) -> commands.Ended:
    address = _address(scene)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    end_of_child(process_of(ATTACKER, lambda: _quietly(trial.prepare)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        os.chmod(address, 0o777)
        listener.listen()
        attacker = process_of(ATTACKER, lambda: _wait_and_act(listener, trial))
    try:
        return commands.run(trial.arguments, window)
    finally:
        end(attacker)
        end_of_child(process_of(ATTACKER, lambda: _quietly(trial.swap.undo)))


def _quietly(act: Act) -> int:
    with contextlib.suppress(OSError):
        act()
    return 0


def _wait_and_act(listener: socket.socket, trial: Trial) -> None:
    connection, _ = listener.accept()
    _quietly(trial.swap.act)
    connection.send(b"+")
    connection.close()


def _trials(scene: Scene, traps: Traps) -> list[Trial]:
    way = traps.ways[0]
    place = way / "m"
    file = way / "x.toml"
    canary, of_root = Path(f"{way}-link-0"), Path(f"{way}-link-2")
    aside = Path(f"{way}-aside")
    stage = _Stage(scene, traps, place)
    small = ["--groups", "64", "--cells", "1024", "--watchdog", "0"]

    def swaps(one: Path, other: Path) -> Swap:
        return Swap(lambda: exchange(one, other), lambda: stage.put_back(one, other))

    def swaps_with_link(one: Path, target: Path) -> Swap:
        def act() -> None:
            with contextlib.suppress(FileNotFoundError):
                aside.unlink()
            os.symlink(target, aside)
            if one.exists() or one.is_symlink():
                exchange(one, aside)
            else:
                os.rename(aside, one)

        return Swap(act, lambda: stage.put_back(one, aside))

    def region_swaps(target: Path) -> Swap:
        return Swap(
            lambda: swaps_with_link(stage.region(), target).act(), lambda: stage.put_back(stage.region(), aside)
        )

    own, theirs = SHM / f"fsmount-{ATTACKER}", SHM / "a link"

    def take_directory() -> None:
        os.symlink(scene.region.parent, theirs)
        exchange(own, theirs)

    def give_directory_back() -> None:
        stage.put_back(own, theirs)
        theirs.unlink()

    directory = Swap(take_directory, give_directory_back)
    save = ["save", str(scene.mount), str(file)]
    top = scene.canaries[0]
    found = [
        Trial("mount, the way swapped", ["mount", str(place), *small], stage.unmounted, swaps(way, canary)),
        Trial("mount, the way to root's", ["mount", str(place), *small], stage.unmounted, swaps(way, of_root)),
        Trial(
            "mount, the directory swapped",
            ["mount", str(place), *small],
            stage.unmounted,
            swaps_with_link(place, top / "m"),
        ),
        Trial(
            "mount --config, the file swapped",
            ["mount", str(place), *small, "--config", str(file)],
            stage.with_file,
            swaps_with_link(file, top / "x.toml"),
        ),
        Trial("save, the way swapped", save, stage.with_file, swaps(way, canary)),
        Trial("save, the file swapped", save, stage.with_file, swaps_with_link(file, top / "x.toml")),
        Trial("save, a link to nothing", save, stage.without_file, swaps_with_link(file, top / "none")),
    ]
    for options in ([], ["--keep"], ["--stale"]):
        umount = ["umount", *options, str(place)]
        closed = partial(stage.dead, allow_other=False)
        for state, prepare in (("served", stage.served), ("dead", stage.dead), ("dead and closed to root", closed)):
            name = f"{' '.join(umount[:-1])}, {state}"
            left = partial(stage.left, region="--keep" not in options and "--stale" not in options)
            found += [
                Trial(
                    f"{name}, the way swapped",
                    umount,
                    prepare,
                    swaps(way, of_root),
                    left=left if state != "served" or "--stale" not in options else list,
                ),
                Trial(f"{name}, the region swapped", umount, prepare, region_swaps(scene.region)),
                Trial(f"{name}, the directory of the region swapped", umount, prepare, directory),
                Trial(f"{name}, a victim named", umount, prepare, Swap(stage.name_a_victim, stage.forget_region)),
            ]
    for name, command in (("doctor", ["doctor", "--repair", str(place)]), ("save -", ["save", str(place), "-"])):
        found += [
            Trial(f"{name}, the way swapped", command, stage.served, swaps(way, of_root)),
            Trial(f"{name}, the region swapped", command, stage.served, region_swaps(top / "region")),
            Trial(f"{name}, the region a pipe", command, stage.dead, Swap(stage.make_pipe, stage.forget_region)),
        ]
    return found


class _Stage:
    """The attacker prepares its mount point for a command."""

    def __init__(self, scene: Scene, traps: Traps, place: Path) -> None:
        self._scene = scene
        self._traps = traps
        self._place = place

    def put_back(self, one: Path, other: Path) -> None:
        if one.is_symlink():
            exchange(one, other)

    def region(self) -> Path:
        found = sorted(SHM.glob(f"fsmount-{ATTACKER}*/*.region"))
        return found[0] if found else SHM / "none"

    def left(self, region: bool) -> list[str]:
        """The mount and the region that are still there, although the command succeeded."""
        found = ["it is still mounted"] if any(fields[4] == bytes(self._place) for fields in mount_table()) else []
        return [*found, "its region is still there"] if region and self.region().exists() else found

    def unmounted(self) -> None:
        for _ in range(5):
            if not os.path.ismount(self._place):
                break
            self._traps.unmount(self._place)

    def with_file(self) -> None:
        (self._place.parent / "x.toml").write_text('["/a"]\nmemory.limit = "1G"\n')

    def without_file(self) -> None:
        (self._place.parent / "x.toml").unlink()

    def served(self, allow_other: bool = True) -> None:
        if self._is_served() and allow_other:
            return
        self._unmount()
        self.forget_region()
        self._traps.mount(self._place, allow_other)
        wait_until(self._is_served, "the attacker's mount is served")

    def _is_served(self) -> bool:
        try:
            return bool((self._place / "memory.stat").read_bytes())
        except OSError:
            return False

    def dead(self, allow_other: bool = True) -> None:
        self.served(allow_other)
        os.kill(json.loads((self._place / ".fsmount").read_bytes())["server"], signal.SIGKILL)
        wait_until(lambda: not self._is_served(), "the attacker's daemon has ended")

    def _unmount(self) -> None:
        while any(fields[4] == bytes(self._place) for fields in mount_table()):
            self._traps.unmount(self._place)

    def name_a_victim(self) -> None:
        self._traps.name_a_victim(self.region())

    def make_pipe(self) -> None:
        region = self.region()
        region.unlink()
        os.mkfifo(region)

    def forget_region(self) -> None:
        """Unmounts and removes the region, so that the next command meets a new mount."""
        self._unmount()
        for region in SHM.glob(f"fsmount-{ATTACKER}*/*.region"):
            region.unlink()
