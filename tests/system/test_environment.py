"""What the system refuses a command is one line and exit code 2: permissions, limits, folders that are gone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Run, deny, index, paint, unprivileged
from warm import Warm

from clipsearch.cli import _COMMANDS

PICTURE = "pictures/red.png"
BY_THE_INDEX: list[list[str]] = [
    ["index"],
    ["index", "pictures"],
    ["query", "red"],
    ["similar", PICTURE],
    ["score", PICTURE, "--text", "red"],
    ["caption-rank", PICTURE, "--text", "red"],
    ["classify", "pictures", "-l", "red", "-l", "blue"],
    ["cluster"],
    ["duplicates"],
    ["embed", "--text", "red", "--out", "out.npy"],
    ["export", "--out", "out.npy"],
    ["imagine", "red", "-o", "out.png"],
    ["tokens", "red"],
    ["status"],
    ["forget", "pictures"],
]
"""All of which look for an index."""
OTHERS: list[list[str]] = [
    ["import", "a.npy", "a.csv"],
    ["eval", "captions.csv"],
    ["models", "check", "picturebook"],
    ["tune", "captions.csv", "-o", "tuned"],
    ["merge", "part"],
    ["serve"],
    ["mcp"],
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    for colour in ("red", "green", "blue"):
        paint(folder / "pictures" / f"{colour}.png", colour)
    index(run, "pictures", "--model", "picturebook", cwd=folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Three pictures and their index, two folders down."""
    folder = tmp_path / "above" / "here"
    shutil.copytree(original, folder)
    return folder


def refused(done: subprocess.CompletedProcess[bytes]) -> str:
    """What is said, which is one line."""
    assert (done.returncode, done.stdout) == (2, b""), done.stderr.decode()
    assert done.stderr.startswith(b"clipsearch: ")
    assert done.stderr.count(b"\n") == 1, done.stderr.decode()
    return done.stderr.decode()


def limited(limit: str, before: list[str] | None = None) -> list[str]:
    """What to put before a command so that it has less than usual of something, as bash's `ulimit` says it."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    return [*(before or []), "bash", "-c", f'ulimit {limit}; exec "$@"', "bash"]


@pytest.fixture
def other_user() -> list[str]:
    """What to put before a command so that it runs as a user whom nobody knows, but may read all files."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, and setpriv")
    capable = ["--inh-caps=+dac_read_search,+dac_override", "--ambient-caps=+dac_read_search,+dac_override"]
    return ["setpriv", "--reuid=54321", "--clear-groups", *capable]


# -- permissions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", BY_THE_INDEX, ids=" ".join)
def test_an_index_that_may_not_be_searched_is_an_error(run: Run, folder: Path, arguments: list[str]) -> None:
    (folder / ".clipsearch").chmod(0)
    try:
        done = run(*arguments, cwd=folder, unprivileged=True)
    finally:
        (folder / ".clipsearch").chmod(0o700)
    assert re.search(r"\.clipsearch/index\.db .*: Permission denied\.$", refused(done))


@pytest.mark.parametrize("arguments", [*BY_THE_INDEX, *OTHERS[:2]], ids=" ".join)
def test_a_folder_above_that_may_not_be_searched_is_an_error(run: Run, folder: Path, arguments: list[str]) -> None:
    (folder.parent).chmod(0o600)
    try:
        done = run(*arguments, cwd=folder, unprivileged=True)
    finally:
        (folder.parent).chmod(0o700)
    refused(done)


def test_in_python_it_is_an_error_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipsearch import ClipsearchError, open_index

    monkeypatch.chdir(folder)
    with deny(folder / ".clipsearch"), pytest.raises(ClipsearchError, match="Permission denied"):
        open_index()


# -- the current folder ----------------------------------------------------------------------------------------------


@pytest.fixture
def gone(tmp_path: Path) -> Iterator[str]:
    """A line that runs a command whose current folder is deleted before it starts."""
    lost = tmp_path / "lost"
    yield f'mkdir {lost} && cd {lost} && rmdir {lost} && exec "$@"'
    assert not lost.exists()


