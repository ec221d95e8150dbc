"""Merging of indexes: what comes of it is what one run would have made, or nothing."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, SAMPLES, Run, index, paint
from faulty import Faults, read_log
from filelock import FileLock
from tiny import WITHOUT_FORMAT_3, Watcher, update
from warm import WITHOUT_TORCH, Warm

from clipsearch.errors import ClipsearchError, IndexLockedError, InputError
from clipsearch.exchange.merging import Merged, merge
from clipsearch.images.files import Rules
from clipsearch.images.parts import Part
from clipsearch.index import joining
from clipsearch.index.format import CODES_FORMAT, DATABASE
from clipsearch.index.reading import Store
from clipsearch.index.verifying import verify

_OUT = "merged"


def draw(path: Path, seed: int, height: int = 6) -> Path:
    """A small picture like no other; those of six rows are large enough for regions."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, 8, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A root with pictures, copies, a name that is not UTF-8, and files that cannot be read."""
    for number in range(12):
        draw(tmp_path / "p" / ("a" if number % 2 else "b c") / f"{number}.png", number, height=4 + number % 3)
    shutil.copy(tmp_path / "p" / "a" / "1.png", tmp_path / "p" / "IMG_20240531_101112.png")
    shutil.copy(os.fsencode(tmp_path / "p" / "a" / "1.png"), os.path.join(os.fsencode(tmp_path / "p"), b"caf\xe9.png"))
    for number in range(3):
        (tmp_path / "p" / f"bad-{number}.png").write_bytes(b"no picture %d" % number)
    return tmp_path


def parts(home: Path, number: int = 3, **options: Any) -> list[Path]:  # noqa: ANN401  (those of an update)
    """The indexes of all parts."""
    shards = [home / "shards" / f"{part}" for part in range(1, number + 1)]
    for part, shard in enumerate(shards, 1):
        update(shard, home / "p", part=f"{part}/{number}", **options)
    return shards


