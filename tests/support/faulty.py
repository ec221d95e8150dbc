"""Faults on purpose: the n-th call by which a command changes a folder fails, or kills the command there and then.

    faults = Faults(library(tmp_path))
    run("index", cwd=folder, env=faults.environment(folder / ".clipsearch", log=log))  # which calls are there?
    for call in read_log(log):
        run("index", cwd=folder, env=faults.environment(folder / ".clipsearch", call.number, "kill"))

What counts as a call and what each kind of fault does is said at the top of faults/faults.c. Where hundreds of faults
are tried on a Python program, `faults.warm` runs it many times faster than new processes do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from warm import Server, Warm

REPEATING = Path(__file__).resolve().parent / "repeating.py"
SOURCE = Path(__file__).resolve().parent / "faults" / "faults.c"

Kind = Literal["enospc", "short", "eio", "kill", "kill-torn"]
COPIES = {"kill": "copy", "kill-torn": "copy-torn"}
"""What copies the folder at each call as a kill there would leave it, by kinds of kills."""


@dataclass(frozen=True)
class Call:
    """A call that changes the folder."""

    number: int
    """From 1, in each process."""
    name: str
    """Without the variants of the C library: `write`, `pwrite`, `fsync`, `open`, `rename`, `unlink`, `mkdir`, ..."""
    path: str
    """Relative to the folder; the folder itself is `.`. For `rename` the new name."""
    size: int
    """Bytes to write, or the length to truncate to; 0 for all other calls."""


def library(tmp: Path) -> Path:
    """The injector, compiled into the folder `tmp`. Once per session is enough; skips the test where it cannot be."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        pytest.skip("faults are injected on 64-bit Linux only")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc) to build the fault injector")
    out = tmp / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(out), str(SOURCE)], check=True)
    return out


@dataclass(frozen=True)
class Faults:
    """Makes environments in which a command meets a fault."""

    library: Path

    @contextmanager
    def warm(self, environment: Mapping[str, str], imports: Sequence[str]) -> Iterator[Warm]:
        """Within: what runs Python programs which may meet faults."""
        environment = {**environment, "LD_PRELOAD": str(self.library)}
        with Server(environment, imports) as address, Warm(address, environment) as warm:
            yield warm

    def environment(
        self,
        folder: Path,
        at: int = 0,
        kind: Kind = "kill",
        log: Path | None = None,
        *,
        meanwhile: str | None = None,
        copies: Path | None = None,
        only: Iterable[int] | None = None,
    ) -> dict[str, str]:
        """Variables for the command: a fault at its `at`-th call on `folder` and below; with 0 it only counts.

        `folder` need not exist yet. Calls are appended to `log`, which is there, if empty, as soon as a command runs.
        With `meanwhile` nothing fails, but this line is run by the shell before that call is carried out. With `copies`
        nothing fails either: what a kill would leave is copied there, from that call on or at `only` some, with the
        call's number added.
        """
        preload = [str(self.library), *filter(None, [os.environ.get("LD_PRELOAD")])]
        variables = {
            "LD_PRELOAD": ":".join(preload),
            # The injector sees paths as the kernel does.
            "FAULT_DIR": os.path.realpath(folder),
            "FAULT_AT": str(at),
            "FAULT_KIND": kind if meanwhile is None else "meanwhile",
        }
        if meanwhile is not None:
            variables["FAULT_COMMAND"] = meanwhile
        if copies is not None:
            variables |= {"FAULT_KIND": COPIES[kind], "FAULT_COPIES": os.path.abspath(copies)}
        if only is not None:
            variables["FAULT_ONLY"] = f",{','.join(map(str, only))},"
        return variables | ({"FAULT_LOG": os.path.abspath(log)} if log else {})


def repeat(warm: Warm, attempts: Sequence[tuple[Sequence[str | Path], Mapping[str, str]]]) -> list[tuple[int, str]]:
    """Run programs with variables for faults one after the other in one process; how each ended, and what it said.

    None may be killed. Each begins with what the ones before have imported, as those that are forked do.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([([*map(str, program)], variables) for program, variables in attempts], file)
        file.flush()
        done = warm.run([REPEATING, file.name], timeout=600)
    assert done.returncode == 0, done.stderr
    return [(status, talk) for status, talk in json.loads(done.stdout)]


def read_log(path: Path) -> list[Call]:
    """The calls that were logged, each before it was carried out; threads may log them in another order.

    Raises:
        FileNotFoundError: no command ran with the injector.
    """
    lines = os.fsdecode(path.read_bytes()).splitlines()
    fields = (line.split(" ", 3) for line in lines)
    return [Call(int(number), name, file, int(size)) for number, name, size, file in fields]
