"""Whatever kills a run, and whatever its disk refuses: the index stays whole, and the next run goes on from there."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import SAMPLES, Run, index
from faulty import COPIES, Call, Faults, Kind, read_log, repeat
from invariants import Held, State, Truth, assert_kept, observe, regions_of
from PIL import Image
from warm import WITHOUT_TORCH, Warm

from clipsearch.errors import IndexWriteError, InputError
from clipsearch.images.files import Rules
from clipsearch.index.diff import Changes
from clipsearch.index.format import ARRAYS, BOXES, CODES, DATABASE, HEADER_BYTES, NEW_DATABASE, NEW_MATRIX, REGIONS
from clipsearch.index.reading import Store
from clipsearch.index.targets import Target
from clipsearch.index.writing import Writer
from clipsearch.system.interrupts import shielded

JOURNAL, NEW_JOURNAL = f"{DATABASE}-journal", f"{NEW_DATABASE}-journal"
WRITES = {"write", "pwrite", "writev", "fwrite", "sendfile", "copy_file_range"}
SYNCS = {"fsync", "fdatasync"}
NEED_NO_SPACE = SYNCS | {"unlink", "rename", "rmdir"}
ROWS = {kind.name for kind in (*ARRAYS, CODES)}
NEW_ROWS = {kind.new_name for kind in ARRAYS}
EXTRA_FILES = {name for kind in (REGIONS, BOXES, CODES) for name in (kind.name, kind.new_name)}
"""What only an index with regions or codes has."""
TINY = Path(tiny.__file__)


def draw(path: Path, seed: int, height: int = 6) -> Path:
    """A small picture like no other. With fewer rows it is too small for regions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def learn(truth: Truth, *pictures: Path) -> None:
    """Which vectors the small encoder gives these pictures and their regions."""
    paths = [os.fsencode(picture) for picture in pictures]
    truth.learn_files(
        {path: tiny.expected(path) for path in paths}, {path: tiny.expected_regions(path) for path in paths}
    )


# -- a fault at each call in turn ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """How a command ended that met a fault: its status, what it said, its calls, and the index that it left."""

    status: int
    talk: str
    calls: Sequence[Call]
    index: Path

    def commits_before(self, number: int) -> int:
        """How often the index had been committed before that call."""
        return sum(is_commit(call) for call in self.calls if call.number < number)


def is_commit(call: Call) -> bool:
    """Whether this is the call that makes a transaction count: the end of SQLite's journal."""
    return (call.name, call.path) == ("unlink", JOURNAL)


