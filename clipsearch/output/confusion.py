"""Report on a classification: accuracy, precision and recall of each label, and the confusion matrix."""

from __future__ import annotations

from typing import BinaryIO

from clipsearch.output.rows import Row, Value, json_bytes, utf8, write_rows
from clipsearch.system.counting import plural
from clipsearch.tasks.classification import Report

_WIDEST = 20
"""Number of labels up to which a table shows a matrix; of more, the commonest mistakes are shown."""
_MISTAKES = 20
_DIGITS = 6
COLUMNS = ("label", "images", "predicted", "correct", "precision", "recall")
_NUMBERS = {"precision": ".3f", "recall": ".3f"}


def write_report(report: Report, form: str, out: BinaryIO, *, screen: int | None = None) -> None:
    """Write `report` to `out` in a format of `rows.write_rows`.

    json and jsonl have one object with everything; a table has summary, labels and confusion matrix below each other;
    tsv and csv have a line for each label. `screen` is that of `write_rows`.
    """
    if form in ("json", "jsonl"):
        out.write(json_bytes(_fields(report), indent=2 if form == "json" else None))
        return
    if form == "table":
        out.write(utf8(f"{in_words(report)}\n\n"))
    write_rows(_classes(report), form, out, screen=screen, numbers=_NUMBERS, columns=COLUMNS)
    if form == "table":
        few = len(report.classes) <= _WIDEST
        rows = _matrix(report) if few else _mistakes(report)
        if rows:
            title = "Rows are true labels, columns predicted ones" if few else "The commonest mistakes"
            out.write(utf8(f"\n{title}:\n\n"))
            write_rows(rows, form, out, screen=screen)


def in_words(report: Report) -> str:
    """Return top-1 and top-5 accuracy in one line."""
    five = "" if report.top5 is None else f", top-5 {report.top5:.4f}"
    return f"top-1 {report.top1:.4f}{five}, of {plural(report.images, 'image')}"


def _fields(report: Report) -> dict[str, object]:
    return {
        "images": report.images,
        "top1": round(report.top1, _DIGITS),
        "top5": None if report.top5 is None else round(report.top5, _DIGITS),
        "classes": [
            {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in row.items()}
            for row in _classes(report)
        ],
        "confusion": report.confusion.tolist(),
    }


def _classes(report: Report) -> list[Row]:
    return [
        {
            "label": one.label,
            "images": one.images,
            "predicted": one.predicted,
            "correct": one.correct,
            "precision": one.precision,
            "recall": one.recall,
        }
        for one in report.classes
    ]


def _matrix(report: Report) -> list[Row]:
    """Return the rows of the confusion matrix. Columns are numbers of labels, to be narrow; zeros are left blank."""
    rows: list[Row] = []
    for number, (one, counts) in enumerate(zip(report.classes, report.confusion.tolist(), strict=True), 1):
        row: dict[str, Value] = {"": number, "label": one.label}
        rows.append(row | {str(column): count or None for column, count in enumerate(counts, 1)})
    return rows


def _mistakes(report: Report) -> list[Row]:
    names = [one.label for one in report.classes]
    found = [
        (count, names[truth], names[taken])
        for truth, counts in enumerate(report.confusion.tolist())
        for taken, count in enumerate(counts)
        if count and truth != taken
    ]
    found.sort(key=lambda mistake: -mistake[0])
    return [{"label": truth, "taken for": taken, "images": count} for count, truth, taken in found[:_MISTAKES]]
