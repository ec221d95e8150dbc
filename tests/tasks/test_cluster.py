"""Groups of images that are alike: how many, which, what they are called, and what is refused."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, paint
from fresh import COMMAND, HEAVY, loaded_by
from tiny import update

from clipsearch.errors import InputError
from clipsearch.index.format import ModelRecord, Record
from clipsearch.index.reading import Store
from clipsearch.index.writing import Writer
from clipsearch.tasks import clusters
from clipsearch.tasks.clusters import Cluster, find_clusters, name_clusters
from clipsearch.unit import Vectors

Json = list[dict[str, Any]]
METHODS = ("kmeans", "agglomerative", "hdbscan")


def store_of(folder: Path, vectors: Vectors) -> Path:
    """An index of images that are not there, with these vectors: 0.png, 1.png and so on."""
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    images = [
        Record(os.fsencode(folder / f"{i}.png"), None, 10, 0, i.to_bytes(16, "little"), 8, 8) for i in range(len(rows))
    ]
    with Writer.locked(folder / ".clipsearch") as writer:
        writer.set_model(ModelRecord("random", None, "0" * 32, rows.shape[1]))
        writer.set_root(os.fsencode(folder), {})
        writer.add(images, rows.astype(np.float32))
        writer.commit()
    return folder / ".clipsearch"


def heaps(*sizes: int, noise: float = 0.05, seed: int = 0) -> Vectors:
    """So many vectors of 16 dimensions around each of several axes."""
    random = np.random.default_rng(seed)
    axes = np.repeat(np.eye(16)[: len(sizes)], sizes, axis=0)
    return np.asarray(axes + random.standard_normal(axes.shape) * noise, np.float32)


def found_in(folder: Path, n: int | None = None, **options: Any) -> list[Cluster]:  # noqa: ANN401  (`find_clusters`'s)
    with closing(Store.open(folder)) as store:
        return find_clusters(store, n, **options)


def numbers(cluster: Cluster) -> set[int]:
    """Of the images in it."""
    return {int(hit.path.stem) for hit in cluster.hits}


HEAPS = [set(range(20)), set(range(20, 32)), set(range(32, 38))]


# -- groups -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_heaps_that_are_far_apart_the_largest_first(tmp_path: Path, method: str) -> None:
    folder = store_of(tmp_path, heaps(20, 12, 6))
    found = found_in(folder, None if method == "hdbscan" else 3, method=method)
    assert [numbers(one) for one in found] == HEAPS
    assert [one.number for one in found] == [1, 2, 3]
    assert [one.name for one in found] == [None] * 3


@pytest.mark.parametrize("method", ["kmeans", "agglomerative"])
@pytest.mark.parametrize("sizes", [(20, 20), (20, 12, 6), (12, 12, 12, 12, 12)])
def test_the_number_of_groups_is_found(tmp_path: Path, method: str, sizes: tuple[int, ...]) -> None:
    folder = store_of(tmp_path, heaps(*sizes))
    assert [len(one.hits) for one in found_in(folder, method=method)] == list(sizes)


def test_the_most_typical_image_comes_first_and_the_score_is_its_cosine_with_the_centre(tmp_path: Path) -> None:
    angles = np.radians([0, 20, 31, 180])
    folder = store_of(tmp_path, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    near, far = found_in(folder, 2)
    centre = np.array([np.cos(angles[:3]).mean(), np.sin(angles[:3]).mean()])
    centre /= np.linalg.norm(centre)
    np.testing.assert_allclose(near.centroid, centre, atol=1e-3)
    assert [hit.path.name for hit in near.hits] == ["1.png", "2.png", "0.png"]
    wanted = [centre @ [np.cos(a), np.sin(a)] for a in angles[[1, 2, 0]]]
    np.testing.assert_allclose([hit.score for hit in near.hits], wanted, atol=1e-3)
    assert [hit.rank for hit in near.hits] == [1, 2, 3]
    assert [hit.score for hit in far.hits] == pytest.approx([1], abs=1e-3)


def test_hdbscan_leaves_out_what_belongs_nowhere(tmp_path: Path) -> None:
    vectors = np.concatenate([heaps(20, 12), np.eye(16, dtype=np.float32)[[10]]])
    found = found_in(store_of(tmp_path, vectors), method="hdbscan")
    assert [(one.number, len(one.hits)) for one in found] == [(1, 20), (2, 12), (0, 1)]
    assert numbers(found[-1]) == {32}
    coarse = found_in(tmp_path / ".clipsearch", method="hdbscan", min_size=15)
    assert not any(numbers(one) == numbers(found[1]) for one in coarse)  # 12 are too few for a group now


def test_copies_go_together_and_count_once(tmp_path: Path) -> None:
    vectors = np.repeat(heaps(3, 3), [30, 1, 1, 1, 1, 1], axis=0)
    for method in ("kmeans", "agglomerative"):
        folder = store_of(tmp_path / method, vectors)
        assert sorted(len(one.hits) for one in found_in(folder, 2, method=method)) == [3, 32]
    with pytest.raises(InputError, match=r"\b7\b.* 6\b"):
        found_in(tmp_path / "kmeans" / ".clipsearch", 7)


@pytest.mark.parametrize(("images", "wanted"), [(1, [2]), (2, [1, 1])], ids=["copies", "two"])
def test_very_few_different_images_are_grouped_too(tmp_path: Path, images: int, wanted: list[int]) -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, images - 1]]
    assert [len(one.hits) for one in found_in(store_of(tmp_path, vectors))] == wanted


def test_as_many_groups_as_images_are_possible_and_one_as_well(tmp_path: Path) -> None:
    folder = store_of(tmp_path, heaps(4, 4))
    assert [len(one.hits) for one in found_in(folder, 8)] == [1] * 8
    assert [len(one.hits) for one in found_in(folder, 1)] == [8]


def test_the_same_seed_gives_the_same_groups_where_not_all_images_are_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_FITTED", 30)
    monkeypatch.setattr(clusters, "_JUDGED", 25)
    monkeypatch.setattr(clusters, "_ROWS", 7)
    folder = store_of(tmp_path, heaps(50, 30, 20))
    one, other = found_in(folder, seed=3), found_in(folder, seed=3)
    assert [numbers(a) for a in one] == [numbers(b) for b in other]
    assert [len(a.hits) for a in one] == [50, 30, 20]


def test_an_image_joins_the_nearest_centre_not_the_one_with_the_largest_product() -> None:
    # The second centre is as far along the first axis, and further away from the first vector.
    centres = np.array([[0.9, 0], [1, 0.9]], np.float32)
    vectors = np.array([[1, 0.1], [0.6, 0.8]], np.float32)
    assert (vectors[0] @ centres.T).argmax() == 1
    assert clusters._nearest(vectors, centres).tolist() == [0, 1]


def test_what_compares_all_pairs_refuses_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_MOST_COMPARED", 10)
    folder = store_of(tmp_path, heaps(6, 5))
    for method in ("agglomerative", "hdbscan"):
        with pytest.raises(InputError, match=r"\b11\b.* 10\b"):
            found_in(folder, method=method)
    assert len(found_in(folder, 2)) == 2


@pytest.mark.parametrize(
    ("n", "options", "said"),
    [
        (12, {}, r"\b12\b.* 11 images"),
        (0, {}, "not 0"),
        (2, {"method": "hdbscan"}, "HDBSCAN"),
        (None, {"method": "magic"}, "'magic'.* kmeans, agglomerative, hdbscan"),
        (None, {"min_size": 5}, "HDBSCAN"),
        (None, {"method": "hdbscan", "min_size": 1}, "not 1"),
        (None, {"glob": "nothing*"}, "of 11 images.* no image"),
        (None, {"glob": "3.png"}, "of 11 images.* 1 image"),
        (3, {"glob": ["3.png", "4.png"]}, "3 groups.* of 11 images.* 2 images"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, n: int | None, options: dict[str, Any], said: str) -> None:
    folder = store_of(tmp_path, heaps(6, 5))
    with pytest.raises(InputError, match=said):
        found_in(folder, n, **options)


def test_without_scikit_learn_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store_of(tmp_path, heaps(6, 5))
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(InputError, match=r"pip install 'clipsearch\[cluster\]'"):
        found_in(folder, 2)


# -- names --------------------------------------------------------------------------------------------------------


def named(centroids: Sequence[Sequence[float]], labels: Sequence[str], vectors: Sequence[Sequence[float]]) -> list[str]:
    found = [Cluster(i, None, np.array(centroid, np.float32), []) for i, centroid in enumerate(centroids, 1)]
    return [str(one.name) for one in name_clusters(found, labels, np.array(vectors, np.float32))]


def test_a_name_is_what_sets_a_group_apart_not_what_fits_all() -> None:
    # "picture" has the highest cosine with both groups, .8; "dog" has .6 and 0, "cat" 0 and .6.
    centroids = [[0.8, 0.6, 0.0], [0.8, 0.0, 0.6]]
    assert named(centroids, ["picture", "dog", "cat"], np.eye(3).tolist()) == ["dog", "cat"]


def test_labels_that_stand_out_half_as_much_are_in_the_name_too() -> None:
    # Above the average of both groups: .4, .3, .1 and .35 in the first, as much below it in the second.
    centroids = [[0.8, 0.6, 0.2, 0.7], [0.0, 0.0, 0.0, 0.0]]
    labels = ["dog", "puppy", "grass", "pet"]
    assert named(centroids, labels, np.eye(4).tolist()) == ["dog, pet, puppy", "grass"]


def test_a_single_group_has_the_name_that_is_closest() -> None:
    assert named([[0.6, 0.8]], ["dog", "cat"], np.eye(2).tolist()) == ["cat"]


def test_images_in_no_group_have_no_name_and_change_no_other() -> None:
    found = [
        Cluster(1, None, np.array([0.8, 0.6, 0], np.float32), []),
        Cluster(2, None, np.array([0.8, 0, 0.6], np.float32), []),
        Cluster(0, None, np.array([0, 1, 0], np.float32), []),
    ]
    labels = ["picture", "dog", "cat"]
    assert [one.name for one in name_clusters(found, labels, np.eye(3, dtype=np.float32))] == ["dog", "cat", None]


# -- the command --------------------------------------------------------------------------------------------------


def rows_of(run: Run, *arguments: str | Path, cwd: Path) -> Json:
    done = run("cluster", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def test_the_command_groups_images_by_what_they_show_and_names_them(run: Run, sample_index: Path) -> None:
    where = ["--under", "sample-images/dogs", "--under", "sample-images/food", "--under", "sample-images/vehicles"]
    labels = ["--label", "a dog", "--label", "fruit", "--label", "a car"]
    rows = rows_of(run, "-n", "3", *where, *labels, cwd=sample_index)
    assert list(rows[0]) == ["cluster", "name", "score", "path"]
    folders = {"a dog": "dogs", "fruit": "food", "a car": "vehicles"}
    right = [folders.get(row["name"].split(",")[0]) == row["path"].split("/")[1] for row in rows]
    assert np.mean(right) > 0.8
    for number in (1, 2, 3):
        scores = [row["score"] for row in rows if row["cluster"] == number]
        assert scores == sorted(scores, reverse=True)
    every = {
        os.fspath(p.relative_to(sample_index))
        for f in folders.values()
        for p in image_files(sample_index / "sample-images" / f)
    }
    assert {row["path"] for row in rows} == every


def image_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix != ".csv"]


def test_labels_come_from_a_file_too_each_once(run: Run, sample_index: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a dog\n\nfruit\r\na dog\n", "utf-8")
    where = ["--under", "sample-images/dogs", "--under", "sample-images/food", "-n", "2", "--top", "1"]
    rows = rows_of(run, *where, "--labels-from", tmp_path / "words.txt", cwd=sample_index)
    assert {row["name"] for row in rows} == {"a dog", "fruit"}
    assert rows == rows_of(run, *where, "--label", "a dog", "--label", "fruit", cwd=sample_index)


def test_top_shows_only_the_most_typical_images_of_each_group(run: Run, sample_index: Path) -> None:
    all_of = rows_of(run, "-n", "4", cwd=sample_index)
    top = rows_of(run, "-n", "4", "--top", "2", cwd=sample_index)
    wanted = [row for n in (1, 2, 3, 4) for row in [one for one in all_of if one["cluster"] == n][:2]]
    assert top == wanted


def test_without_labels_groups_are_numbered_and_need_no_model(sample_index: Path, environment: dict[str, str]) -> None:
    code = COMMAND.format(arguments=["clipsearch", "cluster", "-n", "3", "--top", "1"])
    loaded = loaded_by(code, environment, sample_index)
    assert "sklearn" in loaded
    assert not loaded & {"torch", "transformers", "tokenizers"}


def test_tsv_leaves_the_name_empty_and_the_count_goes_to_stderr(run: Run, sample_index: Path) -> None:
    done = run("cluster", "-n", "2", cwd=sample_index)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert len(lines) >= 200
    assert lines[0].split("\t")[:2] == ["1", ""]
    assert re.search(rf"\b2\b.*\b{len(lines)}\b", done.stderr.decode())


def test_the_page_shows_each_group_with_its_name(run: Run, sample_index: Path, tmp_path: Path) -> None:
    where = ["--under", "sample-images/dogs", "--under", "sample-images/food"]
    page = tmp_path / "page.html"
    options = ["-n", "2", "--top", "1", "--label", "a <dog>", "--html", page]
    done = run("cluster", *where, *options, cwd=sample_index)
    assert done.returncode == 0, done.stderr.decode()
    text = page.read_text("utf-8")
    assert "<h2>1: a &lt;dog&gt; (" in text
    assert text.count("data:image/webp") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-n", "100000"], "100000"),
        (["-n", "0"], "-n"),
        (["--method", "hdbscan", "-n", "3"], "HDBSCAN"),
        (["--label", " "], "blank"),
        (["--labels-from", "nowhere.txt"], "nowhere.txt"),
        (["--labels-from", "-", "--files-from", "-"], "standard input"),
        (["--under", "nowhere"], "nowhere"),
        (["--html", "nowhere/page.html"], "nowhere"),
        (["--html", "sample-images/captions.csv"], "sample-images/captions.csv"),
    ],
)
def test_bad_input_is_an_error_of_one_line_and_nothing_is_written(
    run: Run, sample_index: Path, arguments: list[str], said: str, tmp_path: Path
) -> None:
    page = [] if "--html" in arguments else ["--html", str(tmp_path / "page.html")]
    done = run("cluster", *arguments, *page, cwd=sample_index)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_an_index_with_one_image_has_nothing_to_group(run: Run, tmp_path: Path) -> None:
    update(tmp_path / ".clipsearch", paint(tmp_path / "one.png", "red"))
    done = run("cluster", "--html", "page.html", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"[]\n")
    assert "1 image" in done.stderr.decode()
    assert not (tmp_path / "page.html").exists()


def test_its_help_loads_no_library(environment: dict[str, str], tmp_path: Path) -> None:
    code = COMMAND.format(arguments=["clipsearch", "cluster", "--help"])
    assert not loaded_by(code, environment, tmp_path) & (HEAVY | {"numpy", "sklearn"})
