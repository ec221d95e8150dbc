"""Files of vectors and names, and what may enter an index: read, written and checked in this process."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import COLOURS, make_clip, paint
from tiny import MODEL, TinyEncoder, Watcher, expected, update

from clipsearch.cli.inputs import image_files
from clipsearch.errors import InputError, ModelMismatchError
from clipsearch.exchange.exporting import export
from clipsearch.exchange.importing import Imported, import_vectors
from clipsearch.exchange.reading import Part, clip_retrieval_parts, open_vectors, read_about, read_paths
from clipsearch.exchange.writing import DTYPES, NAMES, VectorFiles, save
from clipsearch.index.format import FOLDER, ModelRecord
from clipsearch.index.models import LoadedModel
from clipsearch.index.reading import Store

TINY = LoadedModel(TinyEncoder(), MODEL)
VECTORS = np.array([[0.6, 0.8], [1, 0], [0, -1]], np.float32)
PATHS = [b"/a/plain.png", b'/a/sm\xc3\xb8rrebr\xc3\xb8d, "two"\nlines.png', b"/a/\xff\xfe.png"]
COLUMNS: dict[str, type] = {"path": bytes, "width": int, "taken_at": str}


def rows() -> list[dict[str, Any]]:
    return [{"path": path, "width": None if i == 1 else i, "taken_at": None} for i, path in enumerate(PATHS)]


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_written_is_read_again_to_the_byte(names: str, dtype: str, tmp_path: Path) -> None:
    if names == "parquet":
        pytest.importorskip("pyarrow")
    target = tmp_path / "out.npy"
    with VectorFiles(target, COLUMNS, names=names, dtype=dtype) as files:
        files.add(rows()[:1], VECTORS[:1])
        files.add_names(rows()[1:])
        files.add_vectors(VECTORS[1:])
        files.finish({"fingerprint": "f" * 32})
    assert sorted(os.listdir(tmp_path)) == sorted(["out.npy", f"out.{names}", "out.json"])
    loaded = np.load(target)
    assert loaded.dtype == dtype
    np.testing.assert_array_equal(loaded, VECTORS.astype(dtype))
    np.testing.assert_array_equal(open_vectors(target), loaded)
    assert read_paths(target.with_suffix(f".{names}")) == PATHS
    assert read_about(target) == {"fingerprint": "f" * 32, "rows": 3, "dim": 2, "dtype": dtype}


def test_a_csv_is_rfc_4180_with_the_paths_own_bytes(tmp_path: Path) -> None:
    save(tmp_path / "v.npy", zip(rows(), VECTORS, strict=True), COLUMNS, {})
    assert (tmp_path / "v.csv").read_bytes() == (
        b"row,path,width,taken_at\r\n0,/a/plain.png,0,\r\n"
        b'1,"/a/sm\xc3\xb8rrebr\xc3\xb8d, ""two""\nlines.png",,\r\n2,/a/\xff\xfe.png,2,\r\n'
    )


def test_json_lines_have_lossless_paths_only_where_they_are_needed(tmp_path: Path) -> None:
    with VectorFiles(tmp_path / "v.npy", COLUMNS, names="jsonl") as files:
        files.add(rows(), VECTORS)
        files.finish({})
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text("ascii").splitlines()]
    assert lines[0] == {"path": "/a/plain.png", "width": 0, "taken_at": None}
    assert lines[2]["path"] == "/a/\ufffd\ufffd.png"
    assert lines[2]["path_bytes"] == "L2Ev//4ucG5n"


def test_parquet_has_types_and_null_for_what_is_not_known(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with VectorFiles(tmp_path / "v.npy", COLUMNS, names="parquet") as files:
        files.add(rows(), VECTORS)
        files.finish({})
    table = parquet.read_table(tmp_path / "v.parquet")
    assert [str(field.type) for field in table.schema] == ["string", "int64", "string", "binary"]
    assert table.column("width").to_pylist() == [0, None, 2]
    assert table.column("path_bytes").to_pylist() == [None, None, PATHS[2]]


def test_a_folder_gets_files_of_fixed_names(tmp_path: Path) -> None:
    save(tmp_path / "new", [({"text": "a dog"}, VECTORS[0])], {"text": str}, {})
    assert sorted(os.listdir(tmp_path / "new")) == ["embeddings.csv", "embeddings.json", "embeddings.npy"]


@pytest.mark.parametrize("taken", ["v.npy", "v.csv", "v.json"])
def test_nothing_is_replaced_unless_that_is_asked_for(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).write_text("mine")
    one = [({"text": "a dog"}, VECTORS[0])]
    with pytest.raises(InputError, match=re.escape(str(taken))):
        save(tmp_path / "v.npy", one, {"text": str}, {})
    assert os.listdir(tmp_path) == [taken]
    assert (tmp_path / taken).read_text() == "mine"
    save(tmp_path / "v.npy", one, {"text": str}, {}, replace=True)
    assert len(os.listdir(tmp_path)) == 3
    assert len(np.load(tmp_path / "v.npy")) == 1


def test_a_file_that_came_meanwhile_is_not_replaced_either(tmp_path: Path) -> None:
    with VectorFiles(tmp_path / "v.npy", {"text": str}) as files:
        files.add([{"text": "a dog"}], VECTORS[:1])
        (tmp_path / "v.csv").write_text("mine")
        with pytest.raises(InputError, match=r"v\.csv"):
            files.finish({})
    assert os.listdir(tmp_path) == ["v.csv"]


def test_what_ends_half_way_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:  # noqa: ANN401  (a generator)
        yield {"text": "a dog"}, VECTORS[0]
        raise KeyboardInterrupt

    for target in ("v.npy", "folder"):
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / target, broken(), {"text": str}, {})
        with pytest.raises(InputError):
            save(tmp_path / target, [], {"text": str}, {})
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "v.csv").mkdir()
    for target, reason in (("missing/v.npy", "No such"), ("file", "Not a directory"), ("v.npy", "is a folder")):
        with pytest.raises(InputError, match=reason):
            VectorFiles(tmp_path / target, {"text": str}, replace=True)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "a.csv",
            b"name,row\nx,0\n",
            "'name', 'row'.* path, image_path",
        ),
        ("a.csv", b"", r"a\.csv"),
        ("a.csv", b"path,width\nx,1\ny\n", r"line 3: .* 2 fields\b.* 1\b"),
        ("a.csv", b"row,path\n1,x\n0,y\n", "row 0 .* row 1"),
        ("a.csv", b"path,width\n,1\n", "row 0 .* path"),
        ("a.txt", b"x\n\ny\n", "row 1 .* path"),
        ("a.jsonl", b'{"path": "x"}\n[]\n', "line 2"),
        ("a.jsonl", b'{"path": "x", "path_bytes": "?"}\n', "line 1"),
        ("a.jsonl", b'{"path": 7}\n', "row 0 .* path"),
        ("a.jsonl", b'{"path": "x\\u0000"}\n', "row 0 .* path"),
        ("a.jsonl", b"{\n", "line 1"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet"),
        ("a.doc", b"x", r"a\.doc\b.* \.csv"),
    ],
)
def test_a_file_of_names_that_makes_no_sense_is_refused(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_paths(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"/x y\n/\xff\n"),
        ("a.txt", b"/x y\r\n/\xff\r\n"),
        ("a.txt", b"/x y\0/\xff\0"),
        ("a.csv", b"\xef\xbb\xbfimage_path,caption\n/x y,\n/\xff,\n"),
        ("a.jsonl", b'{"row": 0, "path": "/x y"}\n{"row": 1, "path": "?", "path_bytes": "L/8="}\n'),
    ],
)
def test_names_are_read_as_other_programs_write_them(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_paths(tmp_path / name) == [b"/x y", b"/\xff"]


def test_a_missing_pyarrow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"pip install 'clipsearch\[parquet\]'"):
        read_paths(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"pip install 'clipsearch\[parquet\]'"):
        VectorFiles(tmp_path / "v.npy", COLUMNS, names="parquet")
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_vectors_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    bad: list[tuple[Any, str]] = [
        (np.zeros(3, np.float32), "3 float32"),
        (np.zeros((2, 2), np.int8), "2 x 2 int8"),
        (np.array([{"a": 1}], dtype=object), r"v\.npy"),
    ]
    for array, reason in bad:
        np.save(path, array, allow_pickle=True)
        with pytest.raises(InputError, match=reason):
            open_vectors(path)
    np.save(path, VECTORS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"v\.npy"):
        open_vectors(path)
    path.write_bytes(b"not numpy")
    with pytest.raises(InputError, match=r"numpy\.save"):
        open_vectors(path)
    with pytest.raises(InputError, match="No such file"):
        open_vectors(tmp_path / "missing.npy")


def test_clip_retrieval_parts_are_paired_by_number(tmp_path: Path) -> None:
    for folder in ("img_emb", "metadata"):
        (tmp_path / folder).mkdir()
    for name in ("img_emb/img_emb_10.npy", "img_emb/img_emb_9.npy", "metadata/metadata_9.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"img_emb_10\.npy"):
        clip_retrieval_parts(tmp_path)
    (tmp_path / "metadata/metadata_10.parquet").touch()
    assert [part.vectors.name for part in clip_retrieval_parts(tmp_path)] == ["img_emb_9.npy", "img_emb_10.npy"]
    with pytest.raises(InputError, match="clip-retrieval"):
        clip_retrieval_parts(tmp_path / "metadata")


# -- into an index -------------------------------------------------------------------------------------------------


@pytest.fixture
def part(pictures: Path, tmp_path: Path) -> Part:
    """The ten pictures with the vectors that the small encoder makes of them."""
    paths = sorted(pictures.rglob("*.png"))
    return written(tmp_path, paths, np.stack([expected(os.fsencode(path)) for path in paths]))


def written(folder: Path, paths: list[Path], vectors: npt.NDArray[Any]) -> Part:
    np.save(folder / "v.npy", vectors)
    (folder / "v.txt").write_text("".join(f"{path}\n" for path in paths))
    return Part(folder / "v.npy", folder / "v.txt")


def imported(folder: Path, part: Part, model: LoadedModel = TINY, **options: Any) -> Imported:  # noqa: ANN401
    return import_vectors(folder, [part], model, progress=Watcher(), start=folder.parent, **options)


def test_relative_names_are_taken_from_the_folder_that_is_given(part: Part, pictures: Path, tmp_path: Path) -> None:
    names = part.names.read_text().splitlines()
    part.names.write_text("".join(f"{os.path.relpath(name, pictures.parent)}\n" for name in names))
    assert imported(pictures.parent / "index", part).imported == 10
    with pytest.raises(InputError, match="elative"):
        imported(tmp_path / "elsewhere" / "index", part)


def test_an_import_makes_the_index_that_indexing_makes(part: Part, pictures: Path, tmp_path: Path) -> None:
    update(tmp_path / "indexed", pictures)
    done = imported(tmp_path / "imported", part)
    assert (done.imported, done.known, done.skipped, done.images, done.compared) == (10, 0, [], 10, 8)
    assert done.roots == [os.fsencode(pictures)]
    assert done.lowest_cosine > 0.9999
    stores = [Store.open(tmp_path / name) for name in ("indexed", "imported")]
    one, other = [[record._replace(row=None) for record in store.records()] for store in stores]
    assert one == other
    assert stores[0].model() == stores[1].model()
    for record in stores[1].records():
        np.testing.assert_array_equal(stores[1].matrix()[0][record.row], expected(record.path))
    for store in stores:
        store.close()
    again = TinyEncoder()
    summary = update(tmp_path / "imported", pictures, encoder=again)
    assert (summary.embedded, summary.reused, summary.images, again.embedded) == (0, 10, 10, 0)


def test_an_export_is_in_the_order_of_paths_and_can_be_imported_bit_by_bit(pictures: Path, tmp_path: Path) -> None:
    paint(pictures / "zebra.png", "white")
    update(tmp_path / "first", pictures)
    paint(pictures / "warm" / "apple.png", "maroon")  # its row comes last, its path does not
    (pictures / "zebra.png").unlink()  # leaves a dead row
    update(tmp_path / "first", pictures)
    store = Store.open(tmp_path / "first")
    for dtype in DTYPES:
        assert export(store, tmp_path / f"{dtype}.npy", dtype=dtype) == (11, MODEL.dim)
        paths = read_paths(tmp_path / f"{dtype}.csv")
        assert paths == sorted(os.fsencode(path) for path in pictures.rglob("*.png"))
        vectors = np.load(tmp_path / f"{dtype}.npy")
        for path, vector in zip(paths, vectors, strict=True):
            np.testing.assert_allclose(vector, expected(path), atol=1e-3)
        assert vectors.dtype == dtype
        done = imported(tmp_path / f"from-{dtype}", Part(tmp_path / f"{dtype}.npy", tmp_path / f"{dtype}.csv"))
        assert done.images == 11
        other = Store.open(tmp_path / f"from-{dtype}")
        for path in paths:
            one, same = (opened.matrix()[0][opened.row_of(path)] for opened in (store, other))
            np.testing.assert_array_equal(one, same)
        other.close()
    assert np.abs(np.linalg.norm(np.load(tmp_path / "float32.npy"), axis=1) - 1).max() < 1e-6
    store.close()


def test_an_export_of_nothing_writes_nothing(pictures: Path, tmp_path: Path) -> None:
    update(tmp_path / FOLDER, pictures)
    store = Store.open(tmp_path / FOLDER)
    before = sorted(os.listdir(tmp_path))
    assert export(store, tmp_path / "v.npy", min_width=65) == (0, MODEL.dim)
    assert export(store, tmp_path / "folder", glob="*.gif") == (0, MODEL.dim)
    assert sorted(os.listdir(tmp_path)) == before
    assert export(store, tmp_path / "v.npy", glob="*red.png", under=pictures) == (1, MODEL.dim)
    store.close()


def refused(folder: Path, part: Part, reason: str, model: LoadedModel = TINY, **options: Any) -> None:  # noqa: ANN401
    """The import fails for this reason, and leaves nothing."""
    with pytest.raises((InputError, ModelMismatchError), match=reason):
        imported(folder, part, model, **options)
    assert not folder.exists()


def test_vectors_and_names_have_to_fit(part: Part, tmp_path: Path) -> None:
    new = tmp_path / "new"
    vectors = np.load(part.vectors)
    lines = part.names.read_text()
    part.names.write_text(lines + "one more\n")
    refused(new, part, "10 vectors.* 11 names")
    part.names.write_text(lines.replace("red.png", "black.png").replace("cold/", "warm/"))
    refused(new, part, r"names .*\.png")
    part.names.write_text(lines)
    for wrong, reason in (
        (np.nan, "row 3 .*NaN"),
        (-np.inf, "row 3 .*infinite"),
        (0, "row 3 .* zeros"),
    ):
        changed = vectors.copy()
        changed[3] = wrong
        np.save(part.vectors, changed)
        refused(new, part, reason)
    np.save(part.vectors, vectors[:, :-1] / np.linalg.norm(vectors[:, :-1], axis=1, keepdims=True))
    refused(new, part, r"\b47\b.* tiny\b.* 48\b")
    np.save(part.vectors, vectors[:0])
    part.names.write_text("")
    refused(new, part, "path")


def test_vectors_of_other_lengths_are_imported_on_request_only(part: Part, tmp_path: Path) -> None:
    vectors = np.load(part.vectors).astype(np.float64)
    vectors[4] *= 7.5
    np.save(part.vectors, vectors)
    refused(tmp_path / "new", part, r"row 4 .* length 7\.50\d; ")
    imported(tmp_path / "new", part, normalise=True)
    store = Store.open(tmp_path / "new")
    for record in store.records():
        np.testing.assert_allclose(store.matrix()[0][record.row], expected(record.path), atol=1e-3)
    store.close()


def test_vectors_of_another_model_or_in_another_order_never_enter(part: Part, tmp_path: Path) -> None:
    vectors = np.load(part.vectors)
    np.save(part.vectors, vectors[::-1])
    refused(tmp_path / "new", part, r"\btiny\b.*\.png\b.* -?0\.\d{3}\b")
    np.save(part.vectors, np.roll(vectors, 1, axis=1))
    refused(tmp_path / "new", part, r"\btiny\b.*\.png\b.* -?0\.\d{3}\b")
    np.save(part.vectors, vectors)
    part.vectors.with_suffix(".json").write_text('{"model": "other", "fingerprint": "8"}')
    refused(tmp_path / "new", part, r"\bother\b.* tiny\b")
    part.vectors.with_suffix(".json").write_text('["any", "other", "file"]')
    imported(tmp_path / "new", part)
    with pytest.raises(ModelMismatchError, match=r"\btiny\b.* other\b"):
        imported(tmp_path / "new", part, TINY._replace(record=ModelRecord("other", None, "8" * 32, MODEL.dim)))


def test_images_that_are_missing_or_broken_are_named_and_left_out_on_request(
    part: Part, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "cold" / "blue.png").unlink()
    refused(tmp_path / "new", part, r"blue\.png: [^,]*$")
    (pictures / "warm" / "gray.png").write_bytes(b"no picture")
    refused(tmp_path / "new", part, r"blue\.png: [^,]*$")
    done = imported(tmp_path / "new", part, skip_missing=True)
    assert [(os.path.basename(path), reason) for path, reason in done.skipped] == [
        (b"blue.png", "it is missing"),
        (b"gray.png", "not an image of a known format"),
    ]
    assert (done.imported, done.images) == (8, 8)
    summary = update(tmp_path / "new", pictures)
    assert (summary.embedded, summary.reused, len(summary.unreadable)) == (0, 8, 1)


def test_nothing_that_can_be_read_is_an_error(part: Part, pictures: Path, tmp_path: Path) -> None:
    for path in pictures.rglob("*.png"):
        path.unlink()
    refused(tmp_path / "new", part, "Nothing was imported", skip_missing=True)


def test_what_the_index_knows_keeps_its_vector_unless_the_image_changed(
    part: Part, pictures: Path, tmp_path: Path
) -> None:
    update(tmp_path / "index", pictures / "cold")
    os.utime(pictures / "cold" / "red.png", ns=(5, 5))  # touched
    done = imported(tmp_path / "index", part)
    assert (done.imported, done.known, done.images) == (5, 5, 10)
    assert done.roots == [os.fsencode(pictures / "warm")]
    paint(pictures / "cold" / "red.png", "navy")
    vectors = np.load(part.vectors)
    lines = part.names.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.endswith("red.png"))
    vectors[number] = expected(os.fsencode(lines[number]))
    np.save(part.vectors, vectors)
    done = imported(tmp_path / "index", part)
    assert (done.imported, done.known, done.images, done.roots) == (1, 9, 10, [])
    assert update(tmp_path / "index", pictures).embedded == 0


def test_roots_are_named_or_the_folder_in_common(part: Part, pictures: Path, tmp_path: Path) -> None:
    refused(tmp_path / "new", part, r"\.png ", roots=[pictures / "cold"])
    refused(tmp_path / "new", part, "missing", roots=[tmp_path / "missing"])
    done = imported(tmp_path / "new", part, roots=[pictures / "cold", pictures / "warm"])
    assert done.roots == [os.fsencode(pictures / name) for name in ("cold", "warm")]
    # A folder in common that holds a root with rules of its own is not made up.
    update(tmp_path / "index", pictures / "cold")
    paint(tmp_path / "pictures" / "a.png", "navy")
    paths = [pictures / "a.png", pictures / "warm" / f"{COLOURS[1]}.png"]
    other = written(tmp_path, paths, np.stack([expected(os.fsencode(path)) for path in paths]))
    with pytest.raises(InputError, match="pictures"):
        imported(tmp_path / "index", other)


def test_models_with_the_same_dimensions_are_told_apart(pictures: Path, tmp_path: Path) -> None:
    """Of two real models with random weights, neither takes the vectors of the other."""
    from clipsearch.models.disk.files import locate
    from clipsearch.models.encoder_options import FOR_QUERIES
    from clipsearch.models.in_torch.loading import load_encoder
    from clipsearch.search.embedder import Embedder

    folders = [make_clip(tmp_path / f"model{seed}", seed=seed) for seed in (0, 1)]
    encoders = [load_encoder(locate(str(folder)), FOR_QUERIES) for folder in folders]
    records = [ModelRecord(e.name, e.revision, e.fingerprint, e.dim) for e in encoders]
    files = image_files([pictures])
    with Embedder(locate(str(folders[0])), options=FOR_QUERIES) as embedder:
        items = [({"path": file.path}, result) for file, result, *_ in embedder.images(files)]
    vectors = [(row, vector) for row, vector in items if isinstance(vector, np.ndarray)]
    assert save(tmp_path / "v.npy", vectors, {"path": bytes}, {}) == (10, 32)
    part = Part(tmp_path / "v.npy", tmp_path / "v.csv")
    refused(tmp_path / "new", part, r"\.png\b.* -?0\.\d{3}\b", LoadedModel(encoders[1], records[1]))
    assert imported(tmp_path / "new", part, LoadedModel(encoders[0], records[0])).images == 10
