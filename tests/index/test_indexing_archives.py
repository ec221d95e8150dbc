"""Archives in an index: what is read again, what is embedded again, and what becomes of the records."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from archive_files import picture, tar, zipped
from conftest import COLOURS, deny
from tiny import TinyEncoder, expected, update

from clipsearch.errors import InputError
from clipsearch.images import archives as reading
from clipsearch.images.files import Rules
from clipsearch.index.format import FOLDER
from clipsearch.index.reading import Store
from clipsearch.index.summary import Summary
from clipsearch.index.verifying import verify
from clipsearch.index.writing import Writer

PICTURES = {f"{n:03}.png": picture(colour) for n, colour in enumerate(COLOURS)}
ARCHIVES = Rules(archives=True)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two archives and a file, in a folder."""
    names = list(PICTURES)
    tar(tmp_path / "shards" / "0.tar", {name: PICTURES[name] for name in names[:5]})
    zipped(tmp_path / "shards" / "1.zip", {f"in/{name}": PICTURES[name] for name in names[5:8]})
    (tmp_path / "shards" / names[8]).write_bytes(PICTURES[names[8]])
    return tmp_path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The archives that were opened."""
    paths: list[bytes] = []
    original = reading.Archive._opened

    def noted(archive: reading.Archive) -> object:
        paths.append(archive._path)
        return original(archive)

    monkeypatch.setattr(reading.Archive, "_opened", noted)
    return paths


def refreshed(home: Path, *names: str, encoder: TinyEncoder | None = None, **options: object) -> Summary:
    summary = update(home / FOLDER, *(home / name for name in names), encoder=encoder, **options)  # type: ignore[arg-type]
    with closing(Store.open(home / FOLDER)) as store:
        assert verify(store) == []
    return summary


def paths(home: Path) -> list[str]:
    with closing(Store.open(home / FOLDER)) as store:
        return [os.fsdecode(one.path[len(os.fsencode(home)) + 1 :]) for one in store.records() if one.row is not None]


def vectors(home: Path) -> Iterator[tuple[str, bytes]]:
    with closing(Store.open(home / FOLDER)) as store:
        matrix, _ = store.matrix()
        for record in store.records():
            yield os.path.basename(os.fsdecode(record.path)), matrix[record.row].tobytes()


def test_members_get_the_vectors_that_files_get(home: Path, tmp_path: Path) -> None:
    summary = refreshed(home, "shards", rules=ARCHIVES)
    assert (summary.images, summary.embedded, summary.unreadable) == (9, 9, [])
    assert paths(home) == [
        "shards/0.tar!/000.png",
        "shards/0.tar!/001.png",
        "shards/0.tar!/002.png",
        "shards/0.tar!/003.png",
        "shards/0.tar!/004.png",
        "shards/008.png",
        "shards/1.zip!/in/005.png",
        "shards/1.zip!/in/006.png",
        "shards/1.zip!/in/007.png",
    ]
    for name, vector in vectors(home):
        (tmp_path / "plain.png").write_bytes(PICTURES[name])
        assert vector == expected(os.fsencode(tmp_path / "plain.png")).tobytes()


def test_without_the_rule_archives_in_folders_are_left_out(home: Path) -> None:
    summary = refreshed(home, "shards")
    assert (summary.images, summary.passed_over) == (1, {".tar": 1, ".zip": 1})
    with closing(Store.open(home / FOLDER)) as store:
        assert store.sql("SELECT 1 FROM sqlite_master WHERE name = 'archives'") == []
        assert "archives" not in store.roots()[0].options
    assert refreshed(home, rules=ARCHIVES).images == 9
    assert refreshed(home).images == 9  # remembered
    summary = refreshed(home, rules=Rules())
    assert (summary.images, summary.removed, summary.left_out) == (1, 8, 8)


def test_an_unchanged_archive_is_not_opened(home: Path, opened: list[bytes]) -> None:
    refreshed(home, "shards", rules=ARCHIVES)
    opened.clear()
    for options in ({}, {"rules": ARCHIVES}):
        summary = refreshed(home, encoder=(encoder := TinyEncoder()), **options)
        assert (summary.images, summary.unchanged, encoder.embedded) == (9, 9, 0)
        assert opened == []
    assert refreshed(home, "shards/0.tar").unchanged == 5
    assert opened == []
    # Other rules may find other members.
    refreshed(home, rules=Rules(archives=True, exclude=("004.png",)))
    assert paths(home)[3:5] == ["shards/0.tar!/003.png", "shards/008.png"]
    # So may other decoders, and the option to read all anew.
    opened.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipsearch.images.extensions.needed_extra", lambda suffix: suffix == ".bmp" or None)
        refreshed(home)
    assert opened
    opened.clear()
    summary = refreshed(home, reread=True, encoder=(encoder := TinyEncoder()))
    assert opened
    assert (summary.unchanged, encoder.embedded) == (8, 0)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_only_new_members_of_a_changed_archive_are_embedded(home: Path, kind: str) -> None:
    make, name, begin = (tar, "0.tar", "") if kind == "tar" else (zipped, "1.zip", "in/")
    refreshed(home, "shards", rules=ARCHIVES)
    before = {one.partition("!/")[2] for one in paths(home) if name in one}
    kept = sorted(before)[1:]
    content = {one: PICTURES[one.removeprefix(begin)] for one in kept}
    content[kept[0]] = picture("olive")  # of the same size and, in the tar archive, with the same time
    make(home / "shards" / name, content | {"new.png": PICTURES["009.png"]})
    summary = refreshed(home, encoder=(encoder := TinyEncoder()))
    assert encoder.embedded == 2
    assert (summary.embedded, summary.removed) == (2, 1)
    assert {one.partition("!/")[2] for one in paths(home) if name in one} == {*kept, "new.png"}
    found = dict(vectors(home))
    (home / "plain.png").write_bytes(picture("olive"))
    assert found[os.path.basename(kept[0])] == expected(os.fsencode(home / "plain.png")).tobytes()


def test_a_renamed_archive_and_moved_members_keep_their_vectors(home: Path) -> None:
    refreshed(home, "shards", rules=ARCHIVES)
    (home / "shards" / "0.tar").rename(home / "shards" / "9.TAR")
    (home / "shards" / "1.zip").unlink()
    for name in ("005.png", "006.png", "007.png"):
        (home / "shards" / name).write_bytes(PICTURES[name])
    summary = refreshed(home, encoder=(encoder := TinyEncoder()))
    assert (summary.moved, encoder.embedded, summary.images) == (8, 0, 9)


def test_an_archive_that_is_deleted_takes_its_members_along(home: Path) -> None:
    refreshed(home, "shards", rules=ARCHIVES)
    (home / "shards" / "0.tar").unlink()
    summary = refreshed(home)
    assert (summary.images, summary.removed, summary.kept) == (4, 5, [])
    # A folder that has lost all may be a drive that is not mounted.
    shutil.rmtree(home / "shards")
    (home / "shards").mkdir()
    with pytest.raises(InputError, match="Is a drive not mounted"):
        refreshed(home)
    assert len(paths(home)) == 4


def test_an_archive_that_cannot_be_read_keeps_its_records(home: Path) -> None:
    refreshed(home, "shards", rules=ARCHIVES)
    archive = home / "shards" / "0.tar"
    whole = archive.read_bytes()
    name = os.fsencode(archive)
    archive.write_bytes(whole[:2600])
    summary = refreshed(home, encoder=(encoder := TinyEncoder()))
    assert (summary.images, summary.removed, encoder.embedded) == (8, 0, 0)
    assert summary.unreadable == [
        (name + b"!", "it ends in the middle: it is truncated"),
        (name + b"!/002.png", "the archive ends before it does"),
    ]
    with deny(archive):
        summary = refreshed(home)
    assert (summary.images, dict(summary.unreadable)[name + b"!"]) == (8, "Permission denied")
    archive.write_bytes(whole)
    summary = refreshed(home, encoder=(encoder := TinyEncoder()))
    assert (summary.images, summary.unreadable, encoder.embedded) == (9, [], 0)  # its dead row had the content


def test_a_truncated_archive_keeps_records_whatever_the_order_of_its_members(home: Path) -> None:
    names = sorted(PICTURES, reverse=True)
    archive = tar(home / "shards" / "0.tar", {name: PICTURES[name] for name in names})
    assert refreshed(home, "shards/0.tar").images == 10
    archive.write_bytes(archive.read_bytes()[:3072])
    summary = refreshed(home)
    assert (summary.images, summary.removed) == (10, 0)
    assert summary.unreadable == [(os.fsencode(archive) + b"!", "its end is missing: it may be truncated")]
    tar(archive, {"000.png": PICTURES["000.png"]})
    assert (refreshed(home).unreadable, paths(home)) == ([], ["shards/0.tar!/000.png"])


def test_an_archive_as_root_is_always_read(home: Path) -> None:
    summary = refreshed(home, "shards/0.tar", "shards/1.zip")
    assert (summary.images, summary.embedded) == (8, 8)
    assert refreshed(home).unchanged == 8
    tar(home / "shards" / "0.tar", {"x.png": PICTURES["000.png"]})
    assert refreshed(home).removed == 4
    (home / "shards" / "0.tar").unlink()
    with pytest.raises(InputError, match=r"No such file or folder: .*0\.tar The index knows 1 images"):
        refreshed(home)
    with Writer.locked(home / FOLDER) as writer:
        assert writer.forget([os.fsencode(home / "shards" / "0.tar"), os.fsencode(home / "shards" / "1.zip")]) == [1, 3]


def test_archives_and_the_folders_above_them_are_not_at_odds(home: Path) -> None:
    refreshed(home, "shards")
    with pytest.raises(InputError, match=r"0\.tar lies in a folder that is indexed without archives") as error:
        refreshed(home, "shards/0.tar")
    assert error.value.hints == ("archives-of-folder",)
    with Writer.locked(home / FOLDER) as writer:
        writer.forget([os.fsencode(home / "shards")])
    refreshed(home, "shards/0.tar")
    with pytest.raises(InputError, match=r"0\.tar is in the index, and this would drop it"):
        refreshed(home, "shards")
    summary = refreshed(home, "shards", rules=ARCHIVES, encoder=(encoder := TinyEncoder()))
    assert (summary.images, encoder.embedded) == (9, 4)


def test_broken_members_are_named_once_and_not_tried_again(home: Path, opened: list[bytes]) -> None:
    tar(home / "shards" / "0.tar", {"a.png": PICTURES["000.png"], "../b.png": PICTURES["001.png"], "c.png": b"no"})
    summary = refreshed(home, "shards/0.tar")
    inside = os.fsencode(home / "shards" / "0.tar!") + b"/"
    assert summary.unreadable == [
        (inside + b"../b.png", "its name leads out of the archive"),
        (inside + b"c.png", "not an image of a known format"),
    ]
    opened.clear()
    again = refreshed(home)
    assert (again.unreadable, opened) == (summary.unreadable, [])


def test_an_interrupted_run_goes_on_with_the_rest_of_the_archive(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tired(TinyEncoder):
        def encode_images(self, pixels: object) -> object:  # type: ignore[override]
            if self.embedded >= 2:
                raise KeyboardInterrupt
            return super().encode_images(pixels)  # type: ignore[arg-type]

    monkeypatch.setattr("clipsearch.index.run.CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        refreshed(home, "shards/0.tar", encoder=Tired())
    done = len(paths(home))
    assert 0 < done < 5
    summary = refreshed(home, "shards/0.tar", encoder=(encoder := TinyEncoder()))
    assert (summary.images, summary.unchanged, encoder.embedded) == (5, done, 5 - done)


def test_members_are_divided_into_parts_like_files(home: Path) -> None:
    found = []
    for number in (1, 2):
        folder = home / f"part-{number}"
        for _ in range(2):  # the second run finds nothing to read
            summary = update(folder, home / "shards", rules=ARCHIVES, part=f"{number}/2")
        assert (summary.unchanged, summary.images) == (summary.images, summary.images)
        with closing(Store.open(folder)) as store:
            found += [record.path for record in store.records() if record.row is not None]
    refreshed(home, "shards", rules=ARCHIVES)
    assert sorted(os.fsdecode(path.removeprefix(os.fsencode(home) + b"/")) for path in found) == paths(home)


def test_names_are_stored_byte_for_byte(home: Path) -> None:
    tar(home / "odd.tar", {b"\xff\xfe \n.png": PICTURES["000.png"], b"a.zip!/b.png": PICTURES["001.png"]})
    refreshed(home, "odd.tar")
    with closing(Store.open(home / FOLDER)) as store:
        stored = [path for (path,) in store.sql("SELECT path FROM images")]
    assert stored == [b"odd.tar!/a.zip!/b.png", b"odd.tar!/\xff\xfe \n.png"]
