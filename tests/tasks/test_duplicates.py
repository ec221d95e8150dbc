"""Duplicates: which are found, which is kept, and that a deletion takes nothing but what is surely there twice."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import SAMPLES, Run, index, paint
from fresh import COMMAND, HEAVY, loaded_by
from PIL import Image
from tiny import Watcher, update

from clipsearch.errors import InputError
from clipsearch.index.format import ModelRecord, Record
from clipsearch.index.reading import Store
from clipsearch.index.writing import Writer
from clipsearch.search import near as stars
from clipsearch.tasks.duplicates import GONE, Group, delete_duplicates, find_duplicates, reclaimable

Json = list[dict[str, Any]]
Names = list[tuple[str, list[str]]]


def store_of(folder: Path, vectors: Sequence[Sequence[float]], records: Sequence[dict[str, Any]]) -> Path:
    """An index of images that are not there, with these vectors, and what is known of each: a.png, b.png and so on."""
    rows = np.array(vectors, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    images = [
        Record(
            **{
                "path": os.fsencode(folder / f"{chr(ord('a') + i)}.png"),
                "row": None,
                "size": 10,
                "mtime_ns": 0,
                "hash": bytes([i]) * 16,
                "width": 8,
                "height": 8,
                **known,
            }
        )
        for i, known in enumerate(records)
    ]
    with Writer.locked(folder / ".clipsearch") as writer:
        writer.set_model(ModelRecord("random", None, "0" * 32, rows.shape[1]))
        writer.set_root(os.fsencode(folder), {})
        writer.add(images, rows)
        writer.commit()
    return folder / ".clipsearch"


def found_in(folder: Path, threshold: float | None = 0.9, **filters: Any) -> Names:  # noqa: ANN401  (FilterArguments)
    """The name of each keeper and those of its duplicates."""
    with closing(Store.open(folder)) as store:
        groups, _ = find_duplicates(store, threshold=threshold, **filters)
    return [(name(group.keeper), [name(one.record) for one in group.duplicates]) for group in groups]


def name(record: Record) -> str:
    return os.fsdecode(os.path.basename(record.path))


def groups_of(folder: Path, threshold: float | None = None) -> tuple[list[Group], list[bytes]]:
    """The groups in an index, and its roots."""
    with closing(Store.open(folder)) as store:
        return find_duplicates(store, threshold=threshold)[0], [root.path for root in store.roots()]


def at(degrees: float) -> list[float]:
    """A unit vector of two dimensions."""
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """A folder with two copies of one picture in two folders, and two other pictures; and its index."""
    paint(tmp_path / "pictures" / "a" / "red.png", "red")
    paint(tmp_path / "pictures" / "blue.png", "blue")
    paint(tmp_path / "pictures" / "green.png", "green")
    (tmp_path / "pictures" / "b").mkdir()
    shutil.copy(tmp_path / "pictures" / "a" / "red.png", tmp_path / "pictures" / "b" / "red.png")
    os.utime(tmp_path / "pictures" / "a" / "red.png", (1000, 1000))
    os.utime(tmp_path / "pictures" / "b" / "red.png", (2000, 2000))
    update(tmp_path / ".clipsearch", tmp_path / "pictures")
    return tmp_path


# -- which are found, and which is kept ---------------------------------------------------------------------------


def test_copies_are_found_by_content_whatever_their_vectors(tmp_path: Path) -> None:
    folder = store_of(tmp_path, [at(0), at(90), at(0)], [{"hash": b"1" * 16}, {"hash": b"1" * 16}, {}])
    assert found_in(folder, None) == [("a.png", ["b.png"])]


def test_near_duplicates_are_those_from_the_threshold_on(tmp_path: Path) -> None:
    folder = store_of(tmp_path, [at(0), at(10), at(40)], [{}, {}, {}])  # cos 10 = .985, cos 30 = .866, cos 40 = .766
    assert found_in(folder, 0.9) == [("a.png", ["b.png"])]
    assert found_in(folder, 0.99) == []
    assert found_in(folder, 0.7) == [("a.png", ["b.png", "c.png"])]


def test_every_duplicate_is_close_to_its_keeper_so_there_are_no_chains(tmp_path: Path) -> None:
    # Each is 20 degrees from the next: a takes b, and d, which is close to c only, stays with c.
    folder = store_of(tmp_path, [at(0), at(20), at(40), at(60)], [{}, {}, {}, {}])
    assert found_in(folder, 0.9) == [("a.png", ["b.png"]), ("c.png", ["d.png"])]


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ([{"width": 9}, {"width": 20}, {"size": 99}], "b.png"),
        ([{"size": 10}, {"size": 11}, {"mtime_ns": -5}], "b.png"),
        ([{"mtime_ns": 7}, {"mtime_ns": 6}, {"mtime_ns": 8}], "b.png"),
        ([{}, {}, {}], "a.png"),
        ([{"width": None, "height": None, "size": 99}, {"width": 1, "height": 1}, {"width": None}], "b.png"),
    ],
    ids=["most pixels", "then the largest file", "then the oldest", "then the first path", "of known size"],
)
def test_the_keeper_is_the_best(tmp_path: Path, known: list[dict[str, Any]], kept: str) -> None:
    copies = [{**one, "hash": b"1" * 16} for one in known]
    for threshold, images in ((None, copies), (0.9, known)):
        folder = store_of(tmp_path / str(threshold), [at(0), at(0), at(0)], images)
        assert [keeper for keeper, _ in found_in(folder, threshold)] == [kept]


def test_groups_that_free_most_come_first_and_copies_before_what_is_near(tmp_path: Path) -> None:
    vectors = [at(0), at(5), at(0), at(90), at(91)]
    known: list[dict[str, Any]] = [
        {"width": 20, "hash": b"1" * 16},
        {},
        {"hash": b"1" * 16},
        {"size": 500},
        {"size": 400},
    ]
    assert found_in(store_of(tmp_path, vectors, known)) == [("d.png", ["e.png"]), ("a.png", ["c.png", "b.png"])]


def test_copies_go_with_the_image_that_their_content_is_close_to(tmp_path: Path) -> None:
    known: list[dict[str, Any]] = [{"width": 20}, {"hash": b"1" * 16}, {"hash": b"1" * 16}]
    folder = store_of(tmp_path, [at(0), at(8), at(8)], known)
    with closing(Store.open(folder)) as store:
        ((group,), images) = find_duplicates(store, threshold=0.9)
    assert images == 3
    assert [(name(one.record), one.is_copy) for one in group.duplicates] == [("b.png", False), ("c.png", False)]
    assert [one.score for one in group.duplicates] == pytest.approx([np.cos(np.radians(8))] * 2, abs=1e-3)


def test_filters_say_which_images_are_compared(tmp_path: Path) -> None:
    folder = store_of(tmp_path, [at(0), at(2), at(2)], [{"width": 20}, {}, {"width": 10}])
    assert found_in(folder, 0.9) == [("a.png", ["b.png", "c.png"])]
    assert found_in(folder, 0.9, files=[tmp_path / "b.png", tmp_path / "c.png"]) == [("c.png", ["b.png"])]


def test_dead_rows_are_no_duplicates(twice: Path) -> None:
    os.unlink(twice / "pictures" / "b" / "red.png")
    update(twice / ".clipsearch", twice / "pictures")
    assert found_in(twice / ".clipsearch", None) == []


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_a_threshold_that_means_nothing_is_refused(twice: Path, threshold: float) -> None:
    with pytest.raises(InputError, match="cosine"):
        found_in(twice / ".clipsearch", threshold)


def plainly(vectors: npt.NDArray[np.float16], threshold: float) -> list[int]:
    """The same rule row by row, in float64 and with all cosines at once."""
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    keepers: list[int] = []
    for row in range(len(vectors)):
        close = [other for other in range(row) if keepers[other] == other and cosines[row, other] >= threshold]
        keepers.append(close[0] if close else row)
    return keepers


@pytest.mark.parametrize("sizes", [(8, 16), (64, 7), (1000, 1000)], ids=["small", "uneven", "in one"])
@pytest.mark.parametrize("rows", [1, 2, 63, 300])
def test_blocks_find_what_a_comparison_of_all_pairs_finds(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int], rows: int
) -> None:
    monkeypatch.setattr(stars, "_BLOCK", sizes[0])
    monkeypatch.setattr(stars, "_CHUNK", sizes[1])
    random = np.random.default_rng(rows)
    # Around a few centres, so that rows have several keepers to choose from and blocks are taken as a whole.
    vectors = random.standard_normal((6, 24))[random.integers(6, size=rows)] + random.standard_normal((rows, 24)) * 0.25
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    exact = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    threshold = 0.9301
    assert np.abs(exact - threshold).min() > 1e-6  # no pair depends on rounding
    watcher = Watcher()
    keepers, scores = stars.near(vectors, threshold, watcher)
    assert watcher.done == watcher.total == rows
    assert keepers.tolist() == plainly(vectors, threshold)
    others = keepers != np.arange(rows)
    assert others.sum() > 0.2 * rows or rows < 63
    np.testing.assert_allclose(scores[others], exact[np.arange(rows), keepers][others], atol=1e-5)
    assert (scores[~others] == 1).all()


# -- deleting -----------------------------------------------------------------------------------------------------


def test_deleting_takes_the_duplicates_and_leaves_the_keepers(twice: Path) -> None:
    groups, roots = groups_of(twice / ".clipsearch")
    size = (twice / "pictures" / "b" / "red.png").stat().st_size
    assert reclaimable(groups) == size
    done = list(delete_duplicates(groups, roots, permanently=True))
    assert [(one.path, one.freed, one.problem) for one in done] == [
        (os.fsencode(twice / "pictures" / "b" / "red.png"), size, None)
    ]
    assert (twice / "pictures" / "a" / "red.png").exists()
    assert not (twice / "pictures" / "b" / "red.png").exists()


def left(folder: Path) -> str:
    """Why the only duplicate stays, which it must."""
    groups, roots = groups_of(folder / ".clipsearch")
    return left_of(groups, roots)


def left_of(groups: list[Group], roots: list[bytes]) -> str:
    (one,) = delete_duplicates(groups, roots)
    assert one.problem is not None
    assert os.path.lexists(one.path) or "gone" in one.problem
    assert one.freed == 0
    return one.problem


def test_a_duplicate_that_changed_stays(twice: Path) -> None:
    paint(twice / "pictures" / "b" / "red.png", "pink")
    assert left(twice) == "it has changed since it was indexed"


@pytest.mark.parametrize("change", ["gone", "changed", "folder"])
def test_nothing_is_deleted_whose_keeper_is_not_what_it_was(twice: Path, change: str) -> None:
    keeper = twice / "pictures" / "a" / "red.png"
    keeper.unlink()
    if change == "changed":
        paint(keeper, "pink")
    elif change == "folder":
        keeper.mkdir()
    assert f"what would be kept, {keeper}, " in left(twice)
    assert (twice / "pictures" / "b" / "red.png").exists()


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """One file under three names and an older copy of it with one; and their index."""
    pictures = tmp_path / "pictures"
    original = paint(pictures / "original.png", "red")
    (pictures / "a-best").mkdir()
    (pictures / "a-best" / "link.png").symlink_to("../original.png")
    os.link(original, pictures / "hard-link.png")
    (pictures / "real-copy.png").write_bytes(original.read_bytes())
    os.utime(pictures / "real-copy.png", (1000, 1000))
    update(tmp_path / ".clipsearch", pictures)
    return tmp_path


@pytest.mark.parametrize("threshold", [None, 0.99])
def test_names_of_one_file_are_one_image(names: Path, threshold: float | None) -> None:
    pictures = os.fsencode(names / "pictures")
    with closing(Store.open(names / ".clipsearch")) as store:
        ((group,), images) = find_duplicates(store, threshold=threshold)
    assert images == 2
    assert group.keeper.path == pictures + b"/hard-link.png"
    assert group.also == ((pictures + b"/original.png",), (pictures + b"/a-best/link.png",))
    assert [one.record.path for one in group.duplicates] == [pictures + b"/real-copy.png"]


def test_only_the_real_copy_is_deleted(run: Run, names: Path) -> None:
    size = (names / "pictures" / "original.png").stat().st_size
    rows: Json = json.loads(run("duplicates", "--exact", "--json", cwd=names).stdout)
    assert [(row["mark"], row["path"], [also["path"] for also in row["also"]]) for row in rows] == [
        ("keep", "pictures/hard-link.png", ["pictures/original.png", "pictures/a-best/link.png"]),
        ("copy", "pictures/real-copy.png", []),
    ]
    assert run("duplicates", "--exact", "-0", cwd=names).stdout == b"pictures/real-copy.png\0"
    table = run("duplicates", "--exact", "--format", "table", cwd=names, env={"COLUMNS": "200"}).stdout.decode()
    assert "also" in table.splitlines()[0]
    assert "pictures/original.png, pictures/a-best/link.png" in table
    done = run("duplicates", "--exact", "--delete", "--yes", "--permanently", cwd=names)
    assert done.returncode == 0, done.stderr.decode()
    assert re.search(rf"\b1 file\b.* {size} bytes", done.stderr.decode())
    assert sorted(path.name for path in (names / "pictures").rglob("*.png")) == [
        "hard-link.png",
        "link.png",
        "original.png",
    ]
    assert (names / "pictures" / "a-best" / "link.png").read_bytes()


def test_all_names_of_a_duplicate_go_and_free_it_once(twice: Path) -> None:
    pictures = twice / "pictures"
    os.link(pictures / "b" / "red.png", pictures / "b" / "again.png")
    for name in ("one", "two"):  # what has more names is kept
        os.link(pictures / "a" / "red.png", pictures / "a" / f"{name}.png")
    update(twice / ".clipsearch", pictures)
    groups, roots = groups_of(twice / ".clipsearch")
    size = (pictures / "b" / "red.png").stat().st_size
    assert reclaimable(groups) == size
    done = list(delete_duplicates(groups, roots, permanently=True))
    assert [(one.freed, one.problem) for one in done] == [(0, None), (size, None)]
    assert os.listdir(pictures / "b") == []
    assert len(os.listdir(pictures / "a")) == 3


@pytest.mark.parametrize("threshold", [None, 0.99])
def test_a_link_out_of_the_index_is_never_kept_and_never_deleted(tmp_path: Path, threshold: float | None) -> None:
    outside = paint(tmp_path / "outside" / "red.png", "red", (128, 96) if threshold else (64, 48))
    real = paint(tmp_path / "pictures" / "real.png", "red")
    (tmp_path / "pictures" / "a-link.png").symlink_to(outside)
    update(tmp_path / ".clipsearch", tmp_path / "pictures")
    groups, roots = groups_of(tmp_path / ".clipsearch", threshold)
    assert [(name(group.keeper), [name(one.record) for one in group.duplicates]) for group in groups] == [
        ("real.png", ["a-link.png"])
    ]
    assert groups[0].duplicates[0].is_link
    assert reclaimable(groups) == 0
    assert list(delete_duplicates(groups, roots)) == []
    assert real.exists()
    assert outside.exists()


def test_a_link_that_leads_nowhere_after_a_deletion_is_named(run: Run, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    paint(pictures / "large.png", "red", (128, 96))
    paint(pictures / "small.png", "red")
    (pictures / "album.png").symlink_to("small.png")
    update(tmp_path / ".clipsearch", pictures)
    done = run("duplicates", "--threshold", "0.99", "--delete", "--yes", "--permanently", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert re.search(r"pictures/album\.png .* pictures/small\.png", done.stderr.decode())
    assert sorted(os.listdir(pictures)) == ["album.png", "large.png"]


def test_a_folder_that_a_link_shows_twice_holds_no_duplicates(tmp_path: Path) -> None:
    paint(tmp_path / "pictures" / "red.png", "red")
    (tmp_path / "link").symlink_to("pictures")
    pictures = tmp_path / "pictures"
    folder = store_of(
        tmp_path,
        [at(0), at(0)],
        [
            {"path": os.fsencode(tmp_path / "link" / "red.png"), "hash": b"1" * 16},
            {"path": os.fsencode(pictures / "red.png"), "hash": b"1" * 16},
        ],
    )
    assert found_in(folder, None) == []


def test_a_file_with_another_name_elsewhere_frees_nothing(twice: Path) -> None:
    os.link(twice / "pictures" / "b" / "red.png", twice / "kept")
    groups, roots = groups_of(twice / ".clipsearch")
    assert reclaimable(groups) == 0
    assert [(one.freed, one.problem) for one in delete_duplicates(groups, roots, permanently=True)] == [(0, None)]
    assert (twice / "kept").exists()


def test_a_file_that_only_links_lead_to_from_the_roots_stays(twice: Path) -> None:
    shutil.move(twice / "pictures" / "b", twice / "elsewhere")
    os.symlink(twice / "elsewhere", twice / "pictures" / "b")
    assert left(twice) == "it lies outside the folders of the index"
    assert (twice / "elsewhere" / "red.png").exists()


def test_a_file_outside_the_roots_stays(twice: Path) -> None:
    groups, _ = groups_of(twice / ".clipsearch")
    assert left_of(groups, [os.fsencode(twice / "pictures" / "a")]) == "it lies outside the folders of the index"


def test_what_is_gone_already_is_named_and_the_rest_is_done(twice: Path) -> None:
    shutil.copy(twice / "pictures" / "a" / "red.png", twice / "pictures" / "c.png")
    os.utime(twice / "pictures" / "c.png", (3000, 3000))
    update(twice / ".clipsearch", twice / "pictures")
    groups, roots = groups_of(twice / ".clipsearch")
    (twice / "pictures" / "b" / "red.png").unlink()
    done = list(delete_duplicates(groups, roots, permanently=True))
    assert [one.problem for one in done] == [GONE, None]
    assert not (twice / "pictures" / "c.png").exists()


# -- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Pictures of which two are there again: one as a copy, one smaller and as JPEG. Tests only read it."""
    root = tmp_path_factory.mktemp("duplicates")
    samples = SAMPLES
    for file in sorted((samples / "dogs").iterdir())[:6] + sorted((samples / "sea").iterdir())[:3]:
        (root / "pictures").mkdir(exist_ok=True)
        shutil.copy(file, root / "pictures")
    with Image.open(samples / "dogs" / "dog_0.webp") as image:
        image.convert("RGB").resize((image.width // 2, image.height // 2)).save(root / "pictures" / "smaller.jpg")
    shutil.copy(samples / "dogs" / "dog_1.png", root / "pictures" / os.fsdecode(b"copy \xff\n.png"))
    index(run, "pictures", "--model", "picturebook", cwd=root)
    return root


def test_the_command_names_groups_keepers_and_what_is_free_to_go(run: Run, folder: Path) -> None:
    done = run("duplicates", "--json", cwd=folder)
    assert done.returncode == 0
    rows: Json = json.loads(done.stdout)
    assert list(rows[0]) == ["group", "mark", "score", "path", "width", "height", "bytes", "also"]
    by_mark = {(row["mark"], os.path.basename(row["path"])) for row in rows}
    assert ("keep", "dog_0.webp") in by_mark
    assert ("near", "smaller.jpg") in by_mark
    assert {mark for mark, _ in by_mark} == {"keep", "near", "copy"}
    assert [row["group"] for row in rows] == [1, 1, 2, 2]
    freed = sum(row["bytes"] for row in rows if row["mark"] != "keep")
    assert re.search(rf"2 duplicates .*2 groups.* {freed} bytes", done.stderr.decode())


def test_paths_are_those_of_all_but_the_keepers_with_their_own_bytes(run: Run, folder: Path) -> None:
    paths = run("duplicates", "-0", cwd=folder).stdout.split(b"\0")
    assert len(paths) == 3
    assert paths[-1] == b""
    assert b"pictures/smaller.jpg" in paths
    kept = {row["path"] for row in json.loads(run("duplicates", "--json", cwd=folder).stdout) if row["mark"] == "keep"}
    assert not kept & {os.fsdecode(path) for path in paths}


def test_only_copies_are_found_with_exact(run: Run, folder: Path) -> None:
    done = run("duplicates", "--exact", "--format", "csv", cwd=folder)
    assert done.returncode == 0
    assert done.stdout.startswith(b"group,mark,score,path,width,height,bytes,also\r\n")
    assert b"smaller.jpg" not in done.stdout
    assert done.stdout.count(b"copy,1.000000") == 1


def test_without_duplicates_the_exit_code_is_1(run: Run, folder: Path) -> None:
    done = run("duplicates", "--glob", "dog_*", "--json", cwd=folder)
    assert (done.returncode, done.stdout) == (1, b"[]\n")
    assert done.stderr.count(b"\n") == 1


def test_delete_without_yes_says_what_it_would_do_and_fails(run: Run, folder: Path) -> None:
    before = sorted(os.listdir(os.fsencode(folder / "pictures")))
    done = run("duplicates", "--delete", "--exact", cwd=folder)
    assert done.returncode == 2
    assert "--yes" in done.stderr.decode()
    assert done.stdout.count(b"\n") == 3  # one is in a name
    assert sorted(os.listdir(os.fsencode(folder / "pictures"))) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--delete", "--yes"], "--threshold X"),
        (["--yes"], "--yes"),
        (["--permanently"], "--permanently"),
        (["--exact", "--threshold", "0.9"], "--exact"),
        (["--threshold", "2"], "not 2"),
        (["-0", "--json"], "format"),
        (["--under", "nowhere"], "nowhere"),
        (["--html", "nowhere/page.html"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_an_error_of_one_line(run: Run, folder: Path, arguments: list[str], said: str) -> None:
    before = sorted(os.listdir(os.fsencode(folder / "pictures")))
    done = run("duplicates", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert sorted(os.listdir(os.fsencode(folder / "pictures"))) == before


def test_where_filters_leave_one_image_there_are_no_duplicates(run: Run, folder: Path) -> None:
    done = run("duplicates", "--glob", "smaller.jpg", "--format", "csv", cwd=folder)
    assert (done.returncode, done.stdout) == (1, b"group,mark,score,path,width,height,bytes,also\r\n")
    assert re.search(r"\b11 images\b.* one\b", done.stderr.decode())


def test_an_index_with_one_image_has_nothing_to_compare(run: Run, tmp_path: Path) -> None:
    update(tmp_path / ".clipsearch", paint(tmp_path / "one.png", "red"))
    done = run("duplicates", "--html", "page.html", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"[]\n")
    assert re.search("1 image.* clipsearch index PATH", done.stderr.decode())
    assert not (tmp_path / "page.html").exists()


def test_delete_with_yes_deletes_and_says_what_it_freed(run: Run, twice: Path) -> None:
    size = (twice / "pictures" / "b" / "red.png").stat().st_size
    done = run("duplicates", "--delete", "--yes", "--permanently", "--exact", cwd=twice)
    assert done.returncode == 0
    assert re.search(rf"\b1 file\b.* {size} bytes", done.stderr.decode())
    assert "clipsearch index" in done.stderr.decode()
    assert not (twice / "pictures" / "b" / "red.png").exists()
    assert (twice / "pictures" / "a" / "red.png").exists()


def test_what_could_not_be_deleted_makes_the_command_fail(run: Run, twice: Path) -> None:
    paint(twice / "pictures" / "b" / "red.png", "pink")
    done = run("duplicates", "--delete", "--yes", "--threshold", "0.999", cwd=twice)
    assert done.returncode == 2
    changed, moved = done.stderr.decode().splitlines()[:2]
    assert "pictures/b/red.png" in changed
    assert re.search(r"\b0 files\b.* trash", moved)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
@pytest.mark.parametrize("out", ["> /dev/full", '| :; exit "${PIPESTATUS[0]}"'], ids=["full", "closed"])
def test_nothing_is_deleted_that_could_not_be_named(run: Run, twice: Path, out: str) -> None:
    done = run("duplicates", "--delete", "--yes", "--exact", cwd=twice, line=f'"$@" {out}')
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert (twice / "pictures" / "b" / "red.png").exists()


def test_the_page_shows_each_group(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run("duplicates", "--html", tmp_path / "page.html", cwd=folder)
    assert done.returncode == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<h2>Group 1</h2>" in page
    assert "<h2>Group 2</h2>" in page
    assert "smaller.jpg" in page


def test_it_needs_no_model_library(folder: Path, environment: dict[str, str]) -> None:
    code = COMMAND.format(arguments=["clipsearch", "duplicates"])
    assert not loaded_by(code, environment, folder) & (HEAVY | {"tokenizers", "sklearn"})


def test_its_help_loads_no_library(environment: dict[str, str], tmp_path: Path) -> None:
    code = COMMAND.format(arguments=["clipsearch", "duplicates", "--help"])
    assert not loaded_by(code, environment, tmp_path) & (HEAVY | {"numpy", "numkong"})
