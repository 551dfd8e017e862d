# cython: language_level=3, binding=False, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""The binding over engine.h: a Region with its operations, and the Charger behind a counter.

It adds three things to the C functions.

Errors. A negative errno becomes an EngineError with the details of the fault. They are read in the failing thread before
any other code can run in it.

The GIL. A call that may wait for the lock of the region releases the GIL. The fast path of a charge keeps it: one
compare-and-swap is cheaper than to release the GIL.

Lifetimes. Even after close(), a region stays mapped while a thread is inside it or a charger is bound to it. A charger is
rebound only while no thread is inside it.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EBADF, EINPROGRESS, EINTR, EINVAL, ENAMETOOLONG, ENODEV, ENOENT, ENOMEM, ENOTCONN, EPROTO, ERANGE, ETIMEDOUT, EUCLEAN
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdio cimport FILE, fclose
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strlen

from fsmount.engine.engine cimport *

import os
from collections import namedtuple
from time import monotonic

from fsmount.protocol.listings import CounterSnapshot

cdef extern from "pthread.h":
    ctypedef struct pthread_rwlock_t:
        pass
    int pthread_rwlock_rdlock(pthread_rwlock_t *lock) nogil
    int pthread_rwlock_wrlock(pthread_rwlock_t *lock) nogil
    int pthread_rwlock_unlock(pthread_rwlock_t *lock) nogil
    int pthread_rwlock_destroy(pthread_rwlock_t *lock) nogil

cdef extern from "errno.h":
    int ECANCELED

cdef extern from "stdio.h":
    FILE *open_memstream(char **text, size_t *length) nogil

cdef extern from "Python.h":
    object PyUnicode_DecodeFSDefault(const char *text)
    double PyFloat_AsDouble(object number) except? -1

cdef extern from *:
    """
    #include <pthread.h>

    /* Number of forks from the first process to this one. A lock that a thread of the parent had stays locked in a child. */
    static unsigned long forks;
    static void count_fork(void)
    {
        forks++;
    }
    static int count_forks(void)
    {
        return pthread_atfork(NULL, NULL, count_fork);
    }

    /* A writer comes first: otherwise a charger could never be unbound while threads keep charging. */
    static void inside_init(pthread_rwlock_t *inside)
    {
        pthread_rwlockattr_t attributes;
        pthread_rwlockattr_init(&attributes);
        pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        pthread_rwlock_init(inside, &attributes);
        pthread_rwlockattr_destroy(&attributes);
    }
    """
    unsigned long forks
    int count_forks()
    void inside_init(pthread_rwlock_t *inside)

ctypedef int (*number_reader)(fsm_region *region, fsm_id group, uint32_t resource, int64_t *out) noexcept nogil
ctypedef int (*number_setter)(fsm_region *region, fsm_id group, uint32_t resource, int64_t number) noexcept nogil
ctypedef int (*action)(fsm_region *region, fsm_id group, uint32_t resource) noexcept nogil

count_forks()

UNLIMITED = FSM_UNLIMITED
ROOT = 0
BATCH_AUTO = FSM_BATCH_AUTO
NAME_MAX = FSM_NAME_MAX
DEPTH_MAX = FSM_DEPTH_MAX
GROUPS_MAX = FSM_GROUPS_MAX
HOLDERS_MAX = FSM_HOLDERS_MAX
CELLS_MAX = FSM_CELLS_MAX
RESOURCES_MAX = FSM_RESOURCES_MAX
RESOURCE_NAME_MAX = FSM_RESOURCE_NAME_MAX
MODE_UNSET = FSM_MODE_UNSET
SLOTS = FSM_SLOTS
PROCESS = FSM_PROCESS
LEASE = FSM_LEASE
KEEP = FSM_KEEP
BELOW = FSM_BELOW
PERCENT = FSM_PERCENT
NOT_LOOKED = FSM_NOT_LOOKED
LOOKED_AT_ALL = FSM_LOOKED_AT_ALL
SET_MODE = FSM_SET_MODE
SET_UID = FSM_SET_UID
SET_GID = FSM_SET_GID
SET_MTIME = FSM_SET_MTIME
SET_ATIME = FSM_SET_ATIME

HolderInfo = namedtuple("HolderInfo", "id kind flags here pid start_time cells group held stock")
cdef object make_counter_snapshot = CounterSnapshot._make

RefusalInfo = namedtuple(
    "RefusalInfo",
    "number first last times pid kind command asked refused charged amount usage limit looked looked_at largest",
)
LargeHolderInfo = namedtuple("LargeHolderInfo", "held pid kind group command")


class EngineError(OSError):
    """An error of the engine, with the details of its fault.

    ENOMEM: group, usage and limit are those of the ancestor that refused. EBUSY of a limit: usage. ERANGE: held, the amount
    that the holder has. ETIMEDOUT: pid, the process that has the lock. EUCLEAN, EPROTO: text, the damage and its place.
    """

    def __init__(self, errno, text="", *, group=0, usage=0, limit=0, held=0, pid=0):
        super().__init__(errno, text or os.strerror(errno))
        self.group = group
        self.usage = usage
        self.limit = limit
        self.held = held
        self.pid = pid
        self.text = text


cdef object failure(int status, bint with_text=False):
    """The exception for a negative errno of this thread's last call; with_text: the fault has a text for it."""
    cdef const fsm_fault *fault = fsm_last_fault()
    text = ""
    if with_text or status == -EUCLEAN or status == -EPROTO:
        text = (<bytes>fault.text).decode(errors="replace")
    return EngineError(-status, text, group=fault.group, usage=fault.usage, limit=fault.limit,
                       held=fault.held, pid=fault.pid)


def set_patience(double seconds, /):
    """Sets the time that this thread waits for the lock of a region; 3 seconds by default."""
    fsm_set_patience(<int64_t>(seconds * 1e9))


def process_alive(int32_t pid, uint64_t start_time):
    """Whether the process with this pid and start time (field 22 of /proc/PID/stat) lives."""
    return bool(fsm_process_alive(pid, start_time))


def process_start_time(int32_t pid, /):
    """The start time of a live process, in clock ticks after boot; 0 if there is no such process."""
    return fsm_process_start_time(pid)


@cython.final
cdef class Tie:
    """Keeps an open file open until close() or the end of this address space, by exec() or any death.

    A forked child has no tie: close() there does nothing.
    """

    cdef void *_page
    cdef unsigned long _forks

    def __cinit__(self, int fd, /):
        cdef int status = fsm_tie(fd, &self._page)
        if status < 0:
            raise failure(status)
        self._forks = forks

    def close(self):
        if self._page != NULL and self._forks == forks:
            fsm_untie(self._page)
        self._page = NULL


def amount(number, /):
    """Checks that a number is an amount, an int from 0 to UNLIMITED. TypeError, ValueError, OverflowError."""
    return amount_of(number)


