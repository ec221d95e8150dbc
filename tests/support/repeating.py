"""A program: runs others, one after the other in this process, each with variables of its own for the fault injector.

Takes a file with a JSON list of [program, variables], as `Warm.run` has them, and prints one of [status, what it said].
A process for each would take four times as long.
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from warm import execute


def run(program: Sequence[str], variables: Mapping[str, str]) -> tuple[int, str]:
    """How a program ended, and what it said, with a fault that these variables name."""
    os.environ.update(variables)
    talk = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    status: object = None
    with redirect_stdout(out), redirect_stderr(talk):
        ctypes.CDLL(None).faults_configure()
        try:
            execute([*program])
        except SystemExit as end:
            status = end.code
        except BaseException:  # noqa: BLE001  (as the interpreter does)
            traceback.print_exc()
            status = 1
        gc.collect()  # files that were left open are closed with the fault still there, as they are when a process ends
    return int(status) if isinstance(status, int) else int(status is not None), talk.buffer.getvalue().decode()


def main() -> None:
    """Run all of them."""
    programs = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps([run(program, variables) for program, variables in programs]))  # noqa: T201


if __name__ == "__main__":
    main()
