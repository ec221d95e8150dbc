"""An index that is kept up to date: when a file counts, what is searched, and what goes on whatever happens."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from conftest import COLOURS, Run, paint
from tiny import MODEL, TinyEncoder

from clipsearch.api import IndexingModel
from clipsearch.errors import IndexMissingError, InputError
from clipsearch.images.files import ImageFile, Rules
from clipsearch.index import watching
from clipsearch.index.format import FOLDER
from clipsearch.index.locking import lock
from clipsearch.index.models import LoadedModel
from clipsearch.index.reading import Store
from clipsearch.index.summary import Summary
from clipsearch.index.updating import update
from clipsearch.index.verifying import verify
from clipsearch.index.watching import LOOK_SECONDS, Stamp, Unsettled, Watch, starts
from clipsearch.system.events import Polling, SystemEvents

# --- when a file counts ---


class Files:
    """Files and a clock that a test moves."""

    def __init__(self) -> None:
        self.stamps: dict[bytes, Stamp] = {}
        self.now = 0.0
        self.unsettled = Unsettled(self.stamps.get, lambda: self.now)

    def look(self, later: float = LOOK_SECONDS) -> set[bytes]:
        self.now += later
        self.unsettled.look()
        return set(self.unsettled.settled)


def test_a_file_counts_when_two_looks_found_it_the_same() -> None:
    files = Files()
    files.stamps[b"/a"] = (10, 1)
    files.unsettled.add(b"/a")
    assert files.look() == set()
    assert files.look(LOOK_SECONDS / 2) == set()  # too soon to be a second look
    assert files.look(LOOK_SECONDS / 2) == {b"/a"}
    assert len(files.unsettled) == 0


def test_a_file_that_grows_or_is_written_anew_does_not_count_yet() -> None:
    files = Files()
    files.unsettled.add(b"/a")
    for size in range(5):
        files.stamps[b"/a"] = (size, 1)
        assert files.look() == set()
    files.stamps[b"/a"] = (4, 2)  # as large as before, at another time
    assert files.look() == set()
    assert files.look() == {b"/a"}
    files.unsettled.add(b"/a")  # a notice after it came to rest
    assert files.look(0) == set()


def test_that_a_file_is_gone_counts_in_the_same_way() -> None:
    files = Files()
    files.unsettled.add(b"/a")
    files.look()
    assert files.look() == {b"/a"}


def test_a_search_takes_what_has_settled_and_looks_at_what_it_meets() -> None:
    files = Files()
    files.stamps.update({b"/known": (1, 1), b"/new": (2, 2)})
    files.unsettled.add(b"/known")
    files.look()
    files.look()
    takes = files.unsettled.takes
    assert takes(ImageFile(b"/known", 1, 1))
    assert not takes(ImageFile(b"/new", 2, 2))  # no notice of it came: this was the first look
    assert not takes(ImageFile(b"/new", 2, 2))
    assert not takes(ImageFile(b"/known", 9, 9))  # changed since the second look
    files.stamps[b"/known"] = (9, 9)
    files.look()
    assert takes(ImageFile(b"/new", 2, 2))
    assert takes(ImageFile(b"/known", 9, 9))


# --- what is searched ---


@pytest.fixture
def tree(tmp_path: Path) -> bytes:
    for folder in ("a/b", "a/c", "d"):
        (tmp_path / folder).mkdir(parents=True)
    return os.fsencode(tmp_path)


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        (["a/b/1.png"], ["a/b"]),
        (["a/b/1.png", "a/b/2.png", "d/3.png"], ["a/b", "d"]),
        (["a/b/1.png", "a/4.png"], ["a"]),
        (["a/new/1.png"], ["a"]),  # not known yet, so the rules of the folders above count
        (["a/c/1.png"], ["a"]),  # there, but without a known image
        (["gone/x/1.png"], [""]),
        (["5.png"], [""]),
        (["a/b/1.png", "d/.clipsearchignore"], [""]),
    ],
)
def test_the_innermost_known_folders_are_searched(tree: bytes, changed: Sequence[str], wanted: Sequence[str]) -> None:
    known = {os.path.join(tree, name) for name in (b"a", b"a/b", b"d")}
    paths = [os.path.join(tree, os.fsencode(path)) for path in changed]
    found = starts(paths, tree, known.__contains__)
    assert found == [os.path.join(tree, os.fsencode(name)).rstrip(b"/") for name in wanted]


def test_many_folders_are_searched_from_above(tree: bytes) -> None:
    folders = [os.path.join(tree, b"%d" % i) for i in range(30)]
    for folder in folders:
        os.mkdir(folder)
    assert starts([os.path.join(folder, b"x.png") for folder in folders], tree, lambda _: True) == [tree]


# --- what is done ---


class Notices:
    """Notices that a test gives."""

    def __init__(self) -> None:
        self.watched: list[list[bytes]] = []

    def watch(self, places: Sequence[bytes]) -> None:
        self.watched.append(list(places))

    def wait(self, seconds: float) -> set[bytes]:
        raise AssertionError(f"a test does not wait, not even {seconds} s")

    def close(self) -> None:
        pass


class Model(LoadedModel):
    """A model that counts how often it is let go."""

    released = 0

    def let_go(self) -> None:
        Model.released += 1


class Home:
    """A folder with pictures, an index of them, and what keeps it up to date; all in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pictures = folder, folder / "p"
        for colour in COLOURS[:3]:
            paint(self.pictures / "one" / f"{colour}.png", colour)
            paint(self.pictures / "two" / f"{colour}.jpg", colour, (32, 48))
        self.notices, self.encoder = Notices(), TinyEncoder()
        self.watch = Watch(folder / FOLDER, [self.pictures], Model(self.encoder, MODEL), self.notices)
        (first,) = self.watch.begin()
        assert first.images == first.embedded == 6

    def noticed(self, *paths: Path, looks: int = 2) -> list[Summary]:
        """What is done about notices of changes, with some looks at the files."""
        self.watch._note(os.fsencode(path) for path in paths)
        return [summary for _ in range(looks) for summary in self.watch.work()]

    def names(self) -> set[str]:
        with closing(Store.open(self.folder / FOLDER)) as store:
            assert verify(store) == []
            return {
                os.path.relpath(os.fsdecode(record.path), self.pictures)
                for record in store.records()
                if record.error is None
            }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.0)
    return Home(tmp_path)


