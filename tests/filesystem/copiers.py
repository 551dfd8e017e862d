"""Programs that copy a file: each is a function of a file and a new name, and returns the copied text."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Copier = Callable[[Path, Path], bytes]

#: FROM is the file, TO a new name elsewhere; without TO the output is the text.  A program that counts prints a number.
COMMANDS: dict[str, list[str]] = {
    "busybox cat": ["busybox", "cat", "FROM"],
    "busybox cp": ["busybox", "cp", "FROM", "TO"],
    "busybox wc -c": ["busybox", "wc", "-c", "FROM"],
    "cat": ["cat", "FROM"],
    "cp": ["cp", "FROM", "TO"],
    "cp -a": ["cp", "-a", "FROM", "TO"],
    "dd": ["dd", "status=none", "if=FROM"],
    "dd bs=12k": ["dd", "status=none", "bs=12k", "if=FROM"],
    "head -c": ["head", "-c", "1M", "FROM"],
    "tail -c": ["tail", "-c", "1M", "FROM"],
    "tail -c +1": ["tail", "-c", "+1", "FROM"],
    "wc -c": ["wc", "-c", "FROM"],
    "rust-coreutils cat": ["coreutils", "cat", "FROM"],
    "rust-coreutils cp": ["coreutils", "cp", "FROM", "TO"],
    "rust-coreutils wc -c": ["coreutils", "wc", "-c", "FROM"],
    "tar": ["tar", "-cf", "TO", "FROM"],
    "rsync": ["rsync", "FROM", "TO"],
    "git hash-object": ["git", "hash-object", "FROM"],
}
#: Programs that rely on the size of the file.
SIZED = ["rust-coreutils wc -c", "tar", "rsync", "git hash-object"]

JAVA = """
import java.io.*;
import java.nio.file.*;

public class Copy {
    public static void main(String[] arguments) throws IOException {
        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
        for (String order = orders.readLine(); order != null; order = orders.readLine()) {
            String[] words = order.split("\\t");
            Path from = Path.of(words[1]), to = Path.of(words[2]);
            try {
                switch (words[0]) {
                    case "Files.copy": Files.copy(from, to); break;
                    case "Files.readString": Files.writeString(to, Files.readString(from)); break;
                    default: throw new IOException(words[0]);
                }
                System.out.println("done");
            } catch (IOException error) {
                System.out.println(error);
            }
        }
    }
}
"""
NODE = """
const fs = require('fs');
const {pipeline} = require('stream/promises');
const ways = {
    readFile: async (from, to) => fs.writeFileSync(to, await fs.promises.readFile(from)),
    readFileSync: async (from, to) => fs.writeFileSync(to, fs.readFileSync(from)),
    createReadStream: (from, to) => pipeline(fs.createReadStream(from), fs.createWriteStream(to)),
};
(async () => {
    for await (const order of require('readline').createInterface({input: process.stdin})) {
        const [way, from, to] = order.split('\\t');
        console.log(await ways[way](from, to).then(() => 'done', String));
    }
})();
"""
GO = """
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

func copyFile(way, from, to string) error {
	if way == "os.ReadFile" {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o644)
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	defer target.Close()
	_, err = io.Copy(target, source)
	return err
}