def timeout(wait, seconds, /):
    """The timeout of a charge in seconds, as a float; None: no limit, or no wait. TypeError, ValueError."""
    return timeout_of(wait, seconds)


def noop(long long number, /):
    """Takes one int and does nothing: measures the cost of any call into the binding."""


# ---- amounts ------------------------------------------------------------------------------------


cdef extern from *:
    """
    static Py_NO_INLINE int64_t large_int(PyObject *number)
    {
        int overflow; /* then the result is -1 */
        return PyLong_AsLongLongAndOverflow(number, &overflow);
    }

    /* An int, but no bool or other subclass. Negative: no amount, or no int. Most amounts need no call. */
    static inline int64_t exact_int(PyObject *number)
    {
        if (!PyLong_CheckExact(number))
            return -1;
        const PyLongObject *digits = (PyLongObject *)number;
    #if PY_VERSION_HEX >= 0x030C0000
        return PyUnstable_Long_IsCompact(digits) ? PyUnstable_Long_CompactValue(digits) : large_int(number);
    #else
        if (Py_SIZE(number) == 1)
            return digits->ob_digit[0];
        return Py_SIZE(number) == 2 ? digits->ob_digit[0] | (int64_t)digits->ob_digit[1] << PyLong_SHIFT : large_int(number);
    #endif
    }
    """
    int64_t exact_int(PyObject *number)


cdef inline int64_t amount_of(object number) except -1:
    cdef int64_t amount = exact_int(<PyObject *>number)
    return amount if amount >= 0 else index_of(number)


cdef int64_t index_of(object number) except -1:
    try:
        if number is True or number is False:  # a bool is an int only by inheritance
            raise TypeError
        number = PyNumber_Index(number)
    except TypeError:
        raise TypeError(f"an amount is an int, not {type(number).__name__}") from None
    if exact_int(<PyObject *>number) >= 0:
        return exact_int(<PyObject *>number)
    if number < 0:
        raise ValueError(f"an amount cannot be negative: {number}")
    raise OverflowError(f"an amount is at most {FSM_UNLIMITED} (UNLIMITED): {number}")


# ---- how long to wait ----------------------------------------------------------------------------


cdef object timeout_of(wait, timeout):
    if wait is not True and wait is not False:
        raise TypeError(f"wait is True or False, not {wait!r}")
    if timeout is None:
        return None
    try:
        seconds = PyFloat_AsDouble(timeout) if timeout is not True and timeout is not False else None
    except TypeError:
        seconds = None
    except OverflowError:  # an int too large for a float
        seconds = INFINITY if timeout > 0 else -1.0
    if seconds is None:
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}")
    if not seconds >= 0:
        raise ValueError(f"timeout is a number of seconds from 0 on, not {timeout!r}")
    if not wait:
        raise ValueError("timeout is for a charge that waits: wait=True")
    return seconds


# ---- the region ---------------------------------------------------------------------------------


cdef enum listing:
    ALL, NEW


