"""The distribution fsmount-client: installed without a compiler, it uses a mount that the full package made."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import fsmount.cli
from tests.mounts import GroupFiles, Mount, eventually
from tests.project.conftest import CHECKOUT, copy_of_the_sources, empty_venv, pip, run

PAGE = CHECKOUT / "fsmount/docs/containers.md"
BUILD_TOOLS = ("gcc", "cc", "clang", "pkg-config", "ld")

pytestmark = pytest.mark.timeout(300)


class Client:
    """A venv with the client, and a shell without programs to build with."""

    def __init__(self, directory: Path) -> None:
        self.venv = empty_venv(directory / "venv")
        self.programs = directory / "bin"
        self.programs.mkdir()
        script = f'#!/bin/sh\nexec "{sys.executable}" -m pip --python "{self.venv}/bin/python" "$@"\n'
        (self.programs / "pip").write_text(script)
        (self.programs / "pip").chmod(0o755)
        for name in ("sh", "cat", "sleep"):
            (self.programs / name).symlink_to(str(shutil.which(name)))
        self.path = f"{self.venv}/bin:{self.programs}"

    def shell(self, text: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs commands in a shell, and stops at the first that fails."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        environment |= {"PATH": self.path, "HOME": str(self.programs.parent), "LANG": "C.UTF-8"}
        return subprocess.run(
            ["/bin/sh", "-euc", text], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )

    def run(self, *words: str | Path, status: int = 0) -> str:
        """The output of the command fsmount, or its only line on standard error if it fails with this status."""
        done = subprocess.run(
            [self.venv / "bin/fsmount", *words],
            cwd="/",
            env={"PATH": self.path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done
        return done.stderr if status else done.stdout

    def python(self, program: str) -> str:
        return run(self.venv / "bin/python", "-c", program, cwd=Path("/"), env={"PATH": self.path})


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_sources(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def client(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The client, built and installed by the commands of the page about containers."""
    client = Client(tmp_path_factory.mktemp("client"))
    assert [name for name in BUILD_TOOLS if shutil.which(name, path=client.path)] == []
    section = PAGE.read_text().split("## Install the client\n")[1].split("\n## ")[0]
    commands = "\n".join(re.findall(r"^    (.*)$", section, re.MULTILINE))
    assert commands.count("pip ") == 2
    done = client.shell(commands, cwd=clone)
    assert done.returncode == 0, done
    return client


def test_the_client_is_one_pure_wheel_for_all_machines(client: Client, clone: Path) -> None:
    (wheel,) = (clone / "dist").iterdir()
    assert wheel.name == f"fsmount_client-{fsmount.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"fsmount/py.typed", "fsmount/attachment.py"} <= set(names)
    assert [name for name in names if not name.startswith(("fsmount/", "fsmount_client-"))] == []
    modules = [name for name in names if name.startswith("fsmount/") and name != "fsmount/py.typed"]
    assert [name for name in modules if not name.endswith(".py")] == []
    parts = {name.split("/")[1] for name in modules}
    assert not parts & {"config", "daemon", "docs", "engine", "exporter", "filesystem", "shm"}


