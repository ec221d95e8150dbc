"""How a process of `warm.py` is asked for a program.

Run as `python -IS asking.py WITH_TORCH WITHOUT_TORCH ARGUMENT...`, two addresses, it asks for `clipsearch ARGUMENT...`
and ends as that does. It begins within a few milliseconds, so it imports little.
"""

from __future__ import annotations

import array
import json
import os
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

_WITH_TORCH = {
    *("index", "pull", "check", "imagine", "cluster", "mcp", "serve"),
    *("torch", "--precision", "--device"),
}
"""Commands, and what they are given, for which PyTorch or another large library may be imported. All others are forked
from a process without these, in half of the time."""


def needs_torch(arguments: Iterable[object]) -> bool:
    """Whether a command with these arguments had better be forked from the process that has imported PyTorch."""
    return not _WITH_TORCH.isdisjoint(arguments)


def ask(
    connection: socket.socket, program: list[str], cwd: str | int, env: Mapping[str, str], streams: Mapping[int, int]
) -> None:
    """Ask for a program with these descriptors as its standard streams; those that are not among them are closed.

    The folder is named, or an open one. The answers are its number, and in the end its status, as `os.waitpid` has it.
    """
    folder = {"cwd": cwd} if isinstance(cwd, str) else {}
    request = {"program": program, "env": dict(env), "streams": list(streams), **folder}
    send(connection, request, [*streams.values(), *([] if isinstance(cwd, str) else [cwd])])


def send(connection: socket.socket, message: Any, descriptors: Sequence[int] = ()) -> None:  # noqa: ANN401  (JSON)
    """Send a message, and descriptors along with it."""
    data = json.dumps(message).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([len(data).to_bytes(8, "little")], rights)
    connection.sendall(data)


def receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """A message with the descriptors that came with it; None when the other side is gone."""
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 4)
    if not head:
        return None, []
    length, data = int.from_bytes(head, "little"), b""
    while len(data) < length:
        data += connection.recv(length - len(data))
    return json.loads(data), descriptors


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _main(with_torch: str, without_torch: str, *arguments: str) -> int:
    streams = {number: number for number in range(3) if _is_open(number)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(with_torch if needs_torch(arguments) else without_torch)
        here = os.open(".", os.O_RDONLY)  # which may have no name any more
        ask(connection, ["-m", "clipsearch", *arguments], here, os.environ, streams)
        receive(connection)
        status, _ = receive(connection)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