@cython.final
cdef class Region:
    """The mapping of a region in this process, with the functions of engine.h as methods.

    Each can raise EngineError: EUCLEAN, ETIMEDOUT, ENODEV (the group or holder is gone), or EBADF after close().
    """

    cdef fsm_region *_region
    cdef Py_ssize_t _users  # threads inside, and bound chargers; changes only with the GIL held

    cdef bint _closed
    cdef object __weakref__

    def __cinit__(self):
        self._region = NULL
        self._users = 0
        self._closed = True

    def __dealloc__(self):
        if self._region != NULL:
            fsm_close(self._region)

    @staticmethod
    def create(path, resources, *, int64_t batch=-1, uint32_t groups=65536, uint32_t holders=4096,
               uint32_t cells=1048576, uint32_t uid, uint32_t gid):
        """Makes a region of mode 0600. Without a path, it ends with its last user.

        resources: (name, is_count) of each; False means bytes.
        EEXIST: the path exists. EINVAL: a bad capacity or resource name.
        """
        cdef fsm_geometry geometry
        cdef Region self = Region()
        cdef int status
        cdef bytes encoded = b"" if path is None else os.fsencode(path)
        cdef const char *where = NULL
        if path is not None:
            where = encoded
        memset(&geometry, 0, sizeof(geometry))
        if len(resources) > FSM_RESOURCES_MAX:
            raise EngineError(EINVAL, f"{len(resources)} resources: a region has at most {FSM_RESOURCES_MAX}")
        geometry.groups = groups
        geometry.holders = holders
        geometry.cells = cells
        geometry.batch = batch
        geometry.resources = len(resources)
        for i, (resource, is_count) in enumerate(resources):
            name = resource.encode()
            if len(name) > FSM_RESOURCE_NAME_MAX or b"\0" in name:
                raise EngineError(EINVAL, f"a resource name has at most {FSM_RESOURCE_NAME_MAX} bytes: {resource}")
            memcpy(geometry.resource[i].name, <const char *>name, len(name))
            geometry.resource[i].is_count = bool(is_count)
        with nogil:
            status = fsm_create(where, &geometry, uid, gid, &self._region)
        if status < 0:
            raise failure(status, status == -EINVAL)
        self._closed = False
        return self

    @staticmethod
    def open(path, /):
        """Maps an existing region. EPROTO: it is no region, or one of another layout."""
        cdef Region self = Region()
        cdef int status
        cdef bytes encoded = os.fsencode(path)
        cdef const char *where = encoded
        with nogil:
            status = fsm_open(where, &self._region)
        if status < 0:
            raise failure(status)
        self._closed = False
        return self

    def close(self):
        """Ends all use. The region is unmapped when the last thread has left and the last charger is unbound."""
        self._closed = True
        self._close_unused()

    cdef void _close_unused(self) noexcept:
        if self._closed and self._users == 0 and self._region != NULL:
            fsm_close(self._region)
            self._region = NULL

    cdef fsm_region *_enter(self) except NULL:
        if self._closed:
            raise EngineError(EBADF, "the region is closed")
        self._users += 1
        return self._region

    cdef int _leave(self, int status) except -1:
        """Ends what _enter() began; status: the result of the engine."""
        error = failure(status) if status < 0 else None
        self._users -= 1
        self._close_unused()
        if error is not None:
            raise error
        return 0

    @property
    def closed(self):
        return bool(self._closed)

    @property
    def fd(self):
        """The descriptor of the region, which keeps it."""
        cdef int fd = fsm_fd(self._enter())
        self._leave(0)
        return fd

    @property
    def tree_id(self):
        cdef uint64_t tree_id = fsm_tree_id(self._enter())
        self._leave(0)
        return tree_id

    @property
    def resources(self):
        """(name, is_count) of each resource."""
        cdef const fsm_geometry *geometry = fsm_geometry_of(self._enter())
        cdef uint32_t i
        names = []
        for i in range(geometry.resources):
            names.append((geometry.resource[i].name.decode(errors="replace"), geometry.resource[i].is_count != 0))
        self._leave(0)
        return tuple(names)

    @property
    def capacity(self):
        """The highest numbers of groups, holders and cells."""
        cdef const fsm_geometry *geometry = fsm_geometry_of(self._enter())
        capacity = geometry.groups, geometry.holders, geometry.cells
        self._leave(0)
        return capacity

    def use(self):
        """(capacity, used) of groups, processes, leases, cells, watches and waiters."""
        cdef fsm_use found[6]
        fsm_get_use(self._enter(), found)
        self._leave(0)
        return [(found[i].room, found[i].used) for i in range(FSM_POOLS)]

    def count_groups(self, uint32_t first, uint32_t second):
        """The number of groups that count against each user: see fsm_get_owners()."""
        cdef uint32_t exempt[2]
        cdef fsm_region *region = self._enter()
        cdef uint32_t room = fsm_geometry_of(region).groups
        cdef uint32_t *owners = <uint32_t *>malloc(room * sizeof(uint32_t))
        cdef int64_t count = -ENOMEM
        cdef int64_t i = 0
        cdef int64_t start
        exempt[:] = [first, second]
        if owners != NULL:
            with nogil:
                count = fsm_get_owners(region, exempt, owners, room)
        try:
            self._leave(<int>count if count < 0 else 0)
            counts = {}
            while i < count:  # the groups of one user mostly lie together
                start = i
                while i < count and owners[i] == owners[start]:
                    i += 1
                counts[owners[start]] = counts.get(owners[start], 0) + i - start
            return counts
        finally:
            free(owners)

    @property
    def batch(self):
        """The stock that a refill reserves: BATCH_AUTO, or a fixed amount; 0: no stock."""
        cdef int64_t batch = fsm_get_batch(self._enter())
        self._leave(0)
        return batch

    @batch.setter
    def batch(self, int64_t batch):
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_set_batch(region, batch)
        self._leave(status)

    # ---- the daemon

    def get_daemon(self):
        """(pid, start time, mount point) of the daemon; pid 0: there is none."""
        cdef fsm_daemon daemon
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_get_daemon(region, &daemon)
        self._leave(status)
        return daemon.pid, daemon.start_time, os.fsdecode(<bytes>daemon.mountpoint)

    def set_daemon(self, int32_t pid, uint64_t start_time, mountpoint):
        cdef fsm_daemon daemon
        cdef bytes encoded = os.fsencode(mountpoint)
        if len(encoded) > FSM_PATH_MAX:
            raise EngineError(ENAMETOOLONG)
        memset(&daemon, 0, sizeof(daemon))
        daemon.pid = pid
        daemon.start_time = start_time
        memcpy(daemon.mountpoint, <const char *>encoded, len(encoded))
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_set_daemon(region, &daemon)
        self._leave(status)

    # ---- groups

    def mkdir(self, fsm_id parent, bytes name, uint32_t mode, uint32_t uid, uint32_t gid, int64_t now):
        """Makes a group. EEXIST, EINVAL (a bad name), ENOSPC."""
        cdef fsm_id group
        cdef const char *text = name
        cdef size_t length = len(name)
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_mkdir(region, parent, text, length, mode, uid, gid, now, &group)
        self._leave(status)
        return group

    def rmdir(self, fsm_id group, int64_t now):
        """Removes a group. EBUSY: it has children, usage or live holders, or is the root."""
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_rmdir(region, group, now)
        self._leave(status)

    def rename(self, fsm_id group, bytes name, int64_t now):
        cdef const char *text = name
        cdef size_t length = len(name)
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_rename(region, group, text, length, now)
        self._leave(status)

    def lookup(self, fsm_id parent, bytes name):
        """The child of this name, or None."""
        cdef fsm_id group
        cdef const char *text = name
        cdef size_t length = len(name)
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_lookup(region, parent, text, length, &group)
        self._leave(0 if status == -ENOENT else status)
        return group if status == 0 else None

    def parent(self, fsm_id group, /):
        """The parent of a group; of the root, the root."""
        cdef fsm_id parent
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_parent(region, group, &parent)
        self._leave(status)
        return parent

    def name(self, fsm_id group, /):
        cdef char name[256]
        cdef size_t length
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_name(region, group, name, &length)
        self._leave(status)
        return name[:length]

    def children(self, fsm_id group, /):
        """(name, id) of each child, oldest first."""
        cdef fsm_child *found = NULL
        cdef int64_t count = 64
        cdef int64_t room
        cdef int64_t i
        cdef fsm_region *region
        while True:
            room = count + 16  # other processes may make groups meanwhile
            found = <fsm_child *>malloc(room * sizeof(fsm_child))
            if found == NULL:
                raise MemoryError
            try:
                region = self._enter()
                with nogil:
                    count = fsm_children(region, group, found, room)
                self._leave(<int>count if count < 0 else 0)
                if count <= room:
                    return [(found[i].name[:found[i].length], found[i].id) for i in range(count)]
            finally:
                free(found)

    def child_ids(self, fsm_id group, /):
        """The ids of the children in the same order, as an array of 8 bytes each."""
        cdef int64_t count = self.child_count(group)
        cdef int64_t room
        cdef bytes found
        cdef fsm_id *ids
        cdef fsm_region *region
        while True:
            room = count + 16  # other processes may make groups meanwhile
            found = PyBytes_FromStringAndSize(NULL, room * sizeof(fsm_id))
            ids = <fsm_id *><char *>found
            region = self._enter()
            with nogil:
                count = fsm_child_ids(region, group, ids, room)
            self._leave(<int>count if count < 0 else 0)
            if count <= room:
                return found[: count * sizeof(fsm_id)]

    def child_count(self, fsm_id group, /):
        cdef uint32_t count
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_child_count(region, group, &count)
        self._leave(status)
        return count

    def get_attr(self, fsm_id group, uint32_t slot):
        """(mode, uid, gid, atime, mtime, ctime) of the directory (slot 0) or a file; times in ns."""
        cdef fsm_attr attr
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_get_attr(region, group, slot, &attr)
        self._leave(status)
        return attr.mode, attr.uid, attr.gid, attr.atime, attr.mtime, attr.ctime

    def set_attr(self, fsm_id group, uint32_t slot, uint32_t mask, uint32_t mode, uint32_t uid, uint32_t gid,
                 int64_t atime, int64_t mtime, int64_t now):
        """Sets the attributes that the mask (SET_*) names."""
        cdef fsm_attr attr
        memset(&attr, 0, sizeof(attr))
        attr.mode = mode
        attr.uid = uid
        attr.gid = gid
        attr.atime = atime
        attr.mtime = mtime
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_set_attr(region, group, slot, mask, &attr, now)
        self._leave(status)

    # ---- counters

    def get_stat(self, fsm_id group, uint32_t resource):
        """The values of R.stat in their order, all of one moment."""
        cdef fsm_stat s
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_get_stat(region, group, resource, &s)
        self._leave(status)
        return stat_values(&s)

    cdef object _number(self, number_reader read, fsm_id group, uint32_t resource):
        cdef int64_t value
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = read(region, group, resource, &value)
        self._leave(status)
        return value

    cdef int _set(self, number_setter write, fsm_id group, uint32_t resource, object amount) except -1:
        cdef int64_t value = amount_of(amount)
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = write(region, group, resource, value)
        return self._leave(status)

    cdef int _act(self, action act, fsm_id group, uint32_t resource) except -1:
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = act(region, group, resource)
        return self._leave(status)

    def usage(self, fsm_id group, uint32_t resource):
        """The precise sum over the subtree."""
        return self._number(fsm_usage, group, resource)

    def limit(self, fsm_id group, uint32_t resource):
        return self._number(fsm_get_limit, group, resource)

    def soft_limit(self, fsm_id group, uint32_t resource):
        return self._number(fsm_get_soft_limit, group, resource)

    def max_usage(self, fsm_id group, uint32_t resource):
        return self._number(fsm_get_max_usage, group, resource)

    def failcnt(self, fsm_id group, uint32_t resource):
        return self._number(fsm_get_failcnt, group, resource)

    def snapshot(self, uint32_t resource, /):
        """A Snapshot of all groups, of one moment except for the names."""
        cdef Snapshot found = Snapshot.__new__(Snapshot)
        cdef fsm_counter_snapshot *rows
        cdef char *names = NULL
        cdef int64_t count = -ENOMEM
        cdef fsm_region *region = self._enter()
        cdef int status = 0
        rows = found._rows = <fsm_counter_snapshot *>malloc(fsm_geometry_of(region).groups * sizeof(fsm_counter_snapshot))
        with nogil:
            if rows != NULL:
                count = fsm_snapshot(region, resource, rows)
            if count > 0:
                names = <char *>malloc(count * (FSM_NAME_MAX + 1))
                status = -ENOMEM if names == NULL else read_names(region, rows, count, names)
        found._names = names
        self._leave(<int>count if count < 0 else status)
        found._count = count
        return found

    def get_events(self, fsm_id group, uint32_t resource):
        """The event counts of the subtree: (refusals at a limit, soft limits crossed, thresholds crossed)."""
        cdef fsm_events events
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_get_events(region, group, resource, &events)
        self._leave(status)
        return events.limit, events.soft_limit, events.threshold

    def get_refusals(self, fsm_id group, uint32_t resource, size_t room=FSM_REFUSALS):
        """At most `room` refusals that were requested or made in the subtree, newest first."""
        cdef fsm_refusal *found = <fsm_refusal *>malloc((room + 1) * sizeof(fsm_refusal))
        cdef int64_t count = -ENOMEM
        cdef size_t i
        cdef fsm_region *region
        try:
            region = self._enter()
            if found != NULL:
                with nogil:
                    count = fsm_get_refusals(region, group, resource, found, room)
            self._leave(<int>count if count < 0 else 0)
            return [refusal_info(&found[i]) for i in range(min(room, <size_t>count))]
        finally:
            free(found)

    def probe(self, fsm_id group, uint32_t resource, amount):
        """The result that a charge would have now: (fits, group, usage, limit, margin)."""
        cdef int64_t value = amount_of(amount)
        cdef fsm_probed found
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_probe(region, group, resource, value, &found)
        self._leave(status)
        return bool(found.fits), found.group, found.usage, found.limit, found.margin

    def listen(self, bint on, /):
        """Arms the event notifier: events change get_event_seq(), and the first one ends a wait. False: disarms it."""
        fsm_listen(self._enter(), on)
        self._leave(0)

    def get_event_seq(self, fsm_id group, uint32_t resource):
        """A number that changes with each event in the subtree while the event notifier is armed."""
        cdef uint32_t event_seq
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_get_event_seq(region, group, resource, &event_seq)
        self._leave(status)
        return event_seq

    def await_event(self, double seconds, /):
        """Waits for an event after listen(); False: there was none in that time."""
        cdef fsm_region *region = self._enter()
        cdef bint notified
        cdef int64_t nanoseconds = <int64_t>(seconds * 1e9)
        with nogil:
            notified = fsm_await_event(region, nanoseconds)
        self._leave(0)
        return notified

    def watch(self, fsm_id group, uint32_t resource, marks, old):
        """Ends the old watches and makes one for each (amount, flags), all or nothing. EINVAL, ENOSPC."""
        cdef size_t count = len(marks), old_count = len(old), i
        cdef fsm_mark *wanted = <fsm_mark *>malloc((count + 1) * sizeof(fsm_mark))
        cdef fsm_id *ids = <fsm_id *>malloc((count + old_count + 1) * sizeof(fsm_id))
        cdef fsm_region *region
        cdef int status
        try:
            if wanted == NULL or ids == NULL:
                raise MemoryError
            for i in range(count):
                wanted[i].amount, wanted[i].flags = marks[i]
            for i in range(old_count):
                ids[count + i] = old[i]
            region = self._enter()
            with nogil:
                status = fsm_watch(region, group, resource, wanted, count, ids + count, old_count, ids)
            self._leave(status)
            return [ids[i] for i in range(count)]
        finally:
            free(wanted)
            free(ids)

    def unwatch(self, old, /):
        """Ends those of the watches that still exist."""
        cdef size_t count = len(old), i
        cdef fsm_id *ids = <fsm_id *>malloc((count + 1) * sizeof(fsm_id))
        cdef fsm_region *region
        cdef int status
        try:
            if ids == NULL:
                raise MemoryError
            for i in range(count):
                ids[i] = old[i]
            region = self._enter()
            with nogil:
                status = fsm_unwatch(region, ids, count)
            self._leave(status)
        finally:
            free(ids)

    def watch_crossings(self, fsm_id watch, /):
        """The crossings of its mark. ENODEV: the watch has ended."""
        cdef int64_t crossings
        cdef int status = fsm_watch_crossings(self._enter(), watch, &crossings)
        self._leave(status)
        return crossings

    def set_limit(self, fsm_id group, uint32_t resource, limit):
        """Drains all stock below and sets the limit. EBUSY: the usage is above it."""
        self._set(fsm_set_limit, group, resource, limit)

    def set_soft_limit(self, fsm_id group, uint32_t resource, limit):
        self._set(fsm_set_soft_limit, group, resource, limit)

    def reset_max_usage(self, fsm_id group, uint32_t resource):
        self._act(fsm_reset_max_usage, group, resource)

    def reset_failcnt(self, fsm_id group, uint32_t resource):
        self._act(fsm_reset_failcnt, group, resource)

    def common_charge(self, fsm_id group, uint32_t resource, amount, int32_t thread=0):
        """Charges the group itself. thread: of the process to record if refused; 0: this one, -1: not known. ENOMEM."""
        cdef int64_t value = amount_of(amount)
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_common_charge_for(region, group, resource, value, thread)
        self._leave(status)

    def common_uncharge(self, fsm_id group, uint32_t resource, amount):
        """Returns an amount that the group itself holds. ERANGE: it holds less."""
        self._set(fsm_common_uncharge, group, resource, amount)

    def force_empty(self, fsm_id group, uint32_t resource):
        """Drains the stock below and drops what the group itself holds."""
        self._act(fsm_force_empty, group, resource)

    # ---- holders

    def holder_create(self, int32_t pid, uint64_t start_time, uint32_t kind, uint32_t flags):
        """Makes a holder (PROCESS or LEASE) for a process. ENOSPC."""
        cdef fsm_id holder
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_holder_create(region, pid, start_time, kind, flags, &holder)
        self._leave(status)
        return holder

    def holder_set_flags(self, fsm_id holder, uint32_t flags):
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_holder_set_flags(region, holder, flags)
        self._leave(status)

    def holder_join(self, fsm_id holder, fsm_id group):
        """Gives the holder a cell in each counter of the group. ENOSPC."""
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_holder_join(region, holder, group)
        self._leave(status)

    def holder_join_one(self, fsm_id holder, fsm_id group, uint32_t resource):
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_holder_join_one(region, holder, group, resource)
        self._leave(status)

    def holder_leave(self, fsm_id holder, fsm_id group, uint32_t flags):
        """Releases what the holder holds in the group; with KEEP it goes to the group."""
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_holder_leave(region, holder, group, flags)
        self._leave(status)

    def holder_end(self, fsm_id holder, /):
        """Ends the holder: its charges are released, or go to the groups with KEEP."""
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_holder_end(region, holder)
        self._leave(status)

    def reap_dead(self):
        """Ends every holder whose process is dead, and returns how many."""
        cdef uint32_t count
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_reap_dead(region, &count)
        self._leave(status)
        return count

    def page_of_holders(self, fsm_id group, uint32_t resource, uint32_t place, /):
        """A page of the holders of one counter, and the place of the next page: None after the last; the first is at 0.

        No page holds the lock for long. A holder that exists all the while is on exactly one page.
        """
        cdef fsm_holder_info found[FSM_PAGE]
        cdef int64_t count
        cdef int64_t i
        cdef fsm_region *region = self._enter()
        with nogil:
            count = fsm_page_of_holders(region, group, resource, &place, found)
        self._leave(<int>count if count < 0 else 0)
        return [holder_info(&found[i]) for i in range(count)], None if place == FSM_LAST_PAGE else place

    def count_holders(self):
        """The numbers of processes and of leases among the holders."""
        cdef uint32_t processes, leases
        cdef fsm_region *region = self._enter()
        with nogil:
            fsm_count_holders(region, &processes, &leases)
        self._leave(0)
        return processes, leases

    def all_holders(self):
        """All holders of the region."""
        return self._list_holders(ALL, 0)

    def new_holders(self, uint32_t seen, /):
        """The processes that became holders after number `seen`."""
        return self._list_holders(NEW, seen)

    def await_arrival(self, uint32_t seen, double seconds, /):
        """Waits for a process that becomes a holder with a number above `seen`; returns the newest number."""
        cdef fsm_region *region = self._enter()
        cdef uint32_t newest
        with nogil:
            newest = fsm_await_arrival(region, seen, <int64_t>(seconds * 1e9))
        self._leave(0)
        return newest

    cdef list _list_holders(self, listing which, uint32_t seen):
        cdef fsm_holder_info *found = NULL
        cdef int64_t count = 64
        cdef int64_t room
        cdef int64_t i
        cdef fsm_region *region
        while True:
            room = count + 16
            found = <fsm_holder_info *>malloc(room * sizeof(fsm_holder_info))
            if found == NULL:
                raise MemoryError
            try:
                region = self._enter()
                with nogil:
                    if which == NEW:
                        count = fsm_new_holders(region, seen, found, room)
                    else:
                        count = fsm_all_holders(region, found, room)
                self._leave(<int>count if count < 0 else 0)
                if count <= room:
                    return [holder_info(&found[i]) for i in range(count)]
            finally:
                free(found)

    def holder_get(self, fsm_id holder, /):
        cdef fsm_holder_info info
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_holder_get(region, holder, &info)
        self._leave(status)
        return holder_info(&info)

    def await_answers(self, fsm_id holder, uint32_t seen, double seconds, /):
        """Waits until the number of answers to the holder's requests differs from `seen`; returns the number."""
        cdef fsm_region *region = self._enter()
        with nogil:
            seen = fsm_await_answers(region, holder, seen, <int64_t>(seconds * 1e9))
        self._leave(0)
        return seen

    def wake_answers(self, fsm_id holder, /):
        """Ends every wait for answers to the holder's requests."""
        fsm_wake_answers(self._enter(), holder)
        self._leave(0)

    def check(self):
        """Checks the region; one line for each finding."""
        cdef char *text = NULL
        cdef size_t length = 0
        cdef int64_t count = -ENOMEM
        cdef FILE *report
        cdef fsm_region *region = self._enter()
        with nogil:
            report = open_memstream(&text, &length)
            if report != NULL:
                count = fsm_check(region, report)
                if fclose(report) != 0:
                    count = -ENOMEM
        try:
            self._leave(<int>count if count < 0 else 0)
            return text[:length].decode(errors="replace").split("\n")[:-1]
        finally:
            free(text)

    def repair(self):
        """Recomputes everything that is derived. EUCLEAN: the truth itself is damaged, and nothing has changed."""
        cdef fsm_region *region = self._enter()
        cdef int status
        with nogil:
            status = fsm_repair(region)
        self._leave(status)


