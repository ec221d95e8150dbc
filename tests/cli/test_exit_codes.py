"""Exit codes of all commands: 0 found, 1 nothing found, 2 error, whatever becomes of what is said on stderr."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from conftest import Run, index, paint
from warm import Warm

from clipsearch.cli import _COMMANDS

ONE = "pictures/red.png"
NOTHING = ["--glob", "none*"]

# What is typed, behind the folder's own model and index, and the exit code.
CASES: list[tuple[list[str], int]] = [
    (["--help"], 0),
    (["nonsense"], 2),
    (["index"], 0),
    (["index", "nowhere"], 2),
    (["query", "a red square"], 0),
    (["query", "a red square", "--min-score", "1"], 1),
    (["query", "a red square", *NOTHING, "--json"], 1),
    (["query"], 2),
    (["similar", ONE], 0),
    (["similar", ONE, "--min-score", "1"], 1),
    (["similar", "nowhere.png"], 2),
    (["score", ONE, "--text", "red"], 0),
    (["score", "nowhere.png", "--text", "red"], 2),
    (["caption-rank", ONE, "--text", "red"], 0),
    (["caption-rank", ONE, "--text", "red", *NOTHING], 1),
    (["caption-rank", "nowhere.png", "--text", "red"], 2),
    (["classify", "--indexed", "-l", "red", "-l", "blue"], 0),
    (["classify", "--indexed", "-l", "red", "-l", "blue", *NOTHING, "--json"], 1),
    (["classify", "--indexed", "-l", "red", "-l", "blue", "--min-probability", "1"], 1),
    (["classify", "--indexed"], 2),
    (["cluster", "-n", "2"], 0),
    (["cluster", *NOTHING], 1),
    (["cluster", "--glob", "red.png", "--json"], 1),
    (["cluster", "-n", "20"], 2),
    (["duplicates", "--threshold", "0.1"], 0),
    (["duplicates", "--exact"], 1),
    (["duplicates", *NOTHING], 1),
    (["duplicates", "--glob", "red.png", "--json"], 1),
    (["duplicates", "--yes"], 2),
    (["embed", "--text", "red", "--out", "text.npy", "--force"], 0),
    (["embed", "--out", "text.npy"], 2),
    (["export", "--out", "all.npy", "--force"], 0),
    (["export", "--out", "none.npy", *NOTHING], 1),
    (["export", "--out", "nowhere/all.npy"], 2),
    (["import", "nowhere.npy", "nowhere.csv"], 2),
    (["eval", "captions.csv"], 0),
    (["eval", "captions.csv", "--min", "mrr=1"], 1),
    (["eval", "nowhere.csv"], 2),
    (["imagine", "red", "-o", "imagined.jpg"], 2),
    (["tune", "nowhere.csv", "-o", "tuned"], 2),
    (["tokens", "red"], 0),
    (["tokens"], 2),
    (["models"], 0),
    (["models", "show", "picturebook"], 0),
    (["models", "show", "nowhere"], 2),
    (["models", "check", "nowhere"], 2),
    (["status"], 0),
    (["status", "--index", "nowhere"], 2),
    (["forget", "nowhere"], 2),
    (["merge", "nowhere"], 2),
    (["serve", "--index", "nowhere"], 2),
    (["mcp", "--index", "nowhere"], 2),
]
STREAMS: tuple[Path | Literal["closed"], ...] = (Path("/dev/full"), "closed")
"""Where nothing can be said."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Three pictures, their index and captions of them."""
    folder = tmp_path_factory.mktemp("exits")
    for colour in ("red", "green", "blue"):
        paint(folder / "pictures" / f"{colour}.png", colour)
    (folder / "clipsearch.toml").write_text('model = "picturebook"\n')
    captions = "image,caption\npictures/red.png,blue\npictures/blue.png,red\npictures/green.png,green\n"
    (folder / "captions.csv").write_text(captions)
    index(run, "pictures", cwd=folder)
    return folder


def test_the_table_has_all_commands() -> None:
    assert {arguments[0] for arguments, _ in CASES} >= set(_COMMANDS)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(("arguments", "code"), CASES, ids=[" ".join(arguments) for arguments, _ in CASES])
