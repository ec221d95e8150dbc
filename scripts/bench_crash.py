"""Test of an index whose runs are killed and whose disk fails, with counts of whatever is lost.

The real command is killed at random moments, again and again, while its pictures change between the runs. Then small
runs meet a fault at each call by which they change the index, one call after the other, with each kind of fault; that
needs Linux and a C compiler. The commands that delete and move pictures are killed and made to fail as well, and the
different contents are counted, before and after. With 200 kills it all takes half an hour. Run it with:

    python scripts/bench_crash.py
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import get_args

import bench_common as common
import numpy as np
import pytest
from PIL import ImageOps

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "tests" / folder) for folder in (".", "support", "index")]

from conftest import SAMPLES  # noqa: E402
from faulty import Faults, Kind, library  # noqa: E402
from invariants import (  # noqa: E402
    LostRowsError,
    Regions,
    ShiftedRowsError,
    State,
    Truth,
    UnreadableIndexError,
    Vector,
    assert_kept,
    digest_of,
    observe,
)
from removal_stories import IMPORTS as REMOVAL_IMPORTS  # noqa: E402
from removal_stories import PROGRAMS, Removal, contents, make_pair  # noqa: E402
from test_crash import STORIES, Story  # noqa: E402
from warm import WITHOUT_TORCH  # noqa: E402

from clipsearch.images.codecs.decoding import decode  # noqa: E402
from clipsearch.images.regions import layout  # noqa: E402
from clipsearch.index.format import DATABASE, NEW_MATRIX  # noqa: E402
from clipsearch.system.naming import ASIDE, restore  # noqa: E402

MODEL = "picturebook"
CLIPSEARCH = (sys.executable, "-m", "clipsearch")
TOLERANCE = 1e-3
"""Tolerance of a component of a vector: its last bits depend on the other images of a batch."""
LOADING_SECONDS, WORKING_SECONDS = 2.0, 3.0
"""Largest times of a kill, in seconds from the start of a run or from its first checkpoint."""
CHANGES = ((0.15, 3), (0.7, 1))
"""Shares of the pictures that change at a time, and their weights; the larger one has the matrix rewritten."""
FIGURES = (
    *("kills", "kills_before_first_checkpoint", "kills_while_rewriting", "runs_completed"),
    *("rows_lost", "rows_shifted", "unreadable_indexes"),
)


def main() -> None:
    """Kill, fail, report."""
    parser = argparse.ArgumentParser(description="What kills and failing disks cost an index.")
    parser.add_argument("--kills", type=int, default=200, help="of the real command (default %(default)s)")
    parser.add_argument("--removals", type=int, default=100, help="kills of deletes and moves (default %(default)s)")
    parser.add_argument("--images", type=int, default=150, help="in the folder at the start (default %(default)s)")
    parser.add_argument("--regions", action="store_true", help="in an index with regions, without deletes and faults")
    parser.add_argument("--seed", type=int, default=0, help="for another course of events (default %(default)s)")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-crash-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        album = Album(work / "album", given.images, random.Random(given.seed), regions=given.regions)
        figures: dict[str, object] = dict(kill(given.kills, album, work))
        if not given.regions:  # which make no difference to the others, or have faults of their own there
            figures |= kill_removals(given.removals, work / "removals", random.Random(given.seed))
            figures["faults"], figures["failures"] = fail(work)
    seconds = round(time.monotonic() - started)
    common.finish(benchmark="crash", regions=given.regions, seed=given.seed, **figures, seconds=seconds)


# -- kills of the real command --------------------------------------------------------------------------------


class Album:
    """A folder of pictures that changes, and the vector of whatever may ever be in it."""

    def __init__(self, folder: Path, images: int, rng: random.Random, *, regions: bool) -> None:
        self.folder = folder
        self.rng = rng
        self.regions = regions
        self.truth = Truth(TOLERANCE)
        self.renamed: dict[bytes, bytes] = {}
        """Old and new paths of the last change."""
        self._numbers = itertools.count()
        self._contents = []
        for content, vector, of_regions in distinct(sample_contents(), regions=regions):
            self._contents.append(content)
            self.truth.learn(content, vector, of_regions)
        folder.mkdir(parents=True)
        for _ in range(images):
            self._fill(self._new())

    def digests(self) -> dict[bytes, bytes]:
        """The content hash of every picture as it is now."""
        return {os.fsencode(path): digest_of(path.read_bytes()) for path in self.folder.iterdir()}

    def change(self) -> None:
        """Change, rename or delete some of the pictures, or add others beside them."""
        self.renamed = {}
        shares, weights = zip(*CHANGES, strict=True)
        (share,) = self.rng.choices(shares, weights)
        for path in sorted(self.folder.iterdir()):
            if self.rng.random() < share:
                self.rng.choice((self._fill, self._rename, Path.unlink, lambda _: self._fill(self._new())))(path)

    def _new(self) -> Path:
        return self.folder / f"{next(self._numbers):05}.png"

    def _fill(self, path: Path) -> None:
        path.write_bytes(self.rng.choice(self._contents))

    def _rename(self, path: Path) -> None:
        new = path.rename(self._new())
        self.renamed[os.fsencode(path)] = os.fsencode(new)


def sample_contents() -> Iterator[bytes]:
    """The sample pictures, each also mirrored and upside down."""
    for path in sorted(SAMPLES.glob("*/*.*")):
        content = path.read_bytes()
        yield content
        image = decode(content).image
        for turned in (ImageOps.mirror(image), ImageOps.flip(image)):
            file = io.BytesIO()
            turned.save(file, "PNG")
            yield file.getvalue()


def distinct(contents: Iterator[bytes], *, regions: bool) -> Iterator[tuple[bytes, Vector, Regions]]:
    """Contents with their vectors and those of their regions, less those whose vector is too much like one before."""
    from clipsearch.models.disk.files import locate
    from clipsearch.models.in_torch.encoder import Encoder

    encoder = Encoder(locate(MODEL), "cpu")
    known = np.empty((0, encoder.dim), np.float16)
    for content in contents:
        decoded = decode(content)
        boxes = layout(decoded.width, decoded.height, encoder.preprocessing.side or 0) if regions else []
        images = [decoded.image, *map(decoded.part, boxes)]
        vector, *others = encoder.encode_images(np.stack(list(map(encoder.preprocessing, images)))).astype(np.float16)
        if np.abs(known - vector).max(axis=1, initial=0).min(initial=np.inf) > 4 * TOLERANCE:
            known = np.concatenate([known, vector[np.newaxis]])
            edges = [box.in_pixels(decoded.width, decoded.height) for box in boxes]
            yield content, vector, dict(zip(edges, others, strict=True))


def kill(kills: int, album: Album, work: Path) -> dict[str, int]:
    """Kill runs on one index while its album changes; how many of what there was."""
    index, state = work / "index", State()
    figures = Counter(dict.fromkeys(FIGURES, 0))
    while figures["kills"] < kills:
        completed = run_and_kill(album, index, figures)
        try:
            state = check(album, index, state, completed=completed)
        except AssertionError as error:
            count_breach(error, figures)
            shutil.rmtree(index, ignore_errors=True)
            state = State()
        if completed or album.rng.random() < 0.3:
            album.change()
        if not completed and figures["kills"] % 10 == 0:
            print(f"{figures['kills']} of {kills} kills: {dict(figures)}", flush=True)
    # In the end a run that nobody disturbs, and beside it an index from nothing.
    for folder, before in ((index, state), (work / "undisturbed", State())):
        subprocess.run(command(album, folder), check=True, capture_output=True)
        try:
            check(album, folder, before, completed=True)
        except AssertionError as error:
            count_breach(error, figures)
    return dict(figures)


MANY_CHECKPOINTS = """
import clipsearch.index.run
clipsearch.index.run.CHECKPOINT_SECONDS = 0.05
from clipsearch.cli import main
main()
"""


def command(album: Album, index: Path) -> list[str | Path]:
    """A run with many checkpoints."""
    regions = ["--regions"] if album.regions else []
    return [sys.executable, "-c", MANY_CHECKPOINTS, "index", album.folder, "--model", MODEL, "--index", index, *regions]


def run_and_kill(album: Album, index: Path, figures: Counter[str]) -> bool:
    """Start a run and kill it at a random moment; whether it was over before."""
    before = last_commit(index)
    with tempfile.TemporaryFile() as talk:
        with subprocess.Popen(command(album, index), stdout=talk, stderr=talk) as process:
            wait(process, index, album.rng)
            process.kill()
        if process.returncode > 0:
            talk.seek(0)
            sys.exit(f"A run failed that nobody killed:\n{talk.read().decode()}")
    if process.returncode == 0:
        figures["runs_completed"] += 1
        return True
    figures["kills"] += 1
    figures["kills_before_first_checkpoint"] += last_commit(index) == before
    figures["kills_while_rewriting"] += (index / NEW_MATRIX).exists()
    return False


def wait(process: subprocess.Popen[bytes], index: Path, rng: random.Random) -> None:
    """Until a random moment: while the model is loaded, while it works, or while the matrix is rewritten."""
    moment = rng.random()
    if moment < 0.2:
        time.sleep(rng.uniform(0, LOADING_SECONDS))
    elif moment < 0.85:
        wait_for_progress(process, index)
        time.sleep(rng.uniform(0, WORKING_SECONDS))
    else:
        while process.poll() is None and not (index / NEW_MATRIX).exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))


def wait_for_progress(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Until a run has committed something, or is over."""
    before = last_commit(folder)
    while process.poll() is None and last_commit(folder) == before:
        time.sleep(0.005)


