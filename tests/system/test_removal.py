"""Removing and moving a user's files: whatever comes in between, no content is lost and nothing is replaced."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import tiny
from conftest import Run, deny, index, paint, unprivileged
from faulty import Faults
from removal_stories import IMPORTS, OLD, PROGRAMS, Attempt, Removal, contents, make_pair, sorting
from warm import Warm

from clipsearch.errors import FileStaysError
from clipsearch.system import copying, naming
from clipsearch.system.naming import ASIDE, put_aside, restore
from clipsearch.system.removal import Keeper, Seen, look, remove

TWO_MOUNTS = """
set -e
mkdir "$LOWER" upper work "$MERGED"
cp picture.png "$LOWER/picture.png"
touch -d 2001-02-03 "$LOWER/picture.png"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=upper,workdir=work" "$MERGED"
exec "$PYTHON" -c "$STEPS"
"""
STEPS = """
import os, runpy, sys
def run(*command):
    sys.argv = [*command]
    try:
        runpy.run_module(command[0], run_name="__main__")
    except SystemExit as end:
        return end.code
sys.path.append(os.path.dirname(os.environ["TINY"]))
folders = os.environ["LOWER"], os.environ["MERGED"]
assert run("tiny", ".clipsearch", *folders) == 0
assert run("clipsearch", "duplicates", "--exact", "--json") == 0
sys.exit(run("clipsearch", "duplicates", "--exact", "--delete", "--yes", *os.environ["MORE"].split()))
"""
MARKED = """
import os, sys
from clipsearch.errors import FileStaysError
from clipsearch.system.removal import Keeper, look, remove
one, other = (os.path.abspath(os.fsencode(path)) for path in sys.argv[1:])
seen = look(one)._replace(inode=0)  # as if the two mounts had other numbers for one file
try:
    remove(one, seen, Keeper(other, seen.digest), trash=False)
except FileStaysError as error:
    print(error)