@dataclass
class Story:
    """A program, the index that it meets, and how to get to the end of the story from anywhere in it."""

    home: Path
    """Holds the pictures and, beside them, each attempt's own copy of the index."""
    faults: Faults
    warm: Warm
    program: Callable[[Path], Sequence[str | Path]]
    """What is run, given the index."""
    resume: Callable[[Path], object]
    truth: Truth = field(default_factory=Truth)
    before: Path | None = None
    """The index that the program meets; None for none."""
    checkpoint_seconds: float = 0
    """By default every file is committed by itself."""
    is_extra: bool = False
    """Whether it is about regions or codes: all else that the program does is also done in a story without."""
    known: dict[bytes, Held] = field(default_factory=dict)
    """What indexes hold that were left, by all of their bytes, and whose story has come to its end from there."""

    def variables(self, folder: Path, at: int, kind: Kind, log: Path, **copies: Any) -> dict[str, str]:  # noqa: ANN401
        """What the program needs to know of the fault that it is to meet."""
        variables = self.faults.environment(folder, at, kind, log, **copies)
        return variables | {"TINY_CHECKPOINT_SECONDS": str(self.checkpoint_seconds)}

    def attempt(self, at: int = 0, kind: Kind = "kill", **copies: Any) -> Ending:  # noqa: ANN401
        """Run the program on a fresh copy of the index, with a fault at its `at`-th call, in a process of its own."""
        folder, log = self.home / f"index-{kind}-from-{at}", self.home / f"log-{kind}-from-{at}"
        if self.before:
            shutil.copytree(self.before, folder)
        done = self.warm.run(self.program(folder), env=self.variables(folder, at, kind, log, **copies))
        ending = Ending(done.returncode, done.stderr.decode(), read_log(log), folder)
        log.unlink()
        return ending

    @cached_property
    def calls(self) -> Sequence[Call]:
        """What the program does where nothing goes wrong."""
        ending = self.attempt()
        assert ending.status == 0, ending.talk
        return ending.calls

    @cached_property
    def states(self) -> list[State]:
        """The index after none, one, two ... of the commits of a program that is killed after each."""
        states = [observe(self.before, self.truth) if self.before else State()]
        for call in filter(is_commit, self.calls):
            folder = self.attempt(call.number + 1).index
            states.append(observe(folder, self.truth))
            shutil.rmtree(folder)
        return states

    def turns(self, kind: Kind) -> list[int]:
        """The calls where a fault of this kind makes a difference: of each sort of moment the first and the last.

        What a fault meets is told by the call, the one before it and the one after it, by their names and files: each
        file that is committed by itself is written in the same steps as the one before. Each commit is met. Where a
        story is about regions or codes, moments without their files are met once, and a quarter of them by faults.
        """
        sorts: dict[Sequence[tuple[str, str] | None], list[Call]] = {}
        steps = [None, *((call.name, call.path) for call in self.calls), None]
        for call in self.calls:
            sorts.setdefault(tuple(steps[call.number - 1 : call.number + 2]), []).append(call)
        chosen = {call.number for call in self.calls if is_commit(call) or call.name == "rename"}
        for place, (sort, alike) in enumerate(sorts.items()):
            is_known = self.is_extra and not any(step and step[1] in EXTRA_FILES for step in sort)
            if not is_known:
                chosen |= {alike[0].number, alike[-1].number}
            elif kind in COPIES or place % 4 == 0:
                chosen.add(alike[-1].number)
        calls = [call for call in self.calls if call.number in chosen]
        # Where nothing can be done by half, these are like the others. A full disk is noticed by what needs space.
        if kind in ("kill-torn", "short"):
            return [call.number for call in calls if call.name in WRITES]
        return [call.number for call in calls if kind != "enospc" or call.name not in NEED_NO_SPACE]

    def try_all(self, turns: Sequence[int], kind: Kind) -> None:
        """Try a fault at each of these calls."""
        assert turns
        assert len(self.states) >= 3
        for at, ending in zip(turns, self.endings(turns, kind), strict=True):
            self.check(at, kind, ending)

    def endings(self, turns: Sequence[int], kind: Kind) -> Iterator[Ending]:
        """What a fault at each of these calls leaves. For kills the program runs once, else in one process."""
        logs = {at: self.home / f"log-{kind}-{at}" for at in turns}
        folders = {at: self.home / f"index-{kind}-{at}" for at in turns}
        if kind in COPIES:
            whole = self.attempt(1, kind, copies=self.home / f"index-{kind}-", only=turns)
            assert whole.status == 0, whole.talk
            assert whole.calls == self.calls
            yield from (Ending(-signal.SIGKILL, "", whole.calls[:at], folders[at]) for at in turns)
            return
        attempts = []
        for at in turns:
            if self.before:
                shutil.copytree(self.before, folders[at])
            attempts.append((self.program(folders[at]), self.variables(folders[at], at, kind, logs[at])))
        for at, (status, talk) in zip(turns, repeat(self.warm, attempts), strict=True):
            yield Ending(status, talk, read_log(logs[at]), folders[at])
            logs[at].unlink()

    def check(self, at: int, kind: Kind, ending: Ending) -> None:
        """Everything that must hold after a fault at one call, and the end of the story all the same."""
        before, *later = (state.held for state in self.states[ending.commits_before(at) :])
        call = ending.calls[at - 1]
        where = f"{kind} at {call}: {ending.status}, {ending.talk}"
        content = digest_of_folder(ending.index)
        found = self.known[content] if content in self.known else observe(ending.index, self.truth).held
        if kind.startswith("kill"):
            # Whichever call between two commits was the last: what the first of them committed is there, and no more.
            assert found == before, where
        elif ending.status == 0:  # it could do without
            assert found == (later or [before])[-1], where
        else:
            check_talk(ending.status, ending.talk)
            # More than before only if the fault came after the very commit, and never rows that are perhaps not on
            # the disk: the next fsync of the same file would say that all is well.
            unsure = call.name in SYNCS and call.path in ROWS | NEW_ROWS
            assert found in [before, *([] if unsure else later[:1])], where
        if content not in self.known:
            self.resume(ending.index)
            # What was begun is finished, and nothing is left of the fault.
            assert observe(ending.index, self.truth, tidy=True).held == self.states[-1].held, where
            self.known[content] = found
        shutil.rmtree(ending.index, ignore_errors=True)