def last_commit(folder: Path) -> int:
    """When an index was last written to; 0 if there is none."""
    try:
        return (folder / DATABASE).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def check(album: Album, index: Path, before: State, *, completed: bool) -> State:
    """What an index holds after a run, completed or not, that found it as `before`.

    Raises:
        AssertionError: it is not whole, holds something wrong, or no longer holds what it must.
    """
    state = observe(index, album.truth, tidy=completed)
    now = album.digests()
    # 1. What has not changed is still there, and so is the content of what only got another name.
    assert_kept(before, state, [path for path, digest in before.digests.items() if now.get(path) == digest])
    contents = set(state.digests.values())
    renamed = [old for old, new in album.renamed.items() if old in before.digests and now[new] == before.digests[old]]
    if missing := [old for old in renamed if before.digests[old] not in contents]:
        raise LostRowsError("were renamed and are not there under any name", missing)
    # 2. After a run that nobody killed, everything is.
    if completed and state.digests != now:
        raise LostRowsError("are not as they are in the folder", min(now.items() ^ state.digests.items())[:1])
    return state


def count_breach(error: AssertionError, figures: Counter[str]) -> None:
    """Tell what was wrong, and count it."""
    print(f"After {figures['kills']} kills: {type(error).__name__}: {error}", flush=True)
    if isinstance(error, LostRowsError):
        figures["rows_lost"] += error.rows
    elif isinstance(error, ShiftedRowsError):
        figures["rows_shifted"] += error.rows
    elif isinstance(error, UnreadableIndexError):
        figures["unreadable_indexes"] += 1
    else:
        raise error