def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on records are inserted as for indexes that do not fit into memory."""
    monkeypatch.setattr(joining, "_CACHED_ROWS", 0)


def content(folder: Path) -> dict[str, Any]:
    """All that an index says, but for the numbers of rows and the last run; it must be sound."""
    with closing(Store.open(folder)) as store:
        assert verify(store) == []
        matrix, _ = store.matrix()
        regions = store.regions()
        records = {}
        for record in store.records():
            vector = None if record.row is None else matrix[record.row].tobytes()
            own = []
            if regions is not None and record.row is not None:
                places = np.flatnonzero(regions.images == record.row)
                own = [(regions.boxes[place].tolist(), regions.matrix[place].tobytes()) for place in places]
            records[record.path] = (record._replace(row=None), vector, own)
        with_regions = store.regions_record()
        return {
            "records": records,
            "roots": store.roots(),
            "folders": store.folders(),
            "model": store.model(),
            "format": store.format(),
            "side": with_regions and with_regions.side,
            "part": store.part(),
        }


# -- what comes of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("out", [_OUT, "p/deeper/.clipsearch", "elsewhere/x"])
def test_a_merged_index_equals_one_that_was_made_in_one_run(
    home: Path,
    out: str,
    regions: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if regions:
        large(monkeypatch)
    shards = parts(home, regions=regions or None)
    (home / out).parent.mkdir(parents=True, exist_ok=True)
    update(home / "at once", home / "p", regions=regions or None)
    merged = merge(shards, home / out)
    assert content(home / out) == content(home / "at once")
    assert (merged.indexes, merged.images, merged.unreadable, merged.same, merged.missing) == (3, 14, 3, 0, [])
    assert (merged.regions or 0) > 0 if regions else merged.regions is None
    # It is an index like any other, which goes on as such.
    draw(home / "p" / "new.png", 99)
    (home / "p" / "a" / "1.png").unlink()
    summaries = [update(home / name) for name in (out, "at once")]
    assert [(done.part, done.unchanged, done.embedded, done.removed) for done in summaries] == [(None, 13, 1, 1)] * 2
    assert content(home / out) == content(home / "at once")
    assert sorted(path.name for path in (home / out).iterdir()) == sorted(
        path.name for path in (home / "at once").iterdir()
    )


def test_an_index_is_the_same_to_sqlite_after_merging(home: Path) -> None:
    shards = parts(home)
    merge(shards, home / _OUT)
    schemas = []
    for folder in (home / _OUT, shards[0]):
        with closing(sqlite3.connect(folder / DATABASE)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            schemas.append(set(database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")))
    assert schemas[0] == schemas[1]


def test_dead_rows_and_what_is_kept_are_taken_over(home: Path) -> None:
    shards = parts(home, 2)
    (home / "p" / "a").rename(home / "aside")
    draw(home / "p" / "b c" / "2.png", 50)
    kept = sum(folder.images for shard in shards for folder in update(shard).kept)
    merged = merge(shards, home / _OUT)
    assert (merged.dead_rows, merged.images, kept) == (1, 14, 6)
    with closing(Store.open(home / _OUT)) as store:
        assert verify(store) == []
        assert sum(folder.kept for folder in store.folders()) == kept
    (home / "aside").rename(home / "p" / "a")
    assert update(home / _OUT).unchanged == 14


def test_indexes_of_several_folders_are_merged_too(home: Path) -> None:
    draw(home / "q" / "1.png", 70)
    update(home / "one", home / "p" / "a")
    update(home / "two", home / "p" / "b c", home / "q")
    update(home / "three", home / "p")
    merged = merge([home / "one", home / "two", home / "one"], home / _OUT)
    assert (merged.indexes, merged.images, merged.same) == (2, 13, 0)
    with closing(Store.open(home / _OUT)) as store:
        assert [root.path for root in store.roots()] == [os.fsencode(home / name) for name in ("p/a", "p/b c", "q")]
    # What lies in another root is in the index once, and so is that root.
    merged = merge([home / _OUT, home / "three"], home / "all")
    assert (merged.images, merged.same, merged.dead_rows) == (15, 12, 12)
    with closing(Store.open(home / "all")) as store:
        assert [root.path for root in store.roots()] == [os.fsencode(home / name) for name in ("p", "q")]
    assert update(home / "all").unchanged == 15
    update(home / "at once", home / "p", home / "q")
    assert content(home / "all")["records"] == content(home / "at once")["records"]


@pytest.mark.parametrize("order", [1, -1])
def test_what_one_index_could_not_read_is_taken_from_another(
    home: Path, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if order < 0:
        large(monkeypatch)
    update(home / "one", home / "p")
    draw(home / "p" / "bad-1.png", 80)
    update(home / "two", home / "p")
    with closing(sqlite3.connect(home / "one" / DATABASE)) as database, database:
        database.execute("UPDATE images SET hash = NULL WHERE error IS NOT NULL")  # as if it could not be opened
    merged = merge([home / "one", home / "two"][::order], home / _OUT)
    assert (merged.images, merged.unreadable, merged.same) == (15, 2, 17)
    assert content(home / _OUT)["records"] == content(home / "two")["records"]


def test_folders_that_are_mounted_elsewhere_get_the_names_of_here(home: Path) -> None:
    for number in (1, 2):  # the same files, and times
        shutil.copytree(home / "p", home / f"mount {number}" / "p", copy_function=os.link)
    shards = [home / f"shard-{number}" for number in (1, 2)]
    for number, shard in enumerate(shards, 1):
        update(shard, home / f"mount {number}" / "p", part=f"{number}/2")
    with pytest.raises(InputError, match=r"shard-1 knows no folder .*mount 2/p, as others do\."):
        merge(shards, home / _OUT)
    moved = [(os.fsencode(home / f"mount {number}"), os.fsencode(home)) for number in (1, 2)]
    merge(shards, home / _OUT, moved=moved)
    update(home / "at once", home / "p")
    assert content(home / _OUT) == content(home / "at once")
    assert update(home / _OUT).unchanged == 14
    # And away from here, to where nothing is yet.
    merge([home / _OUT], home / "away", moved=[(os.fsencode(home / "p"), b"/data/pictures of ours")])
    with closing(Store.open(home / "away")) as store:
        assert [root.path for root in store.roots()] == [b"/data/pictures of ours"]
        assert store.row_of(b"/data/pictures of ours/caf\xe9.png") is not None
        assert store.count(b"/data/pictures of ours/b c") == 6


def test_missing_parts_are_embedded_later_if_they_may_be_missing(home: Path) -> None:
    shards = parts(home)
    with pytest.raises(InputError, match="Missing: part 2/3"):
        merge([shards[0], shards[2]], home / _OUT)
    merged = merge([shards[0], shards[2]], home / _OUT, partial=True)
    assert merged.missing == [Part(2, 3)]
    assert update(home / _OUT).images == 14
    update(home / "at once", home / "p")
    assert content(home / _OUT)["records"] == content(home / "at once")["records"]


def test_empty_indexes_can_be_merged(home: Path) -> None:
    shutil.rmtree(home / "p")
    draw(home / "p" / "1.png", 1)
    shards = parts(home, 4)
    assert merge(shards, home / _OUT).images == 1
    update(home / "at once", home / "p")
    assert content(home / _OUT) == content(home / "at once")
    empty = next(shard for shard in shards if not update(shard).images)
    assert merge([empty], home / "empty", partial=True).images == 0
    assert update(home / "empty").images == 1


# -- what does not fit together --------------------------------------------------------------------------------------


def refused(home: Path, shards: list[Path], match: str, error: type[ClipsearchError] = InputError) -> None:
    """Merging fails, says why, and changes nothing."""
    before = {path: path.read_bytes() for shard in shards for path in shard.iterdir()}
    with pytest.raises(error, match=match):
        merge(shards, home / "place" / _OUT)
    assert not (home / "place").exists()
    assert before == {path: path.read_bytes() for shard in shards for path in shard.iterdir()}


def alter(shard: Path, sql: str) -> None:
    with closing(sqlite3.connect(shard / DATABASE)) as database, database:
        database.executescript(sql)


@pytest.mark.parametrize("is_large", [False, True])
def test_a_path_with_two_contents_is_an_error_that_names_it(
    home: Path,
    is_large: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if is_large:
        large(monkeypatch)
    update(home / "one", home / "p")
    draw(home / "p" / "a" / "3.png", 60)
    update(home / "two", home / "p")
    refused(home, [home / "one", home / "two"], r"p/a/3\.png has another content in .*two than")


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        (WITHOUT_FORMAT_3, "has the older format 2"),
        (
            "UPDATE meta SET value = replace(value, '777', '888') WHERE key = 'model'",
            "with model tiny, not tiny, as",
        ),
        ("UPDATE meta SET value = '9' WHERE key = 'format'", "reads formats up to"),
        ("UPDATE meta SET value = '{' WHERE key = 'model'", "index in .*2 is damaged: index.db: model: Expecting"),
        ("UPDATE meta SET value = '{\"x\": 1}' WHERE key = 'part'", "index in .*2 is damaged: index.db: part: "),
        ("UPDATE roots SET options = '[1]'", "index in .*2 is damaged: index.db: roots: "),
        ("UPDATE meta SET value = '{\"number\": 2, \"of\": 4}' WHERE key = 'part'", "part 1/2 .* part 2/4"),
        ("DELETE FROM meta WHERE key = 'part'", "part 1/2 .* all pictures"),
        ("DELETE FROM roots", r"2 knows no folder .*p, as others do"),
        ("UPDATE roots SET options = replace(options, 'hidden\": false', 'hidden\": true')", "by other rules in"),
        (
            """UPDATE meta SET value = replace(value, '"finished"', '"unfinished"') WHERE key = 'last_run';
            UPDATE roots SET options = '{}'""",
            "is not complete",
        ),
    ],
)
def test_indexes_that_do_not_belong_together_are_refused(home: Path, sql: str, match: str) -> None:
    shards = parts(home, 2)
    alter(shards[1], sql)
    refused(home, shards, match, ClipsearchError)


def test_codes_are_made_by_the_next_run_if_any_index_has_them(home: Path) -> None:
    shards = parts(home, 2)
    update(shards[1], codes=True)
    merge(shards, home / _OUT)
    update(home / "at once", home / "p", codes=True)
    for _ in range(2):
        with closing(Store.open(home / _OUT)) as store:
            assert (verify(store), store.format()) == ([], CODES_FORMAT)
        assert update(home / _OUT).unchanged == 14
    assert content(home / _OUT) == content(home / "at once")
    assert np.load(home / _OUT / "codes.npy").shape == np.load(home / "at once" / "codes.npy").shape


def test_members_of_archives_are_merged_as_files_are(home: Path) -> None:
    for name in ("a", "b c"):
        with tarfile.open(home / "p" / f"{name}.tar", "w") as archive:
            for file in sorted((home / "p" / name).iterdir()):
                archive.add(file, file.name)
        shutil.rmtree(home / "p" / name)
    rules = Rules(archives=True)
    shards = parts(home, rules=rules)
    merge(shards, home / _OUT)
    update(home / "at once", home / "p", rules=rules)
    assert content(home / _OUT) == content(home / "at once")
    assert (update(home / _OUT).unchanged, len(content(home / _OUT)["records"])) == (14, 17)
    merge([home / _OUT], home / "away", moved=[(os.fsencode(home / "p"), b"/data/p")])
    with closing(Store.open(home / "away")) as store:
        assert store.row_of(b"/data/p/a.tar!/1.png") is not None
    update(home / "one", home / "p" / "a.tar")
    merge([home / "one"], home / "renamed", moved=[(os.fsencode(home / "p" / "a.tar"), b"/data/b.tar")])
    with closing(Store.open(home / "renamed")) as store:
        assert store.row_of(b"/data/b.tar!/1.png") is not None


def test_precisions_are_mixed_only_if_that_is_wanted(home: Path) -> None:
    shards = parts(home, 2)
    for shard, precision in zip(shards, ("fp32", "bf16"), strict=True):
        computed = {"device": "cpu", "device_reason": "", "precision": precision, "precision_reason": ""}
        with closing(sqlite3.connect(shard / DATABASE)) as database, database:
            run = json.loads(database.execute("SELECT value FROM meta WHERE key = 'last_run'").fetchone()[0])
            run = json.dumps(run | {"computed": computed})
            database.execute("UPDATE meta SET value = ? WHERE key = 'last_run'", (run,))
    refused(home, shards, "computed in fp32, that in .* in bf16")
    assert merge(shards, home / _OUT, any_precision=True).images == 14


def test_regions_are_in_all_indexes_or_in_none(home: Path) -> None:
    update(home / "one", home / "p", part="1/2")
    update(home / "two", home / "p", part="2/2", regions=True)
    refused(home, [home / "one", home / "two"], "two has regions, that in .*one has none")


def test_codes_are_made_at_once_if_they_are_wanted(home: Path) -> None:
    shards = parts(home, 2, codes=True)
    for out, wanted in ((home / "with", True), (home / "without", False)):
        merge(shards, out, codes=wanted)
        with closing(Store.open(out)) as store:
            assert verify(store) == []
            assert store.contents().codes == (store.committed_rows() if wanted else 0)


def test_a_damaged_index_is_refused(home: Path) -> None:
    shards = parts(home, 2)
    os.truncate(shards[1] / "embeddings.npy", 200)
    refused(home, shards, "embeddings.npy is shorter than", ClipsearchError)


def test_an_index_that_is_being_written_is_refused_and_none_can_be_written_meanwhile(home: Path) -> None:
    shards = parts(home, 2)
    with FileLock(shards[1] / "lock"):
        refused(home, shards, "Another clipsearch is writing to .*2", IndexLockedError)
    locked = []

    class Trying(Watcher):
        def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:
            super().advance(files, unreadable, known)
            for folder in (shards[0], home / ".merging-merged"):
                with pytest.raises(IndexLockedError):
                    update(folder, home / "p")
                locked.append(folder)

    merge(shards, home / _OUT, progress=Trying())
    assert locked
    assert update(shards[0]).embedded == 0


def test_interrupted_it_leaves_nothing(home: Path) -> None:
    class Interrupting(Watcher):
        def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:
            super().advance(files, unreadable, known)
            raise KeyboardInterrupt

    shards = parts(home, 2)
    with pytest.raises(KeyboardInterrupt):
        merge(shards, home / "place" / _OUT, progress=Interrupting())
    assert not (home / "place").exists()
    assert merge(shards, home / "place" / _OUT).images == 14


@pytest.mark.parametrize("what", ["index", "file", "folder"])
def test_what_exists_is_not_replaced(home: Path, what: str) -> None:
    shards = parts(home, 1)
    out = home / _OUT
    if what == "index":
        shutil.copytree(shards[0], out)
    elif what == "file":
        out.write_text("mine")
    else:
        (out / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match=r"merged (holds an index|exists) already"):
        merge(shards, out)
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    out.mkdir()
    assert merge(shards, out).images == 14  # an empty folder is none


def test_all_may_be_moved_but_not_to_two_places(home: Path) -> None:
    shards = parts(home, 1)
    twice = [(os.fsencode(home), b"/data"), (os.fsencode(home), b"/other")]
    with pytest.raises(InputError, match="cannot be both /data and /other"):
        merge(shards, home / _OUT, moved=twice)
    for out, moved, root in (
        ("down", (b"/", b"/mnt"), b"/mnt" + os.fsencode(home / "p")),
        ("up", (os.fsencode(home), b"/"), b"/p"),
    ):
        merge(shards, home / out, moved=[moved])
        with closing(Store.open(home / out)) as store:
            assert [one.path for one in store.roots()] == [root]
            assert store.count(root) == 14


@pytest.mark.parametrize(
    ("old", "match"), [("nowhere", "nowhere is a folder of no index"), ("p/a", "is only a part of the folder .*p")]
)
def test_only_whole_roots_can_be_moved(home: Path, old: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        merge(parts(home, 1), home / _OUT, moved=[(os.fsencode(home / old), b"/data")])


# -- kills and full disks --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm(faults: Faults, environment: dict[str, str]) -> Iterator[Warm]:
    with faults.warm(environment, WITHOUT_TORCH) as warm:
        yield warm


def test_killed_or_out_of_space_at_any_call_it_leaves_nothing_and_then_succeeds(
    faults: Faults, warm: Warm, in_memory: Path
) -> None:
    home = Path(tempfile.mkdtemp(dir=in_memory))
    for number in range(6):
        draw(home / "p" / f"{number}.png", number)
    shards = parts(home, 2, regions=True)
    program: list[str | Path] = ["-m", "clipsearch", "merge", *shards, "--index", home / "place" / _OUT]

    def attempt(at: int, kind: Any = "kill") -> tuple[int, str]:  # noqa: ANN401  (a Kind)
        log = home / "log"
        log.unlink(missing_ok=True)
        done = warm.run(program, env=faults.environment(home / "place", at, kind, log))
        return done.returncode, done.stderr.decode()

    assert attempt(0)[0] == 0
    calls = read_log(home / "log")
    expected = content(home / "place" / _OUT)
    renamed = next(call.number for call in calls if (call.name, call.path) == ("rename", _OUT))
    shutil.rmtree(home / "place")
    chosen = random.Random(7)
    turns = [*chosen.sample(range(1, renamed + 1), 9), renamed, renamed + 1]
    for at, kind in [*((at, "kill") for at in turns), *((at, "enospc") for at in turns[:4])]:
        code, talk = attempt(at, kind)
        where = f"{kind} at {calls[at - 1]}: {code}, {talk}"
        if kind == "kill":
            assert code == -signal.SIGKILL, where
            assert (home / "place" / _OUT).exists() == (at > renamed), where
        elif code:
            assert (code, (home / "place" / _OUT).exists(), "Traceback" in talk) == (2, False, False), where
        if not (home / "place" / _OUT).exists():
            assert merge(shards, home / "place" / _OUT).images == 6
        assert content(home / "place" / _OUT) == expected, where
        assert [path.name for path in (home / "place").iterdir()] == [_OUT], where
        shutil.rmtree(home / "place")


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_merges_what_a_pattern_matches(home: Path, run: Run) -> None:
    for number, colour in enumerate(("red", "blue", "green", "pink")):
        paint(home / "q" / f"{number}.png", colour)
    for part in (1, 2):
        index(run, "q", "--part", f"{part}/2", "--index", f"shards/{part}", "--model", "picturebook", cwd=home)
    (home / "shards" / "log.txt").write_text("no index")
    done = run("merge", "shards/*", "--json", cwd=home)
    summary = json.loads(done.stdout)
    assert (summary["indexes"], summary["images"], summary["missing"]) == (2, 4, [])
    assert done.stderr.decode().startswith("Merged 2 indexes into .clipsearch: 4 images in ")
    assert index(run, cwd=home)["unchanged"] == 4
    assert run("query", "red", "-k", "1", cwd=home).returncode == 0
    for arguments, said in (
        (["shards/*"], "holds an index already; merging makes a new one. Name another folder"),
        (["nowhere/*", "--index", "x"], "No index matches nowhere/*"),
        (["shards/1", "--index", "x"], "Missing: part 2/2. Make it first: clipsearch index PATH --part 2/2"),
        (["shards/*", "--index", "x", "--root", "q"], "--root takes OLD=NEW"),
    ):
        done = run("merge", *arguments, cwd=home)
        assert (done.returncode, said in done.stderr.decode()) == (2, True), done.stderr
    done = run("merge", "shards/1", "--index", "x", "--partial", "--root", "q=/data/q", cwd=home)
    assert (done.returncode, b"Not there: part 2/2." in done.stderr) == (0, True)
    assert b"/data/q (" in run("status", "--index", "x", cwd=home).stdout


def test_the_matrix_of_jobs_in_the_docs_does_what_it_says(tmp_path: Path, run: Run) -> None:
    shutil.copytree(SAMPLES / "cats", tmp_path / "pictures")
    shutil.copy(SAMPLES / "clipsearch.toml", tmp_path / "pictures")
    text = (REPOSITORY / "docs" / "scale.md").read_text("utf-8")
    one, *rest = re.findall(r"- run: clipsearch (.*)", text)
    for part in re.findall(r"part: \[(.*)\]", text)[0].split(", "):
        done = run(*shlex.split(one.replace("${{ matrix.part }}", part)), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert len(rest) == 2
    for line in rest:
        words = [str(path) for word in shlex.split(line) for path in sorted(tmp_path.glob(word)) or [Path(word)]]
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert b"pictures/" in done.stdout


def test_results_are_documented_names() -> None:
    text = (REPOSITORY / "docs" / "commands.md").read_text("utf-8")
    section = text[text.index("## clipsearch merge") :]
    assert all(f"`{name}`" in section for name in Merged._fields)