def digest_of_folder(folder: Path) -> bytes:
    """Tells folders apart whose files differ in names or content."""
    total = hashlib.blake2b()
    for path in sorted(folder.glob("*")):
        total.update(repr((path.name, path.read_bytes())).encode())
    return total.digest()


def check_talk(status: int, talk: str) -> None:
    """What a program says whose index cannot be written."""
    assert status == 2, talk
    assert "write" in talk
    assert "Traceback" not in talk
    assert len(talk.splitlines()) <= 3, talk


def first_run(home: Path, faults: Faults, warm: Warm, *, count: int = 2, regions: bool | None = None) -> Story:
    """Some pictures, and no index yet."""
    pictures = home / "pictures"
    options = [] if regions is None else ["--regions" if regions else "--no-regions"]
    story = Story(
        home,
        faults,
        warm,
        lambda folder: ["-m", "tiny", folder, pictures, *options],
        lambda folder: tiny.update(folder, pictures, regions=regions),
        is_extra=regions is not None,
    )
    learn(story.truth, *(draw(pictures / f"{i}.png", i) for i in range(count)))
    if regions is not None:
        learn(story.truth, draw(pictures / "small.png", 50, height=4))
    return story


def first_run_with_regions(home: Path, faults: Faults, warm: Warm) -> Story:
    """Some pictures, one of them too small for regions, and no index yet."""
    return first_run(home, faults, warm, regions=True)


def given_regions(home: Path, faults: Faults, warm: Warm) -> Story:
    """An index without regions gets some, for pictures that change and for others that do not."""
    story = first_run(home, faults, warm, count=4, regions=True)
    pictures = home / "pictures"
    shutil.copy(pictures / "3.png", pictures / "copy.png")
    story.before = home / "index-before"
    tiny.update(story.before, pictures)
    learn(story.truth, draw(pictures / "0.png", 100))
    return story


def dropped_regions(home: Path, faults: Faults, warm: Warm) -> Story:
    """An index with regions loses them, and a picture changes."""
    story = first_run(home, faults, warm, count=4, regions=False)
    story.before = home / "index-before"
    tiny.update(story.before, home / "pictures", regions=True)
    learn(story.truth, draw(home / "pictures" / "0.png", 100))
    return story


def many_changes(
    home: Path, faults: Faults, warm: Warm, *, regions: bool | None = None, codes: bool | None = None
) -> Story:
    """Of the pictures some change, come, move and go, and the matrix is rewritten without the dead third."""
    story = first_run(home, faults, warm, count=7, regions=regions)
    pictures = home / "pictures"
    (pictures / "bad.png").write_bytes(b"no picture")
    story.before = home / "index-before"
    tiny.update(story.before, pictures, regions=regions, codes=codes)
    learn(story.truth, *(draw(pictures / f"{i}.png", 100 + i) for i in (1, 4, 6)))
    learn(story.truth, draw(pictures / "new.png", 200))
    (pictures / "2.png").rename(pictures / "moved.png")
    shutil.copy(pictures / "3.png", pictures / "copy.png")
    (pictures / "5.png").unlink()
    (pictures / "bad.png").unlink()
    story.checkpoint_seconds = 1000  # the first file is committed at once, and all others together
    return story


def many_changes_with_regions(home: Path, faults: Faults, warm: Warm) -> Story:
    """The same in an index with regions, which are rewritten as well, and with codes, which are made again."""
    return many_changes(home, faults, warm, regions=True, codes=True)


def forgotten(home: Path, faults: Faults, warm: Warm, *, regions: bool | None = None) -> Story:
    """One of two folders is dropped with the real command, and the matrix is rewritten without its half."""
    story = first_run(home, faults, warm, count=7, regions=regions)
    other = home / "other"
    learn(story.truth, *(draw(other / f"{i}.png", 100 + i) for i in range(7)))
    story.before = home / "index-before"
    tiny.update(story.before, home / "pictures", other, regions=regions)
    story.program = lambda folder: ["-m", "clipsearch", "forget", other, "--index", folder]

    def resume(folder: Path) -> None:
        with Writer.locked(folder) as writer:
            writer.forget([root.path for root in writer.roots() if root.path == os.fsencode(other)])

    story.resume = resume
    return story


