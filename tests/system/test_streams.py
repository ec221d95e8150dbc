"""Pictures that are named on the command line and come out of pipes, and files that no memory holds."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SAMPLES, Run, index, paint

DOG = SAMPLES / "dogs" / "dog_0.webp"
PB = ("--model", "picturebook")
COMMANDS = {
    "query with a cut-off": ["query", "--image", "PICTURE", "--min-score", "1", "--glob", "*.nowhere"],
    "score": ["score", "PICTURE", "--text", "a dog", "--format", "tsv", *PB],
}


def shell(command: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `clipsearch` is the command."""
    here = f'clipsearch() {{ {shlex.quote(sys.executable)} -m clipsearch "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", here],  # noqa: S607
        cwd=cwd,
        env=environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_an_image_may_come_from_a_file_standard_input_or_a_pipe(
    sample_index: Path, run: Run, environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    turned = shutil.copy(DOG, tmp_path / "turned.webp")  # whose content the index knows, so that no model is loaded
    said = []
    for way, picture in (("", f"{turned}"), (f" < {turned}", "-"), ("", f"<(cat {turned})")):
        arguments = [picture if part == "PICTURE" else part for part in COMMANDS[name]]
        if picture.startswith("<"):  # a descriptor that only a child of the shell has
            line = " ".join(part if part == picture else shlex.quote(part) for part in arguments)
            done = shell(f"clipsearch {line}", sample_index, environment)
        else:
            done = run(*arguments, cwd=sample_index, line=f'exec "$@"{way}')
        assert done.returncode == (1 if "cut-off" in name else 0), done.stderr.decode()
        fields = [row.split(b"\t") for row in done.stdout.splitlines()]
        said.append(
            [
                [field for field in row if b"turned" not in field and b"/dev/" not in field and field != b"-"]
                for row in fields
            ]
        )
    assert said[0] == said[1] == said[2]


def test_embed_names_what_was_typed(sample_index: Path, environment: dict[str, str], tmp_path: Path) -> None:
    picture = shlex.quote(str(DOG))
    line = f"clipsearch embed - <(cat {picture}) --out {tmp_path}/piped.npy --model picturebook < {picture}"
    done = shell(line, sample_index, environment)
    assert done.returncode == 0, done.stderr.decode()
    with (tmp_path / "piped.csv").open() as file:
        names = [row["path"] for row in csv.DictReader(file)]
    assert names[0] == "-"
    assert names[1].startswith("/dev/fd/")


def test_what_comes_from_a_pipe_is_not_sorted_into_folders(sample_index: Path, environment: dict[str, str]) -> None:
    line = f"clipsearch classify <(cat {shlex.quote(str(DOG))}) --label dog --label cat --copy-into sorted"
    done = shell(f"{line} --model picturebook", sample_index, environment)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert not (sample_index / "sorted").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "--image", "/dev/zero"],
        ["similar", "/dev/zero"],
        ["caption-rank", "/dev/zero", "--text", "a dog"],
        ["score", "/dev/zero", "--text", "a dog", *PB],
        ["embed", "/dev/zero", "--out", "zero.npy", *PB],
        ["classify", "/dev/zero", "--label", "dog", "--label", "cat", *PB],
        ["query", "--from", "/dev/zero"],
        ["query", "a dog", "--files-from", "/dev/zero"],
        ["classify", "sample-images/dogs", "--labels-from", "/dev/zero", *PB],
        ["eval", "/dev/zero", *PB],
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_what_never_ends_is_refused_with_bounded_memory(sample_index: Path, run: Run, arguments: list[str]) -> None:
    gigabytes = 3 if "--image" in arguments else 1  # with three it is the size that is too large, for all alike
    limited = ["prlimit", f"--as={gigabytes << 30}"]
    done = run(*arguments, cwd=sample_index, before=limited)
    message = done.stderr.decode()
    assert (done.returncode, message.count("\n")) == (2, 1), message
    assert "/dev/zero" in message or "memory" in message


def test_a_file_that_no_memory_holds_costs_only_itself(tmp_path: Path, run: Run) -> None:
    paint(tmp_path / "p" / "a.png", "red")
    paint(tmp_path / "p" / "z.png", "blue")
    for name in ("huge.jpg", "huge.tif"):
        (tmp_path / "p" / name).touch()
        try:
            os.truncate(tmp_path / "p" / name, 8 * 2**40)
        except OSError:
            pytest.skip("this file system has no files of 8 TB")
    summary = index(run, "p", *PB, cwd=tmp_path)
    assert summary["images"] == 2
    assert [file["path"] for file in summary["unreadable"]] == ["p/huge.jpg", "p/huge.tif"]
    assert all(file["reason"].startswith("too large: 8,796,093 MB or more") for file in summary["unreadable"])
    assert run("query", "red", cwd=tmp_path).returncode == 0


def test_an_ignore_file_that_is_a_pipe_does_not_hang(tmp_path: Path, run: Run) -> None:
    paint(tmp_path / "p" / "a.png", "red")
    os.mkfifo(tmp_path / "p" / ".clipsearchignore")
    done = run("index", "p", *PB, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b".clipsearchignore" in done.stderr
