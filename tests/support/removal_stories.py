"""Commands that remove and move a user's files, to be met by faults at each of their steps; and what then is left.

Shared by tests/system/test_removal.py and scripts/bench_crash.py. Run as a program it moves files:
`python removal_stories.py TARGET FILE...` moves them to TARGET/cat, as `classify --move-into TARGET` does.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tiny
from conftest import paint
from faulty import Call, Faults, Kind, read_log
from warm import WITHOUT_TORCH, Warm

from clipsearch.errors import ClipsearchError
from clipsearch.output.sorting import carry_out, plan

IMPORTS = ("removal_stories", *WITHOUT_TORCH)
"""What the programs import, so that forks need not."""


OLD = 1_500_000_000
"""When the pictures were changed: old enough for time stamps to tell."""
Program = Callable[[Path], Sequence[str | Path]]
"""What is run, given the folder."""


def contents(*folders: Path) -> set[bytes]:
    """The different contents of all files in folders, wherever and whatever they are called; not notes of the trash."""
    files = (path for folder in folders for path in folder.rglob("*") if path.parent.name != "info")
    return {path.read_bytes() for path in files if path.is_file() and ".clipsearch" not in path.parts}


@dataclass
class Attempt:
    """One run of a command on its own copy of the files, and how it ended."""

    folder: Path
    """Has `pictures`, `home` (with the trash), `elsewhere` (the target, perhaps on another file system)."""
    status: int
    talk: str
    calls: Sequence[Call]

    def contents(self) -> set[bytes]:
        """All that is there, in the trash too."""
        return contents(self.folder, self.folder.with_name(f"{self.folder.name}-elsewhere"))

    def pictures(self) -> set[bytes]:
        """What the user still has outside the trash."""
        return contents(self.folder / "pictures", self.elsewhere)

    @property
    def elsewhere(self) -> Path:
        return Path(os.path.realpath(self.folder / "elsewhere"))


@dataclass
class Removal:
    """A command that removes or moves files, and the files that it meets."""

    before: Path
    """A folder with `pictures` and, where the command needs one, their index."""
    program: Program
    faults: Faults
    warm: Warm
    other_file_system: Path | None = None
    """Where `elsewhere` lies; None for the folder itself."""

    def prepare(self, name: str) -> Path:
        """A fresh copy of the files."""
        folder = self.before.with_name(name)
        shutil.copytree(self.before, folder, symlinks=True)
        (folder / "home").mkdir()
        if self.other_file_system:
            (self.other_file_system / name).mkdir()
            (folder / "elsewhere").symlink_to(self.other_file_system / name)
        else:
            (folder / "elsewhere").mkdir()
        return folder

    def run(self, folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
        """Run the command on these files."""
        done = self.warm.run(self.program(folder), env={"HOME": str(folder / "home"), **env})
        return done.returncode, done.stderr.decode()

    def attempt(
        self, name: str, watched: str = ".", at: int = 0, kind: Kind = "kill", meanwhile: str | None = None
    ) -> Attempt:
        """Run the command on a fresh copy, with a fault at its `at`-th call on the folder `watched`.

        `meanwhile` is a line for the shell, in which {} stands for the folder.
        """
        folder = self.prepare(name)
        log = folder.with_name(f"{name}-log")
        line = meanwhile.replace("{}", str(folder)) if meanwhile else None
        env = self.faults.environment(folder / watched, at, kind, log, meanwhile=line)
        status, talk = self.run(folder, env)
        return Attempt(folder, status, talk, read_log(log))

    @cached_property
    def calls(self) -> int:
        """By how many calls the command changes the files, of `pictures` and the trash."""
        return len(self.undisturbed.calls)

    def turns(self) -> list[tuple[str, int]]:
        """Where a fault can come: a folder to watch, and the number of a call on it; another file system's too."""
        turns = [(".", at) for at in range(1, self.calls + 1)]
        if self.other_file_system:
            attempt = self.attempt("undisturbed-elsewhere", "elsewhere")
            turns += [("elsewhere", at) for at in range(1, len(attempt.calls) + 1)]
        return turns

    @cached_property
    def undisturbed(self) -> Attempt:
        """The command where nothing comes in between."""
        found = self.attempt("undisturbed")
        assert found.status == 0, found.talk
        return found


def make_pair(folder: Path) -> Path:
    """A picture, and a copy of it that is younger and so the one to go; their index."""
    paint(folder / "pictures" / "original.png", "red")
    shutil.copy(folder / "pictures" / "original.png", folder / "pictures" / "copy.png")
    for name, nanoseconds in (("original", 0), ("copy", 77)):
        time = OLD * 10**9 + nanoseconds
        os.utime(folder / "pictures" / f"{name}.png", ns=(time, time))
    tiny.update(folder / ".clipsearch", folder / "pictures")
    return folder


def deletion(*options: str) -> Program:
    """The command that deletes the copy."""

    def program(folder: Path) -> Sequence[str | Path]:
        index = folder / ".clipsearch"
        return ["-m", "clipsearch", "duplicates", "--exact", "--delete", "--yes", *options, "--index", index]

    return program


def sorting(folder: Path) -> Sequence[str | Path]:
    """A program that moves the copy."""
    pictures = sorted(path for path in (folder / "pictures").iterdir() if path.name.startswith("copy"))
    return [__file__, folder / "elsewhere", *pictures]


PROGRAMS: Mapping[str, Program] = {
    "trash": deletion(),
    "permanently": deletion("--permanently"),
    "move": sorting,
    "move to another file system": sorting,
}


def main() -> None:
    """Move; signals end it as they end clipsearch."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    target, *files = map(os.fsencode, sys.argv[1:])
    try:
        steps = plan([(file, "cat") for file in files], Path(os.fsdecode(target)), move=True)
        list(carry_out(steps, move=True))
    except ClipsearchError as error:
        sys.exit(f"clipsearch: {error}")


if __name__ == "__main__":
    main()
