"""An index whose pictures others embed equals one made here, whatever happens to the others. Ray is a stand-in."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import paint
from fake_ray import FakeRay, fake_ray
from same_index import assert_same

from clipsearch.api import IndexingModel
from clipsearch.distributed import fleet, model_files
from clipsearch.distributed.cluster import Node, Place, places
from clipsearch.distributed.embedding import ClusterPipeline
from clipsearch.distributed.fleet import Fleet
from clipsearch.distributed.running import ClusterModel
from clipsearch.distributed.worker import Begun, Taken, Task, Wanted, Worker
from clipsearch.errors import DeviceError, InputError, ModelError
from clipsearch.images.files import ImageFile
from clipsearch.index.format import Record
from clipsearch.index.summary import Summary
from clipsearch.index.updating import update
from clipsearch.models.encoder_options import EncoderOptions

NUMPY = EncoderOptions(engine="numpy")


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    with fake_ray() as fake:
        yield fake


def on_cluster(folder: Path, *paths: Path, model: str = "picturebook", **options: Any) -> Summary:  # noqa: ANN401
    chosen = ClusterModel(model)
    with closing(Fleet(chosen, NUMPY)) as workers:
        return update(folder, paths, chosen, pipeline=ClusterPipeline(workers), **options)


def here(folder: Path, *paths: Path, model: str = "picturebook", **options: Any) -> Summary:  # noqa: ANN401
    return update(folder, paths, IndexingModel(model, options=NUMPY), **options)


def test_an_index_equals_one_made_here(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    shutil.copy(pictures / "cold" / "red.png", pictures / "copy.png")
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (pictures / "nowhere.png").symlink_to("nothing")
    big = paint(pictures / "wide.png", "pink", (600, 260))
    for folder, make in ((tmp_path / "cluster", on_cluster), (tmp_path / "here", here)):
        summary = make(folder, pictures, regions=True)
        assert (summary.embedded, summary.copied, len(summary.unreadable)) == (11, 1, 2)
        assert summary.regions
    assert len(ray.actors) == 2
    assert_same(tmp_path / "cluster", tmp_path / "here")

    (pictures / "cold" / "red.png").rename(pictures / "moved.png")
    (pictures / "cold" / "blue.png").unlink()
    big.write_bytes((pictures / "copy.png").read_bytes())
    paint(pictures / "cold" / "green.png", "cyan")
    for folder, make in ((tmp_path / "cluster", on_cluster), (tmp_path / "here", here)):
        summary = make(folder)
        assert (summary.embedded, summary.moved, summary.copied, summary.removed) == (1, 1, 1, 1)
    assert_same(tmp_path / "cluster", tmp_path / "here")


class Dying(Worker):
    """Dies when one of its methods is called for the first time."""

    def __init__(self, ray: FakeRay, method: str) -> None:
        super().__init__()
        setattr(self, method, lambda *_, **__: ray.of(self).die())


@pytest.mark.parametrize("method", ["begin", "read", "embed", "take", "flush"])
def test_others_do_what_a_lost_worker_had(
    method: str, ray: FakeRay, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "clipsearch")
    ray.make = lambda _: Worker() if ray.actors else Dying(ray, method)
    assert on_cluster(tmp_path / "cluster", pictures).embedded == 10
    here(tmp_path / "here", pictures)
    assert_same(tmp_path / "cluster", tmp_path / "here")
    assert ("Others do the 5 pictures that it had" in caplog.text) == (method != "begin")


def test_a_machine_that_goes_leaves_its_work_and_one_that_comes_takes_some(
    ray: FakeRay, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_LOOK_SECONDS", 0.0)

    class Leaving(Worker):
        def embed(self, *_: object, **__: object) -> None:
            ray.nodes = [Node("c", "host-c", 1, 0)]
            for actor in [*ray.actors]:
                actor.die()

    ray.make = lambda place: Worker() if place.node == "c" else Leaving()
    assert on_cluster(tmp_path / "cluster", pictures).embedded == 10
    assert [actor.place.node for actor in ray.actors] == ["a", "b", "c"]


def test_a_worker_that_does_not_answer_any_more_is_given_up(
    ray: FakeRay, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_SILENT_SECONDS", 0.5)
    over = threading.Event()

    class Hanging(Worker):
        def read(self, *_: object) -> Any:  # noqa: ANN401
            over.wait()

        take = read

    ray.make = lambda _: Worker() if ray.actors else Hanging()
    assert on_cluster(tmp_path / "cluster", pictures).embedded == 10
    over.set()


def test_a_worker_is_flushed_only_when_it_gets_no_more(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    class Small(Worker):
        def room(self) -> int:
            return 6

        def embed(self, chunk: int, wanted: Sequence[Wanted], *, regions: bool, seconds: float) -> None:
            super().embed(chunk, wanted, regions=regions, seconds=seconds)
            super().flush()  # so few images may not fill a batch

        def flush(self) -> None:
            pass

    ray.nodes, ray.make = ray.nodes[:1], lambda _: Small()
    assert on_cluster(tmp_path / "cluster", pictures).embedded == 10
    asked = ray.actors[0].asked
    assert asked.count("read") > 1
    assert "flush" in asked
    assert "read" not in asked[asked.index("flush") :]


def test_the_last_pictures_of_a_slow_worker_are_done_by_another_as_well(
    ray: FakeRay, pictures: Path, tmp_path: Path
) -> None:
    over = threading.Event()

    class Slow(Worker):
        def take(self) -> Taken:
            over.wait(0.2)
            return Taken([], self.room())

    ray.make = lambda _: Worker() if ray.actors else Slow()
    assert on_cluster(tmp_path / "cluster", pictures).embedded == 10
    over.set()
    here(tmp_path / "here", pictures)
    assert_same(tmp_path / "cluster", tmp_path / "here")


def test_a_picture_with_which_workers_die_is_not_tried_for_ever(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    bad = os.fsencode(pictures / "warm" / "black.png")

    class Fragile(Worker):
        def embed(self, chunk: int, wanted: Sequence[Wanted], **named: Any) -> None:  # noqa: ANN401
            if any(self._read[chunk][one.number].file.path == bad for one in wanted):
                ray.of(self).die()
            super().embed(chunk, wanted, **named)

    ray.make = lambda _: Fragile()
    summary = on_cluster(tmp_path / "cluster", pictures)
    assert summary.embedded == 9
    assert summary.unreadable == [(bad, "the process that decoded it died, several times")]
    ray.make = None
    assert on_cluster(tmp_path / "cluster").embedded == 1  # the next run tries again


def test_without_any_worker_the_run_ends_with_what_it_has(
    ray: FakeRay, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_NONE_LEFT_SECONDS", 0.1)
    monkeypatch.setattr(fleet, "_WAIT_SECONDS", 0.1)
    ray.make = lambda _: Dying(ray, "take" if len(ray.actors) > 1 else "begin")
    with pytest.raises(InputError, match="No worker of the cluster is left"):
        on_cluster(tmp_path / "cluster", pictures)
    assert len(ray.actors) == 2 * fleet._MOST_FAILURES


def test_a_model_that_a_worker_lacks_is_sent_to_it(
    ray: FakeRay, pictures: Path, tmp_path: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(name: str, **_: object) -> None:
        raise ModelError(f"no {name}")

    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files, "find_local", nowhere)  # which only workers call
    monkeypatch.setattr(model_files, "_PIECE_BYTES", 100_000)
    on_cluster(tmp_path / "cluster", pictures, model=str(small_clip))
    here(tmp_path / "here", pictures, model=str(small_clip))
    assert_same(tmp_path / "cluster", tmp_path / "here")
    assert [actor.asked.count("receive") > 10 for actor in ray.actors] == [True, True]
    (kept,) = (tmp_path / "cache" / "sent-models").iterdir()
    left, arriving = (kept.with_name(f"{kept.name}.{process}") for process in (1, 2))
    left.mkdir()
    arriving.mkdir()
    os.utime(left, (0, 0))
    on_cluster(tmp_path / "again", pictures, model=str(small_clip))
    assert {*kept.parent.iterdir()} == {kept, arriving}
    assert not any("receive" in actor.asked for actor in ray.actors[2:])


def test_a_machine_that_does_not_see_the_pictures_is_named(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    class Blind(Worker):
        def begin(self, _: Task) -> Begun:
            return Begun("host-a", unseen="No such file or directory")

    ray.make = lambda _: Worker() if ray.actors else Blind()
    with pytest.raises(InputError, match=f"^host-a cannot read {pictures}/cold/blue.png .No such file"):
        on_cluster(tmp_path / "cluster", pictures)
    assert not (tmp_path / "cluster").exists()


class Unable(Worker):
    """Does not see files whose names end so."""

    bad: tuple[bytes, ...] = ()

    def read(self, chunk: int, files: Sequence[ImageFile]) -> list[tuple[Record, bool]]:
        there = [file._replace(path=file.path + b"?" * file.path.endswith(self.bad)) for file in files]
        read = super().read(chunk, there)
        return [(one._replace(path=file.path), gone) for file, (one, gone) in zip(files, read, strict=True)]


def test_what_only_this_machine_can_read_is_sent(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    ray.make = lambda _: Unable()
    Unable.bad = (b"black.png", b"pink.png")
    assert on_cluster(tmp_path / "cluster", pictures).embedded == 10
    here(tmp_path / "here", pictures)
    assert_same(tmp_path / "cluster", tmp_path / "here")


def test_a_folder_that_goes_away_on_a_machine_ends_the_run_and_loses_nothing(
    ray: FakeRay, pictures: Path, tmp_path: Path
) -> None:
    ray.make = lambda _: Unable()
    Unable.bad = (b"",)
    with pytest.raises(InputError, match=r"cannot read .*\.png \(it is gone\), and this machine can"):
        on_cluster(tmp_path / "cluster", pictures)


def test_an_error_of_a_worker_is_the_error_of_the_run(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    class Old(Worker):
        def begin(self, task: Task) -> Begun:
            return super().begin(task._replace(version="0.0.1"))

    ray.make = lambda _: Old()
    with pytest.raises(InputError, match=r"has clipsearch .*, and this machine 0\.0\.1"):
        on_cluster(tmp_path / "cluster", pictures)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", [("g", 0, 8, 1, 0), ("g", 1, 8, 1, 8)]),
        ("cuda", [("g", 0, 8, 1, 0), ("g", 1, 8, 1, 8)]),
        ("cpu", [("g", 0, 8, 0, 0), ("g", 1, 8, 0, 8), ("c", 0, 6, 0, 0), ("d", 0, 2, 0, 6)]),
    ],
)
def test_a_worker_has_a_gpu_or_up_to_eight_cores(device: str, expected: list[tuple[Any, ...]]) -> None:
    nodes = [Node("head", "h", 0, 0), Node("g", "h", 16, 2), Node("c", "i", 6, 0), Node("d", "i", 2, 0)]
    assert places(nodes, device) == [Place(*one) for one in expected]


def test_a_cluster_without_room_for_workers_is_an_error(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    ray.nodes = [Node("head", "h", 0, 0)]
    with pytest.raises(DeviceError, match="processor cores"):
        on_cluster(tmp_path / "cluster", pictures)
