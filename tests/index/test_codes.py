"""Short codes: what they say of a vector, and that an index keeps those of its rows, whatever happens to it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from tiny import update

from clipsearch.errors import IndexDamagedError
from clipsearch.index import code_file
from clipsearch.index.code_file import codes_of, codes_record
from clipsearch.index.codes import Codes, CodesRecord, _rotated, code_bytes
from clipsearch.index.format import CODES, CODES_FORMAT, FOLDER, FORMAT, HEADER_BYTES, REGIONS_FORMAT
from clipsearch.index.reading import Store
from clipsearch.index.verifying import verify
from clipsearch.index.writing import Writer

Floats = npt.NDArray[np.float32]


def cloud(number: int, dim: int, seed: int = 0) -> Floats:
    """Unit vectors in a cone, as those of a model."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal(dim) + rng.standard_normal((number, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


# -- what a code says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 7, 48, 64, 100, 512, 640, 768])
def test_a_rotation_keeps_all_products(dim: int) -> None:
    rows = cloud(20, dim)
    np.testing.assert_allclose(_rotated(rows) @ _rotated(rows).T, rows @ rows.T, atol=2e-6)


@pytest.mark.parametrize("dim", [512, 640, 768])
def test_a_rotation_spreads_every_dimension_over_all_others(dim: int) -> None:
    turned = np.abs(_rotated(np.eye(dim, dtype=np.float32)))
    assert turned.max() < 12 / np.sqrt(dim)
    assert (turned > 0.1 / np.sqrt(dim)).mean() > 0.8


@pytest.mark.parametrize("dim", [64, 100, 512, 768])
def test_estimates_are_right_on_average_and_nearer_with_more_dimensions(dim: int) -> None:
    rows, queries = cloud(2000, dim), cloud(10, dim, seed=1)
    codes = Codes.around(rows.astype(np.float16))
    made = codes.encode(rows.astype(np.float16))
    assert made.shape == (2000, code_bytes(dim))
    errors = codes.estimates(queries)(made) - queries @ rows.T
    assert abs(errors.mean()) < 0.2 * errors.std()
    # For a random direction it is 0.75 |x - c| |q| / sqrt(D).
    assert errors.std() < 1 / np.sqrt(dim)


def test_the_centre_makes_estimates_better() -> None:
    rows = cloud(2000, 256)
    exact = rows[:5] @ rows.T
    near, far = (
        float((codes.estimates(rows[:5])(codes.encode(rows.astype(np.float16))) - exact).std())
        for codes in (Codes.around(rows.astype(np.float16)), Codes(np.zeros(256, np.float16)))
    )
    assert near < 0.9 * far


def test_few_rows_have_the_same_codes_as_many() -> None:
    rows = cloud(500, 512).astype(np.float16)
    codes = Codes.around(rows)
    assert codes.fit(codes.encode(rows), rows).all()
    assert codes.fit(np.concatenate([codes.encode(rows[at : at + 10]) for at in range(0, 500, 10)]), rows).all()
    assert not codes.fit(codes.encode(rows), rows[::-1]).any()


def test_a_row_that_is_no_unit_vector_has_no_estimate() -> None:
    rows = cloud(10, 64).astype(np.float16)
    codes = Codes.around(rows)
    rows[3], rows[5, 0], rows[7] = 0, np.nan, rows[7] * 3
    found = np.isnan(codes.estimates(cloud(2, 64))(codes.encode(rows)))
    assert found.tolist() == [[at in (3, 5, 7) for at in range(10)]] * 2


# -- those of an index ---------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(12):
        levels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(levels).save(folder / f"{seed:02}.png")
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / FOLDER


def coded(folder: Path) -> int:
    """How many rows have codes, which are right; the index is whole, and its format says what it has."""
    with closing(Store.open(folder)) as store, store.snapshot():
        assert verify(store) == []
        assert (store.format() == CODES_FORMAT) == (codes_record(store) is not None)
        found = codes_of(store)
        if found is None:
            return 0
        codes, rows = found
        assert codes.fit(rows, store.matrix()[0][: len(rows)]).all()
        assert np.load(folder / CODES.name).shape == rows.shape
        return len(rows)


