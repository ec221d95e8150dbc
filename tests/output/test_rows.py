"""Records of any command in every format."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from pathlib import Path

import pytest
from rich.cells import cell_len

from clipsearch.output import paths
from clipsearch.output.rows import Row, write_rows

HERE = os.getcwdb()
ROWS: list[Row] = [
    {"path": os.path.join(HERE, b"p", b"caf\xe9, \t1.png"), "text": 'a "red" car,\tnew', "score": 0.12345678, "n": 1},
    {"path": b"/else/\x1b[31m.png", "text": "line\none \x1b[1m", "score": None, "n": 12},
]


def written(form: str, rows: list[Row] = ROWS, **options: object) -> bytes:
    out = io.BytesIO()
    write_rows(rows, form, out, **options)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.fixture(autouse=True)
def from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_starts", [])  # as it was, afterwards
    paths.show_from(Path.cwd())


def test_tsv_has_a_line_for_each_row_whatever_texts_hold() -> None:
    lines = written("tsv", numbers={"score": ".3f"}).split(b"\n")
    assert lines[0] == b'p/caf\xe9, \t1.png\ta "red" car,\\tnew\t0.123\t1'  # a path has its own bytes, tabs too
    assert lines[1] == b"/else/\x1b[31m.png\tline\\none \\x1b[1m\t\t12"
    assert lines[2:] == [b""]


def test_csv_reads_back_as_it_was() -> None:
    text = written("csv").decode("utf-8", "surrogateescape")
    assert text.count("\r\n") == 3
    header, first, second = csv.reader(io.StringIO(text, newline=""))
    assert header == ["path", "text", "score", "n"]
    assert (os.fsencode(first[0]), *first[1:]) == (b"p/caf\xe9, \t1.png", 'a "red" car,\tnew', "0.123457", "1")
    assert second == ["/else/\x1b[31m.png", "line\none \x1b[1m", "", "12"]
    assert written("csv", [], columns=("a", "b")) == b"a,b\r\n"
    assert written("csv", []) == b""


def test_json_is_lossless() -> None:
    first, second = json.loads(written("json"))
    assert base64.b64decode(first.pop("path_bytes")) == b"p/caf\xe9, \t1.png"
    assert first == {
        "path": "p/caf\N{REPLACEMENT CHARACTER}, \t1.png",
        "text": ROWS[0]["text"],
        "score": 0.123457,
        "n": 1,
    }
    assert second == {"path": "/else/\x1b[31m.png", "text": "line\none \x1b[1m", "score": None, "n": 12}
    assert [json.loads(line) for line in written("jsonl").splitlines()] == json.loads(written("json"))
    assert b"\x1b" not in written("json")
    assert json.loads(written("json", [])) == []


@pytest.mark.parametrize("form", ["table", "tsv", "csv", "safe-csv", "json", "jsonl"])
def test_a_terminal_gets_nothing_that_it_would_obey(form: str) -> None:
    assert b"\x1b" not in written(form, screen=80)


@pytest.mark.parametrize("width", [30, 40, 60, 200])
def test_a_table_fits_the_terminal(width: int) -> None:
    rows: list[Row] = [{"path": b"/" + b"long/" * 20 + b"end.png", "text": "words " * 20 + "last", "score": 0.5}] * 2
    lines = written("table", rows, screen=width, numbers={"score": ".4f"}).decode().splitlines()
    assert len(lines) == 3
    assert max(map(cell_len, lines)) <= max(width, 36)
    assert lines[1].split()[-1] == "0.5000"
    assert "g/end.png" in lines[1] or width < 40
    assert written("table", []) == b""


def test_a_table_in_a_pipe_is_not_cut() -> None:
    rows: list[Row] = [{"path": b"/" + b"long/" * 40 + b"end.png", "score": 0.5}]
    assert b"long/" * 40 in written("table", rows)


def test_without_a_word_where_the_user_is_paths_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_starts", [])
    assert paths.shown(os.path.join(HERE, b"a.png")) == os.path.join(HERE, b"a.png")
