"""The line of a crontab in programs.md, run by a real cron."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.place import Place, has_ended
from tests.mounts import eventually

PAGE = (Path(__file__).parents[2] / "fsmount/docs/programs.md").read_text()

# Separate files in place of the machine's: cron runs no other job, and nothing outside sees the changes.
_CRON = """
set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
mount --bind /dev/null /etc/crontab
mkdir /run/empty
mount --bind /run/empty /etc/cron.d
install -m 600 "$1" /var/spool/cron/crontabs/root
exec cron -f
"""


@pytest.mark.slow  # cron looks once a minute
@pytest.mark.root
@pytest.mark.skipif(not shutil.which("cron"), reason="scripts/soak installs cron")
def test_the_line_of_the_crontab_runs_its_command_with_the_amount_held(place: Place) -> None:
    (line,) = re.findall(r"(?m)^    (0 3 \* \* \* .*)$", PAGE)
    done = place.directory / "done"
    command = Path(sys.executable).with_name("fsmount")
    line = line.replace("0 3 * * *", "* * * * *").replace("/usr/local/bin/fsmount", str(command))
    line = line.replace("/run/fsmount/nightly", f"{place.path}/nightly").replace("tokens", "memory")
    line = line.replace("/usr/local/bin/backup", f"cp {place.path}/nightly/memory.usage_in_bytes {done}")
    place.mount()
    place.root.mkdir("nightly")
    (place.directory / "crontab").write_text(f"{line}\n")
    cron = subprocess.Popen(["unshare", "--mount", "sh", "-c", _CRON, "sh", str(place.directory / "crontab")])
    try:
        eventually(lambda: done.exists() and done.read_text() == "1\n", within=130, what="the job")
        eventually(lambda: place.root.child("nightly").usage == 0, what="the end of the job")
    finally:
        cron.kill()
        cron.wait()
    assert has_ended(cron.pid)
    place.umount()