func main() {
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		words := strings.Split(orders.Text(), "\\t")
		if err := copyFile(words[0], words[1], words[2]); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("done")
		}
	}
}
"""
#: The copies of a language, and the program that they need.
LANGUAGES: dict[str, tuple[str, list[str]]] = {
    "Java": ("javac", ["Files.copy", "Files.readString"]),
    # copyFile() does not end, see docs/programs.md.
    "Node": ("node", ["readFile", "readFileSync", "createReadStream"]),
    "Go": ("go", ["io.Copy", "os.ReadFile"]),
}


class Failed(Exception):
    """The program reports a failure."""


# ---- commands


def command(words: list[str], source: Path, target: Path) -> list[str]:
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    names = {"FROM": str(source), "TO": str(target)}
    return [names.get(word, word.replace("=FROM", f"={source}")) for word in words]


def by_command(words: list[str]) -> Copier:
    def copy(source: Path, target: Path) -> bytes:
        done = subprocess.run(command(words, source, target), capture_output=True, check=False)
        if done.returncode:
            raise Failed(f"status {done.returncode}: {done.stderr.decode(errors='replace')}")
        return target.read_bytes() if target.exists() else done.stdout

    return copy


# ---- this process


def by_sendfile(source: int, target: int) -> None:
    while os.sendfile(target, source, None, 1 << 20):
        pass


def by_splice(source: int, target: int) -> None:
    reading, writing = os.pipe()
    try:
        while moved := os.splice(source, writing, 1 << 16):
            while moved:
                moved -= os.splice(reading, target, moved)
    finally:
        os.close(reading)
        os.close(writing)


def by_offset(source: int, target: int) -> None:
    """sendfile() that does not move the position of the source."""
    offset = 0
    while moved := os.sendfile(target, source, offset, 1 << 20):
        offset += moved


MOVES = [by_sendfile, by_splice, by_offset]


def moved(move: Callable[[int, int], None], source: int) -> bytes:
    """The text that `move` copies from an open file."""
    target = os.memfd_create("copy")
    try:
        move(source, target)
        return os.pread(target, os.fstat(target).st_size, 0)
    finally:
        os.close(target)


def by_move(move: Callable[[int, int], None]) -> Copier:
    def copy(source: Path, _: Path) -> bytes:
        opened = os.open(source, os.O_RDONLY)
        try:
            return moved(move, opened)
        finally:
            os.close(opened)

    return copy


def by_copyfile(source: Path, target: Path) -> bytes:
    shutil.copyfile(source, target)
    return target.read_bytes()


PYTHON: dict[str, Copier] = {
    "Python shutil.copyfile": by_copyfile,
    "Python os.sendfile": by_move(by_sendfile),
    "Python os.splice": by_move(by_splice),
}


# ---- languages that take long to start


class Worker:
    """A program that reads orders and copies one file for each."""

    def __init__(self, language: str, directory: Path) -> None:
        needed, _ = LANGUAGES[language]
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
        self._process = subprocess.Popen(
            getattr(self, f"_{language.lower()}")(directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _java(self, directory: Path) -> list[str]:
        source = directory / "Copy.java"
        source.write_text(JAVA)
        return ["java", "-XX:TieredStopAtLevel=1", str(source)]

    def _node(self, _: Path) -> list[str]:
        return ["node", "-e", NODE]

    def _go(self, directory: Path) -> list[str]:
        source, program = directory / "copy.go", directory / "copy"
        source.write_text(GO)
        places: Mapping[str, str] = {"GOCACHE": f"{directory}/cache", "GOPATH": f"{directory}/go", "GO111MODULE": "off"}
        subprocess.run(["go", "build", "-o", program, source], env={**os.environ, **places}, check=True)
        return [str(program)]

    def copier(self, way: str) -> Copier:
        def copy(source: Path, target: Path) -> bytes:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(f"{way}\t{source}\t{target}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline().strip()
            if answer != "done":
                raise Failed(answer)
            return target.read_bytes()

        return copy

    def end(self) -> None:
        with self._process:
            pass


PROGRAMS = [*COMMANDS, *PYTHON, *(f"{name} {way}" for name, (_, ways) in LANGUAGES.items() for way in ways)]


class Copiers:
    """All programs; a worker starts when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._workers: dict[str, Worker] = {}

    def __getitem__(self, program: str) -> Copier:
        if program in COMMANDS:
            return by_command(COMMANDS[program])
        if program in PYTHON:
            return PYTHON[program]
        language, _, way = program.partition(" ")
        if language not in self._workers:
            self._workers[language] = Worker(language, self._directory)
        return self._workers[language].copier(way)

    def end(self) -> None:
        for worker in self._workers.values():
            worker.end()
