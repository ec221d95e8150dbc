"""Removing a user's file because another file makes it needless: the only place where that is done.

Whatever was found out about two files is old by the time one of them goes. So the one is put aside first, under a name
that nobody knows, and then all is looked at again: whether the other is there without it, and equal to what was
compared, and whether what was put aside is what was compared. It is put back if anything differs.

Knows nothing of duplicates and of where files are moved to.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import signal
import stat
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from clipsearch.errors import FileStaysError, NoTrashError
from clipsearch.system.interrupts import shielded
from clipsearch.system.naming import Aside, clear, put_aside, put_back

if sys.platform != "win32":
    import fcntl

# A FIFO that took a file's place must not make us wait for somebody to write to it.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_CHUNK = 2**20
_CHANGED = "it was changed at this very moment"
_SECOND, _DAY = 10**9, 86_400 * 10**9
_COARSE = 3 * _SECOND
"""A time stamp as young as this may stay the same in a later change: file systems count in steps of up to 2 s."""
_TRASHES = re.compile(rb"/(\.Trash(es|-\d+)?|Trash/files|\$RECYCLE\.BIN)/")
_LOCAL = {"btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "vfat", "xfs"}
"""Linux's file systems on disks of this machine. Others show what lies in another one, or on a server."""


class Seen(NamedTuple):
    """A file as it was when its content was read."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes
    """BLAKE2b of the content, 16 bytes: what the index has as well."""
    at_ns: int
    """By the clock, when the reading began."""


class Keeper(NamedTuple):
    """The file for whose sake another one goes."""

    path: bytes
    digest: bytes
    """Of its content, as in `Seen`."""
    made_by_us: bool = False
    """A copy that this process made a moment ago: it cannot be the other file under a second name."""


def look(path: bytes) -> Seen:
    """Read a file, following links.

    Raises:
        FileStaysError: it cannot be read, or changed meanwhile; the text has no subject.
    """
    try:
        with _opened(path) as descriptor:
            at, before = time.time_ns(), os.fstat(descriptor)
            digest = _digest(descriptor)
            after = os.fstat(descriptor)
    except FileNotFoundError as error:
        raise FileStaysError("is gone") from error
    except OSError as error:
        raise FileStaysError(f"cannot be read: {error.strerror or error}") from error
    if _stamp(before) != _stamp(after):
        raise FileStaysError("changed while it was read")
    return Seen(*_stamp(after), digest, at)


def remove(path: bytes, seen: Seen, keeper: Keeper, *, trash: bool) -> int:
    """Remove a file that is as `seen`, since `keeper` is there; the bytes that this freed.

    With `trash` it goes to the trash of the system, which frees nothing yet.

    Raises:
        FileStaysError: something is not as it was compared, or cannot be done. The file is where it was; its text says
            so if it has another name now, since its own was given away meanwhile.
        NoTrashError: of these, there is no trash for it.
    """
    with shielded():
        aside = _put_aside(path)
        try:
            with _opened(aside.path) as descriptor:
                # Nobody who has it open now may write, and nobody can open it under a name that he does not know. So
                # what it is then it stays, and the keeper, which others can change, is looked at last.
                _check_nobody_writes(descriptor)
                status = _check_unchanged(descriptor, seen)
                _check_kept(keeper, aside, seen)
                if _times(os.fstat(descriptor)) != _times(status):  # where the system cannot tell who writes
                    raise FileStaysError(_CHANGED)  # noqa: TRY301  (it is put back below)
                if trash and sys.platform == "linux":
                    with _writable(descriptor):
                        _to_trash(aside.path)
                    _note_original(aside, descriptor)
            if trash and sys.platform != "linux":  # other trashes note down for themselves what a file was called
                _put_back(aside)
                _to_trash(path)
            elif not trash:
                os.unlink(aside.path)
        except OSError as error:
            raise FileStaysError(_put_back_after(aside, error.strerror or str(error))) from error
        except FileStaysError as error:
            raise type(error)(_put_back_after(aside, str(error))) from error
        except BaseException:
            _put_back_after(aside, "")
            raise
        clear(aside)
    return status.st_size if status.st_nlink == 1 and not trash else 0


def remove_link(path: bytes, leads_to: bytes) -> None:
    """Remove a symbolic link if it still has this text.

    Raises:
        FileStaysError: it has not, or cannot be removed.
    """
    with shielded():
        aside = _put_aside(path)
        try:
            unchanged = os.readlink(aside.path) == leads_to
            if unchanged:
                os.unlink(aside.path)
        except OSError as error:
            raise FileStaysError(_put_back_after(aside, error.strerror or str(error))) from error
        except BaseException:
            _put_back_after(aside, "")
            raise
        if not unchanged:
            raise FileStaysError(_put_back_after(aside, _CHANGED))
        clear(aside)


def take_back(path: bytes, seen: Seen) -> None:
    """Remove a copy that this process made as `seen`, if it still is that."""
    with contextlib.suppress(FileStaysError, OSError):  # then it is another program's now
        aside = _put_aside(path)
        status = os.stat(aside.path)
        if _times(status) == (seen.inode, seen.size, seen.mtime_ns):
            os.unlink(aside.path)
            clear(aside)
        else:
            put_back(aside)


# -- aside and back ---------------------------------------------------------------------------------------------


def _put_aside(path: bytes) -> Aside:
    try:
        return put_aside(path)
    except FileNotFoundError as error:
        raise FileStaysError("it is gone") from error
    except OSError as error:
        raise FileStaysError(error.strerror or str(error)) from error


def _put_back(aside: Aside) -> None:
    """Raises FileStaysError if its name was given away."""
    path = put_back(aside)
    if path != aside.original:
        raise FileStaysError(_renamed("its name was taken at this very moment", path))


def _put_back_after(aside: Aside, reason: str) -> str:
    """Put a file back if it is not there already; the reason, and where it is if that is not where it was."""
    try:
        path = put_back(aside)
    except FileNotFoundError:  # it is back, or another program was faster
        return reason
    except OSError as error:
        return f"{reason}; it lies in {os.fsdecode(aside.path)} and cannot be put back ({error.strerror})"
    return reason if path == aside.original else _renamed(reason, path)


def _renamed(reason: str, path: bytes) -> str:
    return f"{reason}; it is called {os.fsdecode(os.path.basename(path))} now, since something else has its name"


# -- looking again ----------------------------------------------------------------------------------------------


def _check_kept(keeper: Keeper, aside: Aside, seen: Seen) -> None:
    """Whether `keeper` is there while the other file lies aside, is another one, and has its content."""
    name = f"what would be kept, {os.fsdecode(keeper.path)},"
    if not keeper.made_by_us and _is_same_file(keeper, aside, seen):
        raise FileStaysError(f"{name} seems to be the same file, reached in another way")
    try:
        with _opened(keeper.path) as descriptor:
            before = os.fstat(descriptor)
            same = _digest(descriptor) == keeper.digest
            if not same or not _stamp(before) == _stamp(os.fstat(descriptor)) == _stamp(os.stat(keeper.path)):
                raise FileStaysError(f"{name} has changed")
    except OSError as error:
        raise FileStaysError(f"{name} cannot be read: {error.strerror}") from error


def _is_same_file(keeper: Keeper, aside: Aside, seen: Seen) -> bool:
    """Whether two names, of which one was just taken away, are of one file.

    Usually the other name is then gone with it, or device and inode tell. But the same folder may be reached through
    two mounts with different numbers of devices, of which one still remembers a name that the other has taken away
    (seen with overlays). So a mark is made on the one, and looked for on the other: a time of last access that no file
    has, for a moment.
    """
    try:
        ours = os.stat(aside.path)
        theirs = os.stat(keeper.path)
        if ours.st_dev == theirs.st_dev:
            return ours.st_ino == theirs.st_ino
        mark = _DAY * (3_650 + secrets.randbelow(3_650))
        while abs(mark - theirs.st_atime_ns) < 2 * _DAY:
            mark += 10 * _DAY
        os.utime(aside.path, ns=(mark, ours.st_mtime_ns))
        try:
            with _opened(keeper.path) as descriptor:
                found = os.fstat(descriptor).st_atime_ns
        finally:
            os.utime(aside.path, ns=(ours.st_atime_ns, ours.st_mtime_ns))
    except FileNotFoundError:  # gone with the other name
        return True
    except OSError as error:
        raise FileStaysError(
            f"it cannot be told whether it is the same file as {os.fsdecode(keeper.path)} on another file system: "
            f"{error.strerror}"
        ) from error
    if abs(found - mark) < 2 * _DAY:
        return True
    # Others show marks late, or not at all, but the same number as the disk behind them.
    shown = not (_kind(seen.device) in _LOCAL and _kind(theirs.st_dev) in _LOCAL)
    return shown and (seen.inode, seen.size, seen.mtime_ns) == (theirs.st_ino, theirs.st_size, theirs.st_mtime_ns)


def _check_unchanged(descriptor: int, seen: Seen) -> os.stat_result:
    """Whether an open file, which lies aside, is what was seen; what the system says of it.

    To be put aside changed its ctime, so where the other stamps could hide a change the content is read again.
    """
    now = os.fstat(descriptor)
    known = (now.st_dev, *_times(now)) == (seen.device, seen.inode, seen.size, seen.mtime_ns)
    coarse = seen.mtime_ns > seen.at_ns - _COARSE or seen.mtime_ns % _SECOND == 0
    if not (known and not coarse) and (now.st_size != seen.size or _digest(descriptor) != seen.digest):
        raise FileStaysError(_CHANGED)
    return now


def _check_nobody_writes(descriptor: int) -> None:
    """Whether another program has an open file open for writing, where the system can tell.

    Linux grants a read lease on a file that nobody writes to, and no other.
    """
    if sys.platform != "linux" or _kind(os.fstat(descriptor).st_dev) not in {*_LOCAL, "overlay"}:
        return  # elsewhere a refusal may mean something else
    try:
        # Somebody who opens it now would have us told of by SIGIO, which ends a program; SIGURG does nothing.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise FileStaysError("another program has it open for writing") from error


def _kind(device: int) -> str | None:
    """What Linux calls the file system on a device; None if that is not known."""
    if sys.platform != "linux":
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            mount, _, kind = line.partition(" - ")
            if mount.split()[2] == wanted:
                return kind.split()[0]
    return None


def _times(status: os.stat_result) -> tuple[int, int, int]:
    """What stays the same when a file gets another name."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _stamp(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


