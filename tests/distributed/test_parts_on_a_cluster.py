"""Parts of a new index that workers make are merged into what one run makes here. Ray is a stand-in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from conftest import paint
from fake_ray import FakeRay, fake_ray
from same_index import assert_same

from clipsearch.api import IndexingModel
from clipsearch.distributed import parts, running, shard_worker
from clipsearch.distributed.running import ClusterModel, update_on_cluster
from clipsearch.distributed.shard_worker import Made, Shard, ShardWorker
from clipsearch.errors import InputError, ModelMismatchError
from clipsearch.images.files import Rules
from clipsearch.index.summary import Summary
from clipsearch.index.updating import update
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.system.progress import SILENT, Progress

NUMPY = EncoderOptions(engine="numpy")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    monkeypatch.setattr(running, "connected", lambda *_: nullcontext())
    with fake_ray() as fake:
        yield fake


def on_cluster(
    folder: Path,
    *paths: Path,
    parts: int | None = 3,
    progress: Progress = SILENT,
    **options: Any,  # noqa: ANN401
) -> Summary:
    chosen = ClusterModel("picturebook")
    options = {"part": None, "wait": 0, "codes": None, **options}  # as the command has it
    return update_on_cluster("auto", folder, paths, chosen, NUMPY, progress=progress, parts=parts, **options)


def here(folder: Path, *paths: Path, **options: Any) -> Summary:  # noqa: ANN401
    return update(folder, paths, IndexingModel("picturebook", options=NUMPY), **options)


def assert_equal_to_one_made_here(folder: Path, *paths: Path, **options: Any) -> None:  # noqa: ANN401
    here(folder.with_name("here"), *paths, **options)
    assert_same(folder, folder.with_name("here"))
    assert not folder.with_name(f"{folder.name}.shards").exists()


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared disk", "disks of their own"])
def test_parts_become_one_index(
    is_shared: bool,  # noqa: FBT001
    ray: FakeRay,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parts, "_PIECE_BYTES", 10_000)
    if not is_shared:
        monkeypatch.setattr(shard_worker, "_sees", lambda _: False)
    paint(pictures / "wide.png", "pink", (600, 260))
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    options: dict[str, Any] = {"regions": True, "rules": Rules(("green.png",))}
    summary = on_cluster(tmp_path / "cluster", pictures, **options)
    assert (summary.images, summary.embedded, summary.unchanged, len(summary.unreadable)) == (10, 10, 0, 1)
    assert any("piece" in actor.asked for actor in ray.actors) is not is_shared
    assert not [*(tmp_path / "cache").rglob("*-of-3")]
    assert_equal_to_one_made_here(tmp_path / "cluster", pictures, **options)


def test_a_part_of_a_lost_worker_goes_on_elsewhere_from_its_last_checkpoint(
    ray: FakeRay, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "clipsearch")
    embedded = []

    class Ending(Progress):
        def advance(self, *_: int) -> None:
            raise KeyboardInterrupt

    class Mortal(ShardWorker):
        def make(self, shard: Shard) -> Made:
            if len(ray.actors) == 1:
                with pytest.raises(KeyboardInterrupt):  # with the first picture of its part recorded
                    update(shard.folder, shard.paths, self._model, part=shard.part, progress=Ending())
                ray.of(self).die()
                raise RuntimeError("a dead worker says nothing")
            made = super().make(shard)
            embedded.append(made.embedded)
            return made

    ray.nodes = ray.nodes[:1]
    ray.make = lambda _: Mortal()
    on_cluster(tmp_path / "cluster", pictures)
    assert caplog.text.count("goes on elsewhere") == 1
    assert len(embedded) == 3
    assert 0 < sum(embedded) < 10
    assert_equal_to_one_made_here(tmp_path / "cluster", pictures)


def test_a_run_that_is_ended_goes_on_with_finished_parts(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    class Failing(ShardWorker):
        def make(self, shard: Shard) -> Made:
            if shard.part == "3/3":
                raise InputError("host-a: no more")
            return super().make(shard)

    ray.nodes = ray.nodes[:1]
    ray.make = lambda _: Failing()
    with pytest.raises(InputError, match="no more"):
        on_cluster(tmp_path / "cluster", pictures)
    assert not (tmp_path / "cluster").exists()
    with pytest.raises(InputError, match="holds 3 parts that are not finished, not 4") as error:
        on_cluster(tmp_path / "cluster", pictures, parts=4)
    assert error.value.facts["parts"] == 3

    # What has changed in the meantime, also in finished parts, is found.
    paint(pictures / "new.png", "cyan")
    (pictures / "warm" / "black.png").unlink()
    ray.make = None
    assert on_cluster(tmp_path / "cluster").images == 10
    assert ray.actors[1].asked.count("make") == 1
    assert_equal_to_one_made_here(tmp_path / "cluster", pictures)


def test_progress_is_that_of_all_parts(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    class Shown(Progress):
        """Notes how many are done and how many are left."""

        def __init__(self) -> None:
            self.done: list[int] = []
            self.left = [0]

        def start(self, total: int) -> None:  # noqa: ARG002
            self.done.append(0)

        def expect(self, left: int) -> None:
            self.left.append(left)

        def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:  # noqa: ARG002
            self.done[-1] += files

    shown = Shown()
    on_cluster(tmp_path / "cluster", pictures, progress=shown)
    assert len(ray.actors) == 2
    assert (shown.done, shown.left[-1]) == ([10, 10], 0)  # embedded, and merged


def test_parts_of_an_index_that_exists_are_refused(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    here(tmp_path / "cluster", pictures)
    with pytest.raises(InputError, match="parts are for the first run") as error:
        on_cluster(tmp_path / "cluster", pictures)
    assert error.value.hints == ("no-parts",)
    with pytest.raises(InputError, match="not divided into parts again"):
        on_cluster(tmp_path / "other", pictures, part="1/2")
    assert not ray.actors


def test_parts_of_another_model_are_refused(ray: FakeRay, pictures: Path, tmp_path: Path, small_clip: Path) -> None:
    update(tmp_path / "cluster.shards" / "1-of-3", [pictures], IndexingModel(str(small_clip)), part="1/3")
    with pytest.raises(ModelMismatchError):
        on_cluster(tmp_path / "cluster", pictures)
    assert not ray.actors


def test_a_part_with_which_workers_die_is_not_tried_for_ever(ray: FakeRay, pictures: Path, tmp_path: Path) -> None:
    class Mortal(ShardWorker):
        def make(self, shard: Shard) -> Made:
            if shard.part == "2/3":
                ray.of(self).die()
                raise RuntimeError("a dead worker says nothing")
            return super().make(shard)

    ray.make = lambda _: Mortal()
    with pytest.raises(InputError, match="workers died with part 2/3"):
        on_cluster(tmp_path / "cluster", pictures)
    assert not (tmp_path / "cluster").exists()
