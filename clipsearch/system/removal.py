"""Removal of a user's file because another file has the same content: the only place where that is done.

What was found out about two files may have changed when one of them is removed. So it is first put aside, under a name
that no other program knows, and then everything is checked again: that the other file exists independently, that it has
the expected content, and that the file put aside is the one that was compared. If anything differs, it is put back.

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

# O_NONBLOCK: opening a FIFO that took a file's place must not block.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_CHUNK = 2**20
_CHANGED = "it was changed at this very moment"
_SECOND, _DAY = 10**9, 86_400 * 10**9
_COARSE = 3 * _SECOND
"""ns: a more recent time stamp may not change with the content, since file systems count in steps of up to 2 s."""
_TRASHES = re.compile(rb"/(\.Trash(es|-\d+)?|Trash/files|\$RECYCLE\.BIN)/")
_LOCAL = {"btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "vfat", "xfs"}
"""File systems of Linux on local disks. Others show files of another file system, or of a server."""


class Seen(NamedTuple):
    """A file as it was when its content was read."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes
    """BLAKE2b of the content, 16 bytes, as in the index."""
    at_ns: int
    """Time when reading began, ns since 1970."""


class Keeper(NamedTuple):
    """The file that stays when another one is removed."""

    path: bytes
    digest: bytes
    """Expected hash of its content, as in `Seen`."""
    made_by_us: bool = False
    """Whether this process has just made it as a copy, so that it cannot be the other file under a second name."""


def look(path: bytes) -> Seen:
    """Read a file, following links.

    Raises:
        FileStaysError: it cannot be read, or changed meanwhile; the message has no subject.
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
    """Remove a file and return the bytes that this freed.

    Args:
        path: The file.
        seen: What it must still be.
        keeper: The file that must exist with its content.
        trash: Move it to the system's trash, which frees nothing yet.

    Raises:
        FileStaysError: a file is not as it was compared, or the removal failed. The file is where it was; if its name
            was taken meanwhile, it has another one, which the message says.
        NoTrashError: a FileStaysError, because there is no trash for the file.
    """
    with _aside_for(path) as aside:
        with _opened(aside.path) as descriptor:
            # No program has it open for writing or knows its new name. So it cannot change after this check; the
            # keeper, which can, is checked last.
            _check_nobody_writes(descriptor)
            status = _check_unchanged(descriptor, seen)
            _check_kept(keeper, aside, seen)
            if _times(os.fstat(descriptor)) != _times(status):  # for systems that cannot tell who writes
                raise FileStaysError(_CHANGED)
            if trash and sys.platform == "linux":
                with _writable(descriptor):
                    _to_trash(aside.path)
                _note_original(aside, descriptor)
        if trash and sys.platform != "linux":  # other trashes record the original path themselves
            _put_back(aside)
            _to_trash(path)
        elif not trash:
            os.unlink(aside.path)
    return status.st_size if status.st_nlink == 1 and not trash else 0


def remove_link(path: bytes, leads_to: bytes) -> None:
    """Remove a symbolic link if it still leads to `leads_to`.

    Raises:
        FileStaysError: it leads elsewhere, or cannot be removed.
    """
    with _aside_for(path) as aside:
        if os.readlink(aside.path) != leads_to:
            raise FileStaysError(_CHANGED)
        os.unlink(aside.path)


def take_back(path: bytes, seen: Seen) -> None:
    """Remove a copy that this process made, if it is unchanged since it was `seen`."""
    with contextlib.suppress(OSError):  # then another program has changed it
        aside = put_aside(path)
        status = os.stat(aside.path)
        if _times(status) == (seen.inode, seen.size, seen.mtime_ns):
            os.unlink(aside.path)
            clear(aside)
        else:
            put_back(aside)


# -- putting aside and back -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _aside_for(path: bytes) -> Iterator[Aside]:
    """Put a file aside for the block, which removes it; if the block fails, put it back.

    Raises:
        FileStaysError: the block failed, or the file cannot be put aside.
    """
    with shielded():
        try:
            aside = put_aside(path)
        except FileNotFoundError as error:
            raise FileStaysError("it is gone") from error
        except OSError as error:
            raise FileStaysError(error.strerror or str(error)) from error
        try:
            yield aside
        except OSError as error:
            raise FileStaysError(_put_back_after(aside, error.strerror or str(error))) from error
        except FileStaysError as error:
            raise type(error)(_put_back_after(aside, str(error))) from error
        except BaseException:
            _put_back_after(aside, "")
            raise
        clear(aside)


def _put_back(aside: Aside) -> None:
    """Put a file back to its place.

    Raises:
        FileStaysError: another file has its name, so that it got another one.
    """
    path = put_back(aside)
    if path != aside.original:
        raise FileStaysError(_renamed("its name was taken at this very moment", path))


def _put_back_after(aside: Aside, reason: str) -> str:
    """Put a file back; return the reason, with the file's new place if it is not its old one."""
    try:
        path = put_back(aside)
    except FileNotFoundError:  # it is back already, or another program moved it
        return reason
    except OSError as error:
        return f"{reason}; it lies in {os.fsdecode(aside.path)} and cannot be put back ({error.strerror})"
    return reason if path == aside.original else _renamed(reason, path)