cdef int read_names(fsm_region *region, const fsm_counter_snapshot *rows, int64_t count, char *name) noexcept nogil:
    """The names of the rows, each with its NUL; empty if the group has been removed since."""
    cdef int64_t i
    cdef size_t length
    cdef int status
    for i in range(count):
        status = fsm_name(region, rows[i].id, name, &length)
        if status == -ENODEV:
            name[0] = 0
        elif status < 0:
            return status
        name += strlen(name) + 1
    return 0


cdef tuple stat_values(const fsm_stat *s):
    return (s.usage, s.usage_local, s.common, s.reserved, s.stock, s.holders, s.limit, s.soft_limit,
            s.hierarchical_limit, s.margin, s.hierarchical_margin, s.soft_limit_excess, s.max_usage, s.min_usage,
            s.failcnt, s.global_mode, s.batch, s.error_bound, s.refills, s.drains)


cdef uint32_t fitting_depth(const fsm_counter_snapshot *rows, const char *name, int64_t count, int64_t *lengths, uint32_t *depths,
                            int64_t path_max, int64_t each, int64_t room, int64_t *fit) noexcept nogil:
    """The work of Snapshot.fitting(). lengths and depths have one entry for each row, and one more."""
    cdef int64_t i
    cdef int64_t left
    cdef uint32_t deepest = 0
    cdef uint32_t depth
    for i in range(count):
        lengths[i] = 0 if i == 0 else lengths[rows[i].parent] + 1 + <int64_t>strlen(name)
        depths[i] = 0 if i == 0 else depths[rows[i].parent] + 1
        deepest = max(deepest, depths[i])
        name += strlen(name) + 1
    left = room
    for depth in range(deepest + 1):
        fit[0] = 0
        for i in range(count):
            if depths[i] == depth and lengths[i] <= path_max:
                left -= each + lengths[i]
                if left < 0:
                    return depth
                fit[0] += 1
    fit[0] = 0
    return deepest + 1


