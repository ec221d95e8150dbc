"""Hits in every format that `query` offers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import BinaryIO

from clipsearch.output.paths import json_fields, printable, shown
from clipsearch.query import Hit

FORMATS = ("table", "tsv", "json", "paths0")


def write_hits(hits: Sequence[Hit], form: str, out: BinaryIO) -> None:
    """Write `hits` to `out` in one of `FORMATS`.

    tsv: rank, score, path, one hit a line, no header, the path's own bytes. json: one array of objects. paths0: the
    path's own bytes, each followed by NUL.
    """
    if form == "table":
        _table(hits, out)
    elif form == "tsv":
        out.writelines(b"%d\t%.4f\t%s\n" % (hit.rank, hit.score, shown(hit.path)) for hit in hits)
    elif form == "json":
        rows = [{"rank": hit.rank, "score": round(hit.score, 6)} | json_fields(shown(hit.path)) for hit in hits]
        out.write(json.dumps(rows, indent=2, ensure_ascii=False).encode() + b"\n")
    elif form == "paths0":
        out.writelines(shown(hit.path) + b"\0" for hit in hits)
    else:
        raise ValueError(f"unknown format {form!r}")


def _table(hits: Sequence[Hit], out: BinaryIO) -> None:
    """Aligned columns; paths last, so that long ones wrap in the terminal and can be copied whole."""
    lines = ["rank   score  path"]
    lines += [f"{hit.rank:4}  {hit.score:6.4f}  {printable(shown(hit.path))}" for hit in hits]
    out.write(("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
