"""The index on disk: what is committed is there, in the documented format, and nothing else counts."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from clipsearch.errors import IndexDamagedError, IndexLockedError, IndexMissingError, IndexWriteError
from clipsearch.index import joined_rows
from clipsearch.index.format import FOLDER, ModelRecord, Record
from clipsearch.index.nearest import find_index
from clipsearch.index.reading import Store
from clipsearch.index.verifying import verify
from clipsearch.index.writing import Writer
from clipsearch.system.paths import is_below

MODEL = ModelRecord("test", None, "f" * 32, 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / FOLDER


def vectors(first: int, count: int) -> npt.NDArray[np.float32]:
    """Unit vectors that tell their number."""
    rows = np.random.default_rng(first).standard_normal((count, MODEL.dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def add(writer: Writer, folder: Path, names: list[str], first: int = 0) -> None:
    records = [
        Record(os.fsencode(folder.parent / name), None, size=1, mtime_ns=2, hash=name.encode()) for name in names
    ]
    writer.add(records, vectors(first, len(names)))


def fill(folder: Path, names: list[str]) -> None:
    with Writer.locked(folder) as writer:
        writer.set_model(MODEL)
        add(writer, folder, names)
        writer.commit()


def contents(folder: Path) -> dict[str, int | None]:
    with closing(Store.open(folder)) as store:
        return {os.path.basename(os.fsdecode(r.path)): r.row for r in store.records()}


def test_the_matrix_is_a_plain_numpy_file(folder: Path) -> None:
    fill(folder, ["a", "b", "c"])
    matrix = np.load(folder / "embeddings.npy", mmap_mode="r")
    assert (matrix.shape, matrix.dtype) == ((3, 8), np.float16)
    np.testing.assert_allclose(matrix, vectors(0, 3), atol=1e-3)


def test_the_matrix_grows_across_commits_and_runs(folder: Path) -> None:
    fill(folder, ["a", "b"])
    with Writer.locked(folder) as writer:
        add(writer, folder, ["c"], first=7)
        writer.commit()
        add(writer, folder, ["d", "e"], first=8)
        writer.commit()
    matrix = np.load(folder / "embeddings.npy")
    np.testing.assert_allclose(matrix, np.concatenate([vectors(0, 2), vectors(7, 1), vectors(8, 2)]), atol=1e-3)
    assert contents(folder) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}


def test_rows_past_the_commit_do_not_count_and_are_cut_off(folder: Path) -> None:
    fill(folder, ["a", "b"])
    with (folder / "embeddings.npy").open("ab") as file:
        file.write(b"\xff" * 37)  # a crash between rows and records
    with closing(Store.open(folder)) as store:
        matrix, alive = store.matrix()
        assert (len(matrix), alive) == (2, None)
    with Writer.locked(folder) as writer:
        add(writer, folder, ["c"], first=7)
        writer.commit()
    np.testing.assert_allclose(
        np.load(folder / "embeddings.npy"), np.concatenate([vectors(0, 2), vectors(7, 1)]), atol=1e-3
    )
    with closing(Store.open(folder)) as store:
        assert verify(store) == []


def test_what_is_not_committed_is_not_there(folder: Path) -> None:
    fill(folder, ["a"])
    with Writer.locked(folder) as writer:
        add(writer, folder, ["b"], first=7)
    assert contents(folder) == {"a": 0}


def test_removed_and_replaced_rows_are_dead(folder: Path) -> None:
    fill(folder, [str(i) for i in range(20)])
    with Writer.locked(folder) as writer:
        writer.remove([os.fsencode(folder.parent / "3")])
        add(writer, folder, ["5"], first=7)
        writer.commit()
        writer.compact()  # two of 21: not worth it
    with closing(Store.open(folder)) as store:
        matrix, alive = store.matrix()
        assert alive is not None
        assert np.flatnonzero(~alive).tolist() == [3, 5]
        assert len(matrix) == 21
        assert store.contents().dead_rows == 2


def test_compaction_keeps_every_living_vector_with_its_file(folder: Path) -> None:
    names = [str(i) for i in range(20)]
    fill(folder, names)
    before = dict(zip(names, vectors(0, 20), strict=True))
    with Writer.locked(folder) as writer:
        writer.remove([os.fsencode(folder.parent / name) for name in names[::3]])
        writer.compact()
        add(writer, folder, ["new"], first=7)
        writer.commit()
    before["new"] = vectors(7, 1)[0]
    with closing(Store.open(folder)) as store:
        matrix, alive = store.matrix()
        assert alive is None
        rows = {os.path.basename(os.fsdecode(r.path)): r.row for r in store.records()}
        assert set(rows) == {name for i, name in enumerate(names) if i % 3} | {"new"}
        for name, row in rows.items():
            assert row is not None
            np.testing.assert_allclose(matrix[row], before[name], atol=1e-3)
    np.testing.assert_array_equal(np.load(folder / "embeddings.npy"), matrix)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_crash_around_the_renaming_of_a_compacted_matrix_loses_nothing(folder: Path, *, renamed: bool) -> None:
    fill(folder, ["a", "b", "c"])
    real = folder / "embeddings.npy"
    if not renamed:
        (folder / "embeddings.new.npy").write_bytes(real.read_bytes())
        real.write_bytes(b"the old matrix")
    with closing(sqlite3.connect(folder / "index.db")) as database, database:
        database.execute("INSERT INTO meta VALUES ('renaming', 'yes')")
    for _ in range(2):
        with closing(Store.open(folder)) as store:
            np.testing.assert_allclose(store.matrix()[0], vectors(0, 3), atol=1e-3)
        with Writer.locked(folder):
            pass
    assert not (folder / "embeddings.new.npy").exists()


def test_a_half_written_compaction_is_ignored(folder: Path) -> None:
    fill(folder, ["a", "b", "c"])
    (folder / "embeddings.new.npy").write_bytes(b"half")
    with closing(Store.open(folder)) as store:
        np.testing.assert_allclose(store.matrix()[0], vectors(0, 3), atol=1e-3)


def test_only_one_writer_at_a_time(folder: Path) -> None:
    with (
        Writer.locked(folder),
        pytest.raises(IndexLockedError),
        Writer.locked(folder),
    ):
        pass


def test_readers_do_not_wait_for_the_writer(folder: Path) -> None:
    fill(folder, ["a"])
    with Writer.locked(folder) as writer:
        add(writer, folder, ["b"], first=7)
        assert contents(folder) == {"a": 0}
        writer.commit()
        assert contents(folder) == {"a": 0, "b": 1}


def test_paths_below_the_parent_move_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    fill(tmp_path / "here" / FOLDER, ["a"])
    (tmp_path / "here").rename(tmp_path / "there")
    with closing(Store.open(tmp_path / "there" / FOLDER)) as store:
        assert [image.path for image in store.images([0])] == [os.fsencode(tmp_path / "there" / "a")]


def test_names_are_kept_byte_for_byte_and_differ_by_case(folder: Path) -> None:
    names = [b"Cats/\xff\xfe.png", b"cats/\xff\xfe.png", b"new\nline.png", "é.png".encode()]
    paths = [os.path.join(os.fsencode(folder.parent), name) for name in names]
    with Writer.locked(folder) as writer:
        writer.set_model(MODEL)
        writer.add([Record(path, None, 1, 2, b"h") for path in paths], vectors(0, 4))
        writer.commit()
    with closing(Store.open(folder)) as store:
        assert [image.path for image in store.images([0, 1, 2, 3])] == paths


def test_roots_swallow_roots_below_them(folder: Path) -> None:
    parent = folder.parent
    with Writer.locked(folder) as writer:
        for root in ("a/b", "a", "a/c", "ab"):
            writer.set_root(os.fsencode(parent / root), {"of": root})
        assert writer.roots() == [(os.fsencode(parent / "a"), {"of": "a"}), (os.fsencode(parent / "ab"), {"of": "ab"})]


@pytest.mark.skipif(sys.platform == "win32", reason="locks are those of open files there")
def test_a_snapshot_keeps_its_lock_when_its_version_is_asked_for(folder: Path) -> None:
    """Another process, since POSIX locks are those of processes."""
    fill(folder, ["a"])
    script = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('DELETE FROM images').connection.commit()"
    )

    def other() -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-S", "-c", script, str(folder / "index.db")]
        return subprocess.run(command, capture_output=True, check=False)

    with closing(Store.open(folder)) as store:
        with store.snapshot():
            assert store.count() == 1
            version = store.version()
            assert b"locked" in other().stderr
            assert (store.count(), store.version()) == (1, version)
        assert other().returncode == 0
        assert store.count() == 0
        assert store.version() != version


PLACES = [
    "INDEX",
    "INDEX/!first",
    "INDEX/-/a",
    *(f"INDEX/a/{number}" for number in range(9)),
    "INDEX/ab",
    "INDEX/https:/x",
    "INDEX/\udcff",
    "/0",
    *(f"/a/{number}" for number in range(9)),
    "/zz/\udcff/z",
    *(f"s3://bucket/{number}" for number in range(5)),
    "https://host/a",
]
"""Paths of every kind that an index can have; INDEX is the folder that it lies in."""


@pytest.mark.parametrize("joined", [1, 2, 5, 100])
def test_rows_are_found_once_however_the_table_is_divided(
    folder: Path, monkeypatch: pytest.MonkeyPatch, joined: int
) -> None:
    """Whatever the order of rows is in that of paths, and with files that have none."""
    monkeypatch.setattr(joined_rows, "_JOINED", joined)

    def place(name: str) -> bytes:
        return os.fsencode(name.replace("INDEX", str(folder.parent)))

    names = [PLACES[number] for number in np.random.default_rng(joined).permutation(len(PLACES))]
    with Writer.locked(folder) as writer:
        writer.set_model(MODEL)
        sound = [Record(place(name), None, len(name), 2, name.encode("utf-8", "replace")) for name in names[4:]]
        writer.add(sound, vectors(0, len(sound)))
        for name in names[:4]:
            writer.put(Record(place(name), None, 9, 2, None, error="broken"))
        writer.commit()
        writer.remove([place(names[4])])
        writer.commit()
    with closing(Store.open(folder)) as store:
        for root in (
            None,
            "/",
            "/a",
            "/a/3",
            "/nowhere",
            "INDEX",
            "INDEX/a",
            "INDEX/a/7",
            "s3://bucket",
            "https://host",
        ):
            below = None if root is None else place(root)
            sound = [one for one in store.records() if below is None or is_below(one.path, below)]
            for condition, values, least in (("TRUE", (), 0), ("size > ?", (7,), 8)):
                found = sorted(row for part in store.rows(below, condition, values) for row in part.tolist())
                assert found == sorted(one.row for one in sound if one.row is not None and one.size >= least), root


def test_is_below() -> None:
    assert is_below(b"/a/b", b"/a")
    assert is_below(b"/a", b"/a")
    assert is_below(b"/a", b"/")
    assert not is_below(b"/ab", b"/a")


def test_the_nearest_index_upwards_is_found(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError):
        find_index(tmp_path)
    fill(folder, ["a"])
    (tmp_path / "x" / "y").mkdir(parents=True)
    assert find_index(tmp_path / "x" / "y") == folder


def test_a_newer_format_is_refused(folder: Path) -> None:
    fill(folder, ["a"])
    with closing(sqlite3.connect(folder / "index.db")) as database, database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    with pytest.raises(IndexDamagedError, match="99"):
        Store.open(folder)


@pytest.mark.parametrize("damage", ["missing", "short", "garbage"])
def test_damage_is_named(folder: Path, damage: str) -> None:
    fill(folder, ["a", "b"])
    if damage == "missing":
        (folder / "embeddings.npy").unlink()
    elif damage == "short":
        os.truncate(folder / "embeddings.npy", 140)
    else:
        (folder / "index.db").write_bytes(b"no database" * 1000)
    with pytest.raises(IndexDamagedError), closing(Store.open(folder)) as store:
        store.matrix()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexWriteError), Writer.locked(tmp_path / "file" / FOLDER):
        pass


def test_a_reader_sees_one_commit_while_a_writer_goes_on(folder: Path) -> None:
    fill(folder, ["a", "b", "c"])
    with closing(Store.open(folder)) as store, store.snapshot():
        matrix, alive = store.matrix()
        with closing(sqlite3.connect(folder / "index.db", timeout=0)) as database:
            database.execute("DELETE FROM images")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                database.commit()  # waits for the reader, and longer than its patience of nothing
        assert len(store.images([0, 1, 2])) == len(matrix) == 3
        assert alive is None


FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE roots (path BLOB PRIMARY KEY);
CREATE TABLE images (path BLOB PRIMARY KEY, row INTEGER UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    hash BLOB, width INTEGER, height INTEGER, taken_at TEXT, error TEXT) WITHOUT ROWID;
CREATE TABLE dead (row INTEGER PRIMARY KEY);
INSERT INTO meta VALUES ('format', '1');
INSERT INTO roots VALUES (CAST('p' AS BLOB));
INSERT INTO images VALUES (CAST('p/a' AS BLOB), 0, 1, 2, x'aa', 3, 4, NULL, NULL);
INSERT INTO images VALUES (CAST('p/b' AS BLOB), 2, 1, 2, x'bb', 3, 4, NULL, NULL);
INSERT INTO images VALUES (CAST('p/20240506_070809' AS BLOB), 3, 1, 2, x'cc', 3, 4, NULL, NULL);
INSERT INTO images VALUES (CAST('p/20240507_070809' AS BLOB), 4, 1, 2, x'dd', 3, 4, '2021-01-02T03:04:05', NULL);
INSERT INTO dead VALUES (1);
"""