def forgotten_with_regions(home: Path, faults: Faults, warm: Warm) -> Story:
    """The same in an index with regions."""
    return forgotten(home, faults, warm, regions=True)


def upgraded(home: Path, faults: Faults, warm: Warm) -> Story:
    """An index of format 1, as clipsearch 0.1 left it, meets a run that finds nothing new."""
    story = first_run(home, faults, warm, count=7)
    story.before = home / "index-before"
    tiny.update(story.before, home / "pictures")
    with closing(sqlite3.connect(story.before / DATABASE)) as database:
        database.executescript(tiny.WITHOUT_FORMAT_3)
        database.executescript(
            "DROP INDEX images_by_hash; DROP TABLE dead; DROP TABLE roots;"
            "CREATE TABLE dead (row INTEGER PRIMARY KEY); CREATE TABLE roots (path BLOB PRIMARY KEY);"
            "INSERT INTO roots VALUES (CAST('pictures' AS BLOB)); UPDATE meta SET value = '1' WHERE key = 'format'"
        )
    return story


STORIES = (
    *(first_run, many_changes, forgotten, upgraded),
    *(first_run_with_regions, given_regions, dropped_regions, many_changes_with_regions, forgotten_with_regions),
)


@pytest.fixture(scope="module")
def warm(faults: Faults, environment: dict[str, str]) -> Iterator[Warm]:
    with faults.warm(environment, ("tiny", *WITHOUT_TORCH)) as warm:
        yield warm


@pytest.fixture(scope="module", params=STORIES, ids=lambda story: story.__name__)
def story(request: pytest.FixtureRequest, in_memory: Path, faults: Faults, warm: Warm) -> Story:
    made: Story = request.param(Path(tempfile.mkdtemp(dir=in_memory)), faults, warm)
    return made


@pytest.mark.parametrize("kind", ["kill", "kill-torn"])
def test_killed_at_each_write_in_turn(story: Story, kind: Kind) -> None:
    story.try_all(story.turns(kind), kind)


@pytest.mark.parametrize("kind", ["enospc", "short", "eio"])
def test_a_fault_at_each_write_in_turn(story: Story, kind: Kind) -> None:
    story.try_all(story.turns(kind), kind)


def test_power_may_fail_at_any_time(story: Story) -> None:
    """Nothing is committed before what it relies on is on the disk: content, and the names of files."""
    files = {DATABASE, NEW_DATABASE} | ROWS | NEW_ROWS
    written, named = set[str](), set[str]()
    """Files and names that a power cut would leave as they were before."""
    for call in story.calls:
        if is_commit(call) or call.name == "rename":
            assert not written & files, call
        if is_commit(call):
            assert not named & files, call
        if call.name == "rename":  # after a commit that must not come undone: its journal must stay away
            assert not named & {JOURNAL, NEW_JOURNAL}, call
        if call.name in WRITES:
            if call.path in ROWS and call.size == HEADER_BYTES:  # other programs rely on it, without any database
                assert call.path not in written, call
            written.add(call.path)
        elif call.name in SYNCS:
            written.discard(call.path)
            if call.path == ".":
                named.clear()
        elif call.name in ("open", "rename") or call.path in (JOURNAL, NEW_JOURNAL):
            named.add(call.path)


def test_power_may_fail_after_the_first_commit_of_a_new_folder(tmp_path: Path, faults: Faults, warm: Warm) -> None:
    pictures, log = draw(tmp_path / "pictures" / "a.png", 1).parent, tmp_path / "log"
    home = tmp_path / "home"
    home.mkdir()
    done = warm.run([TINY, home / "new" / "index", pictures], env=faults.environment(home, log=log))
    assert done.returncode == 0, done.stderr
    steps = [(call.name, call.path) for call in read_log(log)]
    made = {path: steps.index(("mkdir", path)) for path in ("new", "new/index")}
    committed = steps.index(("unlink", f"new/index/{JOURNAL}"))
    assert ("fsync", ".") in steps[made["new"] : committed]
    assert ("fsync", "new") in steps[made["new/index"] : committed]


# -- the real command, killed again and again -----------------------------------------------------------------

KILLS = 10
MANY_CHECKPOINTS = """
import clipsearch.index.run
clipsearch.index.run.CHECKPOINT_SECONDS = 0
from clipsearch.cli import main
main()
"""


