"""Output of models: the catalogue as a table, one model as a record."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import BinaryIO

from clipsearch.models.disk.catalog import DEFAULT, Entry
from clipsearch.models.disk.files import ModelFiles
from clipsearch.output.rows import Row, Value, json_bytes, json_row, write_rows
from clipsearch.tasks.describing import Description, Inside, Listed, Tower

_NUMBERS = {"parameters": ".1f", "imagenet": ".3f", "coco": ".3f"}
_SIZE = re.compile(r" at \d+ pixels")
"""Part of a description that has a column of its own."""
_WIDE = 150
"""Least width of a terminal, in columns, for licences and repositories."""


def write_list(found: Sequence[Listed], form: str, out: BinaryIO, *, screen: int | None) -> None:
    """Write the catalogue in a format of `rows.write_rows`; a table has only the columns that help to choose."""
    wide = screen is not None and screen >= _WIDE
    rows = [_short(one, wide=wide) if form == "table" else in_words(_full(one), form) for one in found]
    write_rows(rows, form, out, screen=screen, numbers=_NUMBERS)


def write_model(found: Description, form: str, out: BinaryIO, *, screen: int | None) -> None:
    """Write the description of one model: an object in JSON, otherwise a line with name and value for each fact."""
    record = _record(found)
    if form in ("json", "jsonl"):
        files = [{"name": name, "bytes": size} for name, size in found.inside.files] if found.inside else []
        out.write(json_bytes(json_row(record) | {"files": files}, indent=2 if form == "json" else None))
        return
    if found.inside:
        record |= {f"file {name}": f"{size:,} bytes" for name, size in found.inside.files}
    if form == "table":
        record = {name: value for name, value in record.items() if value is not None}
    facts: list[Row] = [{"fact": name, "value": _plain(name, value)} for name, value in in_words(record, form).items()]
    write_rows(facts, form, out, screen=screen, columns=("fact", "value"))


def in_words(row: Row, form: str) -> Row:
    """Return a row with yes and no for booleans, which JSON keeps."""
    if form in ("json", "jsonl"):
        return row
    return {name: ("no", "yes")[value] if isinstance(value, bool) else value for name, value in row.items()}


def _plain(name: str, value: Value) -> Value:
    """Convert numbers to text, since facts of all kinds share a column."""
    if isinstance(value, float):
        return format(value, _NUMBERS.get(name, ""))
    return str(value) if isinstance(value, int) else value


def _short(one: Listed, *, wide: bool) -> Row:
    """Return the row of a table of 80 columns; if `wide`, with licence and repository."""
    entry = one.entry
    row: dict[str, Value] = {
        "name": entry.name + ("*" if entry.name == DEFAULT else ""),
        "what": _SIZE.sub("", entry.what),
        "M": round(entry.parameters),
        "dim": entry.dim,
        "px": entry.image_size,
        "lang": "en" if "English" in entry.languages else entry.languages.replace("over ", ">"),
        "ImgNet": _share(entry.imagenet),
        "COCO": _share(entry.coco),
        "disk": "yes" if one.files else "no",
    }
    return row | ({"licence": entry.licence, "repository": entry.repository} if wide else {})


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}".removeprefix("0")


def _full(one: Listed) -> Row:
    return {**_of_catalogue(one.entry), **_on_disk(one.files), "bytes": one.bytes}


def _of_catalogue(entry: Entry) -> dict[str, Value]:
    return {
        "name": entry.name,
        "default": entry.name == DEFAULT,
        "repository": entry.repository,
        "what": entry.what,
        "family": entry.family,
        "licence": entry.licence,
        "parameters": entry.parameters,
        "dim": entry.dim,
        "image_size": entry.image_size,
        "context": entry.context,
        "languages": entry.languages,
        "texts": entry.texts,
        "imagenet": entry.imagenet,
        "coco": entry.coco,
        "source": entry.source or None,
    }


def _on_disk(files: ModelFiles | None) -> dict[str, Value]:
    return {
        "on_disk": files is not None,
        "revision": files.revision if files else None,
        "path": os.fsencode(files.folder) if files else None,
    }


def _record(found: Description) -> dict[str, Value]:
    """Return the description from the catalogue, overwritten by that from the model's files."""
    record: dict[str, Value] = {"name": found.name, "repository": found.repository}
    if found.entry:
        record |= {name: value for name, value in _of_catalogue(found.entry).items() if name not in record}
    record |= _on_disk(found.files)
    if found.inside:
        record |= {name: value for name, value in _of_files(found.inside).items() if value is not None}
    return record


def _of_files(inside: Inside) -> dict[str, Value]:
    return {
        "family": inside.family,
        "parameters": inside.parameters,
        "dtype": " ".join(inside.dtypes) or None,
        "dim": inside.dim,
        **_of_tower("image", inside.image),
        **_of_tower("text", inside.text),
        "image_size": inside.image_size,
        "patch_size": inside.patch,
        "context": inside.context,
        "preprocessing": inside.preprocessing,
        "fingerprint": inside.fingerprint,
        "text_tower": os.fsencode(inside.text_tower),
        "text_tower_ready": inside.text_tower.exists(),
        "bytes": sum(size for _, size in inside.files),
    }


def _of_tower(name: str, tower: Tower) -> dict[str, Value]:
    return {f"{name}_layers": tower.layers, f"{name}_width": tower.width, f"{name}_heads": tower.heads}
