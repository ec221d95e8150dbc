"""What `index` does to an index, with a small encoder in this process; test_index_command.py has the real thing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import COLOURS, deny, paint
from PIL import Image
from tiny import MODEL, WITHOUT_FORMAT_3, Pixels, TinyEncoder, TinyPreprocessing, Watcher, expected, update

from clipsearch.errors import IndexWriteError, InputError, ModelError
from clipsearch.images.files import Rules
from clipsearch.index import updating
from clipsearch.index.format import FOLDER
from clipsearch.index.models import LoadedModel
from clipsearch.index.pipeline import WORKERS, Batch
from clipsearch.index.reading import Store
from clipsearch.index.run import CHECKPOINT_SECONDS, Run
from clipsearch.index.verifying import verify
from clipsearch.index.writing import Writer
from clipsearch.output.hints import with_hints


def known(folder: Path) -> dict[str, npt.NDArray[np.float16] | None]:
    """The vector of each file of an index, by its path in the parent; None for what is unreadable."""
    with closing(Store.open(folder)) as store:
        assert verify(store) == []
        matrix, _ = store.matrix()
        return {
            os.path.relpath(os.fsdecode(r.path), folder.parent): None if r.row is None else np.array(matrix[r.row])
            for r in store.records()
        }


def check(folder: Path, *names: str) -> None:
    """The index holds exactly these images, each with its own vector."""
    found = {name: vector for name, vector in known(folder).items() if vector is not None}
    assert sorted(found) == sorted(names)
    for name, vector in found.items():
        np.testing.assert_array_equal(vector, expected(os.fsencode(folder.parent / name)), err_msg=name)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Where the index is to be."""
    return tmp_path / FOLDER


def paint_all(folder: Path) -> list[str]:
    return [os.path.relpath(paint(folder / f"{colour}.png", colour), folder.parent) for colour in COLOURS]


# -- incremental ---------------------------------------------------------------------------------------------


def test_a_file_deleted_and_restored_with_its_old_time_comes_back(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    shutil.move(tmp_path / names[0], tmp_path / "aside.png")
    assert update(index, tmp_path / "p").removed == 1
    check(index, *names[1:])
    shutil.move(tmp_path / "aside.png", tmp_path / names[0])
    summary = update(index, tmp_path / "p")
    assert (summary.reused, summary.embedded) == (10, 0)  # its row was dead, but not yet gone
    check(index, *names)


def test_a_file_that_comes_back_after_its_row_is_gone_is_embedded_anew(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    shutil.move(tmp_path / "p", tmp_path / "aside")
    shutil.copytree(tmp_path / "aside", tmp_path / "p")
    for name in names[:5]:
        (tmp_path / name).unlink()
    update(index, tmp_path / "p")  # half of the rows are dead: the matrix is rewritten
    assert len(np.load(index / "embeddings.npy")) == 5
    shutil.rmtree(tmp_path / "p")
    shutil.move(tmp_path / "aside", tmp_path / "p")
    assert update(index, tmp_path / "p").embedded == 5
    check(index, *names)


def test_names_that_are_counted_up_by_one_keep_all_vectors(tmp_path: Path, index: Path) -> None:
    for i, colour in enumerate(COLOURS):
        paint(tmp_path / "p" / f"{i:02}.png", colour)
    update(index, tmp_path / "p")
    for i in reversed(range(len(COLOURS))):
        (tmp_path / "p" / f"{i:02}.png").rename(tmp_path / "p" / f"{i + 1:02}.png")
    assert update(index, tmp_path / "p").embedded == 0
    check(index, *(f"p/{i + 1:02}.png" for i in range(len(COLOURS))))
    assert len(np.load(index / "embeddings.npy")) <= len(COLOURS) + 1


def test_paths_that_differ_in_case_only_are_different_files(tmp_path: Path, index: Path) -> None:
    paint(tmp_path / "x" / "cats" / "a.png", "red")
    if (tmp_path / "x" / "CATS").exists():
        pytest.skip("this file system does not tell case apart")
    paint(tmp_path / "x" / "Cats" / "a.png", "blue")
    paint(tmp_path / "x" / "Cats" / "A.png", "green")
    update(index, tmp_path / "x" / "cats")
    update(index, tmp_path / "x" / "Cats")
    check(index, "x/cats/a.png", "x/Cats/a.png", "x/Cats/A.png")


def test_equal_size_and_new_time_means_that_the_content_decides(tmp_path: Path, index: Path) -> None:
    first, second = (paint(tmp_path / "p" / f"{name}.bmp", name) for name in ("red", "blue"))
    update(index, tmp_path / "p")
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    os.utime(second, (1, 1))
    encoder = TinyEncoder()
    summary = update(index, tmp_path / "p", encoder=encoder)
    assert (summary.embedded, summary.reused, encoder.embedded) == (0, 2, 0)  # both contents are known
    second.write_bytes(content)
    update(index, tmp_path / "p")
    check(index, "p/red.bmp", "p/blue.bmp")


def with_the_time_of(picture: Path, other: Path) -> None:
    status = other.stat()
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))


