"""The engine's records of refusals, as the values that why() returns."""

from __future__ import annotations

import errno

from fsmount.engine import LEASE, LOOKED_AT_ALL, NOT_LOOKED, PROCESS, EngineError, RefusalInfo
from fsmount.protocol.names import PATH_MAX
from fsmount.protocol.refusals import LargeHolder, Refusal, to_the_millisecond
from fsmount.shm.holder import command_name
from fsmount.shm.open_region import OpenRegion

_BY = {PROCESS: "process", LEASE: "lease"}
_LOOKED = {LOOKED_AT_ALL: "all", NOT_LOOKED: "none"}


class Paths(dict[int, str | None]):
    """The paths of groups, each looked up once; None for a removed group."""

    def __init__(self, tree: OpenRegion) -> None:
        super().__init__()
        self._tree = tree

    def __missing__(self, id: int) -> str | None:
        try:
            path = self._tree.path_below(id, PATH_MAX)
        except EngineError as error:
            if error.errno != errno.ENODEV:
                raise
            path = None
        self[id] = path
        return path


def public_refusal(paths: Paths, info: RefusalInfo) -> Refusal:
    """A refusal with the paths of its groups."""
    return Refusal(
        last=to_the_millisecond(info.last),
        first=to_the_millisecond(info.first),
        times=info.times,
        pid=info.pid,
        by=_BY.get(info.kind, "group"),
        command=command_name(info.command),
        asked=paths[info.asked],
        refused=paths[info.refused],
        charged=info.charged,
        amount=info.amount,
        usage=info.usage,
        limit=info.limit,
        looked=_LOOKED.get(info.looked, "some"),
        looked_at=to_the_millisecond(info.looked_at) if info.looked != NOT_LOOKED else None,
        largest=tuple(
            LargeHolder(held.held, held.pid, _BY.get(held.kind, "group"), paths[held.group], command_name(held.command))
            for held in info.largest
        ),
    )
