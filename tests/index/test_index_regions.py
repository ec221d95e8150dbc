"""The regions of an index: each image has those of its content, whatever happens to its file."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from conftest import SAMPLES, Run
from families import siglip2
from PIL import Image
from tiny import MODEL, TinyEncoder, TinyPreprocessing, update

from clipsearch.errors import IndexDamagedError, InputError
from clipsearch.images.codecs import decoding
from clipsearch.images.regions import layout
from clipsearch.index.format import FOLDER, HEADER_BYTES, LAST_FORMAT, REGIONS_FORMAT
from clipsearch.index.models import ImageEncoder, LoadedModel
from clipsearch.index.reading import Store
from clipsearch.index.updating import update as update_index
from clipsearch.index.verifying import verify

SIDE = TinyPreprocessing.side
Box = tuple[int, ...]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / FOLDER


def noise(path: Path, width: int, height: int, seed: int) -> Path:
    """A picture of which no two parts are alike."""
    path.parent.mkdir(exist_ok=True, parents=True)
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(levels).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five large pictures of several shapes, and two that are too small for regions."""
    folder = tmp_path / "p"
    for seed, (width, height) in enumerate([(40, 40), (60, 40), (30, 90), (200, 20), (64, 64), (5, 5), (90, 5)]):
        noise(folder / f"{width}x{height}.png", width, height, seed)
    return folder


def regions_of(folder: Path) -> dict[str, dict[Box, npt.NDArray[np.float16]]]:
    """The regions of each living image of an index, by name of the file and by box; each index is verified."""
    with closing(Store.open(folder)) as store, store.snapshot():
        assert verify(store) == []
        found = store.regions()
        assert found is not None
        rows = found.images.tolist()
        assert len([row for row, _ in groupby(rows)]) == len(set(rows)), "not next to each other"
        return {
            os.path.basename(os.fsdecode(record.path)): {
                tuple(found.boxes[at].tolist()): np.array(found.matrix[at])
                for at in np.flatnonzero(found.images == record.row)
            }
            for record in store.records()
            if record.row is not None
        }


def wanted(path: Path) -> dict[Box, npt.NDArray[np.float16]]:
    """The regions that a picture must have, each from a picture of its own."""
    with Image.open(path) as image:
        boxes = [tuple(map(int, box[:4])) for box in layout(*image.size, SIDE)]
        parts = [TinyPreprocessing()(image.crop(cast("tuple[int, int, int, int]", box))) for box in boxes]
    vectors = TinyEncoder().encode_images(parts).astype(np.float16) if parts else ()
    return dict(zip(boxes, vectors, strict=True))


def check(folder: Path, *pictures: Path) -> None:
    """The index has exactly these pictures, each with exactly its regions."""
    found = regions_of(folder)
    assert sorted(found) == sorted(path.name for path in pictures)
    for path in pictures:
        expected = wanted(path)
        assert list(found[path.name]) == list(expected)
        for box, vector in expected.items():
            np.testing.assert_array_equal(found[path.name][box], vector, err_msg=f"{path.name}, {box}")


def inside(folder: Path) -> Iterator[Path]:
    return folder.iterdir()


def content_of(folder: Path) -> dict[str, object]:
    """All that an index holds, less the times of its runs."""
    with closing(sqlite3.connect(folder / "index.db")) as database:
        dump = [line for line in database.iterdump() if "last_run" not in line and 'INSERT INTO "roots"' not in line]
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".npy"}
    return {"dump": dump, **files}


def embedded_by(folder: Path, *paths: Path, regions: bool | None = None) -> int:
    """How many images and parts a run embeds."""
    encoder = TinyEncoder()
    update(folder, *paths, encoder=encoder, regions=regions)
    return encoder.embedded


# -- which images have which ---------------------------------------------------------------------------------


def test_each_large_picture_has_its_regions_and_each_small_one_none(index: Path, pictures: Path) -> None:
    summary = update(index, pictures, regions=True)
    check(index, *inside(pictures))
    assert wanted(pictures / "5x5.png") == {} == wanted(pictures / "90x5.png")
    assert summary.regions == sum(len(wanted(path)) for path in inside(pictures)) > 5 * 3
    assert summary.embedded == 7