def test_codes_follow_the_rows(index: Path, pictures: Path) -> None:
    update(index, pictures, codes=True)
    assert coded(index) == 12
    for seed in range(12, 15):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(
            pictures / f"{seed}.png"
        )
    before = (index / CODES.name).read_bytes()
    update(index)
    assert coded(index) == 15
    assert (index / CODES.name).read_bytes()[HEADER_BYTES:].startswith(before[HEADER_BYTES:])
    for path in sorted(pictures.iterdir())[:6]:
        path.unlink()
    update(index)  # the matrix is compacted
    with closing(Store.open(index)) as store:
        assert store.committed_rows() == 9
    assert coded(index) == 9


def test_an_index_without_codes_is_as_it_was(index: Path, pictures: Path) -> None:
    update(index, pictures)
    assert coded(index) == 0
    assert not (index / CODES.name).exists()
    with closing(Store.open(index)) as store:
        assert store.format() == FORMAT
        assert store.meta("codes") is None


def test_codes_are_dropped_where_they_are_not_wanted(index: Path, pictures: Path) -> None:
    update(index, pictures, codes=True, regions=True)
    assert coded(index) == 12
    update(index, regions=False)
    assert coded(index) == 12
    update(index, codes=False, regions=True)
    assert coded(index) == 0
    assert not (index / CODES.name).exists()
    with closing(Store.open(index)) as store:
        assert store.format() == REGIONS_FORMAT


def test_a_matrix_that_has_grown_much_gets_another_centre(index: Path, pictures: Path) -> None:
    away = sorted(pictures.iterdir())[2:]
    contents = {path: path.read_bytes() for path in away}
    for path in away:
        path.unlink()
    update(index, pictures, codes=True)
    with closing(Store.open(index)) as store:
        first, mapped = codes_record(store), codes_of(store)
        assert mapped
        before = np.array(mapped[1])
        for path, content in contents.items():
            path.write_bytes(content)
        update(index)
        np.testing.assert_array_equal(mapped[1], before)  # what a query still reads
    with closing(Store.open(index)) as store:
        second = codes_record(store)
    assert first
    assert second
    assert (first.seen, second.seen) == (2, 12)
    assert first.centre != second.centre
    assert coded(index) == 12


def test_making_codes_goes_on_where_it_was_stopped(
    index: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_file, "_BLOCK_ROWS", 2)
    monkeypatch.setattr("clipsearch.index.writing._CODES_SECONDS", 0)
    update(index, pictures)
    made = 0

    class StopError(Exception):
        pass

    whole = Codes.encode

    def encode(self: Codes, rows: npt.NDArray[np.float16]) -> npt.NDArray[np.uint8]:
        nonlocal made
        made += 1
        if made == 4:
            raise StopError
        return whole(self, rows)

    monkeypatch.setattr(Codes, "encode", encode)
    with pytest.raises(StopError):
        update(index, codes=True)
    monkeypatch.setattr(Codes, "encode", whole)
    with closing(Store.open(index)) as store:
        assert codes_record(store) is None or codes_of(store) is not None
    update(index, codes=True)
    assert coded(index) == 12


def test_wrong_codes_are_found_and_made_again(index: Path, pictures: Path) -> None:
    update(index, pictures, codes=True)
    content = bytearray((index / CODES.name).read_bytes())
    content[HEADER_BYTES:] = bytes(reversed(content[HEADER_BYTES:]))
    (index / CODES.name).write_bytes(content)
    with closing(Store.open(index)) as store:
        (finding,) = verify(store)
    assert finding.hint == "codes-again"
    update(index, codes=False)
    update(index, codes=True)
    assert coded(index) == 12


@pytest.mark.parametrize("left", [None, 10, HEADER_BYTES + 3])
def test_a_file_that_is_missing_or_short_is_named(index: Path, pictures: Path, left: int | None) -> None:
    update(index, pictures, codes=True)
    if left is None:
        (index / CODES.name).unlink()
    else:
        (index / CODES.name).write_bytes((index / CODES.name).read_bytes()[:left])
    with closing(Store.open(index)) as store, pytest.raises(IndexDamagedError, match=CODES.name):
        codes_of(store)
    with closing(Store.open(index)) as store:
        assert any(CODES.name in finding.what for finding in verify(store))


def test_leftovers_behind_the_codes_are_cut_off(index: Path, pictures: Path) -> None:
    update(index, pictures, codes=True)
    with (index / CODES.name).open("ab") as file:
        file.write(b"leftover")
    update(index)
    assert coded(index) == 12


def test_codes_record_nothing_before_the_first_vector(index: Path) -> None:
    with Writer.locked(index) as writer:
        writer.want_codes(wanted=True)
        writer.make_codes()
        assert codes_record(writer) == CodesRecord()