def test_an_index_of_the_first_format_is_read_and_brought_up_to_date(folder: Path) -> None:
    fill(folder, ["v", "w", "x", "y", "z"])
    with closing(Store.open(folder)) as store:
        model_text = store.meta("model")
    (folder / "index.db").unlink()
    with closing(sqlite3.connect(folder / "index.db")) as database, database:
        database.executescript(FORMAT_1)
        database.execute("INSERT INTO meta VALUES ('model', ?)", (model_text,))

    def check(version: int) -> None:
        with closing(Store.open(folder)) as store:
            assert store.format() == version
            assert store.roots() == [(os.fsencode(folder.parent / "p"), {})]
            dates = ["2024-05-06T07:08:09", "2021-01-02T03:04:05"]
            assert [(os.path.basename(record.path), record.row, record.taken_at) for record in store.records()] == [
                (b"20240506_070809", 3, dates[0] if version == 3 else None),
                (b"20240507_070809", 4, dates[1]),
                (b"a", 0, None),
                (b"b", 2, None),
            ]
            assert store.date_sources() == {
                "exif": 1,
                "xmp": 0,
                "name": int(version == 3),
                "file": 3 - int(version == 3),
            }
            matrix, alive = store.matrix()
            assert alive is not None
            assert alive.tolist() == [True, False, True, True, True]
            np.testing.assert_allclose(matrix, vectors(0, 5), atol=1e-3)
            assert verify(store) == []

    check(1)
    with Writer.locked(folder):
        pass
    check(3)
    fill(folder.parent / "fresh", ["a"])
    schemas = []
    for path in (folder, folder.parent / "fresh"):
        with closing(sqlite3.connect(path / "index.db")) as database:
            columns = database.execute(
                "SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c ORDER BY m.name, c.cid"
            )
            schemas.append(columns.fetchall())
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize("value", ["", "two", "-1"])
def test_a_format_that_is_no_number_is_damage(folder: Path, value: str) -> None:
    fill(folder, ["a"])
    with closing(sqlite3.connect(folder / "index.db")) as database, database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'format'", (value,))
    with pytest.raises(IndexDamagedError, match="format"):
        Store.open(folder)


def test_a_change_that_fails_half_way_is_never_committed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, ["a"])
    with Writer.locked(folder) as writer:
        add(writer, folder, ["b"], first=7)
        with monkeypatch.context() as failing:
            failing.setattr(os, "fsync", fail)
            with pytest.raises(IndexWriteError, match="Input/output error"):
                writer.commit()
        # The disk is well again; but nobody knows what became of the rows.
        assert not writer.sound
        for change in (writer.commit, writer.compact, lambda: writer.remove([b"x"])):
            with pytest.raises(RuntimeError, match="failed half way"):
                change()
    assert contents(folder) == {"a": 0}


def fail(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