def test_all_commands_are_tried_without_a_current_folder() -> None:
    assert {arguments[0] for arguments in (*BY_THE_INDEX, *OTHERS)} == set(_COMMANDS)


@pytest.mark.parametrize("arguments", [*BY_THE_INDEX, *OTHERS], ids=" ".join)
def test_without_a_current_folder_there_is_one_line(run: Run, folder: Path, gone: str, arguments: list[str]) -> None:
    said = refused(run(*arguments, cwd=folder, line=gone))
    assert "current folder" in said or arguments[0] == "eval"


def test_what_needs_no_current_folder_works_without(run: Run, folder: Path, gone: str) -> None:
    for arguments in (["--help"], ["models"], ["models", "show", "picturebook"], ["status", "--index", str(folder)]):
        assert run(*arguments, cwd=folder, before=["sh", "-c", gone, "sh"]).returncode == 0


# -- HOME, TMPDIR, standard input ------------------------------------------------------------------------------------


def test_without_a_home_folder_there_is_one_line(run: Run, folder: Path, other_user: list[str]) -> None:
    before = ["env", "-u", "HOME", "-u", "CLIPSEARCH_CACHE", *other_user]
    for arguments in (["query", "red"], ["models", "show", "laion"], ["score", PICTURE, "--text", "red"]):
        assert "home folder" in refused(run(*arguments, cwd=folder, before=before))
    assert not (folder / "~").exists()
    assert run("status", cwd=folder, before=before).returncode == 0


def test_a_home_folder_of_nobody_is_a_name_like_any_other(run: Run, folder: Path) -> None:
    assert " ~nobody-at-all/x" in refused(run("status", "--index", "~nobody-at-all/x", cwd=folder))


def test_a_home_folder_that_cannot_be_written_is_no_crash(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    before = ["env", "-u", "CLIPSEARCH_CACHE", f"HOME={tmp_path / 'home'}", *unprivileged()]
    done = run("query", "red", cwd=folder, before=before)
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 2)
    assert run("status", cwd=folder, before=before).returncode == 0


def test_without_room_for_temporary_files_there_is_one_line(run: Run, folder: Path) -> None:
    # As on a full disk: nothing can be written, neither into TMPDIR nor into any other folder.
    shell = ["bash", "-c", f'ulimit -f 0; exec "$@" < {PICTURE}', "bash"]
    assert "No usable temporary directory" in refused(run("score", "-", "--text", "red", cwd=folder, before=shell))


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "--from", "-"],
        ["query", "--image", "-"],
        ["query", "red", "--files-from", "-"],
        ["similar", "-"],
        ["score", "-", "--text", "red"],
        ["score", PICTURE, "--texts-from", "-"],
        ["caption-rank", "-", "--text", "red"],
        ["classify", "--indexed", "--labels-from", "-"],
        ["cluster", "--labels-from", "-"],
        ["embed", "--texts-from", "-", "--out", "out.npy"],
        ["tokens", "-"],
    ],
    ids=" ".join,
)
def test_a_closed_standard_input_is_an_error_where_it_is_to_be_read(
    run: Run, folder: Path, arguments: list[str]
) -> None:
    done = run(*arguments, cwd=folder, line='exec "$@" <&-')
    assert refused(done) == "clipsearch: Cannot read standard input (-): it is closed.\n"
    done = run(*arguments, cwd=folder, line='exec "$@" 0>/dev/null')  # open for writing only
    assert "standard input" in refused(done)


# -- limits ----------------------------------------------------------------------------------------------------------


def test_few_files_are_enough(run: Run, folder: Path) -> None:
    for arguments in (["query", "red"], ["status"], ["score", PICTURE, "--text", "red"], ["query", "red", "--json"]):
        done = run(*arguments, cwd=folder, before=limited("-n 16"))
        assert done.returncode == 0, done.stderr.decode()
    paint(folder / "pictures" / "pink.png", "pink")
    assert run("index", cwd=folder, before=limited("-n 16")).returncode == 0