def test_the_choice_is_remembered_and_may_be_taken_back(index: Path, pictures: Path) -> None:
    update(index, pictures)
    without = content_of(index)
    assert sorted(path.name for path in index.iterdir()) == ["embeddings.npy", "index.db", "lock"]
    update(index, pictures, regions=True)
    noise(pictures / "new.png", 50, 50, 9)
    update(index, pictures)
    check(index, *inside(pictures))
    (pictures / "new.png").unlink()
    summary = update(index, pictures, regions=False)
    assert summary.regions is None
    assert [row for row in content_of(index)["dump"] if '"dead"' not in row] == without["dump"]  # type: ignore[attr-defined]
    assert sorted(path.name for path in index.iterdir()) == ["embeddings.npy", "index.db", "lock"]
    update(index, pictures)
    with closing(Store.open(index)) as store:
        assert store.regions() is None
        assert store.format() == REGIONS_FORMAT - 1


def test_an_index_that_never_had_any_is_as_it_was(index: Path, pictures: Path, tmp_path: Path) -> None:
    update(index, pictures)
    other = tmp_path / "other" / FOLDER
    shutil.copytree(pictures, tmp_path / "other" / "p")
    update(other, tmp_path / "other" / "p", regions=False)
    assert {**content_of(index), "dump": 0} == {**content_of(other), "dump": 0}
    with closing(sqlite3.connect(index / "index.db")) as database:
        assert database.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() == ("3",)
        assert not database.execute("SELECT * FROM meta WHERE key = 'regions'").fetchall()


def test_a_clipsearch_that_knows_only_older_formats_refuses_it(index: Path, pictures: Path) -> None:
    update(index, pictures, regions=True)
    with closing(sqlite3.connect(index / "index.db")) as database:
        # The first clipsearch with regions knows 4; one without, up to 3; this one, codes and addresses too.
        assert database.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() == ("4",)
        database.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(LAST_FORMAT + 1),))
        database.commit()
    said = f"has format {LAST_FORMAT + 1}; this clipsearch reads formats up to {LAST_FORMAT}"
    with pytest.raises(IndexDamagedError, match=said):
        Store.open(index)


# -- nothing is embedded twice -------------------------------------------------------------------------------


def test_pictures_that_are_known_get_their_regions_alone(index: Path, pictures: Path) -> None:
    update(index, pictures)
    matrix = (index / "embeddings.npy").read_bytes()
    assert embedded_by(index, pictures, regions=True) == sum(len(wanted(path)) for path in inside(pictures))
    check(index, *inside(pictures))
    assert (index / "embeddings.npy").read_bytes() == matrix
    assert embedded_by(index, pictures) == 0


def test_only_what_is_searched_gets_regions_and_the_rest_later(index: Path, pictures: Path, tmp_path: Path) -> None:
    noise(tmp_path / "q" / "other.png", 40, 40, 77)
    update(index, pictures, tmp_path / "q")
    assert embedded_by(index, tmp_path / "q", regions=True) == len(wanted(tmp_path / "q" / "other.png"))
    assert embedded_by(index) == sum(len(wanted(path)) for path in inside(pictures))
    check(index, *inside(pictures), tmp_path / "q" / "other.png")


def test_moved_copied_and_renamed_pictures_keep_theirs(index: Path, pictures: Path) -> None:
    update(index, pictures, regions=True)
    (pictures / "40x40.png").rename(pictures / "moved.png")
    shutil.copy(pictures / "60x40.png", pictures / "copy.png")
    (pictures / "30x90.png").rename(pictures / "x.png")
    (pictures / "64x64.png").rename(pictures / "30x90.png")
    (pictures / "x.png").rename(pictures / "64x64.png")
    assert embedded_by(index, pictures) == 0
    check(index, *inside(pictures))


def test_copies_get_the_regions_of_the_first_one(index: Path, pictures: Path) -> None:
    shutil.copy(pictures / "40x40.png", pictures / "a.png")
    shutil.copy(pictures / "40x40.png", pictures / "b.png")
    update(index, pictures)
    assert embedded_by(index, pictures, regions=True) == sum(
        len(wanted(path)) for path in inside(pictures) if path.name not in ("a.png", "b.png")
    )
    check(index, *inside(pictures))
    shutil.copy(pictures / "40x40.png", pictures / "c.png")
    assert embedded_by(index, pictures) == 0
    check(index, *inside(pictures))


def test_a_restored_picture_has_its_regions_again(index: Path, pictures: Path, tmp_path: Path) -> None:
    update(index, pictures, regions=True)
    shutil.move(pictures / "60x40.png", tmp_path / "aside.png")
    update(index, pictures)
    check(index, *inside(pictures))
    shutil.move(tmp_path / "aside.png", pictures / "60x40.png")
    assert embedded_by(index, pictures) == 0
    check(index, *inside(pictures))


