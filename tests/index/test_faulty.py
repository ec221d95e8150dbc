"""The fault injector sees what Python, SQLite and NumPy do to a folder, and can fail all of it."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from faulty import Call, Faults, Kind, read_log

WAYS_TO_WRITE = """
import os
os.mkdir("sub")
fd = os.open("sub/a", os.O_RDWR | os.O_CREAT)
os.write(fd, b"12345678")
os.pwrite(fd, b"ab", 2)
os.writev(fd, [b"12345", b"678"])
os.posix_fallocate(fd, 0, 100)
os.ftruncate(fd, 16)
os.fsync(fd)
os.fdatasync(fd)
os.truncate("sub/a", 3)
with open("sub/b", "wb") as file:
    os.sendfile(file.fileno(), os.open("/proc/self/exe", os.O_RDONLY), 0, 10)
os.replace("sub/b", "c d")
os.copy_file_range(fd, os.open("c d", os.O_WRONLY), 2, 0)
os.unlink("sub/a")
os.rmdir("sub")
os.fsync(os.open(".", os.O_RDONLY))
"""
ITS_CALLS = [
    ("mkdir", "sub", 0),
    ("open", "sub/a", 0),
    ("write", "sub/a", 8),
    ("pwrite", "sub/a", 2),
    ("writev", "sub/a", 8),
    ("fallocate", "sub/a", 100),
    ("ftruncate", "sub/a", 16),
    ("fsync", "sub/a", 0),
    ("fdatasync", "sub/a", 0),
    ("truncate", "sub/a", 3),
    ("open", "sub/b", 0),
    ("sendfile", "sub/b", 10),
    ("rename", "c d", 0),
    ("copy_file_range", "c d", 2),
    ("unlink", "sub/a", 0),
    ("rmdir", "sub", 0),
    ("fsync", ".", 0),
]
TWO_WRITES = """
import os
fd = os.open("a", os.O_WRONLY | os.O_CREAT)
for data in (b"first ", b"second"):
    while data:
        data = data[os.write(fd, data):]
os.fsync(fd)
"""
UPDATE = """
import sqlite3
with sqlite3.connect("db") as database:
    database.execute("UPDATE numbers SET n = 2")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


class Child:
    """A small program that was run in a folder with a fault: how it ended, what it said, and its calls."""

    def __init__(self, faults: Faults, program: str, cwd: Path, at: int = 0, kind: Kind = "kill") -> None:
        log = cwd.parent / "log"
        log.unlink(missing_ok=True)
        env = dict(os.environ) | faults.environment(cwd, at, kind, log)
        command = [sys.executable, "-I", "-c", program]
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=60)
        self.status, self.out, self.error = done.returncode, done.stdout, done.stderr
        self.calls: Sequence[Call] = read_log(log)


def test_everything_that_changes_the_folder_is_counted(faults: Faults, folder: Path) -> None:
    child = Child(faults, WAYS_TO_WRITE, folder)
    assert (child.status, child.error) == (0, "")
    assert [(call.name, call.path, call.size) for call in child.calls] == ITS_CALLS
    assert [call.number for call in child.calls] == list(range(1, len(ITS_CALLS) + 1))


@pytest.mark.parametrize("at", range(1, len(ITS_CALLS) + 1))
def test_each_of_them_can_fail(faults: Faults, folder: Path, at: int) -> None:
    child = Child(faults, WAYS_TO_WRITE, folder, at, "eio")
    assert "OSError: [Errno 5]" in child.error
    assert len(child.calls) == at


def test_reading_and_other_folders_are_left_alone(faults: Faults, folder: Path) -> None:
    (folder / "a").write_text("there")
    program = """
import os
assert open("a").read() == "there" and os.listdir() == ["a"] and os.stat("a")
os.mkdir("../folder2")
open("../folder2/b", "w").write("text")
os.replace("../folder2/b", "../c")
"""
    child = Child(faults, program, folder, 1)
    assert (child.status, child.error, child.calls) == (0, "", [])


