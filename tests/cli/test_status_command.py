"""`clipsearch status` and `clipsearch forget`: what an index holds, whether it fits together, and dropping parts."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, Run, index, paint
from tiny import update

from clipsearch.index.format import FOLDER, HEADER_BYTES
from clipsearch.index.reading import Store
from clipsearch.index.verifying import Finding, verify

ROW_BYTES = 48 * 2


@pytest.fixture
def indexed(pictures: Path) -> Path:
    """A folder with ten pictures, an unreadable one and an index that the small encoder made."""
    (pictures / "bad.png").write_bytes(b"no picture")
    update(pictures.parent / FOLDER, pictures / "cold", pictures / "warm", pictures / "bad.png")
    return pictures.parent


def test_status_tells_what_an_index_holds(indexed: Path, run: Run) -> None:
    status = json.loads(run("status", "--json", cwd=indexed).stdout)
    assert status["last_run"].pop("seconds") >= 0
    assert status["last_run"].pop("ended_at").endswith("+00:00")
    assert status.pop("bytes") == sum(file.stat().st_size for file in (indexed / FOLDER).iterdir())
    assert status == {
        "model": "tiny",
        "repository": None,
        "revision": None,
        "fingerprint": "7" * 32,
        "dim": 48,
        **dict.fromkeys(("device", "device_reason", "precision", "precision_reason", "engine")),
        "images": 10,
        "date_sources": {"exif": 0, "xmp": 0, "name": 0, "file": 10},
        "unreadable": [{"path": "pictures/bad.png", "reason": "not an image of a known format"}],
        "damaged": [],
        "roots": [
            {"path": "pictures/bad.png", "images": 0},
            {"path": "pictures/cold", "images": 5},
            {"path": "pictures/warm", "images": 5},
        ],
        "passed_over": [],
        "dead_rows": 0,
        "regions": None,
        "codes": None,
        "part": None,
        "kept_folders": [],
        "at_work": False,
        "whole": True,
        "last_run": {"outcome": "finished", "embedded": 10, "reused": 0, "moved": 0, "removed": 0},
    }


def test_status_for_people_has_the_same(indexed: Path, run: Run) -> None:
    text = run("status", cwd=indexed).stdout.decode()
    for line in (
        "model       tiny, 48 dimensions",
        "root        pictures/cold (5 images)",
        "unreadable  1",
        "  pictures/bad.png: not an image of a known format",
    ):
        assert line in text
    assert re.search(r"UTC, \d+\.\d s, finished", text)


def test_names_with_control_characters_do_no_harm(tmp_path: Path, run: Run) -> None:
    evil = "p/\x1b[2J\r\n{name}.png"
    paint(tmp_path / "p" / "a.png", "red")
    (tmp_path / evil).write_bytes(b"no picture")
    update(tmp_path / FOLDER, tmp_path / "p")
    text = run("status", cwd=tmp_path).stdout.decode()
    assert "\x1b" not in text
    assert "p/\\x1b[2J\\r\\n{name}.png: " in text


# -- verify --------------------------------------------------------------------------------------------------


def test_a_sound_index_is_verified(indexed: Path, run: Run) -> None:
    done = run("status", "--verify", cwd=indexed)
    assert done.returncode == 0
    assert "Verified" in done.stdout.decode()
    assert json.loads(run("status", "--verify", "--json", cwd=indexed).stdout)["problems"] == []


def sql(statement: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "index.db")) as database, database:
            database.execute(statement)

    return change


def patch(at: int, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / "embeddings.npy").open("r+b") as file:
            file.seek(at)
            file.write(content)

    return change


def extend(folder: Path) -> None:
    with (folder / "embeddings.npy").open("ab") as file:
        file.write(b"rest")


NAN = np.full(1, np.nan, np.float16).tobytes()


@pytest.mark.parametrize(
    ("damage", "what", "harmless"),
    [
        (lambda f: (f / "embeddings.npy").unlink(), "embeddings.npy", False),
        (lambda f: os.truncate(f / "embeddings.npy", 500), "500 bytes", False),
        (patch(HEADER_BYTES + 3 * ROW_BYTES, b"\0" * ROW_BYTES), "1 of 10 vectors are not of unit length (", False),
        (patch(HEADER_BYTES + 4 * ROW_BYTES, NAN), "1 of 10 vectors are not of unit length (", False),
        (patch(HEADER_BYTES, NAN * 48 * 10), "10 of 10 vectors are not of unit length (", False),
        (sql("DELETE FROM images WHERE row = 5"), "1 of 10 rows", False),
        (sql("INSERT INTO dead (row) VALUES (2)"), "(2)", False),
        (sql("UPDATE images SET row = -1 WHERE row = 9"), "row -1", False),
        (sql("UPDATE images SET error = 'bad' WHERE row = 1"), "an image and unreadable as well", False),
        (sql("UPDATE images SET row = NULL WHERE row = 9"), "neither an image nor unreadable", False),
        (sql("DELETE FROM meta WHERE key = 'model'"), "names no model", False),
        (patch(60, b"9"), "header of embeddings.npy", True),
        (extend, "4 bytes", True),
        (lambda f: (f / "embeddings.new.npy").touch(), "embeddings.new.npy", True),
    ],
)
def test_what_is_wrong_is_said_with_a_way_to_mend_it(
    indexed: Path, run: Run, damage: Callable[[Path], None], what: str, *, harmless: bool
) -> None:
    folder = indexed / FOLDER
    damage(folder)
    with closing(Store.open(folder)) as store:
        findings = verify(store)
    assert any(what in finding.what and finding.harmless == harmless for finding in findings), findings
    done = run("status", "--verify", cwd=indexed)
    assert done.returncode == (0 if harmless else 2)
    text = done.stdout.decode()
    assert ("Harmless: " if harmless else "DAMAGED: ") in text
    mend = "The next `clipsearch index`" if harmless else f"rm -r {folder} && clipsearch index"
    if "unit length" in what:
        mend = "clipsearch index --reread --index "
    assert mend in text
    problems = json.loads(run("status", "--verify", "--json", cwd=indexed).stdout)["problems"]
    assert any(what in problem["what"] and mend in problem["mend"] for problem in problems)
    if harmless:
        update(folder, indexed / "pictures")
        with closing(Store.open(folder)) as store:
            assert verify(store) == []


def test_a_garbled_database_is_found_out(indexed: Path, run: Run) -> None:
    path = indexed / FOLDER / "index.db"
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 2 + 200] = b"\xff" * 200
    path.write_bytes(content)
    done = run("status", "--verify", cwd=indexed)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"damaged" in (done.stdout + done.stderr).lower()


def test_the_way_to_mend_works_as_typed(pictures: Path, run: Run) -> None:
    index(run, "pictures", "--model", "picturebook", cwd=pictures.parent)
    sql("DELETE FROM images WHERE row = 5")(pictures.parent / FOLDER)
    problems = json.loads(run("status", "--verify", "--json", cwd=pictures.parent).stdout)["problems"]
    command = problems[0]["mend"].split("anew: ")[1]
    remove, _, again = command.partition(" && clipsearch ")
    assert remove == f"rm -r {pictures.parent / FOLDER}"
    shutil.rmtree(pictures.parent / FOLDER)
    assert run(*again.split(), cwd=pictures.parent).returncode == 0
    status = json.loads(run("status", "--verify", "--json", cwd=pictures.parent).stdout)
    assert (status["images"], status["model"], status["problems"]) == (10, "picturebook", [])


def test_a_finding_is_damage_unless_it_says_otherwise() -> None:
    assert not Finding("something").harmless


# -- forget --------------------------------------------------------------------------------------------------


def test_forget_drops_one_folder_of_several(indexed: Path, run: Run) -> None:
    done = run("forget", "pictures/cold", cwd=indexed)
    assert done.returncode == 0
    assert re.search(r"pictures/cold\b.*\b5 images\b", done.stderr.decode())
    status = json.loads(run("status", "--json", "--verify", cwd=indexed).stdout)
    assert [root["path"] for root in status["roots"]] == ["pictures/bad.png", "pictures/warm"]
    assert (status["images"], status["problems"]) == (5, [])
    assert len(list((indexed / "pictures" / "cold").iterdir())) == 5


def test_forget_works_for_a_folder_that_is_gone(indexed: Path, run: Run) -> None:
    shutil.rmtree(indexed / "pictures" / "warm")
    assert run("forget", "pictures/warm", "pictures/bad.png", cwd=indexed).returncode == 0
    assert json.loads(run("status", "--json", cwd=indexed).stdout)["images"] == 5


@pytest.mark.parametrize("path", ["pictures", "pictures/cold/red.png", "nowhere"])
def test_forget_refuses_what_is_no_root_and_names_those_that_are(indexed: Path, run: Run, path: str) -> None:
    done = run("forget", "pictures/cold", path, cwd=indexed)
    message = done.stderr.decode()
    assert done.returncode == 2
    assert str(indexed / path) in message
    assert str(indexed / "pictures" / "warm") in message
    assert "--exclude" in message
    assert json.loads(run("status", "--json", cwd=indexed).stdout)["images"] == len(COLOURS)


def test_an_index_without_folders_cannot_be_refreshed(indexed: Path, run: Run) -> None:
    assert run("forget", "pictures/cold", "pictures/warm", "pictures/bad.png", cwd=indexed).returncode == 0
    done = run("index", cwd=indexed)
    assert done.returncode == 2
    assert b"clipsearch index PATH" in done.stderr


def test_forget_makes_no_index(tmp_path: Path, run: Run) -> None:
    done = run("forget", "p", "--index", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert b"nowhere" in done.stderr
    assert list(tmp_path.iterdir()) == []