@cython.final
cdef class Snapshot:
    """The counters of one resource in all groups, at one moment, parents before children.

    Its rows become Python objects in pages: for 65,536 groups that would be 60 MB at once, instead of 12 MB here.
    """

    cdef fsm_counter_snapshot *_rows
    cdef char *_names  # each with its NUL, in the order of the rows
    cdef int64_t _count

    def __dealloc__(self):
        free(self._rows)
        free(self._names)

    def pages(self, fsm_id top, int64_t length, /):
        """The CounterSnapshot of each group in a subtree, in lists of at most `length` rows.

        Leaves out a group that was removed before its name was read.
        """
        cdef const char *name = self._names
        cdef int64_t at = 0
        cdef int64_t first
        cdef int64_t end
        with nogil:
            while at < self._count and self._rows[at].id != top:
                name += strlen(name) + 1
                at += 1
        first = at
        while at < self._count and (at == first or self._rows[at].parent >= first):
            page = []
            end = min(at + length, self._count)
            while at < end and (at == first or self._rows[at].parent >= first):
                if name[0] or self._rows[at].id == FSM_ROOT:
                    page.append(self._row(at, name))
                name += strlen(name) + 1
                at += 1
            yield page

    def fitting(self, int64_t path_max, int64_t each, int64_t room, /):
        """(depth, count) of the groups that fit into `room` if each takes `each` plus the length of its path.

        All groups above that depth fit, and the first `count` of that depth. A group whose path is longer than path_max
        never fits, nor do the groups below it.
        """
        cdef int64_t *lengths = <int64_t *>malloc((self._count + 1) * sizeof(int64_t))
        cdef uint32_t *depths = <uint32_t *>malloc((self._count + 1) * sizeof(uint32_t))
        cdef int64_t count = 0
        cdef uint32_t depth = 0
        try:
            if lengths == NULL or depths == NULL:
                raise MemoryError
            with nogil:
                depth = fitting_depth(self._rows, self._names, self._count, lengths, depths, path_max, each, room, &count)
            return depth, count
        finally:
            free(lengths)
            free(depths)

    cdef object _row(self, int64_t at, const char *name):
        cdef const fsm_counter_snapshot *row = &self._rows[at]
        cdef fsm_id parent = FSM_ROOT if row.id == FSM_ROOT else self._rows[row.parent].id
        return make_counter_snapshot((row.id, parent, PyUnicode_DecodeFSDefault(name)) + stat_values(&row.stat))