# -- reading ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: bytes) -> Iterator[int]:
    """A descriptor of a regular file.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _digest(descriptor: int) -> bytes:
    """BLAKE2b of an open file's whole content, 16 bytes."""
    found = hashlib.blake2b(digest_size=16)
    os.lseek(descriptor, 0, os.SEEK_SET)
    while chunk := os.read(descriptor, _CHUNK):
        found.update(chunk)
    return found.digest()


# -- the trash --------------------------------------------------------------------------------------------------


def is_in_trash(path: bytes) -> bool:
    """Whether an absolute path lies in a trash, as Linux, macOS and Windows name theirs."""
    return _TRASHES.search(path) is not None


def _to_trash(path: bytes) -> None:
    """Give a file to the system's trash.

    Raises:
        NoTrashError: there is no trash for it.
    """
    from send2trash import send2trash

    try:
        send2trash(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise NoTrashError(f"no trash takes it ({reason})") from error


@contextlib.contextmanager
def _writable(descriptor: int) -> Iterator[None]:
    """Within: an open file may be written, for send2trash takes no others; it goes to the trash as it was."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & stat.S_IWUSR:
        yield
        return
    os.fchmod(descriptor, mode | stat.S_IWUSR)
    try:
        yield
    finally:
        os.fchmod(descriptor, mode)


def _note_original(aside: Aside, descriptor: int) -> None:
    """Have the trash restore a file, also open as `descriptor`, to where it was before it was put aside.

    The trash of the freedesktop.org specification has a note on each file, percent-encoded, in a folder `info` beside
    `files`. Where the file went, its descriptor tells. If this fails, it is restored beside its place.
    """
    with contextlib.suppress(OSError):
        _mend_note(aside, descriptor)


def _mend_note(aside: Aside, descriptor: int) -> None:
    place = os.readlink(os.fsencode(f"/proc/self/fd/{descriptor}"))
    folder, name = os.path.split(place)
    note = os.path.join(os.path.dirname(folder), b"info", name + b".trashinfo")
    with open(note, "rb") as file:
        text = file.read()
    hidden = os.path.basename(os.path.dirname(aside.path)) + b"/"
    new = note + b"." + secrets.token_hex(4).encode("ascii")
    with open(new, "xb") as file:
        file.write(text.replace(hidden, b"", 1))
    os.replace(new, note)