def sql(index: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """What a statement gives that is asked of an index's database, or does to it."""
    with closing(sqlite3.connect(index / "index.db")) as database, database:
        return database.execute(statement, values).fetchall()


def read_by(index: Path, *paths: Path, reread: bool = False) -> int:
    """How many files a run reads."""
    progress = Watcher()
    update(index, *paths, progress=progress, reread=reread)
    return progress.total


needs_status_times = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell when a status changed")


@needs_status_times
@pytest.mark.parametrize("how", ["another file in its place", "written to", "a link to another file"])
def test_an_image_replaced_with_size_and_time_kept_is_embedded_anew(tmp_path: Path, index: Path, how: str) -> None:
    red, blue = (paint(tmp_path / name / f"{name}.bmp", name) for name in ("red", "blue"))
    picture = tmp_path / "p" / "picture.bmp"
    picture.parent.mkdir()
    with_the_time_of(blue, red)
    if how == "a link to another file":
        picture.symlink_to(red)
    else:
        shutil.copy2(red, picture)
    update(index, tmp_path / "p")
    before = picture.stat()
    if how == "written to":
        picture.write_bytes(blue.read_bytes())
        with_the_time_of(picture, red)
    else:
        other = tmp_path / "other.bmp"
        other.symlink_to(blue) if how == "a link to another file" else shutil.copy2(blue, other)
        other.replace(picture)
    assert (picture.stat().st_size, picture.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert update(index, tmp_path / "p").embedded == 1
    check(index, "p/picture.bmp")
    assert read_by(index, tmp_path / "p") == 0


@needs_status_times
def test_a_file_of_which_only_the_permissions_changed_costs_one_read_and_no_model(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    (tmp_path / names[0]).chmod(0o600)
    encoder, progress = TinyEncoder(), Watcher()
    summary = update(index, tmp_path / "p", encoder=encoder, progress=progress)
    assert (summary.unchanged, summary.touched, summary.copied, summary.reused) == (9, 1, 0, 10)
    assert (progress.total, encoder.embedded) == (1, 0)
    assert read_by(index, tmp_path / "p") == 0


def test_inodes_that_are_others_after_each_mount_cost_nothing_where_there_are_status_times(
    tmp_path: Path, index: Path
) -> None:
    names = paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    sql(index, "UPDATE images SET inode = inode + 1000000")
    assert read_by(index, tmp_path / "p") == (len(names) if sys.platform == "win32" else 0)
    # Without these times, as on Windows, inodes are all there is.
    sql(index, "UPDATE images SET ctime_ns = NULL")
    assert read_by(index, tmp_path / "p") == len(names)
    assert read_by(index, tmp_path / "p") == 0


def test_reread_looks_at_every_content(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    red, blue = (paint(tmp_path / "p" / f"{name}.bmp", name) for name in ("red", "blue"))
    (tmp_path / "p" / "bad.png").write_bytes(b"no picture")
    update(index, tmp_path / "p")
    # As if the file system had no sense of time, or the disk had rotted.
    red.write_bytes(blue.read_bytes())
    status = red.stat()
    sql(
        index,
        "UPDATE images SET mtime_ns = ?, ctime_ns = ?, inode = ? WHERE path = ?",
        *(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, b"p/red.bmp"),
    )
    assert read_by(index, tmp_path / "p") == 0
    progress = Watcher()
    summary = update(index, tmp_path / "p", reread=True, progress=progress)
    assert (summary.unchanged, summary.touched, summary.copied, summary.embedded) == (11, 0, 1, 0)
    assert (progress.total, progress.done) == (13, 13)
    check(index, *names, "p/red.bmp", "p/blue.bmp")


def test_an_index_of_an_older_format_learns_of_status_times_without_reading(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    (tmp_path / "p" / "bad.png").write_bytes(b"no picture")
    update(index, tmp_path / "p")
    known_before = sql(index, "SELECT path, ctime_ns, inode FROM images")
    for statement in WITHOUT_FORMAT_3.split(";"):
        sql(index, statement)
    with closing(Store.open(index)) as store:  # a reader makes do
        assert [record.ctime_ns for record in store.records()] == [None] * 11
        assert store.images([0])[0].hash is not None
    (tmp_path / names[0]).unlink()
    assert read_by(index, tmp_path / "p") == 0
    assert sql(index, "SELECT path, ctime_ns, inode FROM images") == [
        known for known in known_before if known[0] != os.fsencode(names[0])
    ]
    check(index, *names[1:])


def test_files_that_swap_their_names_swap_their_vectors(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    one, two, aside = tmp_path / names[0], tmp_path / names[1], tmp_path / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    assert update(index, tmp_path / "p").embedded == 0
    check(index, *names)


def test_a_renamed_folder_keeps_all_vectors(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p" / "a")
    update(index, tmp_path / "p")
    (tmp_path / "p" / "a").rename(tmp_path / "p" / "b")
    summary = update(index, tmp_path / "p")
    assert (summary.moved, summary.embedded, summary.removed) == (len(names), 0, 0)
    check(index, *(f"p/b/{colour}.png" for colour in COLOURS))


def test_copies_within_a_first_run_are_embedded_once(tmp_path: Path, index: Path) -> None:
    paint_all(tmp_path / "p")
    for i in range(5):
        shutil.copytree(tmp_path / "p", tmp_path / "p" / f"copy{i}", ignore=shutil.ignore_patterns("copy*"))
    (tmp_path / "p" / "bad.png").write_bytes(b"no picture")
    shutil.copy(tmp_path / "p" / "bad.png", tmp_path / "p" / "bad too.png")
    encoder = TinyEncoder()
    summary = update(index, tmp_path / "p", encoder=encoder)
    assert (summary.images, summary.embedded, summary.reused, encoder.embedded) == (60, 10, 50, 10)
    assert len(summary.unreadable) == 2
    check(index, *(name for name, vector in known(index).items() if vector is not None))


# -- roots ---------------------------------------------------------------------------------------------------


def test_a_root_that_is_emptied_needs_a_word(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="10 images") as caught:
        update(index, tmp_path / "p")
    assert with_hints(caught.value).endswith(f"--allow-empty, or clipsearch forget {tmp_path / 'p'}")
    assert len(known(index)) == 10
    assert update(index, tmp_path / "p", allow_empty=True).removed == 10
    assert known(index) == {}


def test_a_root_that_is_missing_needs_to_be_forgotten_even_if_empty_is_allowed(tmp_path: Path, index: Path) -> None:
    paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    shutil.rmtree(tmp_path / "p")
    with pytest.raises(InputError, match=r"No such file.* 10 images") as caught:
        update(index, tmp_path / "p", allow_empty=True)
    assert with_hints(caught.value).endswith(f"clipsearch forget {tmp_path / 'p'}")
    assert len(known(index)) == 10


def test_an_empty_folder_can_be_a_root_if_that_is_meant(tmp_path: Path, index: Path) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(InputError):
        update(index, tmp_path / "p")
    assert not index.exists()
    assert update(index, tmp_path / "p", allow_empty=True).images == 0
    paint_all(tmp_path / "p")
    assert update(index, tmp_path / "p").embedded == 10


def test_a_drive_unplugged_during_a_run_removes_nothing(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "drive" / "p")
    update(index, tmp_path / "drive" / "p")
    (tmp_path / "drive" / names[0]).unlink()
    paint(tmp_path / "drive" / "p" / "new.png", "cyan")

    class Unplug(Watcher):
        def start(self, total: int) -> None:
            super().start(total)
            (tmp_path / "drive").rename(tmp_path / "gone")

    with pytest.raises(InputError, match="no longer"):
        update(index, tmp_path / "drive" / "p", progress=Unplug())
    assert len(known(index)) == 10


def test_a_run_that_fails_half_way_keeps_what_it_did_and_says_why(tmp_path: Path, index: Path) -> None:
    paint_all(tmp_path / "p")

    class Fails(TinyEncoder):
        calls = 1

        def encode_images(self, pixels: Pixels) -> npt.NDArray[np.float32]:
            if self.embedded >= 4:
                raise ModelError("out of memory\nUse a smaller batch.")
            return super().encode_images(pixels)

    with pytest.raises(ModelError):
        update(index, tmp_path / "p", encoder=Fails(batch_size=2))
    with closing(Store.open(index)) as store:
        assert (store.last_run() or {})["outcome"] == "failed: out of memory"
        assert store.count() >= 4
    assert update(index, tmp_path / "p").images == 10


def test_a_folder_that_cannot_be_listed_keeps_its_records(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p" / "closed")
    paint(tmp_path / "p" / "closed.png", "white")
    update(index, tmp_path / "p")
    with deny(tmp_path / "p" / "closed"):
        summary = update(index, tmp_path / "p")
    assert (summary.images, summary.reused, summary.removed) == (11, 11, 0)
    assert [(os.path.basename(path), reason) for path, reason in summary.unreadable] == [
        (b"closed", "the folder cannot be read: Permission denied")
    ]
    summary = update(index, tmp_path / "p")
    assert (summary.images, summary.embedded, summary.unreadable) == (11, 0, [])
    check(index, "p/closed.png", *(f"p/{name}" for name in names))


def test_a_folder_whose_files_cannot_be_examined_keeps_its_records(tmp_path: Path, index: Path) -> None:
    paint_all(tmp_path / "p" / "closed")
    paint(tmp_path / "p" / "open.png", "white")
    update(index, tmp_path / "p")
    with deny(tmp_path / "p" / "closed", 0o400):  # its names can be read, and nothing else of it
        summary = update(index, tmp_path / "p")
    assert (summary.images, summary.reused, summary.removed) == (11, 11, 0)
    assert [(os.path.basename(path), reason) for path, reason in summary.unreadable] == [
        (b"closed", "the files in it cannot be examined: Permission denied")
    ]
    summary = update(index, tmp_path / "p")
    assert (summary.images, summary.reused, summary.unreadable) == (11, 11, [])


def test_a_followed_link_that_leads_nowhere_keeps_its_records(tmp_path: Path, index: Path) -> None:
    paint_all(tmp_path / "drive")
    paint(tmp_path / "p" / "a.png", "white")
    (tmp_path / "p" / "link").symlink_to(tmp_path / "drive")
    assert update(index, tmp_path / "p", rules=Rules(follow_symlinks=True)).images == 11
    (tmp_path / "drive").rename(tmp_path / "unplugged")
    summary = update(index, tmp_path / "p")
    assert (summary.images, summary.removed) == (11, 0)
    assert [reason for _, reason in summary.unreadable] == ["a link that leads nowhere"]
    (tmp_path / "unplugged").rename(tmp_path / "drive")
    summary = update(index, tmp_path / "p")
    assert (summary.images, summary.reused, summary.unreadable) == (11, 11, [])


def test_a_run_that_cannot_begin_leaves_no_trace(tmp_path: Path, index: Path) -> None:
    paint_all(tmp_path / "p")
    paint_all(tmp_path / "q")
    update(index, tmp_path / "p")
    paint(tmp_path / "q" / "new.png", "cyan")

    class Missing:
        def choose(self, index: object, known: object, folders: object) -> None:
            """It is chosen."""

        def side(self) -> None:
            """It is not asked."""

        def load(self, expected: int) -> LoadedModel:  # noqa: ARG002
            raise ModelError("no model")

        def computed(self) -> None:
            """It was never loaded."""

    with pytest.raises(ModelError, match="no model"):
        updating.update(index, [tmp_path / "q" / "new.png"], Missing())
    with closing(Store.open(index)) as store:
        assert [os.path.basename(root.path) for root in store.roots()] == [b"p"]
        assert (store.last_run() or {})["outcome"] == "finished"


# -- what is left out ----------------------------------------------------------------------------------------


def test_a_root_remembers_how_it_is_searched(tmp_path: Path, index: Path) -> None:
    for name in ("a.png", "b.gif", ".hidden.png"):
        paint(tmp_path / "p" / name, "red")
    rules = Rules(exclude=("*.gif",), include_hidden=True)
    assert update(index, tmp_path / "p", rules=rules).images == 2
    assert update(index, tmp_path / "p").images == 2
    assert update(index, tmp_path / "p" / "b.gif").images == 3  # asked for by name
    assert update(index, tmp_path / "p").images == 2
    assert update(index, tmp_path / "p", rules=Rules()).images == 2
    check(index, "p/a.png", "p/b.gif")


def test_what_is_newly_left_out_leaves_the_index(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    (tmp_path / "p" / ".clipsearchignore").write_text("red.*\n")
    assert update(index, tmp_path / "p").removed == 1
    check(index, *(name for name in names if "red" not in name))


# -- unreadable files ----------------------------------------------------------------------------------------


def test_unreadable_files_are_tried_again_only_when_they_change(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint_all(tmp_path / "p")
    (tmp_path / "p" / "bad.png").write_bytes(b"no picture")
    assert len(update(index, tmp_path / "p").unreadable) == 1
    progress = Watcher()
    assert len(update(index, tmp_path / "p", progress=progress).unreadable) == 1
    assert progress.total == 0
    # A new release may read what the old one could not.
    monkeypatch.setattr(updating, "readers", lambda: "pillow 99")
    update(index, tmp_path / "p", progress=progress)
    assert progress.total == 1
    progress = Watcher()
    update(index, tmp_path / "p", progress=progress)
    assert progress.total == 0
    # So may a higher limit.
    update(index, tmp_path / "p", progress=progress, max_pixels=10**6)
    assert progress.total == 1
    paint(tmp_path / "p" / "bad.png", "white")
    assert update(index, tmp_path / "p").unreadable == []


def test_a_file_without_permission_is_read_when_it_is_given(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    with deny(tmp_path / names[0]):
        summary = update(index, tmp_path / "p")
        assert [reason for _, reason in summary.unreadable] == ["Permission denied"]
        assert update(index, tmp_path / "p").unreadable == summary.unreadable
    assert update(index, tmp_path / "p").unreadable == []  # neither size nor time has changed
    check(index, *names)


def test_a_file_that_vanishes_while_others_are_read_is_just_gone(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    os.utime(tmp_path / names[0], (1, 1))
    paint(tmp_path / "p" / "new.png", "cyan")

    class Delete(Watcher):
        def start(self, total: int) -> None:
            super().start(total)
            (tmp_path / names[0]).unlink()
            (tmp_path / "p" / "new.png").unlink()

    summary = update(index, tmp_path / "p", progress=Delete())
    assert (summary.images, summary.removed, summary.unreadable) == (9, 1, [])
    check(index, *names[1:])


def test_a_file_that_changes_while_it_is_read_is_read_again_next_time(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = paint_all(tmp_path / "p")
    before = os.stat(tmp_path / names[0])
    real = os.fstat

    def grows(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if status.st_ino == before.st_ino:
            with (tmp_path / names[0]).open("ab") as file:
                file.write(b"\0")
        return status

    monkeypatch.setattr(os, "fstat", grows)
    assert [reason for _, reason in update(index, tmp_path / "p").unreadable] == ["changed while it was read"]
    monkeypatch.undo()
    assert update(index, tmp_path / "p").unreadable == []
    check(index, *names)


def test_a_problem_that_goes_away_is_forgotten(tmp_path: Path, index: Path) -> None:
    paint_all(tmp_path / "p")
    os.mkfifo(tmp_path / "p" / "pipe.png")
    (tmp_path / "p" / "link.png").symlink_to(tmp_path / "later.png")
    reasons = {os.path.basename(path): reason for path, reason in update(index, tmp_path / "p").unreadable}
    assert reasons == {b"pipe.png": "a FIFO, not a file", b"link.png": "a link that leads nowhere"}
    (tmp_path / "p" / "pipe.png").unlink()
    paint(tmp_path / "later.png", "white")
    summary = update(index, tmp_path / "p")
    assert (summary.unreadable, summary.images, summary.removed) == ([], 11, 0)


def test_a_bomb_is_refused_and_a_higher_limit_lets_it_in(tmp_path: Path, index: Path) -> None:
    paint(tmp_path / "p" / "small.png", "red")
    paint(tmp_path / "p" / "large.png", "blue", (400, 400))
    summary = update(index, tmp_path / "p", max_pixels=100_000)
    assert [reason.split(":")[0] for _, reason in summary.unreadable] == ["too large"]
    assert update(index, tmp_path / "p", max_pixels=1_000_000).images == 2


# -- checkpoints ---------------------------------------------------------------------------------------------


class SlowEncoder(TinyEncoder):
    """One second of a clock that the test owns for each picture."""

    calls = 1

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self._clock = clock
        self.recorded = threading.Semaphore(1)
        """Recording takes no time on this clock, so nothing is embedded meanwhile."""

    def encode_images(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        assert self.recorded.acquire(timeout=60)
        self._clock[0] += len(pixels)
        return super().encode_images(pixels)


def test_a_slow_model_still_gets_a_checkpoint_every_five_seconds(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for i in range(60):
        paint(tmp_path / "p" / f"{i}.png", f"#{rng.integers(2**24):06x}")
    clock = [100.0]
    commits: list[float] = []
    encoder = SlowEncoder(clock)
    real, done = Writer.commit, Run._record

    def record(run: Run, batch: Batch) -> None:
        done(run, batch)
        encoder.recorded.release()

    def commit(writer: Writer) -> None:
        commits.append(clock[0])
        real(writer)

    monkeypatch.setattr(Writer, "commit", commit)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Run, "_record", record)
    update(index, tmp_path / "p", encoder=encoder)
    assert clock[0] == 160
    gaps = np.diff([100.0, *commits])
    assert gaps.max() <= CHECKPOINT_SECONDS
    assert len(commits) < 40  # and not after each picture either


# -- the pipeline --------------------------------------------------------------------------------------------


def test_decoders_work_ahead_of_the_model_as_far_as_it_can_use_and_no_further(tmp_path: Path, index: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(120):
        paint(tmp_path / "p" / f"{i:03}.png", f"#{rng.integers(2**24):06x}")
    may_go_on, decoded = threading.Event(), threading.Semaphore(0)

    class Counting(TinyPreprocessing):
        def __call__(self, image: Image.Image, box: object = None) -> npt.NDArray[np.uint8]:
            decoded.release()
            return super().__call__(image, box)

    class Waiting(TinyEncoder):
        preprocessing = Counting()

        def encode_images(self, pixels: Pixels) -> npt.NDArray[np.float32]:
            assert may_go_on.wait(60)
            return super().encode_images(pixels)

    encoder = Waiting(batch_size=8)
    run = threading.Thread(target=update, args=(index, tmp_path / "p"), kwargs={"encoder": encoder})
    run.start()
    try:
        # Enough for the next batch of each call while the model is at work ...
        ahead = (encoder.calls + 1) * encoder.batch_size
        assert all(decoded.acquire(timeout=60) for _ in range(ahead))
        # ... and then they wait: for the batches that are begun, and what each thread has in hand.
        more = WORKERS + 2 * encoder.calls + 1  # batches hold one picture until it is known how long one takes
        while decoded.acquire(timeout=0.5):
            more -= 1
        assert more >= 0
    finally:
        may_go_on.set()
        run.join()
    assert update(index, tmp_path / "p").reused == 120


# -- disks ---------------------------------------------------------------------------------------------------


def test_an_index_folder_without_permission_is_an_error_and_stays_as_it_was(tmp_path: Path, index: Path) -> None:
    names = paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    paint(tmp_path / "p" / "new.png", "cyan")
    (index / "lock").unlink(missing_ok=True)
    with deny(index, 0o500), pytest.raises(IndexWriteError):
        update(index, tmp_path / "p")
    check(index, *names)


def test_the_model_of_an_index_is_that_of_its_vectors(tmp_path: Path, index: Path) -> None:
    paint_all(tmp_path / "p")
    update(index, tmp_path / "p")
    with closing(Store.open(index)) as store:
        assert store.model() == MODEL


def test_a_file_with_an_absurd_time_is_indexed(pictures: Path) -> None:
    wild = pictures / "warm" / "green.png"
    try:
        os.utime(wild, (10**12, 10**12))
    except (OSError, OverflowError):
        pytest.skip("this file system has no such times")
    folder = pictures.parent / FOLDER
    assert update(folder, pictures).images == 10
    assert update(folder, pictures).reused == 10
    with closing(Store.open(folder)) as store:
        (record,) = store.records(os.fsencode(wild))
    assert record.mtime_ns == min(wild.stat().st_mtime_ns, 2**63 - 1)