def test_new_changed_moved_and_deleted_pictures(home: Home) -> None:
    one, two = home.pictures / "one", home.pictures / "two"
    new = paint(one / "new.png", "cyan")
    assert home.noticed(new, looks=1) == []
    (summary,) = home.noticed(looks=1)
    assert (summary.embedded, summary.unchanged) == (1, 3)  # of this folder alone
    changed = paint(one / "red.png", "gold", (80, 80))
    (one / "new.png").rename(two / "moved.png")
    (two / "red.jpg").unlink()
    done = home.noticed(changed, one / "new.png", two / "moved.png", two / "red.jpg")
    assert [(s.embedded, s.moved, s.removed) for s in done] == [(1, 1, 1)]
    assert home.names() == {
        *("one/red.png", "one/green.png", "one/blue.png"),
        *("two/moved.png", "two/green.jpg", "two/blue.jpg"),
    }
    assert home.encoder.embedded == 8


def test_a_half_written_file_is_left_alone_when_its_folder_is_searched(home: Home) -> None:
    whole = paint(home.folder / "aside.png", "cyan").read_bytes()
    slow, old, new = (home.pictures / "one" / name for name in ("slow.png", "red.png", "new.png"))
    slow.write_bytes(whole[:50])
    before = old.read_bytes()
    old.write_bytes(whole[:50])  # a known picture that is being written anew
    assert home.noticed(slow, old, looks=1) == []
    paint(new, "gold")
    for size in (60, 70, 80):
        slow.write_bytes(whole[:size])
        old.write_bytes(whole[:size])
        done = home.noticed(slow, old, new, looks=1)
        assert not any(summary.unreadable or summary.removed for summary in done)
    assert {"one/new.png", "one/red.png"} < home.names()
    assert "one/slow.png" not in home.names()
    slow.write_bytes(whole)
    old.write_bytes(before)
    done = home.noticed(slow, old)
    assert (sum(s.embedded for s in done), len(home.names())) == (1, 8)