def test_a_changed_picture_gets_those_of_its_new_content(index: Path, pictures: Path) -> None:
    update(index, pictures, regions=True)
    noise(pictures / "60x40.png", 80, 50, 99)
    update(index, pictures)
    check(index, *inside(pictures))


# -- compaction ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [["40x40.png", "60x40.png", "30x90.png"], ["200x20.png"], ["5x5.png", "90x5.png"]])
def test_regions_stay_with_their_pictures_when_rows_are_renumbered(
    index: Path, pictures: Path, gone: list[str]
) -> None:
    update(index, pictures, regions=True)
    before = (index / "regions.npy").stat().st_size
    lost = sum(len(wanted(pictures / name)) for name in gone)
    for name in gone:
        (pictures / name).unlink()
    update(index, pictures)
    check(index, *inside(pictures))
    with closing(Store.open(index)) as store:
        regions = store.regions()
        assert regions is not None
        total = (before - HEADER_BYTES) // (2 * MODEL.dim)
        shares = len(gone) / 7, lost / total
        assert len(regions.images) == (total - lost if max(shares) > 0.25 else total)
    noise(pictures / "new.png", 50, 70, 5)
    update(index, pictures)
    check(index, *inside(pictures))


def test_when_all_large_pictures_are_gone_no_region_is_left(index: Path, pictures: Path) -> None:
    update(index, pictures, regions=True)
    for path in [*inside(pictures)]:
        if wanted(path):
            path.unlink()
    update(index, pictures)
    check(index, pictures / "5x5.png", pictures / "90x5.png")
    assert sorted(path.name for path in index.iterdir()) == ["embeddings.npy", "index.db", "lock"]
    noise(pictures / "new.png", 50, 70, 5)
    update(index, pictures)
    check(index, *inside(pictures))


# -- how they are made ---------------------------------------------------------------------------------------