"""


# -- a fault at each step -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm(faults: Faults, environment: dict[str, str]) -> Iterator[Warm]:
    with faults.warm(environment, IMPORTS) as warm:
        yield warm


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pair(tmp_path_factory.mktemp("removal") / "before")


@pytest.fixture(params=PROGRAMS)
def story(request: pytest.FixtureRequest, tmp_path: Path, made: Path, faults: Faults, warm: Warm) -> Iterator[Removal]:
    shutil.copytree(made, tmp_path / "before")
    another = request.getfixturevalue("another_file_system") if request.param.endswith("system") else None
    yield Removal(tmp_path / "before", PROGRAMS[request.param], faults, warm, another)
    for left in tmp_path.iterdir():  # they are many
        shutil.rmtree(left, ignore_errors=True)


def aside(folder: Path) -> list[Path]:
    """What lies put aside, or half copied."""
    return [path for path in folder.rglob("*") if path.name.startswith((os.fsdecode(ASIDE), ".clipsearch-part-"))]


def test_nothing_is_lost_and_nothing_left_where_nothing_comes_in_between(story: Removal) -> None:
    attempt = story.undisturbed
    before = contents(story.before)
    assert attempt.contents() == before
    assert not (attempt.folder / "pictures" / "copy.png").exists()
    assert (attempt.folder / "pictures" / "original.png").exists()
    assert aside(attempt.folder) == []
    assert aside(attempt.elsewhere) == []
    assert 2 <= story.calls <= 20


def test_killed_at_each_step_no_content_is_lost_and_the_next_run_ends_it(story: Removal) -> None:
    before = contents(story.before)
    for place, at in story.turns():
        attempt = story.attempt(f"killed-{place.strip('.')}-{at}", place, at)
        assert attempt.status == -signal.SIGKILL, attempt.talk
        assert attempt.contents() == before
        assert (attempt.folder / "pictures" / "original.png").exists()
        # Under its name, put aside where the next run finds it, or where it was to go.
        was_last_step = at == story.calls and "--permanently" in story.program(attempt.folder)
        assert was_last_step or [*attempt.folder.rglob("copy.png"), *attempt.elsewhere.rglob("copy.png")], at
        status, talk = again(story, attempt)
        assert status == 0, talk
        assert attempt.contents() == before
        assert (attempt.folder / "pictures" / "original.png").exists()
        assert not (attempt.folder / "pictures" / "copy.png").exists()
        assert not any(path.is_dir() for path in aside(attempt.folder / "pictures")), at


def again(story: Removal, attempt: Attempt) -> tuple[int, str]:
    """The command once more, as a user types it after a crash."""
    pictures = attempt.folder / "pictures"
    list(restore([os.fsencode(pictures)])) if story.program is sorting else None  # the command does it before it plans
    if not (pictures / "copy.png").exists() and story.program is sorting:
        return 0, "it was moved"
    status, talk = story.run(attempt.folder, {"FAULT_AT": "0", "FAULT_DIR": "/nowhere"})
    return (0, talk) if status == 1 and talk.startswith("No duplicates") else (status, talk)


SAVES = {
    "renames over": "printf 'edited, longer than before: %200s' x > {}/new && mv {}/new {}/pictures/copy.png",
    "writes": "printf 'edited, longer than before: %200s' x > {}/pictures/copy.png",
    "appends": "printf more >> {}/pictures/copy.png",
}


@pytest.mark.parametrize("save", SAVES)
def test_what_an_editor_saves_at_any_step_is_not_lost(story: Removal, save: str) -> None:
    before = contents(story.before)
    for at in range(1, story.calls + 1):
        attempt = story.attempt(f"edited-{at}", at=at, meanwhile=SAVES[save])
        pictures = attempt.pictures()
        # 1. What was saved is where the user keeps pictures: not in the trash, and not gone.
        assert any(b"edited" in content or content.endswith(b"more") for content in pictures), (at, attempt.talk)
        # 2. What was there before is there too, if only under the other name.
        assert before <= pictures, (at, attempt.talk)
        assert aside(attempt.folder) == []
        assert aside(attempt.elsewhere) == []


def test_a_keeper_that_is_replaced_at_any_step_takes_nothing_with_it(story: Removal) -> None:
    if story.program is sorting:
        pytest.skip("to move a picture needs no other one")
    before = contents(story.before)
    replace = "printf edited > {}/new && mv {}/new {}/pictures/original.png"
    # The very last step deletes what was compared a moment ago; only a trash can undo that.
    calls = story.calls if story.program(Path())[-3] != "--permanently" else story.calls - 2
    for at in range(1, calls + 1):
        attempt = story.attempt(f"replaced-{at}", at=at, meanwhile=replace)
        assert before | {b"edited"} == attempt.contents(), (at, attempt.talk)


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_at_any_step_waits_until_the_file_is_done(story: Removal, name: str) -> None:
    before = contents(story.before)
    for at in range(1, story.calls + 1):
        attempt = story.attempt(f"signal-{at}", at=at, meanwhile=f"kill -{name} $PPID")
        assert attempt.contents() == before
        assert aside(attempt.folder) == []
        assert aside(attempt.elsewhere) == []
        if story.program is not sorting:  # the real command, which says how it ended
            assert attempt.status == 128 + getattr(signal, f"SIG{name}"), attempt.talk
            assert not (attempt.folder / "pictures" / "copy.png").exists()  # what was begun was done


@pytest.mark.parametrize("kind", ["eio", "enospc"])
def test_a_step_that_fails_leaves_the_file_where_it_was(story: Removal, kind: str) -> None:
    before = contents(story.before)
    for place, at in story.turns():
        attempt = story.attempt(f"failed-{place.strip('.')}-{at}", place, at, "eio" if kind == "eio" else "enospc")
        assert attempt.contents() == before
        assert attempt.status in (0, 1, 2), attempt.talk
        assert "Traceback" not in attempt.talk
        if attempt.status:
            assert (attempt.folder / "pictures" / "copy.png").exists() or aside(attempt.folder), attempt.talk


# -- one file that is reached in two ways -------------------------------------------------------------------------


def overlay_mounting(tmp_path: Path) -> list[str]:
    """What to put before a script for bash that mounts an overlay which nobody else sees."""
    mounting = ["unshare", "--mount", "bash", "-c"]
    probe = "mkdir l u w m && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m"
    try:
        (tmp_path / "probe").mkdir()
        subprocess.run([*mounting, probe], cwd=tmp_path / "probe", check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount an overlay in a namespace of its own: {error}")
    return mounting


@pytest.mark.parametrize("kept", ["the overlay's", "the other"])
@pytest.mark.parametrize("more", ["", "--permanently"])
def test_an_image_that_two_mounts_show_is_not_taken_for_its_own_copy(
    tmp_path: Path, environment: dict[str, str], more: str, kept: str
) -> None:
    mounting = overlay_mounting(tmp_path)
    paint(tmp_path / "picture.png", "red")
    lower, merged = ("b", "a") if kept == "the overlay's" else ("a", "b")  # the first path is kept
    env = environment | {
        "PYTHON": sys.executable,
        "STEPS": STEPS,
        "TINY": tiny.__file__,
        "HOME": str(tmp_path / "home"),
    }
    env |= {"LOWER": lower, "MERGED": merged, "MORE": more}
    (tmp_path / "home").mkdir()
    done = subprocess.run([*mounting, TWO_MOUNTS], cwd=tmp_path, env=env, capture_output=True, check=False, timeout=60)
    assert done.stdout.count(b'"path"') == 2, done.stderr.decode()  # it looks like two
    assert done.returncode == 2, done.stderr.decode()
    assert b"the same file" in done.stderr
    assert (tmp_path / lower / "picture.png").read_bytes() == (tmp_path / "picture.png").read_bytes()
    assert (tmp_path / lower / "picture.png").stat().st_mtime == pytest.approx(981_154_800, abs=86_400)
    assert aside(tmp_path) == []


def test_two_mounts_that_number_files_differently_are_told_by_a_mark(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    mounting = overlay_mounting(tmp_path)
    script = """
