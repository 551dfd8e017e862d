"""Thousands of groups, holders and cells in one region, made by one process.

Every holder stands for this process. One charge opens a cell, and the amount reserved ahead stays in its stock.
"""

import os
from collections.abc import Sequence
from typing import TypedDict

from fsmount.engine import PROCESS, ROOT, UNLIMITED, Charger, Region, process_start_time

# The cells of a group.
CELLS = 10
# The groups in which a holder has a cell.
GROUPS = 250
# The groups that contain the others.
DIRECTORIES = 100


class Capacity(TypedDict):
    groups: int
    holders: int
    cells: int


def capacity(groups: int, spare: int) -> Capacity:
    """The capacity for this number of groups with a Population, the groups above them, and a reserve."""
    return {"groups": groups + DIRECTORIES + 1 + spare, "holders": holders(groups), "cells": groups * CELLS}


def holders(groups: int) -> int:
    return max(CELLS, groups * CELLS // GROUPS)


def make_groups(region: Region, number: int) -> list[int]:
    """Makes the groups at one depth, spread evenly over some directories; returns their ids."""

    def make(parent: int, name: str) -> int:
        return region.mkdir(parent, name.encode(), 0o755, os.getuid(), os.getgid(), 0)

    directories = [make(ROOT, f"directory{number}") for number in range(DIRECTORIES)]
    return [make(directories[number % DIRECTORIES], f"group{number}") for number in range(number)]


class Population:
    """Holders that have joined the groups, each the same number; no cell is open at first."""

    def __init__(self, region: Region, groups: Sequence[int]) -> None:
        self._region = region
        self._groups = groups
        self.cells = len(groups) * CELLS
        start_time = process_start_time(os.getpid())
        self._holders = [region.holder_create(os.getpid(), start_time, PROCESS, 0) for _ in range(holders(len(groups)))]
        # holder by holder, in the order in which processes start: the cells of a group then lie apart
        for number, holder in enumerate(self._holders):
            for cell in range(number, self.cells, len(self._holders)):
                region.holder_join(holder, groups[cell // CELLS])

    def open(self, cells: int) -> None:
        """Opens the first cells, group by group."""
        charger = Charger()
        for cell in range(cells):
            holder = self._holders[cell % len(self._holders)]
            charger.bind(self._region, holder, self._groups[cell // CELLS], 0)
            charger.charge(2)
            charger.uncharge(2)
        charger.unbind()

    def close_all(self) -> None:
        """Drains all stock: a new limit does so before it takes effect."""
        self._region.set_limit(ROOT, 0, UNLIMITED)

    def end(self) -> None:
        for holder in self._holders:
            self._region.holder_end(holder)
