"""docs/index-format.md says what is on the disk, and its example reads that without clipsearch."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, paint
from tiny import MODEL, update

import clipsearch
from clipsearch.images.files import Rules
from clipsearch.images.parts import Part
from clipsearch.index.codes import CodesRecord
from clipsearch.index.format import CODES_FORMAT, FOLDER, FORMAT, HEADER_BYTES, REGIONS_FORMAT, RegionsRecord, header
from clipsearch.index.reading import Store

DOCUMENT = (REPOSITORY / "docs" / "index-format.md").read_text("utf-8")
FORBIDDEN = "import sys\nsys.modules['clipsearch'] = None  # an import fails\n"

Hits = list[tuple[bytes, float]]


def code(language: str) -> str:
    """The one code block in this language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return str(block)


def names(section: str, table: str) -> list[str]:
    """The first column of a table: under which heading, and what stands above the names."""
    text = re.split(r"^#", DOCUMENT.partition(f"\n### `{section}`\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = text.partition(f"\n| {table} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE)


def schema(database: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """The statement that made each table and index, without comments and line breaks."""
    made = database.execute("SELECT type, name, sql FROM sqlite_master")
    return {(kind, name): " ".join(re.sub(r"--.*", "", sql or "").split()) for kind, name, sql in made}


def meta(folder: Path) -> dict[str, str]:
    with closing(sqlite3.connect(folder / "index.db")) as database:
        return dict(database.execute("SELECT key, value FROM meta"))


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """An index with three pictures."""
    for colour in ("red", "green", "blue"):
        paint(tmp_path / "pictures" / f"{colour}.png", colour)
    update(tmp_path / FOLDER, tmp_path / "pictures")
    return tmp_path / FOLDER


# -- what is documented is there ---------------------------------------------------------------------------------------


def test_the_schema_is_the_documented_one(fresh: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as documented, closing(sqlite3.connect(fresh / "index.db")) as real:
        documented.executescript(code("sql"))
        assert schema(documented) == schema(real)


@pytest.mark.parametrize("table", ["images", "dead", "roots"])
def test_every_column_is_described(fresh: Path, table: str) -> None:
    with closing(sqlite3.connect(fresh / "index.db")) as database:
        columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
    assert names(table, "column") == columns


def test_every_note_of_an_index_is_described(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = meta(fresh)
    assert names("meta", "in `model`") == list(json.loads(found["model"]))
    assert names("meta", "in `last_run`") == list(json.loads(found["last_run"]))
    with closing(Store.open(fresh)) as store:
        (root,) = store.roots()
    of_plain = list(root.options)
    update(fresh.parent / "archived", fresh.parent / "pictures", rules=Rules(archives=True))
    with closing(Store.open(fresh.parent / "archived")) as store:
        (root,) = store.roots()
    assert sorted(names("roots", "option")) == sorted(root.options)
    assert set(root.options) - set(of_plain) == {"archives"}
    update(fresh, regions=True)
    found |= meta(fresh)
    assert set(json.loads(found["regions"])) == set(RegionsRecord._fields)
    assert all(f"`{name}`" in DOCUMENT for name in RegionsRecord._fields)
    update(fresh, codes=True)
    found |= meta(fresh)
    assert set(json.loads(found["codes"])) == set(CodesRecord._fields)
    assert all(f"`{name}`" in DOCUMENT for name in CodesRecord._fields)
    update(fresh.parent / "part", fresh.parent / "pictures", part="1/2")
    found |= meta(fresh.parent / "part")
    assert set(json.loads(found["part"])) == set(Part._fields)
    leave_renaming(fresh, monkeypatch)
    assert sorted(names("meta", "key")) == sorted(found | meta(fresh))


def test_versions_and_lengths_are_the_documented_ones(fresh: Path) -> None:
    assert int(meta(fresh)["format"]) == FORMAT
    assert f" format {FORMAT}." in DOCUMENT
    update(fresh, regions=True)
    assert int(meta(fresh)["format"]) == REGIONS_FORMAT
    assert f"Format {REGIONS_FORMAT} is the same with" in DOCUMENT
    update(fresh, codes=True)
    assert int(meta(fresh)["format"]) == CODES_FORMAT
    assert f"format {CODES_FORMAT} with [codes]" in DOCUMENT
    regions = json.loads(meta(fresh)["regions"])["rows"]
    assert regions > 0
    for name, columns, kind in (("regions", MODEL.dim, "<f2"), ("region_boxes", 5, "<i4")):
        with (fresh / f"{name}.npy").open("rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            assert np.lib.format.read_array_header_1_0(file) == ((regions, columns), False, np.dtype(kind))
            assert file.tell() == HEADER_BYTES
    assert f"a header of exactly {HEADER_BYTES} bytes" in DOCUMENT
    with (fresh / "embeddings.npy").open("rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == ((3, MODEL.dim), False, np.dtype("<f2"))
        assert file.tell() == HEADER_BYTES


# -- the example -------------------------------------------------------------------------------------------------------


def by_example(folder: Path, picture: bytes, environment: dict[str, str], tmp_path: Path) -> Hits:
    """What the document's program prints, in a process where clipsearch cannot be imported."""
    script = tmp_path / "nearest.py"
    script.write_text(FORBIDDEN + code("python"), "utf-8")
    done = subprocess.run(
        [sys.executable, script, folder, picture], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    lines = (line.partition(b"\t") for line in done.stdout.splitlines())
    return [(path, float(score)) for score, _, path in lines]


def by_clipsearch(folder: Path, picture: bytes) -> Hits:
    """The same from our own search."""
    with clipsearch.open_index(folder) as index:
        return [(hit.path_bytes, hit.score) for hit in index.similar(os.fsdecode(picture), k=3)]


def check_example(folder: Path, picture: bytes, environment: dict[str, str], tmp_path: Path) -> None:
    found, expected = by_example(folder, picture, environment, tmp_path), by_clipsearch(folder, picture)
    assert [path for path, _ in found] == [path for path, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-3)
    assert len(found) == 3


def test_the_example_finds_what_clipsearch_finds(
    sample_index: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    picture = min((sample_index / "sample-images" / "dogs").iterdir())
    check_example(sample_index / FOLDER, os.fsencode(picture), environment, tmp_path)


def leave_nothing_special(folder: Path, _: pytest.MonkeyPatch) -> None:
    with closing(Store.open(folder)) as store:
        assert store.matrix()[1] is None


def leave_dead_rows(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder.parent / "pictures" / "b.png").unlink()
    update(folder, folder.parent / "pictures")
    with closing(Store.open(folder)) as store:
        assert store.contents().dead_rows == 1


def leave_uncommitted_rows(folder: Path, _: pytest.MonkeyPatch) -> None:
    with closing(Store.open(folder)) as store:
        rows = store.committed_rows()
    with (folder / "embeddings.npy").open("r+b") as file:
        file.write(header(rows + 9, MODEL.dim))
        file.seek(0, os.SEEK_END)
        file.write(b"\xff" * 37)
    with pytest.raises(ValueError, match=r"reshape|read"):
        np.load(folder / "embeddings.npy")


def leave_renaming(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer dies between the commit of new row numbers and the renaming of the matrix that they belong to."""

    class DiedError(Exception):
        pass

    def die(_: object, __: Path) -> None:
        raise DiedError

    for picture in sorted(folder.parent.rglob("*.png"))[::2]:
        picture.unlink()
    with closing(Store.open(folder)) as store:
        roots = [Path(os.fsdecode(root.path)) for root in store.roots()]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(DiedError):
            update(folder, *roots)
    assert meta(folder)["renaming"] == "yes"
    assert (folder / "embeddings.new.npy").exists()


def leave_renamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before, but just after the renaming."""
    leave_renaming(folder, monkeypatch)
    (folder / "embeddings.new.npy").replace(folder / "embeddings.npy")


def leave_half_written_matrix(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "embeddings.new.npy").write_bytes(b"half")


def leave_format_1(folder: Path, _: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(folder / "index.db")) as database, database:
        database.executescript(
            "DROP INDEX images_by_hash; DROP TABLE dead; CREATE TABLE dead (row INTEGER PRIMARY KEY);"
            "ALTER TABLE roots RENAME TO new; CREATE TABLE roots (path BLOB PRIMARY KEY);"
            "INSERT INTO roots SELECT path FROM new; DROP TABLE new; UPDATE meta SET value = '1' WHERE key = 'format'"
        )
    with closing(Store.open(folder)) as store:
        assert store.format() == 1


LEAVE: list[Callable[[Path, pytest.MonkeyPatch], None]] = [
    *(leave_nothing_special, leave_dead_rows, leave_uncommitted_rows, leave_format_1),
    *(leave_renaming, leave_renamed, leave_half_written_matrix),
]


@pytest.mark.parametrize("leave", LEAVE, ids=lambda leave: leave.__name__.removeprefix("leave_"))
def test_the_example_reads_an_index_in_any_state(
    leave: Callable[[Path, pytest.MonkeyPatch], None],
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Paths that are relative, absolute, and no UTF-8 where there is such a thing.
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    strange = home / "pictures" / (os.fsdecode(b"caf\xe9") if sys.platform == "linux" else "café")
    colours = random.Random(0)
    for folder in (home / "pictures", elsewhere, strange):
        for name in ("a", "b", "c", "d"):
            paint(folder / f"{name}.png", f"#{colours.randrange(1 << 24):06x}")
    update(home / FOLDER, home / "pictures", elsewhere)
    leave(home / FOLDER, monkeypatch)
    with closing(Store.open(home / FOLDER)) as store:
        living = [record.path for record in store.records()]
    for folder in (elsewhere, strange):
        picture = next(path for path in living if os.path.dirname(path) == os.fsencode(folder))
        check_example(home / FOLDER, picture, environment, tmp_path)