def test_the_sdist_of_the_client_makes_the_same_wheel(client: Client, clone: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, clone / "client", cwd=tmp_path)
    contents = []
    for wheel in (*tmp_path.glob("*.whl"), *(clone / "dist").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            contents.append(
                {info.filename: info.CRC for info in archive.infolist() if "dist-info" not in info.filename}
            )
    from_sdist, from_clone = contents
    assert from_sdist == from_clone


def test_the_client_installs_without_compiled_files_and_with_few_dependencies(client: Client) -> None:
    assert pip(client.venv, "check", cwd=Path("/")) == "No broken requirements found.\n"
    listed = pip(client.venv, "list", "--format=freeze", "--disable-pip-version-check", cwd=Path("/")).splitlines()
    names = {line.partition("==")[0].lower().replace("-", "_") for line in listed}
    assert names == {"click", "fsmount_client", "prompt_toolkit", "sniffio", "wcwidth"}
    (package,) = client.venv.glob("lib/python3.*/site-packages/fsmount")
    assert list(package.rglob("*.so")) == []


def test_the_client_depends_on_what_the_full_package_depends_on() -> None:
    full, small = (tomllib.loads((CHECKOUT / name).read_text()) for name in ("pyproject.toml", "client/pyproject.toml"))
    assert set(small["project"]["dependencies"]) < set(full["project"]["dependencies"])
    assert small["project"]["requires-python"] == full["project"]["requires-python"]
    assert "Cython" not in str(small["build-system"])


def test_commands_of_the_client_charge_limit_and_watch_a_mount(client: Client, mount: Mount, group: GroupFiles) -> None:
    path = str(group.path)
    client.run("set", path, "memory.limit=1M", "tokens.limit=10")
    client.run("charge", path, "memory=64K", "tokens=3")
    assert client.run("get", path, "memory.usage") == "65536\n"
    assert "limit" in client.run("charge", path, "tokens=8", status=os.EX_TEMPFAIL)
    client.run("wait", path, "tokens=7")
    assert client.run("run", "-g", path, "-r", "tokens=7", "--", "cat", f"{path}/tokens.usage") == "10\n"
    assert "65536" in client.run("tree", "--json", path)
    assert "64" in client.run("top", "--batch", "--count", "1", path)
    assert f"mount       {mount.path}\n" in client.run("status", path)
    client.run("uncharge", path, "memory=64K", "tokens=3")
    assert client.run("get", path, "memory.usage", "tokens.usage").split() == ["memory.usage", "0", "tokens.usage", "0"]
    assert "complete" in client.run("completion", "bash")


def test_python_of_the_client_charges_through_files_and_imports_no_engine(client: Client, group: GroupFiles) -> None:
    program = f"""if True:
        import asyncio, sys, fsmount
        with fsmount.attach({str(group.path)!r}) as group:
            tokens = group["tokens"]
            tokens.limit = 10
            with tokens.hold(7):
                print(tokens.held, tokens.usage, tokens.try_charge(4))
                try:
                    tokens.charge(4, wait=True, timeout=0)
                except fsmount.LimitExceeded as refused:
                    print(refused.requested, refused.limit)
            asyncio.run(tokens.wait_charge(10))
            print(tokens.usage)
        print(not {{"trio", "pyfuse3", "fsmount.shm"}} & set(sys.modules))
        help(fsmount)
    """
    assert client.python(program).splitlines()[:4] == ["7 7 False", "4 10", "10", "True"]
    assert group.number("usage", "tokens") == 0


def test_kill_9_of_a_client_releases_its_charge(client: Client, group: GroupFiles) -> None:
    program = f"""if True:
        import time, fsmount
        group = fsmount.attach({str(group.path)!r})
        group["memory"].charge(4096)
        print("charged", flush=True)
        time.sleep(1000)
    """
    with subprocess.Popen([client.venv / "bin/python", "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "charged\n"
        assert group.usage == 4096
        process.send_signal(signal.SIGKILL)
    eventually(lambda: group.usage == 0, what="the daemon has released the charge")


@pytest.mark.parametrize("command", [*sorted(fsmount.cli.NOT_IN_CLIENT), "unmount"])
def test_a_command_that_the_client_lacks_says_in_one_line_what_to_install(client: Client, command: str) -> None:
    line = client.run(command, "/nowhere", "--keep", "-f", status=1)
    assert line.startswith(f"fsmount: {command}: not in the client that is installed here: ")
    assert "uninstall fsmount-client, then install fsmount" in line
    assert "libfuse3-dev" in line
    assert line.count("\n") == 1
    assert "not in the client" in " ".join(client.run(command, "--help").split())


def test_python_says_what_the_client_lacks(client: Client, group: GroupFiles) -> None:
    program = f"""if True:
        import errno, fsmount
        try:
            from fsmount import Tree
        except ImportError as error:
            print(error)
        try:
            fsmount.attach({str(group.path)!r}, transport="memory")
        except OSError as error:
            print(errno.errorcode[error.errno], error.strerror)
        print("Tree" in dir(fsmount), "attach" in dir(fsmount))
    """
    tree, memory, names = client.python(program).splitlines()
    assert tree.startswith("fsmount.Tree: not in the client that is installed here: uninstall fsmount-client")
    assert memory.startswith('ENOSYS transport "memory": not in the client that is installed here: ')
    assert names == "False True"


def test_every_other_command_of_the_client_shows_its_help(client: Client) -> None:
    absent = {
        line.split()[0] for line in client.run("--help").splitlines() if line.endswith("Not in this installation.")
    }
    assert absent == fsmount.cli.NOT_IN_CLIENT | {"unmount"}
    for command in set(fsmount.cli.COMMANDS) - absent:
        assert "Usage: fsmount" in client.run(command, "--help")


def test_a_full_build_without_libfuse_fails_and_names_the_packages_and_the_client(clone: Path, client: Client) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=clone, env={"PATH": client.path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "install libfuse3-dev, pkg-config and a C compiler" in line
    assert "install fsmount-client instead" in line