cdef object refusal_info(const fsm_refusal *found):
    cdef uint32_t i
    largest = []
    for i in range(found.holders):
        largest.append(LargeHolderInfo(found.holder[i].held, found.holder[i].pid, found.holder[i].kind, found.holder[i].group,
                                       <bytes>found.holder[i].command))
    return RefusalInfo(found.number, found.first, found.last, found.count, found.pid, found.kind, <bytes>found.command, found.asked,
                       found.refused, found.charged != 0, found.amount, found.usage, found.limit, found.looked, found.looked_at,
                       tuple(largest))


cdef object holder_info(const fsm_holder_info *info):
    return HolderInfo(info.id, info.kind, info.flags, info.here != 0, info.pid, info.start_time, info.cells, info.group, info.held, info.stock)


# ---- charging -----------------------------------------------------------------------------------

cdef enum operation:
    CHARGE, CHARGE_NOFAIL, UNCHARGE, GIVE, TAKE, HELD


@cython.no_gc_clear  # __dealloc__ unbinds, and needs the region for it
cdef class Charger:
    """The handle of this process on one (holder, counter) pair, with the methods that charge through it.

    Amounts are ints from 0 to UNLIMITED. Several threads may use it at once. A subclass binds it on first use (_bind), and
    chooses the exceptions (_failed).
    """

    cdef fsm_charger _charger
    cdef Region _region  # None when unbound
    cdef pthread_rwlock_t _inside  # read lock: a thread is in the engine; write lock: the charger is rebound
    cdef unsigned long _forks

    def __cinit__(self, *_args, **_kwargs):
        fsm_charger_init(&self._charger)
        inside_init(&self._inside)
        self._forks = forks

    def __dealloc__(self):
        self._release()
        pthread_rwlock_destroy(&self._inside)

    def bind(self, Region region not None, fsm_id holder, fsm_id group, uint32_t resource):
        """Binds it to the cell of a holder of this process, which has joined the counter."""
        cdef fsm_region *mapped
        cdef int status
        self._exclude()
        self._release()
        try:
            mapped = region._enter()
            with nogil:
                status = fsm_charger_bind(&self._charger, mapped, holder, group, resource)
            if status < 0:
                region._leave(status)
            self._region = region  # and stays its user until _release()
        finally:
            pthread_rwlock_unlock(&self._inside)

    def unbind(self):
        """Releases the cell, once no other thread is inside."""
        self._exclude()
        self._release()
        pthread_rwlock_unlock(&self._inside)

    @property
    def bound(self):
        return bool(fsm_charger_bound(&self._charger))

    cdef void _reset_after_fork(self) noexcept:
        """After a fork, threads of the parent that were inside do not exist, but their lock does."""
        if self._forks != forks:
            inside_init(&self._inside)
            self._forks = forks

    cdef void _exclude(self) noexcept:
        self._reset_after_fork()
        with nogil:
            pthread_rwlock_wrlock(&self._inside)

    cdef void _release(self) noexcept:
        """Only with the GIL, so that no thread is in the fast path, and with no thread inside."""
        cdef Region region = self._region
        fsm_charger_unbind(&self._charger)
        if region is not None:
            self._region = None
            region._users -= 1
            region._close_unused()

    cdef int _run(self, operation op, int64_t amount, int64_t *result) noexcept:
        """An operation that may wait for the lock. The result is 0 or a negative errno of the engine."""
        cdef int status
        cdef c_bool exceeded = False
        self._reset_after_fork()
        with nogil:
            pthread_rwlock_rdlock(&self._inside)
            if op == CHARGE:
                status = fsm_charge_slow(&self._charger, amount)
            elif op == UNCHARGE:
                status = fsm_uncharge_slow(&self._charger, amount)
            elif op == CHARGE_NOFAIL:
                status = fsm_charge_nofail(&self._charger, amount, &exceeded)
                result[0] = exceeded
            elif op == GIVE:
                status = fsm_give(&self._charger, amount)
            elif op == TAKE:
                status = fsm_take(&self._charger, amount)
            else:
                status = fsm_held(&self._charger, result)
            pthread_rwlock_unlock(&self._inside)
        return status

    cdef int _try(self, operation op, int64_t amount, int64_t *result) except 1:
        """The same, and binds the charger first if necessary. The hook raises if it cannot."""
        cdef int status = self._run(op, amount, result)
        if status == -ENOTCONN:
            self._bind()
            status = self._run(op, amount, result)
        return status

    cdef int _do(self, operation op, int64_t amount, int64_t *result) except -1:
        cdef int status = self._try(op, amount, result)
        if status < 0:
            self._failed(failure(status), amount)
        return 0

    def charge(self, amount, /, *, wait=False, timeout=None):
        """Charges an amount, or raises LimitExceeded and changes nothing.

        wait: without room, the charge queues until there is room and it is its turn.  timeout: for how many seconds;
        None: without end.
        """
        cdef int64_t n = amount_of(amount)
        if wait is not False or timeout is not None:
            timeout = timeout_of(wait, timeout)
        self._charge(n, wait, timeout)

    cdef int _charge(self, int64_t n, bint wait, timeout) except -1:
        if not fsm_charge_fast(&self._charger, n) and not (wait and n > 0 and self._wait(n, timeout)):
            self._do(CHARGE, n, NULL)
        return 0

    def try_charge(self, amount, /):
        """Charges an amount; False: a limit refuses it, and nothing has changed."""
        cdef int64_t n = amount_of(amount)
        cdef int status
        if fsm_charge_fast(&self._charger, n):
            return True
        status = self._try(CHARGE, n, NULL)
        if status == -ENOMEM:
            return False
        if status < 0:
            self._failed(failure(status), n)
        return True

    def charge_nofail(self, amount, /):
        """Charges an amount past any limit; False: a limit is exceeded now."""
        cdef int64_t n = amount_of(amount)
        cdef int64_t exceeded = 0
        self._do(CHARGE_NOFAIL, n, &exceeded)
        return exceeded == 0

    def uncharge(self, amount, /):
        """Releases an amount that this attachment holds, or raises NotHeld and changes nothing."""
        cdef int64_t n = amount_of(amount)
        if not fsm_uncharge_fast(&self._charger, n):
            self._do(UNCHARGE, n, NULL)

    def give(self, amount, /):
        """Moves an amount from this attachment to the group itself, where it outlives the holder.  NotHeld."""
        self._do(GIVE, amount_of(amount), NULL)

    def take(self, amount, /):
        """Moves an amount from the group itself to this attachment.  NotHeld."""
        self._do(TAKE, amount_of(amount), NULL)

    @property
    def held(self):
        """The amount that this attachment holds here."""
        cdef int64_t value = 0
        if not fsm_charger_bound(&self._charger) and not self._bind_held():
            return 0
        self._do(HELD, 0, &value)
        return value

    def _bind(self):
        """Called when an unbound charger is used: binds it, or raises."""
        raise EngineError(ENOTCONN, "the charger is not bound")

    def _bind_held(self):
        """Called for `held` of an unbound charger: binds it if its holder exists; otherwise False."""
        return False

    def _wait(self, amount, timeout):
        """Called when a charge may have to wait: whether the charge was granted in time."""
        raise EngineError(ENOTCONN, "this charger cannot wait")

    def _failed(self, error, amount):
        """Called with the error of an amount that failed; raises."""
        raise error