def _renamed(reason: str, path: bytes) -> str:
    return f"{reason}; it is called {os.fsdecode(os.path.basename(path))} now, since something else has its name"


# -- checking again ---------------------------------------------------------------------------------------------


def _check_kept(keeper: Keeper, aside: Aside, seen: Seen) -> None:
    """Check that `keeper` exists while the other file is put aside, is another file, and has the expected content.

    Raises:
        FileStaysError: it does not.
    """
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
    """Return whether the keeper is the file that was put aside, under another path.

    Usually the other path is then gone, too, or device and inode are equal. But the same folder may be reached through
    two mounts with different device numbers, of which one still shows a name that was removed through the other (seen
    with overlays). So the one file is marked for a moment with an access time that no file has, and the other is
    checked for it.
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
    # Other file systems show the mark late or not at all, but the inode number of the disk behind them.
    shown = not (_kind(seen.device) in _LOCAL and _kind(theirs.st_dev) in _LOCAL)
    return shown and (seen.inode, seen.size, seen.mtime_ns) == (theirs.st_ino, theirs.st_size, theirs.st_mtime_ns)


def _check_unchanged(descriptor: int, seen: Seen) -> os.stat_result:
    """Check that an open file, which is put aside, is unchanged since it was seen; return its status.

    Putting it aside has changed its ctime, so the content is read again if the other stamps could hide a change.

    Raises:
        FileStaysError: it has changed.
    """
    now = os.fstat(descriptor)
    known = (now.st_dev, *_times(now)) == (seen.device, seen.inode, seen.size, seen.mtime_ns)
    coarse = seen.mtime_ns > seen.at_ns - _COARSE or seen.mtime_ns % _SECOND == 0
    if not (known and not coarse) and (now.st_size != seen.size or _digest(descriptor) != seen.digest):
        raise FileStaysError(_CHANGED)
    return now


def _check_nobody_writes(descriptor: int) -> None:
    """Check that no other program has an open file open for writing, if the system can tell.

    Linux grants a read lease only on a file that nobody has open for writing.

    Raises:
        FileStaysError: another program has it open for writing.
    """
    if sys.platform != "linux" or _kind(os.fstat(descriptor).st_dev) not in {*_LOCAL, "overlay"}:
        return  # elsewhere a refusal may mean something else
    try:
        # If another program opens it now, we get a signal: by default SIGIO, which ends a program; SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise FileStaysError("another program has it open for writing") from error


def _kind(device: int) -> str | None:
    """Return Linux's name of the file system on a device; None if it is not known."""
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
    """Return the parts of a status that renaming does not change."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _stamp(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


# -- reading ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: bytes) -> Iterator[int]:
    """Open a regular file for reading and yield its descriptor.

    Raises:
        OSError: it is no regular file, or cannot be opened.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _digest(descriptor: int) -> bytes:
    """Compute the BLAKE2b of an open file's whole content, 16 bytes."""
    found = hashlib.blake2b(digest_size=16)
    os.lseek(descriptor, 0, os.SEEK_SET)
    while chunk := os.read(descriptor, _CHUNK):
        found.update(chunk)
    return found.digest()


# -- the trash --------------------------------------------------------------------------------------------------


def is_in_trash(path: bytes) -> bool:
    """Return whether an absolute path lies in a trash folder of Linux, macOS or Windows."""
    return _TRASHES.search(path) is not None


def _to_trash(path: bytes) -> None:
    """Move a file to the system's trash.

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
    """Make an open file writable within, since send2trash refuses others; restore its permissions afterwards."""
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
    """Correct the original path in the trash's record of a file, which is also open as `descriptor`.

    By the freedesktop.org specification, the trash has a record of each file in a folder `info` beside `files`. The
    descriptor says where the file went. If this fails, the file can still be restored beside its place.
    """
    with contextlib.suppress(OSError):
        folder, name = os.path.split(os.readlink(os.fsencode(f"/proc/self/fd/{descriptor}")))
        record = os.path.join(os.path.dirname(folder), b"info", name + b".trashinfo")
        with open(record, "rb") as file:
            text = file.read()
        hidden = os.path.basename(os.path.dirname(aside.path)) + b"/"
        new = record + b"." + secrets.token_hex(4).encode("ascii")
        with open(new, "xb") as file:
            file.write(text.replace(hidden, b"", 1))
        os.replace(new, record)
