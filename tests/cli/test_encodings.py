"""Output in any encoding: JSON is ASCII, and no name and no locale ends a command."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path

import pytest
from conftest import Run, index, paint

from clipsearch.output.rows import json_bytes, write_rows

ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Pictures with odd names, one of them not UTF-8, and files that cannot be read."""
    folder = tmp_path_factory.mktemp("encodings")
    pictures = folder / "Müller\x1b[31m 犬"
    paint(pictures / "Å.png", "red")
    try:
        os.rename(os.fsencode(paint(pictures / "plain.png", "blue")), os.fsencode(pictures) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system has no names that are not UTF-8")
    with open(os.fsencode(pictures) + b"/broken-\xff-\xc3\xa9.png", "wb") as file:
        file.write(b"no picture")
    index(run, pictures, "--model", "picturebook", cwd=folder)
    return folder


@pytest.mark.parametrize("encoding", list(ENCODINGS))
@pytest.mark.parametrize(
    "arguments",
    [["status"], ["index"], ["query", "red"], ["duplicates", "--threshold", "0.1"], ["models"], ["tokens", "Müller"]],
    ids=" ".join,
)
def test_json_is_ascii_and_text_is_no_crash(run: Run, folder: Path, encoding: str, arguments: list[str]) -> None:
    done = run(*arguments, "--json", cwd=folder, env=ENCODINGS[encoding])
    assert done.returncode == 0, done.stderr.decode()
    json.loads(done.stdout.decode("ascii"))
    plain = run(*arguments, cwd=folder, env=ENCODINGS[encoding])
    assert plain.returncode == 0, plain.stderr.decode()
    assert b"\x1b" not in plain.stderr


def test_names_that_are_not_utf8_are_lossless_in_json(run: Run, folder: Path) -> None:
    (only,) = json.loads(run("status", "--json", cwd=folder).stdout)["unreadable"]
    assert set(only) == {"path", "path_bytes", "reason"}


def test_a_text_is_what_its_bytes_say_in_any_locale(run: Run, folder: Path) -> None:
    for arguments in (["tokens", "Müller 犬", "--json"], ["query", "Müller 犬", "-k", "2", "--json"]):
        usual = run(*arguments, cwd=folder)
        assert usual.returncode == 0
        assert run(*arguments, cwd=folder, env=ENCODINGS["C"]).stdout == usual.stdout
    refused = run("query", b"caf\xe9", cwd=folder, env=ENCODINGS["C"])
    assert refused.returncode == 2
    assert b"not UTF-8" in refused.stderr


def test_what_a_status_says_does_nothing_to_a_terminal(run: Run, folder: Path) -> None:
    assert b"\x1b" not in run("status", cwd=folder).stdout


def test_no_number_and_half_a_character_are_still_json() -> None:
    odd = {"a": [math.nan, math.inf, 1.5], "b": "\ud800x\udcff", "犬": True}
    content = json_bytes(odd)
    assert content.isascii()
    assert json.loads(content) == {"a": [None, None, 1.5], "b": "\ufffdx\ufffd", "犬": True}


@pytest.mark.parametrize("form", ["table", "tsv", "csv", "json", "jsonl"])
def test_half_a_character_ends_no_table(form: str) -> None:
    out = io.BytesIO()
    write_rows([{"text": "\ud800 \udcff", "number": math.nan}], form, out)
    assert out.getvalue()


def test_a_page_does_not_go_to_standard_output(run: Run, folder: Path) -> None:
    done = run("query", "red", "--html", "-", cwd=folder)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"standard output" in done.stderr
    assert not (folder / "-").exists()


def test_the_folder_above_is_named(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    picture = paint(tmp_path / "red.png", "red")
    arguments = ["classify", picture, "-l", "red", "-l", "blue", "--copy-into", "..", "--dry-run"]
    done = run(*arguments, "--index", folder, cwd=tmp_path / "inner")
    assert str(tmp_path) in done.stderr.decode()


def test_reasons_name_nothing_of_pillow() -> None:
    from clipsearch.images.codecs.reasons import first_reason

    inner = ValueError("Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK")
    assert first_reason(inner) == "broken image: a text or a profile in it is too large"
    assert first_reason(ValueError("set ImageFile.SOME_OPTION to go on")) == "broken image"
    assert first_reason(ValueError("bad palette")) == "broken image: bad palette"


def test_captions_come_from_standard_input_too_and_name_files_in_any_locale(run: Run, folder: Path) -> None:
    name = "Müller\x1b[31m 犬/Å.png"
    line = f'printf "image,caption\\n%s,red\\n" "{name}" | "$@"'
    usual = run("eval", "-", "--json", cwd=folder, line=line)
    assert usual.returncode == 0, usual.stderr.decode()
    assert (
        run("eval", "-", "--json", cwd=folder, before=["sh", "-c", line, "sh"], env=ENCODINGS["C"]).stdout
        == usual.stdout
    )