mkdir lower upper work merged && cp picture.png lower/picture.png
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
"$PYTHON" -c "$MARKED" lower/picture.png merged/picture.png
"""
    paint(tmp_path / "picture.png", "red")
    env = environment | {"PYTHON": sys.executable, "MARKED": MARKED}
    done = subprocess.run([*mounting, script], cwd=tmp_path, env=env, capture_output=True, check=False, timeout=60)
    assert b"the same file" in done.stdout, done.stderr.decode()
    assert (tmp_path / "lower" / "picture.png").read_bytes() == (tmp_path / "picture.png").read_bytes()
    assert aside(tmp_path) == []


def removed(path: Path, keeper: Path, *, trash: bool = False) -> int:
    one, other = os.fsencode(path), os.fsencode(keeper)
    return remove(one, look(one), Keeper(other, look(other).digest), trash=trash)


def test_a_copy_on_another_file_system_is_a_copy(tmp_path: Path, another_file_system: Path) -> None:
    keeper, copy = tmp_path / "x.png", another_file_system / "x.png"
    keeper.write_bytes(b"picture")
    shutil.copy2(keeper, copy)
    times = keeper.stat()
    assert removed(copy, keeper) == 7
    assert not copy.exists()
    assert (keeper.stat().st_mtime_ns, keeper.stat().st_size) == (times.st_mtime_ns, 7)


def test_hard_and_symbolic_links_to_what_would_be_kept_stay(tmp_path: Path) -> None:
    keeper = tmp_path / "x.png"
    keeper.write_bytes(b"picture")
    os.link(keeper, tmp_path / "hard.png")
    (tmp_path / "link.png").symlink_to(keeper)
    for one, other in ((tmp_path / "hard.png", keeper), (keeper, tmp_path / "link.png")):
        with pytest.raises(FileStaysError, match="the same file"):
            removed(one, other)
    assert sorted(os.listdir(tmp_path)) == ["hard.png", "link.png", "x.png"]


# -- looking again ------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """What would go, and what would be kept; old enough for their time stamps to tell."""
    for name in ("go.png", "keep.png"):
        (tmp_path / name).write_bytes(b"picture")
        os.utime(tmp_path / name, ns=(0, OLD * 10**9 + 77))
    return tmp_path / "go.png", tmp_path / "keep.png"


def seen(path: Path) -> Seen:
    return look(os.fsencode(path))


def test_what_changed_with_size_and_time_kept_stays(pair: tuple[Path, Path]) -> None:
    go, keep = pair
    before = seen(go)
    replacement = go.with_name("new.png")
    replacement.write_bytes(b"PICTURE")
    os.utime(replacement, ns=(0, before.mtime_ns))
    os.replace(replacement, go)
    with pytest.raises(FileStaysError, match="it was changed"):
        remove(os.fsencode(go), before, Keeper(os.fsencode(keep), before.digest), trash=False)
    assert go.read_bytes() == b"PICTURE"


def test_what_was_only_touched_goes(pair: tuple[Path, Path]) -> None:
    go, keep = pair
    before = seen(go)
    os.utime(go, (5, 5))
    assert remove(os.fsencode(go), before, Keeper(os.fsencode(keep), before.digest), trash=False) == 7


KEEPING = """
import os, sys
from clipsearch.errors import FileStaysError
from clipsearch.system.removal import Keeper, look, remove
mine, others = sys.argv[1:]
for number in range(300):
    keep, go = f"{mine}/{number}".encode(), f"{others}/{number}".encode()
    try:
        remove(go, look(go), Keeper(keep, look(keep).digest), trash=False)
    except FileStaysError:
        pass