@pytest.mark.parametrize(("options", "count"), [([], 50), (["--regions"], 20)], ids=["", "regions"])
def test_a_real_index_killed_again_and_again_loses_nothing(
    tmp_path: Path, run: Run, environment: dict[str, str], faults: Faults, *, options: list[str], count: int
) -> None:
    # What a killed run leaves on the disk changes with its calls only, so that a random call is a random moment.
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for picture in sorted(SAMPLES.glob("*/*.*"))[:count]:
        shutil.copy(picture, pictures / f"{picture.parent.name}-{picture.name}")
    program = tmp_path / "program.py"
    program.write_text(MANY_CHECKPOINTS)
    common = ["pictures", "--model", "picturebook", "--engine", "numpy", *options, "--index"]
    index(run, *common, "undisturbed", cwd=tmp_path)
    truth = truth_of(tmp_path / "undisturbed")
    rng = random.Random(0)
    kills = early = 0
    with faults.warm(environment, WITHOUT_TORCH) as warm:
        for attempt in itertools.count():
            # One index is killed again and again, until a run comes through; then comes the next one.
            folder, state = tmp_path / f"index-{attempt}", State()
            arguments = ["index", *common, folder.name]
            while kills < KILLS:
                # Before its first commit, or after some.
                at = rng.randint(1, 5) if kills % 4 == 0 else rng.randint(100, 20 * count)
                done = warm.run([program, *arguments], cwd=tmp_path, env=faults.environment(folder, at))
                before, state = state, observe(folder, truth)
                assert_kept(before, state, before.digests)
                if done.returncode == 0:
                    break
                assert done.returncode == -signal.SIGKILL, done.stderr
                kills += 1
                early += len(state.digests) == len(before.digests)
            index(run, *arguments[1:], cwd=tmp_path)
            end = observe(folder, truth, tidy=True)
            assert_kept(state, end, state.digests)
            assert len(end.digests) == count
            assert len(end.regions) == (count if options else 0)
            if kills == KILLS:
                break
    assert 0 < early < KILLS


def truth_of(folder: Path) -> Truth:
    """What an undisturbed index says of its pictures, if they can be told apart at all."""
    truth = Truth(tolerance=1e-3)
    with closing(Store.open(folder)) as store:
        matrix, _ = store.matrix()
        images = {record.path: record for record in store.records() if record.row is not None}
        vectors = {path: np.array(matrix[record.row]) for path, record in images.items()}
        truth.learn_files(vectors, regions_of(store, images, complete=True))
    assert truth.tells_apart()
    return truth


# -- readers while a writer is at work ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--regions"]], ids=["", "regions"])
def test_readers_see_whole_checkpoints_only(tmp_path: Path, warm: Warm, options: list[str]) -> None:
    pictures, folder, truth, count = tmp_path / "pictures", tmp_path / "index", Truth(), 60

    def watched_update() -> list[State]:
        seen = []
        with warm.begin(["-m", "tiny", folder, pictures, *options], env={"TINY_CHECKPOINT_SECONDS": "0"}) as writer:
            while writer.poll() is None:
                seen.append(observe(folder, truth))
        assert writer.returncode == 0
        return [*seen, observe(folder, truth, tidy=True)]

    learn(truth, *(draw(pictures / f"{i:03}.png", i) for i in range(count)))
    growing = watched_update()
    assert any(0 < len(state.digests) < count for state in growing)
    for earlier, later in itertools.pairwise(growing):
        assert_kept(earlier, later, earlier.digests)
    # Now half of the pictures change, and so many dead rows have the matrix rewritten.
    before = growing[-1]
    learn(truth, *(draw(pictures / f"{i:03}.png", 1000 + i) for i in range(0, count, 2)))
    for state in watched_update():
        assert_kept(before, state, sorted(before.digests)[1::2])
        assert state.digests.keys() == before.digests.keys()


def test_what_a_reader_has_mapped_outlives_the_rewriting_of_the_matrix(tmp_path: Path) -> None:
    pictures, folder, truth = tmp_path / "pictures", tmp_path / "index", Truth()
    files = [draw(pictures / f"{i}.png", i) for i in range(8)]
    learn(truth, *files)
    tiny.update(folder, pictures)
    with closing(Store.open(folder)) as store:
        matrix, _ = store.matrix()
        before = np.array(matrix)
        for file in files[:4]:
            file.unlink()
        tiny.update(folder, pictures)
        after, alive = store.matrix()
        assert (len(after), alive) == (4, None)
        learn(truth, draw(pictures / "new.png", 100))
        tiny.update(folder, pictures)
        assert len(store.matrix()[0]) == 5
        np.testing.assert_array_equal(matrix, before)
    assert len(observe(folder, truth, tidy=True).digests) == 5