def test_what_no_notice_named_is_found_and_waits_for_its_second_look(home: Home) -> None:
    silent = paint(home.pictures / "one" / "silent.png", "cyan")
    paint(home.pictures / "one" / "new.png", "gold")
    first = home.noticed(home.pictures / "one" / "new.png")
    assert [s.embedded for s in first] == [1]
    assert not {"one/silent.png"} & home.names()
    assert [s.embedded for s in home.noticed()] == [1]
    assert silent.name in {Path(name).name for name in home.names()}


def test_folders_that_come_and_go(home: Home) -> None:
    (home.pictures / "two").rename(home.pictures / "three")
    (done,) = home.noticed(home.pictures / "two", home.pictures / "three")
    assert (done.moved, done.embedded, done.images) == (3, 0, 6)
    outside = home.folder / "outside"
    paint(outside / "deep" / "er" / "x.png", "cyan")
    paint(outside / "y.png", "gold")
    outside.rename(home.pictures / "come")
    assert [s.embedded for s in home.noticed(home.pictures / "come")] == [2]
    shutil.rmtree(home.pictures / "one")
    (done,) = home.noticed(home.pictures / "one")
    assert [(kept.folder, kept.images) for kept in done.kept] == [(os.fsencode(home.pictures / "one"), 3)]
    assert len(home.names()) == 8


def test_a_storm_of_renames_loses_nothing_and_embeds_nothing_again(home: Home) -> None:
    order = random.Random(1)
    files = sorted(path for path in home.pictures.rglob("*.*") if path.is_file())
    done: list[Summary] = []
    for step in range(30):
        chosen = order.randrange(len(files))
        target = files[chosen].with_name(f"{step}{files[chosen].suffix}")
        files[chosen].rename(target)
        done += home.noticed(files[chosen], target, looks=order.randrange(3))
        files[chosen] = target
    done += home.noticed(looks=3)
    assert sum(summary.embedded for summary in done) == 0  # each content is known
    assert home.names() == {os.path.relpath(path, home.pictures) for path in files}


