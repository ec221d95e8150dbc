"""The functions of the Python package: one obvious line for what each command does."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import PICTUREBOOK, REPOSITORY, SAMPLES, Run
from fresh import loaded_by
from PIL import Image

import clipsearch
from clipsearch.errors import InputError

DOGS = sorted(str(path) for path in (SAMPLES / "dogs").iterdir())[:3]

METHODS = {
    "Hit": ("as_dict",),
    "Index": ("search", "search_many", "similar", "update"),
    "Embedder": ("embed_images", "embed_texts"),
}
"""Of the public classes, those that programs call."""


@pytest.fixture(scope="module")
def model() -> clipsearch.Embedder:
    return clipsearch.load_model("picturebook")


def test_paths_and_images_of_pillow_have_the_same_vectors(model: clipsearch.Embedder) -> None:
    opened = [Image.open(path) for path in DOGS]
    found = model.embed_images([DOGS[0], opened[1], Path(DOGS[2])])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model.embed_images([opened[0], Path(DOGS[1]), opened[2]]), atol=1e-3)
    assert model.embed_images([]).shape == (0, found.shape[1])


def test_an_image_that_cannot_be_read_is_an_error_that_names_it(model: clipsearch.Embedder, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for path in (tmp_path / "text.png", tmp_path / "missing.png"):
        with pytest.raises(InputError, match=path.name):
            model.embed_images([DOGS[0], path])


def test_score_is_what_the_command_prints(model: clipsearch.Embedder, run: Run, tmp_path: Path) -> None:
    texts = ["a dog", "a pizza"]
    found = clipsearch.score(DOGS, texts, model=model)
    done = run("score", *DOGS, "--text", texts[0], "--text", texts[1], "--model", PICTUREBOOK, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = {(row["path"], row["text"]): row["score"] for row in json.loads(done.stdout)}
    for path, scores in zip(DOGS, found.scores.tolist(), strict=True):
        for text, score in zip(texts, scores, strict=True):
            assert printed[path, text] == pytest.approx(score, abs=1e-3)
    assert found.probabilities.sum(axis=1).tolist() == pytest.approx([1] * len(DOGS))
    over = clipsearch.score(DOGS, texts, model=model, among_images=True)
    assert over.probabilities.sum(axis=0).tolist() == pytest.approx([1] * len(texts))


def test_files_and_the_images_of_an_index_get_the_same_labels(
    model: clipsearch.Embedder, sample_index: Path, tmp_path: Path
) -> None:
    labels = ["a dog", "a cat", "a pizza"]
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    files = clipsearch.classify([*DOGS[:1], broken, *DOGS[1:]], labels, top=2, model=model)
    assert [one.path for one in files] == [Path(DOGS[0]), broken, *map(Path, DOGS[1:])]
    assert files[1].labels == {}
    assert files[1].error
    assert all(len(one.labels) == 2 and one.error is None for one in files if one.path != broken)
    with clipsearch.open_index(sample_index) as index:
        known = clipsearch.classify(index, labels, top=2, under=sample_index / "sample-images" / "dogs")
        by_name = {one.path.name: one for one in known}
        for one in files:
            if one.path != broken:
                assert list(by_name[one.path.name].labels) == list(one.labels)
        with pytest.raises(InputError, match="model"):
            clipsearch.classify(index, labels, model=model)
    with pytest.raises(InputError, match="Filters"):
        clipsearch.classify(DOGS, labels, model=model, min_width=1)


def test_an_index_is_grouped_measured_and_cleaned(model: clipsearch.Embedder, sample_index: Path) -> None:
    with clipsearch.open_index(sample_index) as index:
        assert all(group.duplicates for group in clipsearch.duplicates(index, threshold=0.97))
        assert clipsearch.duplicates(index, under=sample_index / "sample-images" / "dogs", min_width=10**5) == []
        assert len(clipsearch.cluster(index, 3, labels=["a dog", "a pizza"])) == 3
        ranks = clipsearch.caption_ranks(index, DOGS[0], ["a dog", "a pizza"])
        assert ranks[0].rank <= ranks[1].rank
        assert list(clipsearch.delete_duplicates(index, [])) == []
    figures = clipsearch.evaluate(SAMPLES / "captions.csv", model=model)
    assert 0 <= figures.directions[0].metrics["recall@1"] <= 1


def test_vectors_go_out_and_into_another_index(sample_index: Path, tmp_path: Path) -> None:
    dogs, target = sample_index / "sample-images" / "dogs", tmp_path / "dogs.npy"
    with clipsearch.open_index(sample_index) as index:
        number, dim = clipsearch.export_vectors(index, target, under=dogs)
        known = index.search("a dog", k=None, under=dogs)
    assert np.load(target).shape == (number, dim)
    assert number == len(known) > 0
    done = clipsearch.import_vectors(target, tmp_path / "dogs.csv", tmp_path / ".clipsearch")
    assert (done.imported, done.known, done.skipped) == (number, 0, [])
    with clipsearch.open_index(tmp_path) as index:
        assert [hit.path for hit in index.search("a dog", k=None)] == [hit.path for hit in known]


def test_hidden_states_are_of_all_views(model: clipsearch.Embedder) -> None:
    (whole,), (views,) = (
        clipsearch.hidden_states(DOGS[:1], -2, tokens="all", crops=crops, model=model) for crops in (None, 6)
    )
    assert (whole.grid, whole.states.shape) == ((0, 0), (1, 37, 192))
    assert (views.grid, views.states.shape) == ((2, 2), (5, 37, 192))
    np.testing.assert_allclose(whole.states, model.hidden_states(DOGS[:1], -2, tokens="all"), atol=1e-5)
    # The crops put together are the whole, so the same content is seen, larger.
    assert np.ptp(views.states[:, 0], axis=0).max() > 0.1
    for wrong in ({"crops": 0}, {"tokens": "some"}):
        with pytest.raises(InputError):
            clipsearch.hidden_states(DOGS[:1], -2, model=model, **wrong)
    assert clipsearch.hidden_states([], -2, model=model) == []


def test_a_picture_is_imagined_from_another(model: clipsearch.Embedder) -> None:
    dog = Image.open(DOGS[0])
    found, same = (
        clipsearch.imagine(
            "a dog", style="strokes", unwanted=["snow"], steps=3, size=96, init=init, every=2, model=model
        )
        for init in (DOGS[0], dog)
    )
    assert found.picture.tobytes() == same.picture.tobytes() == found.frames[-1].tobytes()
    assert [one.size for one in found.frames] == [(96, 96)] * 3  # the start, step 2 and the last
    assert found.svg
    assert found.svg.startswith("<svg")
    texts = list(found.scores)
    assert texts == ["a dog", "snow"]
    np.testing.assert_allclose(
        list(found.scores.values()), model.embed_texts(texts) @ model.embed_images([found.picture])[0], atol=1e-6
    )
    for wrong in ({"style": "oil"}, {"steps": 0}, {"every": 0}, {"size": 0}, {"init": "missing.png"}):
        with pytest.raises(InputError):
            clipsearch.imagine("a dog", model=model, **{"steps": 1, **wrong})  # type: ignore[arg-type]


def test_an_index_is_built_and_brought_up_to_date(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in DOGS[:2]:
        shutil.copy(path, folder)
    with clipsearch.build_index(folder, tmp_path / ".clipsearch", model="picturebook") as index:
        assert {hit.path.name for hit in index.search("a dog")} == {Path(path).name for path in DOGS[:2]}
        shutil.copy(DOGS[2], folder)
        (folder / "broken.png").write_text("no image")
        done = index.update()
        assert (done.images, done.embedded, done.unchanged) == (3, 1, 2)
        assert [Path(os.fsdecode(path)).name for path, _ in done.unreadable] == ["broken.png"]
        assert len(index.search("a dog")) == 3
        done = index.update(rules=clipsearch.Rules(exclude=(Path(DOGS[0]).name,)))
        assert (done.images, done.left_out) == (2, 1)


def test_a_hit_is_a_dictionary_with_the_fields_of_json(sample_index: Path, run: Run) -> None:
    printed = json.loads(run("query", "a dog", "-k", "2", "--json", cwd=sample_index).stdout)
    with clipsearch.open_index(sample_index) as index:
        found = [hit.as_dict() for hit in index.search("a dog", k=2)]
        other = index.search("a dog", k=1, distinct=1.0)[0].as_dict()
    assert [list(hit) for hit in found] == [list(hit) for hit in printed]
    assert [hit["bytes"] for hit in found] == [hit["bytes"] for hit in printed]
    assert json.loads(json.dumps(found))[0]["path"] == str(sample_index / printed[0]["path"])
    assert "others" in other


# -- what is public --------------------------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    loaded = loaded_by("import clipsearch", environment, tmp_path)
    assert not loaded & {"numpy", "torch", "PIL", "clipsearch.api"}


def test_everything_public_is_documented_with_its_arguments() -> None:
    for name in clipsearch.__all__:
        public = getattr(clipsearch, name)
        if name.startswith("__"):
            continue
        text = inspect.getdoc(public)
        assert text, name
        for function in [public, *(getattr(public, method) for method in METHODS.get(name, ()))]:
            if inspect.isfunction(function):
                text = inspect.getdoc(function) or ""
                named = [one for one in inspect.signature(function).parameters if one not in ("self", "filters")]
                described = re.findall(
                    r"^    (\w+): ", text.partition("Args:")[2].partition("Returns:")[0], re.MULTILINE
                )
                assert [one for one in described if one != "filters"] == named, function.__qualname__
                assert "Returns:" in text, function.__qualname__


def test_the_page_about_python_imports_nothing_but_the_package_and_numpy() -> None:
    text = (REPOSITORY / "docs" / "python.md").read_text("utf-8")
    code = "".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    imported = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert imported <= {"clipsearch", "numpy", "pathlib", "datetime", "logging"}
