"""Report of a model check: a table with expected and actual values below each check, or a record for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from clipsearch.output.hints import in_words
from clipsearch.output.paths import escaped
from clipsearch.output.rows import Row, utf8, write_rows
from clipsearch.tasks.model_check import Check, Report

_WIDTH = len("as expected  ")


def write_checks(report: Report, form: str, out: BinaryIO, *, screen: int | None = None) -> None:
    """Write the checks of `report` to `out` in a format of `rows.write_rows`; `screen` as there."""
    if form == "table":
        out.writelines(utf8(f"{escaped(line).rstrip()}\n") for line in _lines(report))
    else:
        write_rows(_rows(report), form, out, screen=screen)


def _lines(report: Report) -> Iterator[str]:
    for check in report.checks:
        note = "" if check.note == report.known else _note(report, check)  # `report.known` is printed once, above
        yield f"{check.result:{_WIDTH}}{check.what}"
        for name, value in (("expected", check.expected), ("got", check.got), ("", note)):
            if value:
                yield f"{'':{_WIDTH}}{f'{name:9} {value}' if name else f'({value})'}"


def _rows(report: Report) -> list[Row]:
    return [
        {
            "check": check.what,
            "result": check.result,
            "expected": check.expected,
            "got": check.got,
            "note": _note(report, check),
        }
        for check in report.checks
    ]


def _note(report: Report, check: Check) -> str:
    return " ".join(filter(None, [check.note, *in_words([check.hint] if check.hint else [], {"model": report.model})]))