"""


def test_two_runs_that_each_keep_what_the_other_deletes_leave_one(tmp_path: Path) -> None:
    for number in range(300):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{number}").write_bytes(b"picture")
    sides = [("a", "b"), ("b", "a")]
    runs = [subprocess.Popen([sys.executable, "-c", KEEPING, *side], cwd=tmp_path) for side in sides]
    assert [process.wait(60) for process in runs] == [0, 0]
    left = [[(tmp_path / folder / f"{number}").exists() for folder in ("a", "b")] for number in range(300)]
    assert all(any(pair) for pair in left)
    assert not all(all(pair) for pair in left)
    assert aside(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file open for writing")
def test_what_another_program_has_open_for_writing_stays(pair: tuple[Path, Path]) -> None:
    go, keep = pair
    with go.open("ab") as file:
        with pytest.raises(FileStaysError, match="another program"):
            removed(go, keep)
        file.write(b" and more")
    assert go.read_bytes() == b"picture and more"
    go.write_bytes(b"picture")
    with go.open("rb"):  # to look at it does no harm
        assert removed(go, keep) == 7


def test_a_folder_that_cannot_be_changed_is_said(pair: tuple[Path, Path]) -> None:
    go, keep = pair
    with deny(go.parent, stat.S_IRUSR | stat.S_IXUSR), pytest.raises(FileStaysError, match="Permission denied"):
        removed(go, keep)
    assert sorted(os.listdir(go.parent)) == ["go.png", "keep.png"]


def test_the_mark_that_tells_two_mounts_apart_leaves_times_as_they_were(
    pair: tuple[Path, Path], another_file_system: Path
) -> None:
    go, _ = pair
    other = another_file_system / "keep.png"
    other.write_bytes(b"something else")
    with pytest.raises(FileStaysError, match=r"keep\.png, has changed"):
        remove(os.fsencode(go), seen(go), Keeper(os.fsencode(other), seen(go).digest), trash=False)
    assert go.stat().st_mtime_ns == OLD * 10**9 + 77
    assert go.stat().st_atime > 1_600_000_000 or go.stat().st_atime == 0  # it was read since, or not


# -- the trash ----------------------------------------------------------------------------------------------------


@pytest.fixture
def twice(made: Path, tmp_path: Path) -> Path:
    """A picture, its younger copy, their index, and a home."""
    folder = Path(shutil.copytree(made, tmp_path / "album"))
    (folder / "home").mkdir()
    return folder


def trash_command(run: Run, tmp_path: Path, *names: bytes, **env: str) -> tuple[int, str]:
    """Delete copies with these names by the command; its exit code and what it said."""
    pictures = tmp_path / "pictures"
    keeper = paint(pictures / "original.png", "red")
    os.utime(keeper, (OLD, OLD))
    for name in names:
        path = os.path.join(os.fsencode(pictures), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(os.fsencode(keeper), path)
    tiny.update(tmp_path / ".clipsearch", pictures)
    (tmp_path / "home").mkdir()
    done = run("duplicates", "--exact", "--delete", "--yes", cwd=tmp_path, env={"HOME": str(tmp_path / "home"), **env})
    return done.returncode, done.stderr.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into the trash of the freedesktop.org specification")
def test_the_trash_restores_files_to_where_they_were(run: Run, tmp_path: Path) -> None:
    names = (b"copy.png", b"b/copy.png", b"b/caf\xe9 #1.png")
    status, said = trash_command(run, tmp_path, *names)
    assert status == 0, said
    size = (tmp_path / "pictures" / "original.png").stat().st_size
    assert re.search(rf"3 files.* {3 * size} bytes", said)
    trash = tmp_path / "home" / ".local" / "share" / "Trash"
    assert len(os.listdir(trash / "files")) == len(os.listdir(trash / "info")) == 3
    notes = [note.read_text() for note in (trash / "info").iterdir()]
    wanted = {os.path.join(os.fsencode(tmp_path / "pictures"), name) for name in names}
    paths = (line.removeprefix("Path=") for note in notes for line in note.splitlines() if line.startswith("Path="))
    assert {os.fsencode(unquote(path, errors="surrogateescape")) for path in paths} == wanted
    assert [path for path in (tmp_path / "pictures").rglob("*") if path.is_file()] == [
        tmp_path / "pictures" / "original.png"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into the trash of the freedesktop.org specification")
def test_an_image_that_may_not_be_written_goes_to_the_trash_as_it_is(run: Run, twice: Path) -> None:
    (twice / "pictures" / "copy.png").chmod(0o444)
    options = ("--exact", "--delete", "--yes")
    env = {"HOME": str(twice / "home")}
    done = run("duplicates", *options, cwd=twice, env=env, before=unprivileged())
    assert done.returncode == 0, done.stderr.decode()
    (trashed,) = (twice / "home" / ".local" / "share" / "Trash" / "files").iterdir()
    assert (trashed.name, stat.S_IMODE(trashed.stat().st_mode)) == ("copy.png", 0o444)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have their trash elsewhere")
def test_without_a_trash_nothing_is_deleted_and_permanently_is_named(run: Run, tmp_path: Path) -> None:
    names = (b"a.png", b"b.png", b"copy.png")
    status, said = trash_command(run, tmp_path, *names, HOME=str(tmp_path / "nowhere" / "home"))
    assert status == 2
    assert said.count("stays: no trash takes it (") == 1
    assert "2 more" in said
    assert "--permanently" in said
    assert "0 files" in said
    assert sorted(os.listdir(tmp_path / "pictures")) == ["a.png", "b.png", "copy.png", "original.png"]
    assert aside(tmp_path) == []


def test_nothing_goes_for_the_sake_of_an_image_in_the_trash(tmp_path: Path, run: Run) -> None:
    pictures = tmp_path / "pictures"
    paint(pictures / "red.png", "red")
    for place in (".Trash-1000/files", ".local/share/Trash/files", "Trash/files/folder"):
        (pictures / place).mkdir(parents=True)
        shutil.copy(pictures / "red.png", pictures / place / "red.png")
        os.utime(pictures / place / "red.png", (1, 1))  # it would be kept
    index(run, "pictures", "--include-hidden", "--model", "picturebook", cwd=tmp_path)
    done = run("duplicates", "--exact", "--delete", "--yes", cwd=tmp_path)
    assert done.returncode == 1, done.stderr.decode()
    assert (pictures / "red.png").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into the trash of the freedesktop.org specification")
def test_each_file_system_has_its_own_trash(pair: tuple[Path, Path], another_file_system: Path) -> None:
    _, keep = pair
    copy = another_file_system / "copy.png"
    shutil.copy(keep, copy)
    top = next(folder for folder in copy.parents if folder.is_mount())
    trash = top / f".Trash-{os.getuid()}"
    if trash.exists() or (top / ".Trash").exists():
        pytest.skip("there is a trash on that file system already, which is somebody's")
    if not os.access(top, os.W_OK):
        pytest.skip(f"nothing can be written into {top}")
    try:
        assert removed(copy, keep, trash=True) == 0
        (note,) = (trash / "info").iterdir()
        assert f"Path={copy.relative_to(top)}\n" in note.read_text()
        assert (trash / "files" / "copy.png").read_bytes() == b"picture"
    finally:
        shutil.rmtree(trash, ignore_errors=True)


# -- aside and back -----------------------------------------------------------------------------------------------


def test_what_a_killed_run_put_aside_is_put_back(run: Run, twice: Path) -> None:
    copy = twice / "pictures" / "copy.png"
    put_aside(os.fsencode(copy))
    assert not copy.exists()
    done = run("duplicates", "--exact", "--delete", "--yes", "--permanently", cwd=twice)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stderr.decode()
    assert "Put back pictures/copy.png" in said
    assert "Deleted 1 file" in said
    assert aside(twice) == []


def test_index_names_what_a_killed_run_put_aside(run: Run, pictures: Path, tmp_path: Path) -> None:
    put = put_aside(os.fsencode(pictures / "warm" / "green.png"))
    for _ in range(2):
        done = run("index", "pictures", "--model", "picturebook", "--include-hidden", cwd=tmp_path)
        assert done.returncode == 0
        said = done.stderr.decode()
        folder = os.path.relpath(os.fsdecode(os.path.dirname(put.path)), tmp_path)
        assert re.search(rf"{re.escape(str(folder))}: .* aside", said)
    list(restore([os.fsencode(pictures / "warm")]))
    again = run("index", cwd=tmp_path)
    assert b"Cannot read" not in again.stderr
    assert b"10 images in the index" in again.stdout + again.stderr


def test_classify_names_what_it_cannot_look_into(run: Run, pictures: Path, tmp_path: Path) -> None:
    put_aside(os.fsencode(pictures / "warm" / "green.png"))
    done = run("classify", "pictures", "-l", "red", "-l", "green", "--model", "picturebook", cwd=tmp_path)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 9)
    assert b" aside " in done.stderr


def test_what_is_put_back_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    put_aside(os.fsencode(path))
    path.write_bytes(b"new")
    os.mkdir(tmp_path / f"{os.fsdecode(ASIDE)}00000000")  # of a run that was killed between two steps
    folder = os.fsencode(tmp_path)
    assert list(restore([folder, folder])) == [(folder + b"/x.png", folder + b"/x-2.png")]
    assert path.read_bytes() == b"new"
    assert (tmp_path / "x-2.png").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["x-2.png", "x.png"]


def test_the_longest_name_can_be_put_aside(pair: tuple[Path, Path]) -> None:
    go, keep = pair
    long = go.rename(go.with_name("x" * 251 + ".png"))
    assert removed(long, keep) == 7


@pytest.mark.parametrize("hard_links", [True, False])
def test_without_a_step_that_renames_and_never_replaces_files_move_all_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hard_links: bool,  # noqa: FBT001
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    def no_such_step(*_: object) -> None:
        raise naming.NotAtOnceError

    monkeypatch.setattr(naming, "_at_once", no_such_step)
    if not hard_links:
        monkeypatch.setattr(os, "link", refuse)
    source, target = os.fsencode(tmp_path / "x.png"), os.fsencode(tmp_path / "y.png")
    (tmp_path / "x.png").write_bytes(b"picture")
    (tmp_path / "y.png").write_bytes(b"another")
    assert not copying.move(source, target)
    assert (tmp_path / "x.png").read_bytes() == b"picture"
    assert (tmp_path / "y.png").read_bytes() == b"another"
    (tmp_path / "y.png").unlink()
    assert copying.move(source, target)
    assert os.listdir(tmp_path) == ["y.png"]


# -- a file that grows while it is copied and moved ---------------------------------------------------------------

APPENDER = """
import itertools, sys, time
path, seconds, keep_open = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "open"
end = time.monotonic() + seconds
file = open(path, "a")
for number in itertools.count():
    file.write(f"{number}\\n")
    file.flush()
    if number == 0:
        print("started", flush=True)
    if time.monotonic() > end:
        break
    if not keep_open:
        file.close()
        time.sleep(0.0005)
        file = open(path, "a")