def test_what_is_said_does_not_change_the_exit_code(run: Run, folder: Path, arguments: list[str], code: int) -> None:
    outputs = set()
    for stderr in STREAMS:
        done = run(*arguments, cwd=folder, stderr=stderr)
        assert (done.returncode, done.stderr) == (code, b""), done.args
        outputs.add(done.stdout)
    assert len(outputs) == 1  # all of it, both times
    if "--json" in arguments and code == 1:
        assert outputs == {b"[]\n"}


@pytest.mark.parametrize("arguments", [["index", "--json"], ["query", "a red square"]])
def test_a_process_that_begins_without_stderr_does_its_work(run: Run, folder: Path, arguments: list[str]) -> None:
    done = run(*arguments, cwd=folder, before=["sh", "-c", 'exec "$@" 2>&-', "sh"])
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"red.png" in done.stdout or json.loads(done.stdout)["images"] == 3


def test_work_is_done_though_nothing_can_be_said(run: Run, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    paint(tmp_path / "pictures" / "pink.png", "pink")
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    for number, stderr in enumerate(STREAMS, 5):
        paint(tmp_path / "pictures" / f"{number}.png", "pink", size=(80 + number, 40))
        assert run("index", cwd=tmp_path, stderr=stderr).returncode == 0
        assert run("index", "--strict", cwd=tmp_path, stderr=stderr).returncode == 2
        assert f'"images": {number},'.encode() in run("status", "--json", cwd=tmp_path).stdout
    exported = run("export", "--out", "out.npy", "--index", folder, cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    imported = run("import", "out.npy", "out.csv", "--index", tmp_path / "other", cwd=tmp_path, stderr="closed")
    assert imported.returncode == 0
    forgotten = run("forget", "pictures", cwd=tmp_path, stderr=Path("/dev/full"))
    assert forgotten.returncode == 0
    assert b'"images": 0,' in run("status", "--json", cwd=tmp_path).stdout


@pytest.mark.parametrize("arguments", [["query", "a red square"], ["query"], ["status"]])
def test_a_pipe_that_nobody_reads_takes_what_is_said(folder: Path, without_torch: Warm, arguments: list[str]) -> None:
    def code(*, broken: bool) -> tuple[int | None, bytes]:
        reading, writing = os.pipe()
        if broken:
            os.close(reading)
        variables = {"CLIPSEARCH_DEBUG": "1"}  # tracebacks are said there, too
        program = ["-m", "clipsearch", *arguments]
        with without_torch.begin(program, cwd=folder, env=variables, stderr=writing) as process:
            os.close(writing)
            out, _ = process.communicate(60)
        if not broken:
            os.close(reading)
        return process.returncode, out

    assert code(broken=True) == code(broken=False)


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["status", "--json"], ["models"], ["query", "red"]])
def test_a_standard_output_that_cannot_be_written_is_an_error(run: Run, folder: Path, arguments: list[str]) -> None:
    done = run(*arguments, cwd=folder, line='exec "$@" >/dev/full')
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr
    both = run(*arguments, cwd=folder, line='exec "$@" >/dev/full 2>&1')
    assert both.returncode == 2


WRITE_TO_BOTH = """
import os, sqlite3, sys
from clipsearch.cli import main
connect = sqlite3.connect
def connect_and_write(*arguments, **options):
    database = connect(*arguments, **options)
    database.execute("SELECT 1 FROM sqlite_master").fetchall()
    for descriptor in (1, 2):
        os.write(descriptor, b"what a library says")
    return database
sqlite3.connect = connect_and_write
sys.argv = ["clipsearch", "status"]
main()
"""


def test_the_descriptor_of_a_closed_stream_goes_to_no_file(
    folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Libraries write to descriptor 2 what they have to say: into the index, if that were opened as 2."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / ".clipsearch" / "index.db").read_bytes()
    shell = 'exec "$@" <&- >&- 2>&-'
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", WRITE_TO_BOTH]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / ".clipsearch" / "index.db").read_bytes() == before
