"""Updates of an index of an object store: what they survive, and what they never do."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import SAMPLES
from fsspec.config import conf
from s3_server import Store, moto, proxied

from clipsearch.api import IndexingModel
from clipsearch.errors import InputError, StoreError, UnreadableImageError
from clipsearch.images import object_store, requesting
from clipsearch.images.files import ImageFile, Rules, UnreachableError
from clipsearch.images.finding import find_images
from clipsearch.images.object_store import ObjectStore
from clipsearch.index.format import FOLDER
from clipsearch.index.reading import Store as Index
from clipsearch.index.summary import Summary
from clipsearch.index.updating import UpdateOptions, update
from clipsearch.index.watching import Watch
from clipsearch.system.events import Polling
from clipsearch.system.paths import absolute
from clipsearch.tasks.classification import selected

DOGS = [SAMPLES / "dogs" / f"dog_{n}.jpg" for n in (3, 4, 6)]
FARM = sorted((SAMPLES / "farm").glob("*.jpg"))[:2]
PHOTOS = {f"a/{path.name}": path.read_bytes() for path in DOGS} | {f"b/{path.name}": path.read_bytes() for path in FARM}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def stores() -> Iterator[Store]:
    """One store for the module, and one connection to it; waits between tries take no time."""
    with moto() as port, proxied(port) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment(CLIPSEARCH_STORE_TIMEOUT="1").items():
            patch.setenv(name, value)
        patch.setattr(requesting, "FIRST_WAIT", 0.0)
        patch.setattr(object_store, "_connections", {})
        yield store


@pytest.fixture
def store(stores: Store) -> Store:
    """The store with a new bucket that holds some pictures."""
    stores.begin(f"pictures-{next(_numbers)}")
    for key, content in PHOTOS.items():
        stores.put(f"photos/{key}", content)
    return stores


@pytest.fixture
def root(store: Store) -> str:
    return f"s3://{store.bucket}/photos"


@pytest.fixture(scope="module")
def model() -> IndexingModel:
    return IndexingModel("picturebook")


Updated = Callable[..., Summary]


@pytest.fixture
def updated(model: IndexingModel, tmp_path: Path) -> Updated:
    def updated(*paths: str | Path, **options: object) -> Summary:
        return update(tmp_path / FOLDER, paths, model, **UpdateOptions(**options))  # type: ignore[typeddict-item]

    return updated


def paths(folder: Path) -> list[str]:
    with closing(Index.open(folder / FOLDER)) as known:
        return [record.path.decode() for record in known.records() if record.row is not None]


def found(place: str, rules: Rules | None = None) -> list[ImageFile]:
    return list(find_images(absolute(place), rules or Rules()))


def test_changes_in_a_store_are_followed(store: Store, root: str, updated: Updated, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "cow.jpg").write_bytes(FARM[0].read_bytes())
    assert updated(root, tmp_path / "local").images == 6
    store.put("photos/a/dog_3.jpg", FARM[1].read_bytes())  # another content
    store.put("photos/c/moved.jpg", DOGS[1].read_bytes())
    store.delete("photos/a/dog_4.jpg")
    assert updated(tmp_path).images == 6  # what lies elsewhere is not in the folder that the index lies in
    done = updated(root, rules=Rules(exclude=("b/",)))
    assert (done.moved, done.removed, done.copied, done.images) == (2, 1, 0, 4)
    assert paths(tmp_path)[1:] == [f"{root}/{key}" for key in ("a/dog_3.jpg", "a/dog_6.jpg", "c/moved.jpg")]


def test_keys_are_kept_byte_for_byte_and_folders_are_told_apart(store: Store, root: str) -> None:
    store.page = 2
    names = ["e mpty+%41/ü.jpg", "d/f.PNG", "d/unnamed", "ad.jpg", "d-/x.webp", "ÿ.jpg"]
    for key in (*names, ".hidden.jpg", "d/", "d/notes.txt", "d/old.jpg~", "@eaDir/x.jpg", "z.zip", "d/empty"):
        store.put(f"photos/{key}", DOGS[0].read_bytes() if key in names else b"" if key in ("d/", "d/empty") else b"no")
    store.put("photos/d/../up.jpg", DOGS[0].read_bytes())
    listed = found(root)
    expected = sorted(f"{root}/{key}".encode() for key in (*names, "d/../up.jpg", *PHOTOS))
    assert [file.path for file in listed] == expected
    assert {file.path.rpartition(b"/")[2] for file in listed if file.problem} == {b"up.jpg"}
    assert [file.path for file in found(f"{root}/d")] == [path for path in expected if b"/d/" in path]
    assert [file.path for file in found(f"{root}/d/f.PNG")] == [f"{root}/d/f.PNG".encode()]
    assert [file.path for file in found(f"{root}/d/unnamed")] == [f"{root}/d/unnamed".encode()]
    assert len(found(f"s3://{store.bucket}", Rules(include_hidden=True, by_name_only=True))) == len(expected)
    source = ObjectStore(root.encode())
    for file in listed:
        if file.problem is None:
            again, content = source.read(file.path, 10**6)
            assert again == file._replace(by_name=True) == source.file(file.path)
            assert source.first_bytes(file.path, 20) == content[:20]
    assert source.first_bytes(f"{root}/d/empty".encode(), 20) == b""
    with pytest.raises(UnreadableImageError, match="too large"):
        source.read(f"{root}/a/dog_3.jpg".encode(), 1000)


def test_faults_that_pass_cost_nothing(store: Store, root: str, updated: Updated) -> None:
    store.faults = {
        "list-type": ["500", "cut"],
        "dog_3.jpg": ["503", "cut"],
        "dog_4.jpg": ["reset", "429"],
        "dog_6.jpg": ["silent"],
    }
    done = updated(root)
    assert (done.embedded, done.unreadable) == (5, [])
    assert not any(store.faults.values())
    assert sum("dog_3.jpg" in asked for asked in store.asked) == 3


def test_what_cannot_be_had_now_stays_as_it_was(store: Store, root: str, updated: Updated, tmp_path: Path) -> None:
    updated(root)
    before = paths(tmp_path)
    store.put("photos/a/dog_3.jpg", FARM[0].read_bytes())
    store.put("photos/c/new.jpg", FARM[1].read_bytes() + b"more")
    store.faults = {"dog_3.jpg": ["500"] * 3, "new.jpg": ["403"]}
    reasons = {path.rpartition(b"/")[2]: reason for path, reason in updated().unreadable}
    assert paths(tmp_path) == before
    assert reasons == {
        b"dog_3.jpg": "it could not be had now: the store says 500 (InternalError), 3 times; the index keeps what "
        "it had of it",
        b"new.jpg": "the store refuses it: 403 InternalError",
    }
    done = updated()
    assert (done.embedded, done.copied, done.unreadable) == (1, 1, [])


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("500", "500"),
        ("twice", "ends in the middle"),
        ("cut", "ended early|broke"),
        ("403", "403"),
        ("anew", "not come in order"),
    ],
)
def test_a_list_that_breaks_off_forgets_nothing(  # noqa: PLR0917
    store: Store, root: str, updated: Updated, tmp_path: Path, fault: str, why: str
) -> None:
    store.page = 3
    updated(root)
    before = paths(tmp_path)
    store.delete("photos/a/dog_3.jpg")
    store.faults = {"list-type" if fault == "twice" else "continuation-token": [fault] * 3}
    with pytest.raises(StoreError, match=why) as error:
        updated()
    assert "The index knows 5 images there. Nothing was changed." in str(error.value)
    assert paths(tmp_path) == before
    store.faults = {}
    assert updated().removed == 1


def test_a_store_that_goes_away_ends_the_run_and_costs_nothing(
    store: Store, root: str, updated: Updated, tmp_path: Path
) -> None:
    updated(root)
    before = paths(tmp_path)
    for number in range(20):
        store.put(f"photos/new/{number:02}.jpg", DOGS[0].read_bytes() + bytes([number]))
    store.faults = {"/new/": ["reset"] * 1000}
    with pytest.raises(StoreError, match="does not answer any more"):
        updated()
    assert [path for path in paths(tmp_path) if "/new/" not in path] == before
    store.faults = {}
    object_store._connections["s3"]._servers.clear()  # as in another process, or a minute later
    assert updated().images == 25


def test_an_emptied_root_is_an_error_and_an_emptied_folder_is_not(
    store: Store, root: str, updated: Updated, tmp_path: Path
) -> None:
    updated(root)
    for key in PHOTOS:
        store.delete(f"photos/{key}")
    with pytest.raises(InputError, match=r"No images in s3://.* any more. The index knows 5"):
        updated()
    assert len(paths(tmp_path)) == 5
    store.put("photos/b/new.jpg", DOGS[0].read_bytes())
    done = updated()
    assert (done.moved, done.removed, done.kept) == (1, 4, [])


def test_an_object_that_changes_after_it_was_listed_is_what_it_is_when_read(
    store: Store, root: str, updated: Updated, tmp_path: Path
) -> None:
    new = FARM[0].read_bytes() + b"longer"
    store.then = {f"GET /{store.bucket}/photos/a/dog_3.jpg": lambda: store.put("photos/a/dog_3.jpg", new)}
    store.then[f"GET /{store.bucket}/photos/a/dog_4.jpg"] = lambda: store.delete("photos/a/dog_4.jpg")
    assert updated(root).images == 4
    with closing(Index.open(tmp_path / FOLDER)) as known:
        assert next(record.size for record in known.records() if record.path.endswith(b"dog_3.jpg")) == len(new)
    store.asked.clear()
    assert updated().unchanged == 4
    assert len(store.asked) == 1


def test_objects_whose_names_do_not_tell_are_looked_at_together(
    store: Store, root: str, updated: Updated, tmp_path: Path
) -> None:
    together = threading.Barrier(8)  # none is answered before all are asked for

    def wait() -> None:
        together.wait(20)

    for number in range(8):
        store.put(f"photos/un/{number}", b"no picture" if number > 5 else DOGS[0].read_bytes() + bytes([number]))
        store.then[f"GET /{store.bucket}/photos/un/{number}"] = wait
    store.put("photos/un/../x", b"x")
    store.faults = {"un/3": ["500", "429"], "un/4": ["403", "403"]}
    done = updated(root)
    assert not together.broken
    reasons = {path.rpartition(b"/")[2]: reason for path, reason in done.unreadable}
    assert (done.embedded, set(reasons)) == (10, {b"4", b"x"})
    assert "refuses it: 403" in reasons[b"4"]
    store.asked.clear()
    assert (updated().embedded, [name for name in paths(tmp_path) if "/un/" in name]) == (
        1,
        [f"{root}/un/{number}" for number in range(6)],
    )
    assert sorted({asked.rpartition("/")[2] for asked in store.asked[1:]}) == ["4", "6", "7"]
    assert len(found(f"{root}/un")) == 7
    store.faults = {f"un/{number}": ["reset"] * 9 for number in range(8)}
    with pytest.raises(StoreError, match="does not answer any more"):
        updated(root, reread=True)
    object_store._connections["s3"]._servers.clear()
    assert len(paths(tmp_path)) == 11


def test_filters_take_a_key_as_it_is(store: Store, root: str, updated: Updated, tmp_path: Path) -> None:
    store.put("photos/c//d.jpg", FARM[0].read_bytes())
    updated(root)
    files = [f"{root}/c//d.jpg", f"{root}/a/dog_3.jpg", f"{root}/c/d.jpg"]
    with closing(Index.open(tmp_path / FOLDER)) as known:
        assert sorted(selected(known, files=files).paths) == sorted(os.fsencode(name) for name in files[:2])
        assert selected(known, under=f"{root}/c").paths == [os.fsencode(files[0])]


def test_a_store_is_searched_at_fixed_times(
    store: Store, root: str, model: IndexingModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Watch(tmp_path / FOLDER, [Path(root)], model, Polling(0.01))) as watch:
        assert [summary.images for summary in watch.begin()] == [5]
        store.put("photos/new.jpg", FARM[0].read_bytes() + b"new")
        summaries = watch.go_on()
        assert next(summary for summary in summaries if summary.embedded).images == 6
        store.faults = {"list-type": ["403"] * 2}
        store.delete("photos/new.jpg")
        assert next(summary for summary in summaries if summary.removed).images == 5
    told = [record.getMessage() for record in caplog.records if root in record.getMessage()]
    why = "cannot be read: the store says 403 InternalError. The index knows 6 images there. Nothing was changed."
    assert told == [f"{root} {why}", f"{root} can be searched again."]


def test_google_is_asked_in_the_same_way(store: Store, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"endpoint_url": store.address, "key": "a", "secret": "b"}  # as of FSSPEC_GS_ENDPOINT_URL and so on
    monkeypatch.setitem(conf, "gs", settings)
    theirs = [file._replace(path=file.path.replace(b"gs://", b"s3://")) for file in found(root.replace("s3:", "gs:"))]
    assert theirs == found(root)


def test_a_wait_that_is_given_up_ends_at_once(store: Store, root: str) -> None:
    store.faults = {"dog_3.jpg": ["silent"]}
    store.then = {"dog_3.jpg": requesting.abandon}
    with pytest.raises(StoreError, match="given up"):
        ObjectStore(root.encode()).read(f"{root}/a/dog_3.jpg".encode(), 10**6)


def test_a_refusal_of_all_objects_is_no_matter_of_one(store: Store, root: str) -> None:
    store.faults = {"dog_3.jpg": ["403", "400 ExpiredToken"]}
    source, path = ObjectStore(root.encode()), f"{root}/a/dog_3.jpg".encode()
    with pytest.raises(UnreachableError, match="403"):
        source.read(path, 10**6)
    with pytest.raises(StoreError, match="ExpiredToken"):
        source.read(path, 10**6)