print(number)
"""


@pytest.mark.parametrize("way", ["open", "reopened"])
def test_nothing_that_is_appended_during_a_move_is_lost(tmp_path: Path, another_file_system: Path, way: str) -> None:
    source = tmp_path / "x.png"
    source.write_bytes(b"0" * 3_000_000 + b"\n")
    command = [sys.executable, "-c", APPENDER, str(source), "1.5", way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "started\n"
        for number in range(20):
            target = another_file_system / f"{number}.png"
            try:
                if copying.move(os.fsencode(source), os.fsencode(target)):
                    break
            except FileStaysError:
                assert not target.exists()
            except FileNotFoundError:  # the writer is about to make it anew
                time.sleep(0.001)
        last = int(writer.communicate()[0])
    assert writer.returncode == 0
    # It was moved, or stayed, or was put back beside what the writer made anew: wherever it is, all is there.
    lines = [line for content in contents(tmp_path, another_file_system) for line in content.split()]
    assert sorted(int(line) for line in lines if len(line) < 10) == list(range(last + 1))
    assert aside(tmp_path) == []
    assert aside(another_file_system) == []


def test_a_copy_of_a_file_that_grows_is_whole_or_not_there(tmp_path: Path) -> None:
    source, target = tmp_path / "x.png", tmp_path / "copy" / "x.png"
    target.parent.mkdir()
    source.write_bytes(b"0" * 3_000_000 + b"\n")
    command = [sys.executable, "-c", APPENDER, str(source), "1", "open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "started\n"
        with pytest.raises(FileStaysError, match="another program"):
            copying.copy(os.fsencode(source), os.fsencode(target))
        assert list(target.parent.iterdir()) == []
    assert copying.copy(os.fsencode(source), os.fsencode(target))
    assert target.read_bytes() == source.read_bytes()