# -- kills of deletes and moves ---------------------------------------------------------------------------------


def kill_removals(kills: int, work: Path, rng: random.Random) -> dict[str, int]:
    """Kill commands that delete and move pictures, each on a fresh copy of an album; how many, and what was lost.

    After each kill every content must be there, under whatever name, in the trash, or where it was to go. Then the
    command runs again, undisturbed: it must come through, and nothing may be left put aside.
    """
    before, folder = work / "before", work / "album"
    wanted = make_album_with_copies(before)
    figures = Counter(dict.fromkeys(("removal_kills", "removal_kills_with_a_file_aside", "contents_lost"), 0))
    while figures["removal_kills"] < kills:
        shutil.copytree(before, folder)
        with tempfile.TemporaryDirectory(dir=rng.choice([work, other_file_system(work)])) as name:
            target = Path(name)
            command = rng.choice(removals(target))
            env = {**os.environ, "HOME": str(folder)}
            killed = run_and_kill_removal(command, folder, env, rng)
            figures["removal_kills"] += killed
            figures["removal_kills_with_a_file_aside"] += any(folder.rglob(f"{os.fsdecode(ASIDE)}*/*"))
            figures["contents_lost"] += len(wanted - contents(folder, target))
            if "classify" in command:  # which will not move what the index has where it is no longer
                refresh = [*CLIPSEARCH, "index", "--allow-empty"]
                subprocess.run(refresh, env=env, cwd=folder, check=True, capture_output=True)
            done = subprocess.run(command, env=env, cwd=folder, capture_output=True, check=False)
            if done.returncode not in (0, 1):
                sys.exit(f"A second run failed after a kill:\n{done.stderr.decode()}")
            list(restore([os.fsencode(folder / "pictures" / "copies")]))  # if no picture is left there, none looked
            figures["contents_lost"] += len(wanted - contents(folder, target))
        shutil.rmtree(folder)
        if killed and figures["removal_kills"] % 10 == 0:
            print(f"{figures['removal_kills']} of {kills} kills of deletes and moves: {dict(figures)}", flush=True)
    return dict(figures)


