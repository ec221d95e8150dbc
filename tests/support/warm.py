"""Commands that need not import PyTorch each time: a process that has imported it forks one for each.

A command run so is a process of its own as any other, with its own arguments, folder, environment, streams and exit
code. It only begins later: with the libraries imported that commands with a model import. What a command imports, and
what happens while it does, is the matter of tests that start `python -m clipsearch` anew.
"""

from __future__ import annotations

import array
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ALSO = (
    *("PIL.ImageFile", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "rich.progress", "rich.table", "typer", "filelock"),
    *("transformers.models.clip.modeling_clip", "transformers.models.siglip.modeling_siglip", "numkong", "pathspec"),
    *(
        "clipsearch.index.updating",
        "clipsearch.models.in_torch.encoder",
        "clipsearch.models.in_torch.families",
        "clipsearch.search.index",
    ),
)


class Warm:
    """A process with the libraries imported, started when the first command comes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._free = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def run(
        self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[bytes] | None:
        """`clipsearch ARGUMENTS` as `subprocess.run` would have it; None while another command is under way."""
        if not self._free.acquire(blocking=False):
            return None
        try:
            return self._run(arguments, cwd, env, timeout)
        finally:
            self._free.release()

    def _run(
        self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        connection = self._connection()
        pipes = [os.pipe(), os.pipe()]
        said: list[bytes] = [b"", b""]
        try:
            request = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}
            _send(connection, request, [0, pipes[0][1], pipes[1][1]])
        finally:
            for _, writing in pipes:
                os.close(writing)
        readers = [threading.Thread(target=_drain, args=(pipes[i][0], said, i)) for i in range(2)]
        for reader in readers:
            reader.start()
        pid, _ = _receive(connection)
        connection.settimeout(timeout)
        try:
            status, _ = _receive(connection)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            connection.settimeout(None)
            _receive(connection)
            raise subprocess.TimeoutExpired(arguments, timeout) from None
        finally:
            connection.settimeout(None)
            for reader in readers:
                reader.join()
        return subprocess.CompletedProcess(arguments, os.waitstatus_to_exitcode(status), *said)

    def _connection(self) -> socket.socket:
        if self._socket is None:
            self._socket, theirs = socket.socketpair()
            command = [sys.executable, __file__, str(theirs.fileno())]
            # As the command itself has it before it imports NumPy; and a process with threads should not be forked.
            env = self._environment | {"OPENBLAS_NUM_THREADS": "1"}
            self._server = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()])
            theirs.close()
        return self._socket

    def close(self) -> None:
        """End the process."""
        if self._socket is not None and self._server is not None:
            self._socket.close()
            self._server.wait()


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
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    if not head:
        return None, []
    length, data = int.from_bytes(head, "little"), b""
    while len(data) < length:
        data += connection.recv(length - len(data))
    return json.loads(data), descriptors


def _wait_for_command() -> bool:
    """Fork a process for each command that is asked for. True in such a process, False when no more will come."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    while True:
        request, descriptors = _receive(connection)
        if request is None:
            connection.close()
            return False
        pid = os.fork()
        if pid == 0:
            connection.close()
            for stream, descriptor in enumerate(descriptors):
                os.dup2(descriptor, stream)
                os.close(descriptor)
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["env"])
            sys.argv = ["clipsearch", *request["arguments"]]
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        _send(connection, pid)
        _send(connection, os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    from importlib import import_module

    for module in _ALSO:
        import_module(module)
    gc.freeze()  # or the first collection of each process would copy what it shares with this one
    if _wait_for_command():
        from clipsearch.cli import main

        main()