@pytest.mark.parametrize("number", [5, 6, 7, 8])
def test_too_few_files_are_one_line(run: Run, folder: Path, number: int) -> None:
    for arguments in (["query", "red"], ["status"], ["score", PICTURE, "--text", "red"]):
        done = run(*arguments, cwd=folder, before=limited(f"-n {number}"))
        if done.returncode:
            assert "Too many open files" in refused(done)


@pytest.mark.parametrize("kilobytes", [60_000, 100_000, 150_000, 180_000])
def test_too_little_memory_is_one_line(run: Run, folder: Path, kilobytes: int) -> None:
    for arguments in (["query", "red"], ["duplicates"], ["cluster"], ["status"], ["similar", PICTURE]):
        done = run(*arguments, cwd=folder, before=limited(f"-v {kilobytes}"))
        if done.returncode:
            assert "There is not enough memory for this" in refused(done), arguments


def test_too_little_memory_for_torch_is_one_line(run: Run, folder: Path) -> None:
    paint(folder / "pictures" / "pink.png", "pink")
    for limit in ("-v 600000", "-v 800000"):
        done = run("index", "--engine", "torch", cwd=folder, before=limited(limit))
        assert "There is not enough memory for this" in refused(done)
    assert "memory" in refused(run("cluster", "-n", "2", cwd=folder, before=limited("-v 350000")))
    assert run("status", cwd=folder).returncode == 0


def test_too_few_threads_are_one_line(run: Run, folder: Path, other_user: list[str]) -> None:
    paint(folder / "pictures" / "pink.png", "pink")
    for path in (folder, *folder.rglob("*"), *folder.parents[:2]):
        path.chmod(0o777)
    for arguments in (["query", "red"], ["duplicates"], ["cluster", "-n", "2"], ["index"]):
        done = run(*arguments, cwd=folder, before=limited("-u 1", other_user))
        assert "No more threads can be started" in refused(done), arguments


# -- folders and settings --------------------------------------------------------------------------------------------

DEEP = """
import os, runpy, sys
os.chdir(sys.argv.pop(1))
is_new = not os.path.exists("deep")
for _ in range(1200):  # more than Python nests calls, and more bytes than a path may have
    if is_new:
        os.mkdir("deep")
    os.chdir("deep")
runpy.run_module("clipsearch", run_name="__main__")
"""


def test_thousands_of_nested_folders_are_no_trouble(folder: Path, run: Run, with_torch: Warm) -> None:
    (folder / "pictures" / "deep").mkdir()
    try:
        for arguments in (["query", "red"], ["index", "."]):
            done = with_torch.run(["-c", DEEP, folder / "pictures" / "deep", *arguments])
            assert "File name too long" in refused(done), arguments
        done = run("index", "--json", cwd=folder)
        assert done.returncode == 0, done.stderr.decode()
        assert b'"images": 3' in done.stdout
        assert b"File name too long" in done.stdout
    finally:
        subprocess.run(["/bin/rm", "-rf", folder / "pictures" / "deep"], check=True)


def test_settings_that_are_no_file_are_an_error(run: Run, folder: Path) -> None:
    settings = folder / "clipsearch.toml"

    def said() -> str:
        return refused(run("index", "pictures", cwd=folder, unprivileged=True))

    settings.mkdir()
    assert "clipsearch.toml" in said()
    settings.rmdir()
    os.mkfifo(settings)
    assert "clipsearch.toml" in said()
    settings.unlink()
    settings.symlink_to("clipsearch.toml")
    assert re.search(r"clipsearch\.toml .*: Too many levels of symbolic links", said())
    settings.unlink()
    settings.write_text('model = "picturebook"\n')
    settings.chmod(0)
    assert re.search(r"clipsearch\.toml .*: Permission denied$", said(), re.MULTILINE)
