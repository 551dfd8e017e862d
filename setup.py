"""Builds fsmount.engine._binding: the C core as a static library, and the Cython binding linked with it.

The core is a library of its own so that it can be held to stricter warnings than the C that Cython writes;
with FSMOUNT_WERROR=1 in the environment a warning there is an error.
"""

import os
import subprocess
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

ENGINE = "fsmount/engine"
GENERATED = "build/cython"
CORE = sorted(glob(f"{ENGINE}/*/*.c"))
HEADERS = sorted(glob(f"{ENGINE}/**/*.h", recursive=True))

MISSING = (
    "fsmount is built with libfuse, and pkg-config does not find it: install libfuse3-dev, pkg-config and a C compiler "
    "(on Debian: apt install fuse3 libfuse3-dev pkg-config gcc python3-dev). To use trees that are mounted elsewhere, "
    "install fsmount-client instead, which needs none of them (in a checkout: pip install ./client)"
)

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread", "-fvisibility=hidden"]
FLAGS.append("-fwrapv")  # any number may be in a region, and the sum of two must be defined
if FAULTS := os.environ.get("FSMOUNT_FAULT_POINTS"):  # a test's C file, with the actions at the fault points
    CORE.append(FAULTS)
    FLAGS += ["-DFSM_FAULT_POINTS", "-O0"]  # such a build runs for seconds

WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wpointer-arith",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wundef",
    "-Wvla",
]
if os.environ.get("FSMOUNT_WERROR") == "1":
    WARNINGS.append("-Werror")


def fuse_flags(option: str) -> list[str]:
    """The flags of pkg-config for libfuse, with which pyfuse3 is built too."""
    try:
        done = subprocess.run(["pkg-config", option, "fuse3"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise SystemExit(MISSING) from None
    return done.stdout.split()


# First, so that a build without libfuse ends before Cython has run.
FUSE = {option: fuse_flags(option) for option in ("--cflags", "--libs")}

core = (
    "fsmount_core",
    {
        "sources": CORE,
        "include_dirs": [ENGINE],
        "obj_deps": {"": [*HEADERS, "setup.py"]},
        "cflags": FLAGS + WARNINGS,
    },
)

# Cython writes to build/, never beside the sources, where every *.c belongs to the core.
(binding,) = cythonize(
    Extension(
        "fsmount.engine._binding",
        sources=[f"{ENGINE}/_binding.pyx"],
        include_dirs=[ENGINE],
        extra_compile_args=FLAGS,
        extra_link_args=["-pthread"],
    ),
    build_dir=GENERATED,
    language_level=3,
)
# cythonize() copies headers there too, where they are found before the originals, however old they are.
for header in glob(f"{GENERATED}/**/*.h", recursive=True):
    os.remove(header)
# A change of these makes an editable install build again.
binding.depends = [*CORE, *HEADERS, "setup.py"]


page_reads = Extension(
    "fsmount.filesystem.kernel_cache._page_reads",
    sources=["fsmount/filesystem/kernel_cache/_page_reads.c"],
    extra_compile_args=[*FLAGS, *WARNINGS, *FUSE["--cflags"]],
    extra_link_args=["-Wl,--no-as-needed", *FUSE["--libs"]],
    depends=["setup.py"],
)

setup(libraries=[core], ext_modules=[binding, page_reads])