def test_a_rewritten_matrix_waits_for_readers_of_the_old_one(tmp_path: Path) -> None:
    pictures, folder, truth = tmp_path / "pictures", tmp_path / "index", Truth()
    files = [draw(pictures / f"{i}.png", i) for i in range(8)]
    learn(truth, *files)
    tiny.update(folder, pictures)
    with Writer.locked(folder) as writer:
        writer.remove([os.fsencode(file) for file in files[:4]])
        writer.commit()
    with closing(Store.open(folder)) as store:
        with ThreadPoolExecutor(1) as pool:
            with store.snapshot():
                rows = {record.path: record.row for record in store.records()}
                rewriting = pool.submit(rewrite, folder)
                while not (folder / NEW_MATRIX).exists():
                    assert not rewriting.done()
                # The writer is about to commit other row numbers, and may not.
                matrix, alive = store.matrix()
                assert alive is not None
                assert {record.path: record.row for record in store.records()} == rows
                for path, row in rows.items():
                    np.testing.assert_array_equal(matrix[row], tiny.expected(path))
            rewriting.result()
        assert len(store.matrix()[0]) == 4
    observe(folder, truth, tidy=True)


def rewrite(folder: Path) -> None:
    with Writer.locked(folder) as writer:
        writer.compact()


# -- what fails beside the index ------------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [[1, 2], [1, 1, 2]], ids=["searched", "read"])
def test_a_drive_unmounted_while_it_is_searched_or_read_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: list[int]
) -> None:
    pictures, folder, truth = tmp_path / "pictures", tmp_path / "index", Truth()
    files = [draw(pictures / f"{i}.png", i) for i in range(4)]
    learn(truth, *files)
    tiny.update(folder, pictures)
    files[0].unlink()
    monkeypatch.setattr("clipsearch.index.diff.device_of", lambda _: devices.pop(0))
    with pytest.raises(InputError, match="no longer"):
        tiny.update(folder, pictures)
    assert not devices
    assert len(observe(folder, truth, tidy=True).digests) == 4


def test_no_room_for_temporary_files_is_an_error_that_says_so(tmp_path: Path) -> None:
    for i in range(200):
        (tmp_path / f"{i:050}.png").touch()
    root = os.fsencode(tmp_path)
    with closing(Changes()) as changes:
        changes._queue.execute("PRAGMA max_page_count = 2")
        with pytest.raises(IndexWriteError, match="full"):
            changes.compare(Target(root, root, Rules(), retry=False), None, allow_empty=False, searching=lambda _: None)


# -- signals -----------------------------------------------------------------------------------------------------


class Signalled(KeyboardInterrupt):
    """What the handlers of these tests raise."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_step_of_the_shield_is_neither_lost_nor_halves_the_work(number: signal.Signals) -> None:
    for at in itertools.count(1):
        with handlers_that_raise():
            steps: list[int] = []
            work: list[int] = []
            signalled = False
            try:
                with signal_at_line(number, at, steps), shielded():
                    work.append(1)
                    work.append(2)
            except Signalled:
                signalled = True
            if len(steps) < at:
                assert at > 20
                return
            assert signalled, at
            assert len(work) in (0, 2), at
            for other in (signal.SIGINT, signal.SIGTERM):
                with pytest.raises(Signalled):
                    signal.raise_signal(other)


@contextmanager
def handlers_that_raise() -> Iterator[None]:
    def handle(_: int, __: FrameType | None) -> None:
        raise Signalled

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signal_at_line(number: int, at: int, steps: list[int]) -> Iterator[None]:
    """Within: the signal comes at the `at`-th line of the shield or of what enters and leaves it."""

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if os.path.basename(frame.f_code.co_filename) not in ("interrupts.py", "contextlib.py"):
            return None
        if event == "line":
            steps.append(frame.f_lineno)
            if len(steps) == at:
                signal.raise_signal(number)
        return trace

    debugger = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(debugger)
