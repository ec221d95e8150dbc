"""`query`, `similar`, `eval` and others in a real index with regions, against the files that it consists of."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import SAMPLES, Run, index
from families import siglip
from PIL import Image

import clipsearch
from clipsearch.index.reading import Store
from clipsearch.search.confidence import NEUTRAL

Array = npt.NDArray[np.float64]
CELL = 384
PLAIN = ("food", "weather")
THINGS = {
    "a red car": "vehicles/red_car_city.png",
    "a green train": "vehicles/green_train_mountain.webp",
    "a red airplane": "vehicles/red_airplane_flying_sky.webp",
    "a gray cat": "cats/gray_cat_eating_garden.webp",
    "a red tractor": "vehicles/red_tractor_farm.jpg",
    "an orange helicopter": "vehicles/orange_helicopter_flying_mountain.webp",
    "a green rocket": "vehicles/green_rocket_flying_space.webp",
    "an orange bicycle": "vehicles/orange_bicycle_beach.webp",
}
"""What each collage has in one of its cells, which is another one each time."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Some samples, and collages of nine cells, large enough for regions. Tests read it only."""
    folder = tmp_path_factory.mktemp("regions")
    for name in PLAIN:
        shutil.copytree(SAMPLES / name, folder / "p" / name)
    others = sorted((SAMPLES / "objects").iterdir()) + sorted((SAMPLES / "birds").iterdir())
    (folder / "p" / "collages").mkdir()
    for number, (words, thing) in enumerate(THINGS.items()):
        collage = Image.new("RGB", (3 * CELL, 3 * CELL))
        cells = [others[(8 * number + place) % len(others)] for place in range(9)]
        cells[place_of(number)] = SAMPLES / thing
        for place, path in enumerate(cells):
            collage.paste(Image.open(path).convert("RGB").resize((CELL, CELL)), (place % 3 * CELL, place // 3 * CELL))
        collage.save(folder / "p" / "collages" / f"{words}.png")
    captions = [["image", "caption"], *([f"p/collages/{words}.png", words] for words in THINGS)]
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(captions)
    assert index(run, "p", "--model", "picturebook", "--regions", cwd=folder)["images"] == len(THINGS) + sum(
        len(list((SAMPLES / name).iterdir())) for name in PLAIN
    )
    return folder


def place_of(number: int) -> int:
    """The cell of a collage in which the thing is."""
    return (2 * number + 1) % 9


class Files:
    """What is in the files of the index."""

    def __init__(self, folder: Path) -> None:
        load = folder / ".clipsearch"
        self.wholes = np.load(load / "embeddings.npy").astype(np.float64)
        self.regions = np.load(load / "regions.npy").astype(np.float64)
        self.table = np.load(load / "region_boxes.npy")
        store = Store.open(load)
        self.paths = {record.row: record.path for record in store.records() if record.row is not None}
        store.close()

    def plainly(self, query: Array, references: Array) -> list[tuple[str, float, list[int] | None]]:
        """Path, score and box of each picture, in order; all that `query` has in its JSON."""
        owners = self.table[:, 0]
        images = np.unique(owners)
        excess = [
            ((self.regions[owners == image] @ references.T).max(axis=0) - self.wholes[image] @ references.T).mean()
            for image in images
        ]
        slope = max(0.0, float(np.mean(excess) / np.mean([np.log((owners == image).sum()) for image in images])))
        found = []
        for row, path in self.paths.items():
            fits: list[tuple[float, list[int] | None]] = [(float(self.wholes[row] @ query), None)]
            less = slope * np.log(max(1, (owners == row).sum()))
            fits += [
                (float(self.regions[number] @ query) - less, self.table[number, 1:].tolist())
                for number in np.flatnonzero(owners == row)
            ]
            found.append((path.decode(), *max(fits, key=lambda fit: fit[0])))
        return sorted(found, key=lambda one: (-one[1], one[0]))


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    return Files(folder)


@pytest.fixture(scope="module")
def vectors(folder: Path) -> dict[str, Array]:
    """The vectors of all texts."""
    with clipsearch.load_model("picturebook", index=folder) as model:
        texts = [*THINGS, *NEUTRAL]
        return dict(zip(texts, model.embed_texts(texts).astype(np.float64), strict=True))


@pytest.fixture(scope="module")
def neutral(vectors: dict[str, Array]) -> Array:
    return np.stack([vectors[text] for text in NEUTRAL])


def asked(run: Run, folder: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    done = run(*arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def assert_same(folder: Path, hits: list[dict[str, Any]], expected: list[tuple[str, float, list[int] | None]]) -> None:
    assert [str(folder / hit["path"]) for hit in hits] == [path for path, *_ in expected]
    assert [hit["box"] for hit in hits] == [box for *_, box in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([score for _, score, _ in expected], abs=2e-5)


def test_things_in_collages_are_found_with_their_places(
    run: Run, folder: Path, files: Files, vectors: dict[str, Array], neutral: Array
) -> None:
    for number, words in enumerate(THINGS):
        every = asked(run, folder, "query", words, "-k", "all")
        assert_same(folder, every, files.plainly(vectors[words], neutral))
        (found,) = [hit for hit in every if hit["path"] == f"p/collages/{words}.png"]
        left, top, right, bottom = found["box"]
        assert left <= (place_of(number) % 3 + 0.5) * CELL <= right, words
        assert top <= (place_of(number) // 3 + 0.5) * CELL <= bottom, words
        assert right - left <= 2 * CELL


def test_wholes_alone(run: Run, folder: Path, files: Files, vectors: dict[str, Array]) -> None:
    hits = asked(run, folder, "query", "a red car", "-k", "all", "--whole")
    assert {"box" in hit for hit in hits} == {False}
    scores = np.sort(files.wholes @ vectors["a red car"])[::-1]
    assert [hit["score"] for hit in hits] == pytest.approx(scores.tolist(), abs=2e-5)
    nothing = run("query", "a red car", "--whole", "--min-score", "0.99", cwd=folder)
    assert nothing.returncode == 1
    assert f"score {scores[0]:.4f}".encode() in nothing.stderr


def test_every_format_says_where(run: Run, folder: Path) -> None:
    query = ("query", "a green train", "-k", "1", "--under", "p/collages")
    (first,) = asked(run, folder, *query)
    shown = ",".join(map(str, first["box"]))

    def out(form: str) -> str:
        return run(*query, "--format", form, cwd=folder).stdout.decode()

    assert json.loads(out("jsonl")) == first
    assert next(csv.DictReader(io.StringIO(out("csv"))))["box"] == shown
    assert out("table").splitlines()[0].endswith("box")
    assert out("table").rstrip().endswith(f"  {shown}")
    assert shown not in out("tsv")
    # What CSV says can be typed.
    (found,) = asked(run, folder, "similar", first["path"], "--box", shown, "--include-self", "-k", "1")
    assert (found["path"], found["box"]) == (first["path"], first["box"])
    with clipsearch.open_index(folder) as opened:
        hit = opened.search("a green train", 1, under=folder / "p" / "collages")[0]
        assert list(hit.box or ()) == first["box"] == hit.as_dict()["box"]
        assert opened.search("a green train", 1, whole=True)[0].box is None


def test_many_queries_and_terms(
    run: Run, folder: Path, files: Files, vectors: dict[str, Array], *, neutral: Array, tmp_path: Path
) -> None:
    unwanted, *others = THINGS
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"{words}\n" for words in others))
    hits = asked(run, folder, "query", "--from", lines, "-k", "3", "--not", unwanted)
    assert len(hits) == 3 * len(others)
    for words in others:
        query = vectors[words] - vectors[unwanted]
        expected = files.plainly(query / np.linalg.norm(query), neutral)[:3]
        assert_same(folder, [hit for hit in hits if hit["query"] == words], expected)


def test_a_picture_as_the_query_has_a_penalty_of_its_own_and_is_not_found_itself(
    run: Run, folder: Path, files: Files
) -> None:
    name = "p/collages/a green train.png"
    row = next(row for row, path in files.paths.items() if path.decode() == str(folder / name))
    query = files.wholes[row] / np.linalg.norm(files.wholes[row])
    expected = files.plainly(query, query[None])
    assert_same(folder, asked(run, folder, "similar", name, "--include-self", "-k", "all"), expected)
    hits = asked(run, folder, "similar", name, "-k", "all")
    assert_same(folder, hits, [one for one in expected if not one[0].endswith(name)])
    without = asked(run, folder, "similar", name, "-k", "all", "--whole")
    assert [hit["score"] for hit in without] != [hit["score"] for hit in hits]
    # Together with words, it is still a picture.
    assert asked(run, folder, "query", "--image", name, "-k", "1")[0]["path"] == name


def test_filters_leave_scores_as_they_are(run: Run, folder: Path) -> None:
    every = asked(run, folder, "query", "a red car", "-k", "all")
    few = asked(run, folder, "query", "a red car", "-k", "all", "-g", "*r*.png")
    assert 0 < len(few) < len(every)
    by_path = {hit["path"]: hit for hit in every}
    assert [hit | {"rank": 0} for hit in few] == [by_path[hit["path"]] | {"rank": 0} for hit in few]
    least = sorted(hit["confidence"] for hit in every)[-10] - 1e-5
    found = asked(run, folder, "query", "a red car", "-k", "all", "--min-confidence", str(least))
    # A picture whose best region is not sure may have another one that is.
    assert {hit["path"] for hit in every if hit["confidence"] >= least} <= {hit["path"] for hit in found}
    assert len(found) < len(every)
    assert all(hit["confidence"] >= least for hit in found)


def test_eval_ranks_as_query_does(
    run: Run, folder: Path, files: Files, vectors: dict[str, Array], neutral: Array
) -> None:
    def recall(*options: str) -> dict[str, float]:
        rows = json.loads(run("eval", "captions.csv", *options, "--json", cwd=folder).stdout)
        return {f"{row['direction']} {metric}": row[metric] for row in rows for metric in ("recall@1", "mrr")}

    both = recall()
    collages = {str(folder / "p" / "collages" / f"{words}.png"): words for words in THINGS}
    ranks = []
    for words in THINGS:
        order = [collages[path] for path, *_ in files.plainly(vectors[words], neutral) if path in collages]
        ranks.append(1 + order.index(words))
    assert both["text->image mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]), abs=1e-6)
    whole = recall("--whole")
    assert whole["text->image mrr"] < both["text->image mrr"]
    # Texts are found by whole pictures.
    assert {name: value for name, value in whole.items() if name[0] == "i"} == {
        name: value for name, value in both.items() if name[0] == "i"
    }
    with clipsearch.load_model("picturebook", index=folder) as model:
        found = clipsearch.evaluate(folder / "captions.csv", model=model, whole=True)
        assert found.directions[0].metrics["mrr"] == pytest.approx(whole["text->image mrr"])
        found = clipsearch.evaluate(folder / "captions.csv", model=model)
        assert found.directions[0].metrics["mrr"] == pytest.approx(both["text->image mrr"])


def test_pictures_that_the_index_does_not_know_count_as_wholes(run: Run, folder: Path, tmp_path: Path) -> None:
    for words in THINGS:
        with Image.open(folder / "p" / "collages" / f"{words}.png") as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / f"{words}.png")
    rows = "".join(f"{words}.png,{words}\n" for words in THINGS)
    (tmp_path / "captions.csv").write_text(f"image,caption\n{rows}")
    env = {"CLIPSEARCH_INDEX": str(folder)}
    done = [
        run("eval", tmp_path / "captions.csv", "--json", *more, cwd=tmp_path, env=env) for more in ([], ["--whole"])
    ]
    assert done[0].stdout == done[1].stdout != b""


def test_other_commands_use_whole_pictures(run: Run, folder: Path, tmp_path: Path, files: Files) -> None:
    done = run("export", "-o", tmp_path / "v.npy", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    exported = np.load(tmp_path / "v.npy")
    order = [row for row, _ in sorted(files.paths.items(), key=lambda item: item[1])]
    np.testing.assert_allclose(exported, files.wholes[order], atol=1e-3)
    ranks = asked(run, folder, "caption-rank", "p/collages/a red car.png", "--text", "a red car")
    expected = np.sort(files.wholes @ clipped(run, folder, "a red car"))[::-1]
    assert ranks[0]["score"] == pytest.approx(float(expected[int(ranks[0]["rank"]) - 1]), abs=1e-4)


def clipped(run: Run, folder: Path, text: str) -> Array:
    """The vector of a text as `embed` writes it."""
    done = run("embed", "--text", text, "-o", "text.npy", "--model", "picturebook", "--force", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return np.asarray(np.load(folder / "text.npy")[0], np.float64)


def test_a_model_without_neutral_prompts_has_the_penalty_too(run: Run, tmp_path: Path) -> None:
    """SigLIP's confidence needs no prompts, but what is by chance is estimated from them."""
    siglip(tmp_path / "model")
    (tmp_path / "p").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (200, 200 + 40 * number, 3), np.uint8)).save(
            tmp_path / "p" / f"{number}.png"
        )
    index(run, "p", "--model", "./model", "--regions", cwd=tmp_path)
    with clipsearch.load_model(str(tmp_path / "model")) as model:
        neutral = model.embed_texts(NEUTRAL).astype(np.float64)
        (query,) = model.embed_texts(["a dog"]).astype(np.float64)
    assert_same(tmp_path, asked(run, tmp_path, "query", "a dog"), Files(tmp_path).plainly(query, neutral))