def test_a_root_that_disappears_keeps_its_records_and_goes_on_when_it_comes_back(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.pictures.rename(home.folder / "away")
    with caplog.at_level(logging.WARNING):
        assert home.noticed(home.pictures / "one" / "red.png", looks=4) == []
    assert len(home.names()) == 6
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["No such file or folder"]
    assert home.notices.watched[-1] == []
    caplog.clear()
    paint(home.folder / "away" / "one" / "meanwhile.png", "cyan")
    (home.folder / "away").rename(home.pictures)
    with caplog.at_level(logging.WARNING):
        done = home.noticed(looks=3)
    assert sum(summary.embedded for summary in done) == 1
    assert [record.getMessage() for record in caplog.records] == [f"{home.pictures} can be searched again."]
    assert home.notices.watched[-1] == [os.fsencode(home.pictures)]


def test_another_writer_is_waited_for(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    new = paint(home.pictures / "one" / "new.png", "cyan")
    with caplog.at_level(logging.WARNING), lock(home.folder / FOLDER, 0):
        assert home.noticed(new, looks=4) == []
    assert len(caplog.records) == 1
    assert [summary.embedded for summary in home.noticed(looks=1)] == [1]
    with lock(home.folder / FOLDER, 0):  # held only while it works
        pass


def test_the_model_is_let_go_after_a_rest(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    Model.released = 0
    home.noticed()
    assert Model.released == 0
    monkeypatch.setattr(watching, "_MODEL_SECONDS", 0.0)
    home.noticed(looks=1)
    assert Model.released == 1


def test_a_model_that_is_let_go_is_freed_and_loaded_again_when_it_is_needed(tmp_path: Path) -> None:
    model = IndexingModel("picturebook")
    for colour in COLOURS[:2]:
        paint(tmp_path / "p" / f"{colour}.png", colour)
        assert update(tmp_path / FOLDER, [tmp_path / "p"], model).embedded == 1
        assert model._encoder is not None
        loaded = weakref.ref(model._encoder)
        paint(tmp_path / "p" / f"{colour}-2.png", colour, (30, 30))
        assert update(tmp_path / FOLDER, [], model).embedded == 1
        assert model._encoder is loaded()  # it stayed from one update to the next
        model.let_go()
        assert loaded() is None
        assert model.computed() is None


def test_notices_may_name_what_a_link_leads_to(home: Home) -> None:
    (home.folder / "link").symlink_to(home.pictures)
    home.watch = Watch(home.folder / "other", [home.folder / "link"], Model(home.encoder, MODEL), home.notices)
    home.watch.begin()
    home.noticed(looks=1)
    paint(home.pictures / "one" / "new.png", "cyan")
    assert [summary.embedded for summary in home.noticed(home.pictures / "one" / "new.png")] == [1]


def test_polling_searches_all_and_takes_what_two_searches_found_the_same(home: Home) -> None:
    home.watch.close()
    events = Polling(0.01)
    home.watch = Watch(home.folder / FOLDER, [home.pictures], Model(home.encoder, MODEL), events)
    home.watch.begin()
    paint(home.pictures / "one" / "new.png", "cyan")
    summaries = home.watch.go_on()
    first = next(summaries)
    assert (first.embedded, first.unchanged) == (0, 6)
    assert next(summary for summary in summaries if summary.embedded).images == 7


def test_what_is_no_picture_and_the_index_itself_lead_to_nothing(home: Home) -> None:
    (home.pictures / "notes.txt").write_text("x")
    inner = home.pictures / ".clipsearch-siglip2" / "lock"
    inner.parent.mkdir()
    inner.touch()
    for path in (home.pictures / "notes.txt", inner, home.folder / FOLDER / "lock"):
        assert home.noticed(path, looks=3) == []


def test_patterns_that_change_count_for_all_of_a_root(home: Home) -> None:
    (home.pictures / ".clipsearchignore").write_text("two/\n")
    (done,) = home.noticed(home.pictures / ".clipsearchignore")
    assert (done.left_out, done.images) == (3, 3)


def test_an_archive_counts_as_a_whole_once_it_is_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.0)
    for colour in COLOURS[:3]:
        paint(tmp_path / "in" / f"{colour}.png", colour)

    def packed(*colours: str) -> bytes:
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            for colour in colours:
                archive.write(tmp_path / "in" / f"{colour}.png", f"{colour}.png")
        return (tmp_path / "new.zip").read_bytes()

    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.zip").write_bytes(packed("red"))
    alone = tmp_path / "alone.zip"
    alone.write_bytes(packed("red"))
    watch = Watch(tmp_path / FOLDER, [tmp_path / "p", alone], Model(TinyEncoder(), MODEL), Notices())
    assert watch.begin(rules=Rules(archives=True))[0].images == 2
    two = packed("green", "blue")
    for archive in (tmp_path / "p" / "a.zip", alone):
        for size in (len(two) // 2, len(two)):
            archive.write_bytes(two[:size])
            watch._note([os.fsencode(archive)])
            assert list(watch.work()) == []
        (done,) = watch.work()
        assert (done.unreadable, done.removed, done.embedded + done.copied) == ([], 1, 2)
        assert list(watch.work()) == []
    with closing(Store.open(tmp_path / FOLDER)) as store:
        assert store.count() == 4


def test_an_index_that_is_deleted_ends_the_watch(home: Home) -> None:
    shutil.rmtree(home.folder / FOLDER)
    with pytest.raises(IndexMissingError):
        home.noticed(home.pictures / "one" / "red.png")


def test_all_roots_are_watched_and_one_that_is_missing_at_the_start_is_waited_for(home: Home) -> None:
    paint(home.folder / "q" / "x.png", "cyan")
    other = Watch(home.folder / FOLDER, [home.folder / "q"], Model(home.encoder, MODEL), Notices())
    other.begin()
    (home.folder / "q").rename(home.folder / "away")
    home.watch = Watch(home.folder / FOLDER, [], Model(home.encoder, MODEL), home.notices)
    assert [summary.images for summary in home.watch.begin()] == [7]
    assert home.notices.watched[-1] == [os.fsencode(home.pictures)]
    paint(home.folder / "away" / "y.png", "gold")
    (home.folder / "away").rename(home.folder / "q")
    assert sum(summary.embedded for summary in home.noticed(looks=3)) == 1


# --- notices ---


def test_the_system_tells_of_changes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with closing(SystemEvents()) as events:
        events.watch([os.fsencode(first)])
        (first / "a.png").touch()
        assert os.fsencode(first / "a.png") in events.wait(30)
        events.watch([os.fsencode(second)])
        (first / "b.png").touch()
        (second / "c.png").touch()
        assert events.wait(30) == {os.fsencode(second / "c.png")}
        events.watch([])
        assert events.wait(0) == set()


def test_a_folder_that_cannot_be_watched_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import watchfiles

    def full(*_: object, **__: object) -> Iterator[set[object]]:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", full)
    with closing(SystemEvents()) as events:
        events.watch([os.fsencode(tmp_path)])
        with pytest.raises(InputError, match="watch limit") as error:
            events.wait(1)
    assert error.value.hints == ("poll",)


def test_polling_names_all_places_at_its_times() -> None:
    events = Polling(0.01)
    events.watch([b"/a", b"/b"])
    assert events.wait(5) == {b"/a", b"/b"}
    assert events.wait(0) == set()


# --- the command ---


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--poll", "5"], "--poll is for --watch"), (["--watch", "--strict"], "leave --strict and --reread out")],
)
def test_options_that_do_not_go_together(tmp_path: Path, run: Run, options: list[str], said: str) -> None:
    paint(tmp_path / "p" / "a.png", "red")
    done = run("index", "p", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr.decode()


def test_the_command_from_a_burst_to_ctrl_c(tmp_path: Path, environment: dict[str, str], run: Run) -> None:
    for colour in COLOURS:
        paint(tmp_path / "p" / f"{colour}.png", colour)
    burst = tmp_path / "burst"
    for i in range(200):
        paint(burst / f"{i}.jpg", COLOURS[i % 10], (64 + i, 48))
    command = [sys.executable, "-m", "clipsearch", "index", "p", "--watch", "--json", "--model", "picturebook"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = iter(process.stdout.readline, b"")

        def until(is_done: Callable[[dict[str, int]], bool]) -> dict[str, int]:
            return next(found for found in map(json.loads, lines) if is_done(found))

        assert until(lambda found: found["images"] == 10)["embedded"] == 10
        for path in burst.iterdir():
            shutil.copy(path, tmp_path / "p")
        assert run("query", "a red thing", "-k", "1", cwd=tmp_path).returncode == 0  # all the while
        until(lambda found: found["images"] == 210)
        (tmp_path / "p" / "red.png").unlink()
        (tmp_path / "p" / "0.jpg").rename(tmp_path / "p" / "zero.jpg")
        last = until(lambda found: found["images"] == 209)
        assert last["moved"] + last["copied"] <= 1
        out = run("query", "a red thing", "-k", "all", "--format", "paths", cwd=tmp_path).stdout.splitlines()
        assert b"p/zero.jpg" in out
        assert b"p/0.jpg" not in out
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
        assert process.wait(30) == 130
    assert "Watching for changes." in said
    assert said.rstrip().endswith("Interrupted.")
