"""The second decoder, imagecodecs and tifffile in a process of their own, for images that Pillow does not read.

The process is started for the first such image, decodes one image after the other, and is started again after a crash.
Its time and memory are limited, and it ends with the process that started it. Knows nothing of formats but their names.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import Any

from PIL import Image

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs import second_decoder_worker
from clipsearch.images.codecs.header_checks import TRUNCATED
from clipsearch.images.codecs.limits import check_size
from clipsearch.images.codecs.optional_packages import install_command, is_installed
from clipsearch.images.codecs.second_decoder_kinds import Header
from clipsearch.system.cores import available

_SECONDS, _PIXELS_A_SECOND = 30, 1_000_000
"""Time limit of an image: a base, plus its pixels divided by a rate. Decoders usually do 20 million pixels a second."""
_BYTES, _BYTES_PER_THREAD, _BYTES_PER_PIXEL = 2 << 30, 128 << 20, 48
"""Address space of the process, including what its libraries and threads reserve and never use."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from clipsearch.images.codecs.second_decoder_worker import main; main()"
)


def decode(content: bytes, header: Header, limit: int) -> Image.Image:
    """Decode an image, without applying its orientation, to eight-bit grey, RGB, CMYK or CIELAB, maybe with alpha.

    Args:
        content: The file.
        header: What `second_decoder_kinds` found about it.
        limit: Most pixels.

    Raises:
        UnreadableImageError: the packages for it are not installed, the content is broken or truncated, or has more
            than `limit` pixels.
        MemoryError: there is not enough memory for it.
    """
    if not is_installed(header.extra):
        command = install_command(header.extra)
        raise UnreadableImageError(f"{header.kind}: read once you install the extra: {command}")
    threads = available()
    answer, data = _process.ask(
        {
            "codec": header.codec,
            "bits": header.bits,
            "channels": header.channels,
            "pixels": limit,
            "threads": threads,
            "seconds": _SECONDS + header.width * header.height / _PIXELS_A_SECOND,
            "memory": _BYTES + threads * _BYTES_PER_THREAD + limit * _BYTES_PER_PIXEL,
        },
        content,
    )
    problem = answer.get("problem")
    if problem is None:
        return Image.frombytes(answer["mode"], tuple(answer["size"]), data)
    if problem == second_decoder_worker.NO_MEMORY:
        raise MemoryError
    if problem == second_decoder_worker.TOO_LARGE:
        width, height = answer["size"]
        check_size(width, height, limit)
    if problem == second_decoder_worker.TRUNCATED:
        raise UnreadableImageError(TRUNCATED)
    what = "unsupported" if problem == second_decoder_worker.UNSUPPORTED else "broken image"
    raise UnreadableImageError(f"{what}: {header.kind}")


class _Process:
    """The decoder's process, shared by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a request; return the answer and the pixels. If the process crashes, the answer is a `problem`."""
        with self._lock:
            try:
                return self._asked(self._running() or self._start(), request, content)
            except (OSError, EOFError):
                self.stop()
            except BaseException:  # such as Ctrl-C: the pending answer would be taken for that to the next request
                self.stop()
                raise
            return {"problem": "it crashed"}, b""

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._owner != os.getpid():  # after a fork, the child must not use its parent's decoder
            self._child, self._owner = None, os.getpid()
        if self._child is not None and self._child.poll() is not None:  # killed from outside
            self.stop()
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _START, json.dumps(sys.path)]
        # In a session of its own: Ctrl-C in a terminal goes to all programs of a session, and if it ended this one, the
        # image that is being decoded would be reported as broken.
        self._child = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self._child

    @staticmethod
    def _asked(child: subprocess.Popen[bytes], request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        if child.stdin is None or child.stdout is None:
            raise EOFError
        child.stdin.write(json.dumps(request | {"length": len(content)}).encode() + b"\n")
        child.stdin.write(content)
        child.stdin.flush()
        line = child.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        header: dict[str, Any] = json.loads(line)
        data = child.stdout.read(header.get("length", 0))
        if len(data) < header.get("length", 0):
            raise EOFError
        return header, data

    def stop(self) -> None:
        """End the process, if there is one."""
        child = self._child
        if child is not None and self._owner == os.getpid():
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._child = None


_process = _Process()
atexit.register(_process.stop)