def test_a_file_is_decoded_once_for_all_its_regions(
    index: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    real = decoding.decode

    def counted(content: bytes, *arguments: object, **options: object) -> decoding.DecodedImage:
        decoded.append(content)
        return real(content, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "decode", counted)
    update(index, pictures, regions=True)
    assert len(decoded) == len(set(decoded)) == 7


def test_regions_are_upright(index: Path, tmp_path: Path) -> None:
    path = noise(tmp_path / "p" / "turned.png", 90, 30, 3)
    with Image.open(path) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(tmp_path / "p" / "turned.png", exif=exif)
        upright = image.transpose(Image.Transpose.ROTATE_270)
    update(index, tmp_path / "p", regions=True)
    found = regions_of(index)["turned.png"]
    assert list(found) == [tuple(map(int, box[:4])) for box in layout(30, 90, SIDE)]
    for box, vector in found.items():
        part = TinyPreprocessing()(upright.crop(cast("tuple[int, int, int, int]", box)))
        np.testing.assert_array_equal(vector, TinyEncoder().encode_images([part])[0].astype(np.float16))


def test_a_region_without_a_vector_is_left_out(index: Path, pictures: Path) -> None:
    class Blind(TinyEncoder):
        def encode_images(self, pixels: object) -> npt.NDArray[np.float32]:
            vectors = super().encode_images(pixels)  # type: ignore[arg-type]
            vectors[1::5] = np.nan  # not the first, so every batch has a good one
            return vectors

    noise(pictures / "a.png", 40, 40, 5)
    encoder = Blind(batch_size=3)
    encoder.calls = 1
    update(index, pictures, encoder=encoder, regions=True)
    found = regions_of(index)
    kept = [(name, box) for name, regions in found.items() for box in regions]
    assert 0 < len(kept) < sum(len(wanted(path)) for path in inside(pictures))
    for name, box in kept:
        np.testing.assert_array_equal(found[name][box], wanted(pictures / name)[box])


def test_a_model_of_any_proportions_has_no_regions(index: Path, pictures: Path) -> None:
    class AnyProportions(TinyPreprocessing):
        side = None  # type: ignore[assignment]

    encoder = TinyEncoder()
    encoder.preprocessing = AnyProportions()
    with pytest.raises(InputError, match="any proportions"):
        update_index(index, [pictures], LoadedModel(cast("ImageEncoder", encoder), MODEL), regions=True)
    assert not index.exists()


# -- what can be wrong ---------------------------------------------------------------------------------------


def problems(folder: Path) -> str:
    with closing(Store.open(folder)) as store:
        return "; ".join(finding.what for finding in verify(store))


def test_verify_finds_what_is_wrong_with_regions(index: Path, pictures: Path) -> None:
    update(index, pictures, regions=True)
    boxes, vectors = np.load(index / "region_boxes.npy"), np.load(index / "regions.npy")
    assert boxes.dtype == np.dtype("<i4")
    assert vectors.dtype == np.dtype("<f2")

    def changed(at: object, value: object) -> str:
        other = boxes.copy()
        other[at] = value
        np.save(index / "region_boxes.npy", other)
        return problems(index)

    assert "names 1 rows that do not exist" in changed((0, 0), 7)
    assert "not next to each other" in changed((0, 0), boxes[-1, 0])
    assert "1 regions are not within their image" in changed((3, 3), 1000)
    assert "1 regions are not within their image" in changed((3, 1), -1)
    np.save(index / "region_boxes.npy", boxes)
    vectors[2] = np.nan
    np.save(index / "regions.npy", vectors)
    assert "1 of" in problems(index)
    (index / "regions.npy").write_bytes((index / "regions.npy").read_bytes()[:-1])
    assert "regions.npy has" in problems(index)
    (index / "region_boxes.npy").unlink()
    assert "region_boxes.npy is missing" in problems(index)


def test_a_run_does_not_write_behind_regions_that_are_missing(index: Path, pictures: Path) -> None:
    update(index, pictures, regions=True)
    (index / "regions.npy").write_bytes((index / "regions.npy").read_bytes()[:-1])
    noise(pictures / "new.png", 50, 70, 5)
    with pytest.raises(IndexDamagedError, match=r"regions\.npy is shorter"):
        update(index, pictures)


def test_what_a_crash_left_behind_regions_is_cut_off(index: Path, pictures: Path) -> None:
    update(index, pictures, regions=True)
    for name in ("regions.npy", "region_boxes.npy"):
        with (index / name).open("ab") as file:
            file.write(b"leftover")
    (index / "regions.new.npy").write_bytes(b"half done")
    with closing(Store.open(index)) as store:
        found = verify(store)
    assert len(found) == 3
    assert all(finding.harmless for finding in found)
    update(index, pictures)
    check(index, *inside(pictures))


def test_files_of_dropped_regions_are_removed_by_the_next_run(index: Path, pictures: Path) -> None:
    update(index, pictures)
    for name in ("regions.npy", "region_boxes.npy"):
        (index / name).write_bytes(b"a crash came before this was deleted")
    with closing(Store.open(index)) as store:
        assert [finding.harmless for finding in verify(store)] == [True, True]
    update(index, pictures)
    assert sorted(path.name for path in index.iterdir()) == ["embeddings.npy", "index.db", "lock"]


# -- the command ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
def test_regions_of_a_photo_have_the_vectors_of_files_of_their_own(tmp_path: Path, run: Run, exact: bool) -> None:  # noqa: FBT001
    with Image.open(next(iter(sorted(SAMPLES.glob("*/*.jpg"))))) as sample:
        large = sample.convert("RGB").resize((1600, 1200), Image.Resampling.BICUBIC)
    (tmp_path / "p").mkdir()
    large.save(tmp_path / "p" / "large.jpg", quality=95)
    options = ["--exact"] if exact else []
    done = run("index", "p", "--regions", "--model", "picturebook", "--json", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = regions_of(tmp_path / FOLDER)["large.jpg"]
    assert json.loads(done.stdout)["regions"] == len(found) > 3
    for number, box in enumerate(found):
        with Image.open(tmp_path / "p" / "large.jpg") as image:
            image.crop(cast("tuple[int, int, int, int]", box)).save(tmp_path / f"{number:02}.png")
    parts = [f"{number:02}.png" for number in range(len(found))]
    assert run("embed", *parts, "--model", "picturebook", "--out", "parts.npy", cwd=tmp_path).returncode == 0
    cosines = (np.stack(list(found.values())).astype(np.float32) * np.load(tmp_path / "parts.npy")).sum(axis=1)
    assert cosines.min() > (0.999 if not exact else 0.99)


def test_wrong_uses_of_regions_are_refused(tmp_path: Path, run: Run, pictures: Path) -> None:
    siglip2(tmp_path / "any")
    assert any(wanted(path) for path in inside(pictures))
    refused = run("index", "p", "--regions", "--model", "any", cwd=tmp_path)
    assert refused.returncode == 2
    assert b"any proportions" in refused.stderr
    assert b"--regions" in refused.stderr
    assert not (tmp_path / FOLDER).exists()
    assert run("index", "p", "--model", "any", cwd=tmp_path).returncode == 0
    before = content_of(tmp_path / FOLDER)
    assert run("index", "--regions", cwd=tmp_path).returncode == 2
    assert content_of(tmp_path / FOLDER) == before
