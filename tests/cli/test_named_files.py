"""The FILE of fsmount save and mount --config, where another user may have put a link, a pipe or a file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsmount.config import store
from fsmount.paths.named_file import named_file
from tests.cli.place import Place, refused, run_here, untouched
from tests.mounts import AS_ROOT, as_user

pytestmark = pytest.mark.any_user

THEM = 60_101  # a uid without a user
OTHERS = 60_102


@pytest.fixture
def victim(place: Place) -> Iterator[Path]:
    """A file of root beside a mounted tree; the file must be the same after the test."""
    with untouched(place.directory / "victim") as file:
        place.mount()
        place.root.mkdir("web")
        yield file
    place.umount()


def directory_of(place: Place, uid: int, mode: int) -> Path:
    path = place.directory / "theirs"
    path.mkdir()
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


def as_them(action: Callable[[], object]) -> None:
    as_user(THEM, lambda: action() and None)


def no_temporary_file_is_left(directory: Path) -> bool:
    return not [path for path in directory.iterdir() if path.name.startswith(".fsmount-save-")]


WHERE = [
    pytest.param(0, 0o1777, id="sticky"),
    pytest.param(0, 0o777, id="open to all users"),
    pytest.param(OTHERS, 0o1777, id="sticky and of a third user"),
    pytest.param(THEM, 0o1777, id="sticky and their own"),
    pytest.param(THEM, 0o755, id="their own"),
]


@pytest.mark.root
@pytest.mark.parametrize(("uid", "mode"), WHERE)
def test_root_writes_through_no_link_of_another_user(place: Place, victim: Path, uid: int, mode: int) -> None:
    directory = directory_of(place, uid, mode)
    file = directory / "x.toml"
    as_them(lambda: os.symlink(victim, file))
    text = refused(run_here("save", place.path, file), file)
    assert text == f"the link x.toml belongs to user {THEM}, who can lead it anywhere: name what it leads to"
    assert file.is_symlink() and no_temporary_file_is_left(directory) and no_temporary_file_is_left(victim.parent)


@pytest.mark.root
@pytest.mark.parametrize(("uid", "mode"), WHERE)
def test_root_makes_no_file_where_another_users_link_leads(place: Place, victim: Path, uid: int, mode: int) -> None:
    directory = directory_of(place, uid, mode)
    as_them(lambda: os.symlink(victim.parent / "new", directory / "x.toml"))
    as_them(lambda: os.symlink(victim.parent, directory / "on the way"))
    as_them(lambda: os.symlink("x.toml", directory / "first"))
    for file in ("x.toml", "first", "on the way/new", "on the way/victim", "./on the way/../new"):
        text = refused(run_here("save", place.path, directory / file), directory / file)
        assert f"belongs to user {THEM}" in text
    assert not (victim.parent / "new").exists()


@pytest.mark.root
def test_root_follows_an_own_link_only_up_to_a_link_of_another_user(place: Place, victim: Path) -> None:
    directory = directory_of(place, THEM, 0o755)
    as_them(lambda: os.symlink(victim, directory / "x.toml"))
    own = place.directory / "own"
    own.symlink_to(directory / "x.toml")
    assert f"belongs to user {THEM}" in refused(run_here("save", place.path, own), own)


@pytest.mark.root
@pytest.mark.parametrize("writing", [True, False], ids=["save", "config"])
def test_an_ordinary_user_follows_links_as_the_kernel_does_with_protected_symlinks(
    place: Place, victim: Path, writing: bool
) -> None:
    directory = directory_of(place, 0, 0o1777)
    theirs = place.directory / "their own"
    theirs.mkdir()
    os.chown(theirs, THEM, THEM)
    target = directory / "target"
    as_user(OTHERS, lambda: target.write_text("x") and None)
    for where in (directory, theirs):
        as_them(lambda where=where: os.symlink(target, where / "x.toml"))  # type: ignore[misc]

    def find(path: Path) -> None:
        with named_file(str(path), writing=writing) as found:
            assert found.status is not None and found.status.st_uid == OTHERS

    as_user(OTHERS, lambda: find(theirs / "x.toml"))
    with pytest.raises(OSError, match=f"belongs to user {THEM}"):
        as_user(OTHERS, lambda: find(directory / "x.toml"))


@pytest.mark.root
@pytest.mark.parametrize(("uid", "mode"), WHERE)
def test_root_opens_no_pipe_of_another_user(place: Place, victim: Path, uid: int, mode: int) -> None:
    directory = directory_of(place, uid, mode)
    pipe = directory / "x.toml"
    as_them(lambda: os.mkfifo(pipe, 0o666))
    why = f"a pipe of user {THEM}, who need not use it: name a file of your own"
    assert refused(run_here("save", place.path, pipe), pipe) == why
    other = place.directory / "other"
    other.mkdir()
    assert why in refused(run_here("mount", other, "--config", pipe), pipe)


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o1777, 0o1770, 0o777], ids=["sticky", "sticky for a group", "open to all users"])
def test_another_users_file_in_a_shared_directory_is_not_written(place: Place, victim: Path, mode: int) -> None:
    directory = directory_of(place, 0, 0o1777)
    file = directory / "x.toml"
    as_them(lambda: file.write_text("theirs"))
    directory.chmod(mode)
    text = refused(run_here("save", place.path, file), file)
    assert text == f"a file of user {THEM}, in a directory that others write to: name a file of your own"
    assert file.read_text() == "theirs" and no_temporary_file_is_left(directory)


@pytest.mark.root
def test_another_users_file_in_their_own_directory_is_replaced_and_stays_theirs(place: Place, victim: Path) -> None:
    directory = directory_of(place, THEM, 0o755)
    file = directory / "x.toml"
    as_them(lambda: file.write_text("theirs"))
    os.chmod(file, 0o4754)
    assert run_here("save", place.path, file).returncode == 0
    status = file.stat()
    assert file.read_text().startswith("#") and status.st_uid == THEM
    assert stat.S_IMODE(status.st_mode) == 0o754, "the file kept its set-user-ID bit"


@pytest.mark.root
def test_saving_to_a_hard_link_of_another_user_leaves_the_linked_file_unchanged(place: Place, victim: Path) -> None:
    """Users can make such links where fs.protected_hardlinks is 0."""
    directory = directory_of(place, THEM, 0o755)
    os.link(victim, directory / "x.toml")
    assert run_here("save", place.path, directory / "x.toml").returncode == 0
    os.unlink(directory / "x.toml")


@pytest.mark.root
def test_root_does_not_wait_for_a_file_lease_of_another_user(place: Place, victim: Path) -> None:
    directory = directory_of(place, THEM, 0o755)
    file = directory / "x.toml"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setresgid(THEM, THEM, THEM)
        os.setresuid(THEM, THEM, THEM)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, 64)
        signal.signal(64, signal.SIG_IGN)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.write(writer, b"+")
        time.sleep(600)
        os._exit(0)
    try:
        assert os.read(reader, 1) == b"+"
        assert run_here("save", place.path, file).returncode == 0
        assert file.read_text().startswith("#")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


@pytest.mark.root
def test_saving_while_another_user_swaps_links_and_files_changes_only_the_directory_of_that_user(
    place: Place, victim: Path, soak: bool
) -> None:
    directory = directory_of(place, THEM, 0o755)
    swapper = os.fork()
    if swapper == 0:
        os.setresgid(THEM, THEM, THEM)
        os.setresuid(THEM, THEM, THEM)
        os.chdir(directory)
        number = 0
        while True:
            with contextlib.suppress(OSError):
                number += 1
                os.symlink(victim if number % 2 else victim.parent / "new", "link")
                os.rename("link", "x.toml")
                with open("file", "w") as file:
                    file.write("theirs")
                os.rename("file", "x.toml")
            time.sleep(0.002)
    try:
        ended = {"written": 0, "refused": 0}
        while min(ended.values()) < (2000 if soak else 5):
            try:
                store(str(directory / "x.toml"), "text")
                ended["written"] += 1
            except PermissionError:
                ended["refused"] += 1
    finally:
        os.kill(swapper, 9)
        os.waitpid(swapper, 0)
    assert not (victim.parent / "new").exists()


# ---- ordinary files, links and pipes


def test_save_follows_own_links_through_all_kinds_of_directories(place: Place) -> None:
    place.mount()
    shared = place.directory / "shared"
    (shared / "deeper").mkdir(parents=True)
    shared.chmod(0o1777)
    (shared / "first").symlink_to("deeper/../second")
    (shared / "second").symlink_to(place.directory / "third")
    (place.directory / "third").symlink_to("shared/deeper")
    (shared / "deeper" / "x.toml").symlink_to("../y.toml")
    assert run_here("save", place.path, shared / "first" / "x.toml").returncode == 0
    assert (shared / "y.toml").read_text().startswith("#")
    assert run_here("save", place.path, "first//./x.toml", cwd=shared).returncode == 0
    (shared / "round").symlink_to("round")
    assert (
        refused(run_here("save", place.path, shared / "round"), shared / "round") == "Too many levels of symbolic links"
    )
    place.umount()


def test_save_refuses_a_name_that_can_only_be_a_directory(place: Place) -> None:
    place.mount()
    (place.directory / "x.toml").write_text("as it was")
    (place.directory / "deeper").mkdir()
    for name in ("deeper", "deeper/", "deeper/.", "deeper/.."):
        assert (
            refused(run_here("save", place.path, name, cwd=place.directory), name)
            == "Is a directory: name a file in it"
        )
    for name in ("x.toml/", "x.toml/."):
        assert refused(run_here("save", place.path, name, cwd=place.directory), name).startswith("Not a directory: ")
    assert (place.directory / "x.toml").read_text() == "as it was"
    place.umount()


def test_save_and_config_accept_a_pipe_a_descriptor_and_a_process_substitution(place: Place) -> None:
    place.mount()
    place.root.mkdir("web")
    wanted = run_here("save", place.path, "-").stdout
    fsmount = f"{sys.executable} -m fsmount"
    for script in (
        f"{fsmount} save {place.path} /dev/stdout | cat",
        f"{fsmount} save {place.path} >(cat); wait $!",
        f"{fsmount} save {place.path} /dev/fd/3 3>&1",
        f"{fsmount} save {place.path} /proc/self/fd/1 >file; cat file",
        f"mkfifo fifo; cat fifo & {fsmount} save {place.path} fifo; wait; rm fifo",
    ):
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=place.directory
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, wanted, ""), script
    place.umount()
    script = f"{fsmount} mount {place.path} --config <(cat file)"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=place.directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert (place.path / "web").is_dir()
    place.umount()


def test_two_concurrent_saves_to_one_file_both_succeed(place: Place) -> None:
    file = place.directory / "x.toml"
    texts = [f"{number} " * 20 for number in range(2)]
    failures: list[OSError] = []

    def save(text: str) -> None:
        for _ in range(50):
            try:
                store(str(file), text)
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=save, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert file.read_text() in texts and no_temporary_file_is_left(place.directory)


def test_an_endless_file_is_refused_as_a_description(place: Place) -> None:
    text = refused(run_here("mount", place.path, "--config", "/dev/zero"), "/dev/zero")
    assert text == "too long for the description of a tree: at most 256 MiB"


@pytest.mark.skipif(not AS_ROOT, reason="needs a user namespace that root may make")
def test_save_in_a_user_namespace_follows_links_of_root_outside(place: Place) -> None:
    target = place.directory / "real"
    target.mkdir()
    target.chmod(0o777)
    link = place.directory / "link"
    link.symlink_to("real")
    script = "import sys; from fsmount.config import store; store(sys.argv[1], 'text')"
    command = ["setpriv", f"--reuid={THEM}", f"--regid={THEM}", "--clear-groups", "unshare", "-Ur"]
    done = subprocess.run(
        [*command, sys.executable, "-c", script, str(link / "x.toml")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    if "unshare failed" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    assert (target / "x.toml").read_text() == "text"