def make_album_with_copies(folder: Path) -> set[bytes]:
    """Sample pictures, each with a copy in another folder, and their index; the different contents."""
    (folder / "pictures" / "copies").mkdir(parents=True)
    for path in sorted(SAMPLES.glob("*/*.*"))[:100]:
        for place in (folder / "pictures", folder / "pictures" / "copies"):
            shutil.copy(path, place / f"{path.parent.name}-{path.name}")
    subprocess.run(
        [*CLIPSEARCH, "index", "pictures", "--model", MODEL],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return contents(folder)


def other_file_system(work: Path) -> Path:
    """One in memory, where there is one."""
    memory = Path("/dev/shm")  # noqa: S108
    return memory if memory.is_dir() else work


def removals(target: Path) -> list[list[str | Path]]:
    """Commands that delete and move pictures of an album, to run in its folder."""
    delete: list[str | Path] = [*CLIPSEARCH, "duplicates", "--exact", "--delete", "--yes"]
    sort: list[str | Path] = [
        *CLIPSEARCH,
        "classify",
        "--indexed",
        "-g",
        "/pictures/copies/*",
        "-l",
        "a dog",
        "-l",
        "a cat",
    ]
    return [delete, [*delete, "--permanently"], [*sort, "--move-into", target]]


def run_and_kill_removal(command: list[str | Path], folder: Path, env: dict[str, str], rng: random.Random) -> bool:
    """Start a command and kill it at a random moment from its first change on; return whether it was still running."""
    copies = folder / "pictures" / "copies"
    there = len(os.listdir(copies))
    with subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and len(os.listdir(copies)) >= there and not any(copies.glob(".clip*")):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
    return process.returncode < 0


# -- a fault at each call -------------------------------------------------------------------------------------


def fail(work: Path) -> tuple[dict[str, int], int]:
    """Return the number of faults of each kind, and of those after which something was wrong."""
    tried: Counter[str] = Counter()
    failures = 0
    try:
        faults = Faults(library(work))
    except pytest.skip.Exception as reason:
        print(f"No faults: {reason}", flush=True)
        return {}, 0
    with faults.warm(os.environ, ("tiny", *WITHOUT_TORCH)) as warm:
        for make in STORIES:
            story = make(work / make.__name__, faults, warm)
            story.checkpoint_seconds = 0
            for kind in get_args(Kind):
                found = breaches(story, kind)
                tried[kind] += len(story.calls)
                failures += len(found)
                print(f"{make.__name__}: {kind} at {len(story.calls)} calls, {len(found)} failures", flush=True)
                for breach in found:
                    print(breach, flush=True)
    with faults.warm(os.environ, REMOVAL_IMPORTS) as warm:
        for number, name in enumerate(PROGRAMS):
            folder = make_pair(work / f"removal-{number}" / "before")
            with tempfile.TemporaryDirectory(dir=other_file_system(work)) as elsewhere:
                removal = Removal(folder, PROGRAMS[name], faults, warm, Path(elsewhere) if "another" in name else None)
                turns = removal.turns()
                for kind in get_args(Kind):
                    losses = [turn for turn in turns if loses(removal, turn, kind)]
                    tried[kind] += len(turns)
                    failures += len(losses)
                    print(f"{name}: {kind} at {len(turns)} calls, {len(losses)} failures {losses}", flush=True)
    return dict(tried), failures


def loses(removal: Removal, turn: tuple[str, int], kind: Kind) -> bool:
    """Whether a content is gone after a fault at one call."""
    watched, at = turn
    attempt = removal.attempt(f"{kind}-{watched}-{at}", watched, at, kind)
    return attempt.contents() != contents(removal.before)


def breaches(story: Story, kind: Kind) -> list[str]:
    """Return what went wrong after faults at all calls."""
    calls = [call.number for call in story.calls]
    assert len(story.states) >= 3  # made before there are threads
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [breach for breach in pool.map(partial(breach_of, story, kind), calls) if breach]


def breach_of(story: Story, kind: Kind, at: int) -> str | None:
    """Return what went wrong after a fault at one call; None if nothing did."""
    try:
        story.check(at, kind)
    except Exception as error:  # noqa: BLE001  (whatever it is, the next call has its turn)
        return f"{kind} at call {at}: {type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    main()
