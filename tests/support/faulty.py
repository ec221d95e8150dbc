"""Faults on purpose: the n-th call by which a command changes a folder fails, or kills the command there and then.

    faults = Faults(library(tmp_path))
    run("index", cwd=folder, env=faults.environment(folder / ".clipsearch", log=log))  # which calls are there?
    for call in read_log(log):
        run("index", cwd=folder, env=faults.environment(folder / ".clipsearch", call.number, "kill"))

What counts as a call and what each kind of fault does is said at the top of faults/faults.c. Where hundreds of faults
are tried on a Python program, a `Forker` runs it many times faster than new processes do.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Literal, NoReturn, Self

import pytest

SOURCE = Path(__file__).resolve().parent / "faults" / "faults.c"

Kind = Literal["enospc", "short", "eio", "kill", "kill-torn"]

_TIMEOUT_SECONDS = 60


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

    def environment(
        self,
        folder: Path,
        at: int = 0,
        kind: Kind = "kill",
        log: Path | None = None,
        *,
        meanwhile: str | None = None,
    ) -> dict[str, str]:
        """Variables for the command: a fault at its `at`-th call on `folder` and below; with 0 it only counts.

        `folder` need not exist yet. Calls are appended to `log`, which is there, if empty, as soon as a command runs.
        With `meanwhile` nothing fails, but this line is run by the shell before that call is carried out.
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
        return variables | ({"FAULT_LOG": os.path.abspath(log)} if log else {})


def read_log(path: Path) -> list[Call]:
    """The calls that were logged, each before it was carried out; threads may log them in another order.

    Raises:
        FileNotFoundError: no command ran with the injector.
    """
    lines = os.fsdecode(path.read_bytes()).splitlines()
    fields = (line.split(" ", 3) for line in lines)
    return [Call(int(number), name, file, int(size)) for number, name, size, file in fields]


class Forker:
    """Runs Python programs in forks of processes that have imported what they need. A context manager."""

    def __init__(self, faults: Faults, imports: Sequence[str], env: Mapping[str, str]) -> None:
        """`imports` are modules; as many programs run at a time as there are cores."""
        self._idle: Queue[subprocess.Popen[str]] = Queue()
        for _ in range(os.cpu_count() or 1):
            self._idle.put(
                subprocess.Popen(
                    [sys.executable, __file__, *imports],
                    # Forks must not meet threads, not even those of NumPy.
                    env={
                        **env,
                        "PYTHONPATH": os.pathsep.join(sys.path),
                        "LD_PRELOAD": str(faults.library),
                        "OPENBLAS_NUM_THREADS": "1",
                    },
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while not self._idle.empty():
            with self._idle.get() as process:
                process.communicate()

    def run(self, program: Sequence[str | Path], env: Mapping[str, str]) -> tuple[int, str]:
        """Run `FILE ARGUMENT...` or `-m MODULE ARGUMENT...` with more variables; its exit status and its stderr."""
        process = self._idle.get()
        assert process.stdin
        assert process.stdout
        try:
            with tempfile.NamedTemporaryFile("r") as talk:
                request = json.dumps([[str(word) for word in program], dict(env), talk.name])
                print(request, file=process.stdin, flush=True)
                return int(process.stdout.readline()), talk.read()
        finally:
            self._idle.put(process)


def _serve(imports: Sequence[str]) -> None:
    """The other side of a `Forker`."""
    for module in imports:
        importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201


def _become(program: list[str], env: dict[str, str], talk: str) -> NoReturn:
    """Be the process that runs `program`."""
    signal.alarm(_TIMEOUT_SECONDS)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(os.open(talk, os.O_WRONLY), 2)
    os.environ.update(env)
    ctypes.CDLL(None).faults_configure()  # it read them when it was loaded
    status: object = 1
    try:
        if program[0] == "-m":
            sys.argv = program[1:]
            runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = program
            runpy.run_path(program[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001  (as the interpreter does)
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    _serve(sys.argv[1:])