cdef extern from *:
    """
    typedef PyObject *taker_of_keywords(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names);
    static taker_of_keywords *charge_with_keywords;

    static void call_first(PyObject *method, taker_of_keywords *first)
    {
        PyMethodDef *definition = ((PyMethodDescrObject *)method)->d_method;
        if (definition->ml_flags != (METH_FASTCALL | METH_KEYWORDS))
            return;
        charge_with_keywords = (taker_of_keywords *)(void (*)(void))definition->ml_meth;
        definition->ml_meth = (PyCFunction)(void (*)(void))first;
    }
    """
    ctypedef object taker_of_keywords(object self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
    taker_of_keywords *charge_with_keywords
    void call_first(object method, taker_of_keywords *first)


# Cython's keyword parsing costs half as much as the charge itself, even without keywords. So this function comes first.
cdef object charge_by_amount(object self, PyObject *const *arguments, Py_ssize_t count, PyObject *names):
    cdef int64_t n
    if names == NULL and count == 1:
        n = exact_int(arguments[0])
        if n >= 0 and fsm_charge_fast(&(<Charger>self)._charger, n):
            return None
    return charge_with_keywords(self, arguments, count, names)


call_first(Charger.charge, charge_by_amount)


# ---- holds --------------------------------------------------------------------------------------


cdef class Hold:
    """A context manager of a counter or a group: charged inside, and uncharged after.

    No signal handler runs between the charge and the block, nor between the block and the uncharge. So nothing stays
    charged if a handler raises.
    """

    cdef bint _wait
    cdef object _timeout
    cdef unsigned long _forks

    def __cinit__(self, _of, _amounts, wait, timeout, /):
        self._timeout = timeout_of(wait, timeout)
        self._wait = wait

    def __enter__(self):
        self._forks = forks
        self._charge()

    def __exit__(self, kind, value, traceback, /):
        # a child that was forked inside holds nothing: its parent uncharges
        if self._forks == forks:
            self._uncharge()

    cdef int _charge(self) except -1:
        raise NotImplementedError

    cdef int _uncharge(self) except -1:
        raise NotImplementedError


@cython.final
cdef class CounterHold(Hold):
    """A hold of one counter in the region."""

    cdef Charger _charger
    cdef int64_t _amount

    def __cinit__(self, Charger charger not None, amount, _wait, _timeout, /):
        self._charger = charger
        self._amount = amount_of(amount)

    cdef int _charge(self) except -1:
        return self._charger._charge(self._amount, self._wait, self._timeout)

    cdef int _uncharge(self) except -1:
        if not fsm_uncharge_fast(&self._charger._charger, self._amount):
            self._charger._do(UNCHARGE, self._amount, NULL)
        return 0


@cython.final
cdef class GroupHold(Hold):
    """A hold of several counters of a group in the region. _charge_in_turn(amounts above 0, timeout) of the group waits."""

    cdef object _group
    cdef dict _wanted, _amounts, _back

    def __cinit__(self, group, dict amounts not None, _wait, _timeout, /):
        self._group = group
        self._wanted = above_0(amounts)
        self._amounts = {group[resource]: amount for resource, amount in amounts.items()}
        self._back = {charger: -amount for charger, amount in self._amounts.items()}

    cdef int _charge(self) except -1:
        if not (self._wait and self._wanted and self._group._charge_in_turn(self._wanted, self._timeout)):
            change_counters(self._amounts)
        return 0

    cdef int _uncharge(self) except -1:
        return change_counters(self._back)


cdef dict above_0(dict amounts):
    return {resource: amount for resource, amount in amounts.items() if amount > 0}


# ---- waiting -------------------------------------------------------------------------------------


@cython.final
cdef class Request:
    """A waiting charge of several amounts (above 0), each through its charger, granted all at once.

    The chargers are of one holder and of different resources. The caller of begin() also calls end() or cancel(). Each
    method can raise EngineError: ENODEV if the holder has ended or left the group.
    """

    cdef list _chargers
    cdef int64_t _amounts[32]
    cdef bint _queued, _granted
    cdef Region _region
    cdef readonly fsm_id id, holder

    def __cinit__(self, chargers, amounts, /):
        cdef size_t i
        if not 1 <= len(chargers) <= FSM_RESOURCES_MAX or len(amounts) != len(chargers):
            raise EngineError(EINVAL, "a request has 1 to 32 amounts")
        self._chargers = list(chargers)
        for i, number in enumerate(amounts):
            self._amounts[i] = amount_of(number)

    @property
    def region(self):
        return self._region

    def begin(self):
        """Charges and returns True, or enters the queue. ENOSPC: there is no room for another waiting request."""
        cdef int status = attempt(self._chargers, self._amounts, NULL, self)
        if status < 0 and status != -EINPROGRESS:
            raise failure(status)
        self._queued = status != 0
        self._granted = status == 0
        return status == 0

    def wait(self, double seconds, /):
        """Waits at most so long, and returns whether it is granted. Signal handlers run meanwhile, and may raise."""
        cdef int64_t nanoseconds
        cdef int status = -EINTR
        cdef fsm_region *region = self._region._enter()
        try:
            deadline = monotonic() + seconds
            while status == -EINTR:
                PyErr_CheckSignals()
                # in short waits: a signal may come between the check above and the call below
                nanoseconds = <int64_t>(min(max(deadline - monotonic(), 0.0), 0.5) * 1e9)
                with nogil:
                    status = fsm_await_request(region, self.id, nanoseconds)
                if status == -EAGAIN and monotonic() < deadline:
                    status = -EINTR
        finally:
            self._region._leave(0)
        if status < 0 and status != -EAGAIN:
            raise failure(status)
        return status == 0

    def end(self):
        """Leaves the queue, and returns whether the request was granted: then the holder holds the amounts."""
        cdef int status
        cdef fsm_region *region
        if self._queued:
            region = self._region._enter()
            with nogil:
                status = fsm_end_request(region, self.id)
            self._queued = status == -ETIMEDOUT
            self._granted = status == 0
            self._region._leave(0 if status == -ECANCELED else status)
        return bool(self._granted)

    def cancel(self):
        """Leaves the queue, or returns what was granted. A second call does nothing.

        No signal handler runs in it, nor before it if it is the first call of an except block.
        """
        cdef int64_t back[32]
        cdef size_t i
        try:
            granted = self.end()
        except EngineError:  # the holder has ended and holds nothing
            return
        if granted:
            self._granted = False
            for i in range(len(self._chargers)):
                back[i] = -self._amounts[i]
            run_several(self._chargers, back, fsm_change, None)


def request(chargers, amounts, /):
    """Begins a request: None if it is charged at once; otherwise the Request, which is in the queue."""
    asked = Request(chargers, amounts)
    return None if asked.begin() else asked


def change(dict amounts not None, /):
    """Charges positive amounts and returns negative ones, each through its charger, all at once or nothing.

    The chargers are of one holder and of different resources. The charger of the amount that failed raises.
    """
    change_counters(amounts)


cdef int change_counters(dict amounts) except -1:
    if len(amounts) == 1:  # one charger has a fast path
        ((charger, number),) = amounts.items()
        if number >= 0:
            charger.charge(number)
        else:
            charger.uncharge(-number)
    else:
        several(amounts, fsm_change)
    return 0


def move(dict amounts not None, /):
    """Moves positive amounts from the holder to the groups themselves, and negative ones back; as change()."""
    several(amounts, fsm_move)


cdef int several(dict amounts, int (*operation)(fsm_charger **, const int64_t *, size_t) noexcept nogil) except -1:
    cdef int64_t numbers[32]
    cdef int status
    cdef uint32_t which
    cdef size_t i
    cdef list chargers = list(amounts)
    if not 1 <= len(chargers) <= FSM_RESOURCES_MAX:
        raise EngineError(EINVAL, f"{len(chargers)} amounts: a request has 1 to {FSM_RESOURCES_MAX}")
    for i, number in enumerate(amounts.values()):
        numbers[i] = number
    status = attempt(chargers, numbers, operation, None)
    if status < 0:
        which = fsm_last_fault().which if status == -ENOMEM or status == -ERANGE else 0
        charger = chargers[which]
        charger._failed(failure(status), abs(amounts[charger]))
    return 0


cdef int attempt(list chargers, const int64_t *numbers,
                 int (*operation)(fsm_charger **, const int64_t *, size_t) noexcept nogil, Request asked) except 1:
    """run_several(), and binds unbound chargers first."""
    cdef int status = run_several(chargers, numbers, operation, asked)
    if status == -ENOTCONN:
        for charger in chargers:
            if not charger.bound:
                charger._bind()
        status = run_several(chargers, numbers, operation, asked)
    return status


cdef int run_several(list chargers, const int64_t *numbers,
                     int (*operation)(fsm_charger **, const int64_t *, size_t) noexcept nogil, Request asked) except 1:
    """Runs the operation, or begins the request: 0 or a negative errno.

    All threads lock the chargers in the same order, so that none waits for another.
    """
    cdef Charger charger
    cdef fsm_charger *into[32]
    cdef fsm_id request = 0
    cdef pthread_rwlock_t *inside
    cdef size_t n = len(chargers)
    cdef size_t i
    cdef int status
    for i, charger in enumerate(chargers):
        charger._reset_after_fork()
        into[i] = &charger._charger
    for charger in sorted(chargers, key=id):
        inside = &charger._inside
        with nogil:
            pthread_rwlock_rdlock(inside)
    if asked is not None:
        charger = chargers[0]
        asked._region, asked.holder = charger._region, charger._charger.holder
    with nogil:
        status = operation(into, numbers, n) if operation != NULL else fsm_request(into, numbers, n, &request)
    if asked is not None:
        asked.id = request
    for charger in chargers:
        pthread_rwlock_unlock(&charger._inside)
    return status