def test_the_folder_is_known_by_any_path(faults: Faults, folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    program = """
import os
os.mkdir("../link/a/")
os.mkdir("b", dir_fd=os.open("../link/a", os.O_RDONLY))
os.chdir("a/b")
os.mkdir("../../c")
os.mkdir(os.path.abspath("d"))
"""
    assert [call.path for call in Child(faults, program, folder).calls] == ["a", "a/b", "c", "a/b/d"]


def test_the_folder_need_not_exist(faults: Faults, folder: Path) -> None:
    folder.rmdir()
    program = "import os, sys; os.mkdir(sys.argv[1]); os.rmdir(sys.argv[1])"
    log = folder.parent / "log"
    env = dict(os.environ) | faults.environment(folder, log=log)
    subprocess.run([sys.executable, "-I", "-c", program, str(folder)], env=env, check=True)
    assert [(call.name, call.path) for call in read_log(log)] == [("mkdir", "."), ("rmdir", ".")]


def test_threads_share_the_count(faults: Faults, folder: Path) -> None:
    program = """
import os, threading
fd = os.open("a", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
threads = [threading.Thread(target=lambda: [os.write(fd, b"x") for _ in range(100)]) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    calls = Child(faults, program, folder).calls
    assert sorted(call.number for call in calls) == list(range(1, 802))
    Child(faults, program, folder, 300, "kill")
    assert (folder / "a").stat().st_size < 299  # the open is a call, too


def test_numpy_writes_are_seen(faults: Faults, folder: Path) -> None:
    program = "import numpy; numpy.save('a.npy', numpy.arange(1000, dtype='u1'))"
    child = Child(faults, program, folder)
    *before, last = child.calls
    assert (last.name, last.path, last.size) == ("fwrite", "a.npy", 1000)
    header = (folder / "a.npy").stat().st_size - 1000
    expected: dict[Kind, int] = {"kill": 0, "kill-torn": 500, "enospc": 0, "short": 500, "eio": 0}
    for kind, kept in expected.items():
        child = Child(faults, program, folder, len(before) + 1, kind)
        assert child.status
        assert (folder / "a.npy").stat().st_size == header + kept


# -- kinds of faults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "content", "names"),
    [
        ("kill", "first ", ["open", "write", "write"]),
        ("kill-torn", "first sec", ["open", "write", "write"]),
        ("enospc", "first ", ["open", "write", "write"]),
        ("short", "first sec", ["open", "write", "write", "write"]),
        ("eio", "first ", ["open", "write", "write"]),
    ],
)
def test_what_is_left_after_a_fault_in_a_write(
    faults: Faults, folder: Path, kind: Kind, content: str, names: list[str]
) -> None:
    child = Child(faults, TWO_WRITES, folder, 3, kind)
    assert (folder / "a").read_text() == content
    assert [call.name for call in child.calls] == names
    assert child.status == (-signal.SIGKILL if kind.startswith("kill") else 1)


@pytest.mark.parametrize("kind", ["kill", "kill-torn"])
def test_killed_before_other_calls(faults: Faults, folder: Path, kind: Kind) -> None:
    assert Child(faults, TWO_WRITES, folder, 1, kind).status == -signal.SIGKILL
    assert os.listdir(folder) == []


def test_a_full_disk_stays_full_but_can_be_tidied(faults: Faults, folder: Path) -> None:
    (folder / "a").write_text("there")
    program = """
import errno, os
fd = os.open("a", os.O_RDWR)
growing = [
    lambda: os.write(fd, b"x"), lambda: os.ftruncate(fd, 6), lambda: os.truncate("a", 6), lambda: os.mkdir("b"),
    lambda: os.posix_fallocate(fd, 0, 6), lambda: open("b", "w"), lambda: os.open(".", os.O_RDWR | os.O_TMPFILE),
]
for call in growing * 2:
    try:
        call()
    except OSError as error:
        assert error.errno == errno.ENOSPC
    else:
        raise AssertionError
os.makedirs(os.getcwd(), exist_ok=True)
os.open("a", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 4)
os.truncate("a", 3)
os.fsync(fd)
os.replace("a", "b")
os.unlink("b")
"""
    child = Child(faults, program, folder, 1, "enospc")
    assert (child.status, child.error) == (0, "")
    assert len(child.calls) == 21
    assert os.listdir(folder) == []


def test_an_error_comes_only_once(faults: Faults, folder: Path) -> None:
    program = """
import os
fd = os.open("a", os.O_RDWR | os.O_CREAT)
try:
    os.fsync(fd)
except OSError as error:
    print(error.strerror)
    os.fsync(fd)
"""
    child = Child(faults, program, folder, 2, "eio")
    assert (child.status, child.out) == (0, "Input/output error\n")


def test_another_program_can_come_in_between(faults: Faults, folder: Path) -> None:
    env = dict(os.environ) | faults.environment(
        folder, 3, meanwhile=f"cat {folder}/a > {folder}/b; echo more >> {folder}/a"
    )
    subprocess.run([sys.executable, "-I", "-c", TWO_WRITES], cwd=folder, env=env, check=True, timeout=60)
    assert (folder / "b").read_text() == "first "  # after the first of two writes, before the second
    assert (folder / "a").read_text() == "first second"


# -- SQLite --------------------------------------------------------------------------------------------------------


def numbers(folder: Path) -> list[int]:
    """What is in the database that `UPDATE` changes, after whatever recovery it needs; made where it is missing."""
    with closing(sqlite3.connect(folder / "db")) as database:
        with database:
            database.execute("CREATE TABLE IF NOT EXISTS numbers AS SELECT 1 AS n")
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [n for (n,) in database.execute("SELECT n FROM numbers")]


def test_a_commit_of_sqlite_is_seen(faults: Faults, folder: Path) -> None:
    assert numbers(folder) == [1]
    child = Child(faults, UPDATE, folder)
    assert numbers(folder) == [2]
    steps = [(call.name, call.path) for call in child.calls]
    assert steps[:2] == [("open", "db"), ("open", "db-journal")]
    assert ("pwrite", "db-journal") in steps
    # The journal is flushed before the database is touched; its unlinking is the commit.
    flushed, touched = steps.index(("fdatasync", "db-journal")), steps.index(("pwrite", "db"))
    assert flushed < touched < steps.index(("fdatasync", "db")) < steps.index(("unlink", "db-journal"))


@pytest.mark.parametrize("kind", ["enospc", "short", "eio", "kill", "kill-torn"])
def test_sqlite_survives_a_fault_at_every_call(faults: Faults, folder: Path, kind: Kind) -> None:
    seen = set()
    for at in itertools.count(1):
        (folder / "db").unlink(missing_ok=True)
        assert numbers(folder) == [1]
        child = Child(faults, UPDATE, folder, at, kind)
        if len(child.calls) < at:
            assert at > 10
            break
        if kind.startswith("kill"):
            assert child.status == -signal.SIGKILL
        elif child.status:
            assert "sqlite3.OperationalError" in child.error
            seen.add(child.error.splitlines()[-1].removeprefix("sqlite3.OperationalError: "))
        assert numbers(folder) == ([1] if child.status else [2])
    if not kind.startswith("kill"):
        assert ("disk I/O error" if kind == "eio" else "database or disk is full") in seen
