"""Run every command shown in a ```console block of the documentation, and write its output below it.

`python scripts/update_docs.py` rewrites the files; the tests call `refreshed` and compare. Commands run as on a
terminal of 80 columns, in a folder that holds a copy of the sample pictures.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "docs/commands.md", "docs/examples.md")
_TAKEN = 1_793_188_800
"""When the copies were last changed, in seconds since 1970: 28 October 2026, noon."""
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def refreshed(text: str, cwd: Path, env: dict[str, str], programs: Path = Path(sys.executable).parent) -> str:
    """Return `text` with updated outputs of all commands in its console blocks; `clipsearch` is that in `programs`."""

    def rerun(block: re.Match[str]) -> str:
        commands = [line[2:] for line in block[1].splitlines() if line.startswith("$ ")]
        shown = "".join(f"$ {command}\n{_output(command, cwd, env, programs)}" for command in commands)
        return f"```console\n{shown}```"

    return _BLOCK.sub(rerun, text)


def sample_folder(parent: Path) -> Path:
    """A new folder in `parent` with a copy of the sample pictures, all of the same time, which outputs show."""
    for path in shutil.copytree(REPOSITORY / "sample-images", parent / "sample-images").rglob("*"):
        os.utime(path, (_TAKEN, _TAKEN))
    return parent


def _output(command: str, cwd: Path, env: dict[str, str], programs: Path) -> str:
    """Return stderr, followed by what a terminal on stdout shows."""
    leader, follower = pty.openpty()
    path = f"{programs}{os.pathsep}{env.get('PATH', '')}"
    with subprocess.Popen(
        ["/bin/bash", "-c", command],
        cwd=cwd,
        env=env | {"COLUMNS": "80", "PATH": path, "TZ": "UTC"},
        stdout=follower,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(follower)
        shown = b""
        while part := _read(leader):
            shown += part
        talk = process.communicate()[1]
    os.close(leader)
    return talk + shown.decode().replace("\r\n", "\n")


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # on Linux, this means that the other side is closed
        return b""


def main() -> None:
    """Rewrite the documents."""
    for name in DOCUMENTS:
        path = REPOSITORY / name
        with tempfile.TemporaryDirectory() as folder:
            env = dict(os.environ) | {"CLIPSEARCH_CACHE": f"{folder}/cache"}
            path.write_text(refreshed(path.read_text("utf-8"), sample_folder(Path(folder)), env), "utf-8")


if __name__ == "__main__":
    main()
