"""Python programs that need not import their libraries each time: a process that has imported them forks one for each.

A program run so is a process of its own as any other, with its own arguments, folder, environment, streams and exit
code. It only begins later: with the libraries imported; and ends sooner: without taking all its objects apart, which
would copy the memory that it shares. What a command imports, and what happens while it does, is the matter of tests
that start `python -m clipsearch` anew.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn, Self

from asking import ask, receive, send

WITHOUT_TORCH = (
    *("filelock", "pathspec", "resource", "tomllib", "platformdirs", "typer._click.decorators", "numkong"),
    *("clipsearch.cli.", "clipsearch.index.", "clipsearch.output.", "clipsearch.search.", "clipsearch.tasks.*"),
    *("clipsearch.images.", "clipsearch.images.codecs.optional_packages.readers()", "PIL.Image.init()"),
    *("clipsearch.tasks.tuning.result", "clipsearch.several_indexes", "tokenizers.implementations"),
    *("clipsearch.datasets.", "clipsearch.exchange.*", "clipsearch.models.in_numpy.", "clipsearch.models.disk."),
)
"""What commands import that load no model in torch.

All modules of a package where a dot ends the name, but none of its folders where a star does; and a function is called
that comes to the same each time.
"""
COMMANDS = (
    *("PIL.ImageFile", "rich.progress", "rich.table", "sklearn.cluster", "s3fs"),
    *("transformers.models.clip.modeling_clip", "transformers.models.siglip.modeling_siglip"),
    *("clipsearch.", *WITHOUT_TORCH),
)
"""What any command imports."""


class Server:
    """A process with `imports` imported that forks programs for any number of processes, begun when it is first needed.

    Within: the address for `Warm`.
    """

    def __init__(self, environment: Mapping[str, str], imports: Sequence[str] = COMMANDS) -> None:
        # As clipsearch itself has it before it imports NumPy; and a process with threads should not be forked.
        self._environment = {**environment, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._imports = imports
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._ends, self._lives = os.pipe()
        """The server, and the thread that waits to begin it, end when nobody has the second one open."""
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._begin_when_needed)

    def __enter__(self) -> str:
        address = os.path.join(self._folder.name, "s")
        self._listener.bind(address)
        self._listener.listen()
        self._thread.start()
        return address

    def __exit__(self, *_: object) -> None:
        os.close(self._lives)
        self._thread.join()
        self._listener.close()
        if self._process is not None:
            self._process.wait()
        os.close(self._ends)
        self._folder.cleanup()

    def _begin_when_needed(self) -> None:
        ready, *_ = select.select([self._listener.fileno(), self._ends], [], [])
        if self._ends not in ready:
            kept = (self._listener.fileno(), self._ends)
            command = [sys.executable, __file__, *map(str, kept), *self._imports]
            self._process = subprocess.Popen(command, env=self._environment, pass_fds=kept, stdin=subprocess.DEVNULL)


class Warm:
    """Runs programs in forks of a `Server`, also several at a time."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self.address = address
        self.environment = dict(environment)
        self._idle: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._idle:
            connection.close()

    def run(
        self,
        program: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        stdin: bytes = b"",
        stderr: Path | Literal["closed"] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `FILE ARGUMENT...`, `-m MODULE ARGUMENT...` or `-c CODE ARGUMENT...` as `subprocess.run` would.

        `env` is added to what is set. Standard input is a pipe if anything comes from it; what is said goes to the file
        `stderr`, if there is one, or cannot be said at all.
        """
        into: BinaryIO | Literal["closed"] | None = "closed" if stderr == "closed" else None
        if isinstance(stderr, Path):
            into = stderr.open("wb")
        with contextlib.closing(into) if not isinstance(into, str | None) else contextlib.nullcontext():
            reading, writing = os.pipe() if stdin else (None, None)
            begun = self.begin(program, cwd=cwd, env=env, stdin=reading, stderr=into)
        if reading is not None and writing is not None:
            os.close(reading)
            with contextlib.suppress(BrokenPipeError), open(writing, "wb") as file:
                file.write(stdin)
        with begun:
            try:
                said = begun.communicate(timeout)
            except TimeoutError:
                begun.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(begun.args, timeout) from None
        assert begun.returncode is not None
        return subprocess.CompletedProcess(begun.args, begun.returncode, *said)

    def begin(
        self,
        program: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | BinaryIO | Literal["closed"] | None = None,
    ) -> Begun:
        """Begin a program as `subprocess.Popen` would with pipes, or with open files instead."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self.address)
        words = [str(word) for word in program]
        pipes = [os.pipe(), os.pipe()]
        with contextlib.ExitStack() as theirs:
            for _, writing in pipes:
                theirs.callback(os.close, writing)
            nothing = theirs.enter_context(open(os.devnull, "rb"))
            streams = {0: nothing.fileno(), 1: pipes[0][1], 2: pipes[1][1]}
            streams |= {number: given for number, given in ((0, stdin), (1, stdout)) if given is not None}
            if stderr == "closed":
                del streams[2]
            elif stderr is not None:
                streams[2] = stderr if isinstance(stderr, int) else stderr.fileno()
            ask(connection, words, os.fspath(cwd or os.getcwd()), self.environment | dict(env or {}), streams)
        return Begun(words, connection, [open(reading, "rb") for reading, _ in pipes], self._idle.append)


class Begun:
    """A program that was begun, to be used as a `subprocess.Popen`."""

    def __init__(
        self,
        args: list[str],
        connection: socket.socket,
        said: Sequence[BinaryIO],
        give_back: Callable[[socket.socket], None],
    ) -> None:
        self.args = args
        self.stdout, self.stderr = said
        self._connection = connection
        self._give_back = give_back
        self.pid: int = receive(connection)[0]
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is not None:  # a test that fails would wait for what it did not end
            self.poll()
            self.send_signal(signal.SIGKILL)
        self._wait(None)
        self.stdout.close()
        self.stderr.close()

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        with contextlib.suppress(TimeoutError):
            self._wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """What it writes, when it has ended.

        Raises:
            TimeoutError: it has not.
        """
        parts: dict[BinaryIO, bytes] = {}
        readers = [
            threading.Thread(target=lambda stream=stream: parts.update({stream: stream.read()}), daemon=True)
            for stream in (self.stdout, self.stderr)
        ]
        for reader in readers:
            reader.start()
        self._wait(timeout)
        for reader in readers:
            reader.join()
        return parts[self.stdout], parts[self.stderr]

    def _wait(self, seconds: float | None) -> None:
        if self.returncode is not None:
            return
        if not select.select([self._connection], [], [], seconds)[0]:
            raise TimeoutError
        self.returncode = os.waitstatus_to_exitcode(receive(self._connection)[0])
        self._give_back(self._connection)


# -- in the process that forks ------------------------------------------------------------------------------------


def _listen(listener: socket.socket, ends: int) -> None:
    """Fork a process for each connection, until `ends` is closed at its other end."""
    while True:
        ready, *_ = select.select([listener.fileno(), ends], [], [])
        if ends in ready:
            break
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os.close(ends)
            with connection:
                _serve(connection)
            os._exit(0)
        connection.close()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _serve(connection: socket.socket) -> None:
    """Fork a process for each program that is asked for, until no more will come."""
    while True:
        request, descriptors = receive(connection)
        if request is None:
            return
        pid = os.fork()
        if pid == 0:
            connection.close()
            _connect(dict(zip(request.pop("streams"), descriptors, strict=False)))
            _become(**{"cwd": descriptors[-1], **request})
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(BrokenPipeError):  # who asked may have been killed
            send(connection, pid)
            send(connection, os.waitpid(pid, 0)[1])


def _connect(streams: dict[int, int]) -> None:
    """Have these descriptors as standard streams, and for the others none, as an interpreter that begins so."""
    for number, descriptor in streams.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if number not in streams:
            os.close(number)
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)
    if sys.stdout is not None and sys.stdout.isatty():
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _become(program: list[str], cwd: str | int, env: dict[str, str]) -> NoReturn:
    """Be the process that runs `program`."""
    os.chdir(cwd)
    if isinstance(cwd, int):
        os.close(cwd)
    os.environ.clear()
    os.environ.update(env)
    if "PYTHONIOENCODING" in env:
        for number, name in ((1, "stdout"), (2, "stderr")):
            if getattr(sys, name) is not None:
                stream = open(number, "w", encoding=env["PYTHONIOENCODING"], closefd=False)  # noqa: SIM115  (to the end)
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)
    if "FAULT_DIR" in env:
        ctypes.CDLL(None).faults_configure()  # it read them when it was loaded
    status: object = None
    try:
        execute(program)
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)  # noqa: T201
    except BaseException:  # noqa: BLE001  (as the interpreter does)
        traceback.print_exc()
        status = 1
    _end(status if isinstance(status, int) else int(status is not None))


def execute(program: list[str]) -> None:
    """Run a program, as `Warm.run` takes it, in this process."""
    if program[0] == "-c":
        sys.argv = ["-c", *program[2:]]
        tests = [str(path) for path in Path(__file__).parents[:2]]  # which a program would have to find by itself
        sys.path[:] = ["", *(path for path in sys.path if path not in tests)]
        exec(compile(program[1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    elif program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")


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
    _import(sys.argv[3:])
    gc.freeze()  # or the first collection of each process would copy what it shares with this one
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # and so would what ends libraries
        finalizer.atexit = False
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        _listen(asked, int(sys.argv[2]))
