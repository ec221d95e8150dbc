"""Python programs that need not import their libraries each time: a process that has imported them forks one for each.

A program run so is a process of its own as any other, with its own arguments, folder, environment, streams and exit
code. It only begins later: with the libraries imported; and ends sooner: without taking all its objects apart, which
would copy the memory that it shares. What a command imports, and what happens while it does, is the matter of tests
that start `python -m clipsearch` anew.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

WITHOUT_TORCH = (
    *("filelock", "pathspec", "resource", "tomllib", "platformdirs", "typer._click.decorators", "numkong"),
    *("clipsearch.cli.", "clipsearch.index.", "clipsearch.output.", "clipsearch.search.", "clipsearch.tasks.*"),
    *("clipsearch.images.", "clipsearch.images.optional_packages.readers()", "PIL.Image.init()"),
    "clipsearch.tasks.tuning.result",
)
"""What commands import that load no model in torch.

All modules of a package where a dot ends the name, but none of its folders where a star does; and a function is called
that comes to the same each time.
"""
COMMANDS = (
    *("PIL.ImageFile", "rich.progress", "rich.table", "sklearn.cluster"),
    *("transformers.models.clip.modeling_clip", "transformers.models.siglip.modeling_siglip"),
    *("clipsearch.", *WITHOUT_TORCH),
)
"""What any command imports."""


class Warm:
    """Processes with `imports` imported: as many as programs run at a time, each started when it is first needed."""

    def __init__(self, environment: Mapping[str, str], imports: Sequence[str] = COMMANDS) -> None:
        self._environment = dict(environment)
        self._imports = imports
        self._idle: list[_Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._idle:
            process.close()

    def run(
        self,
        program: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        stderr: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `FILE ARGUMENT...` or `-m MODULE ARGUMENT...` as `subprocess.run` would; `env` is added to what is set.

        Standard input is empty; what is said goes to the file `stderr`, if there is one.
        """
        try:
            process = self._idle.pop()
        except IndexError:
            process = _Process(self._environment, self._imports)
        try:
            words, variables = [str(word) for word in program], self._environment | dict(env or {})
            return process.run(words, cwd, variables, timeout, stderr)
        finally:
            self._idle.append(process)


class _Process:
    """One such process; it runs one program at a time."""

    def __init__(self, environment: dict[str, str], imports: Iterable[str]) -> None:
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, __file__, str(theirs.fileno()), *imports]
        # As clipsearch itself has it before it imports NumPy; and a process with threads should not be forked.
        env = environment | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def run(
        self, program: list[str], cwd: Path | None, env: Mapping[str, str], timeout: float, stderr: Path | None
    ) -> subprocess.CompletedProcess[bytes]:
        pipes = [os.pipe(), os.pipe()]
        said: list[bytes] = [b"", b""]
        with contextlib.ExitStack() as theirs:
            for _, writing in pipes:
                theirs.callback(os.close, writing)
            streams = [pipes[0][1], theirs.enter_context(stderr.open("wb")).fileno() if stderr else pipes[1][1]]
            request = {"program": program, "cwd": os.fspath(cwd or os.getcwd()), "env": dict(env)}
            _send(self._socket, request, streams)
        readers = [threading.Thread(target=_drain, args=(pipes[i][0], said, i)) for i in range(2)]
        for reader in readers:
            reader.start()
        pid, _ = _receive(self._socket)
        self._socket.settimeout(timeout)
        try:
            status, _ = _receive(self._socket)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            self._socket.settimeout(None)
            _receive(self._socket)
            raise subprocess.TimeoutExpired(program, timeout) from None
        finally:
            self._socket.settimeout(None)
            for reader in readers:
                reader.join()
        return subprocess.CompletedProcess(program, os.waitstatus_to_exitcode(status), *said)

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.wait()


def _drain(pipe: int, into: list[bytes], at: int) -> None:
    with open(pipe, "rb") as stream:
        into[at] = stream.read()


def _send(connection: socket.socket, message: Any, descriptors: Sequence[int] = ()) -> None:  # noqa: ANN401  (JSON)
    data = json.dumps(message).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([len(data).to_bytes(8, "little")], rights)
    connection.sendall(data)


def _receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """A message with the descriptors that came with it; None when the other side is gone."""
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 2)
    if not head:
        return None, []
    length, data = int.from_bytes(head, "little"), b""
    while len(data) < length:
        data += connection.recv(length - len(data))
    return json.loads(data), descriptors


# -- in the process that forks ------------------------------------------------------------------------------------


def _serve(connection: socket.socket) -> None:
    """Fork a process for each program that is asked for, until no more will come."""
    while True:
        request, descriptors = _receive(connection)
        if request is None:
            return
        pid = os.fork()
        if pid == 0:
            connection.close()
            for stream, descriptor in enumerate(descriptors, start=1):
                os.dup2(descriptor, stream)
                os.close(descriptor)
            _become(**request)
        for descriptor in descriptors:
            os.close(descriptor)
        _send(connection, pid)
        _send(connection, os.waitpid(pid, 0)[1])


def _become(program: list[str], cwd: str, env: dict[str, str]) -> NoReturn:
    """Be the process that runs `program`."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if "FAULT_DIR" in env:
        ctypes.CDLL(None).faults_configure()  # it read them when it was loaded
    status: object = None
    try:
        if program[0] == "-m":
            sys.argv = program[1:]
            runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = program
            runpy.run_path(program[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)  # noqa: T201
    except BaseException:  # noqa: BLE001  (as the interpreter does)
        traceback.print_exc()
        status = 1
    _end(status if isinstance(status, int) else int(status is not None))


def _end(code: int) -> NoReturn:
    """End as the interpreter does, with what it says of files left open, but for freeing all that was imported."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError):
            code = 120  # which the interpreter has for it
    os._exit(code)


def _import(names: Iterable[str]) -> None:
    for name in names:
        if name.endswith("()"):
            module, _, function = name.removesuffix("()").rpartition(".")
            getattr(importlib.import_module(module), function)()
            continue
        package = importlib.import_module(name.removesuffix("*").removesuffix("."))
        if name.endswith("."):
            found = pkgutil.walk_packages(package.__path__, name)
            _import(module.name for module in found if not module.name.endswith("__main__"))
        elif name.endswith(".*"):
            found = pkgutil.iter_modules(package.__path__, name.removesuffix("*"))
            _import(module.name for module in found if not module.ispkg)


if __name__ == "__main__":
    _import(sys.argv[2:])
    gc.freeze()  # or the first collection of each process would copy what it shares with this one
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # and so would what ends libraries
        finalizer.atexit = False
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        _serve(requests)
