"""`clipsearch eval`, as a shell and a CI job see it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Run, paint
from fresh import COMMAND, HEAVY, loaded_by

import clipsearch

CAPTIONS = "sample-images/captions.csv"
METRICS = ("recall@1", "recall@5", "recall@10", "median_rank", "mrr")


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    """A folder with three of the samples and their captions."""
    for name in ("dog_0.webp", "dog_1.png", "dog_3.jpg"):
        shutil.copy(SAMPLES / "dogs" / name, tmp_path)
    (tmp_path / "captions.csv").write_text(
        "image,caption\n"
        "dog_0.webp,a gray dog is sleeping on a farm\n"
        "dog_1.png,an orange dog is sleeping in the garden\n"
        "dog_3.jpg,an orange dog is running in the city\n"
    )
    return tmp_path


def figures(run: Run, *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> list[dict[str, Any]]:
    done = run("eval", *arguments, "--json", cwd=cwd, env=env)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return list(json.loads(done.stdout))


@pytest.fixture
def known(sample_index: Path) -> dict[str, str]:
    """An environment in which the index of the samples is the nearest: what it knows needs no model."""
    return {"CLIPSEARCH_INDEX": str(sample_index)}


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


# -- figures -----------------------------------------------------------------------------------------------------


def test_figures_are_those_of_a_plain_computation(sample_index: Path, run: Run) -> None:
    """The scores of `query`, sorted, beside what the command says."""
    with (sample_index / CAPTIONS).open(encoding="utf-8", newline="") as file:
        caption_of = {row["image"]: row["caption"] for row in csv.DictReader(file)}
    scores = np.zeros((len(caption_of), len(caption_of)))
    order = {name: number for number, name in enumerate(caption_of)}
    with clipsearch.open_index(sample_index) as index:
        for line, hits in zip(scores, index.search_many(list(caption_of.values()), k=None), strict=True):
            for hit in hits:
                line[order[str(hit.path).split("sample-images/")[1]]] = hit.score
    assert scores.shape == (253, 253)
    for result, table in zip(figures(run, CAPTIONS, cwd=sample_index), (scores, scores.T), strict=True):
        places = np.array([list(np.argsort(-line, kind="stable")).index(own) + 1 for own, line in enumerate(table)])
        wanted = {f"recall@{k}": int(np.count_nonzero(places <= k)) / 253 for k in (1, 5, 10)}
        wanted |= {"median_rank": float(np.median(places)), "mrr": float(np.mean(1 / places))}
        assert {name: result[name] for name in METRICS} == {name: round(value, 6) for name, value in wanted.items()}
        assert (result["model"], result["queries"], result["candidates"]) == ("picturebook", 253, 253)
        assert result["recall@1"] > 0.9


def test_figures_without_an_index_are_those_with_one(dogs: Path, known: dict[str, str], run: Run) -> None:
    alone = figures(run, "captions.csv", "--model", "picturebook", cwd=dogs)
    assert alone == figures(run, "captions.csv", cwd=dogs, env=known)
    assert [result["direction"] for result in alone] == ["text->image", "image->text"]
    assert all(result["recall@1"] == result["mrr"] == 1 and result["queries"] == 3 for result in alone)


def test_an_index_that_knows_the_images_needs_no_model_library(sample_index: Path, environment: dict[str, str]) -> None:
    loaded = loaded_by(COMMAND.format(arguments=["clipsearch", "eval", CAPTIONS]), environment, sample_index)
    assert "tokenizers" in loaded
    assert not loaded & {"torch", "transformers", "safetensors", "huggingface_hub"}


def test_help_loads_no_library_of_ours(environment: dict[str, str], tmp_path: Path) -> None:
    loaded = loaded_by(COMMAND.format(arguments=["clipsearch", "eval", "--help"]), environment, tmp_path)
    assert not loaded & (HEAVY | {"numpy", "tokenizers", "csv"})


def test_every_format_says_the_same(sample_index: Path, run: Run) -> None:
    def printed(form: str) -> str:
        done = run("eval", CAPTIONS, "--format", form, cwd=sample_index)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    wanted = figures(run, CAPTIONS, cwd=sample_index)
    assert [json.loads(line) for line in printed("jsonl").splitlines()] == wanted
    names = ["model", "direction", "queries", "candidates", *METRICS]
    rows = list(csv.DictReader(io.StringIO(printed("csv"), newline="")))
    assert list(rows[0]) == names
    assert [[float(row[name]) for name in names[2:]] for row in rows] == [
        [result[name] for name in names[2:]] for result in wanted
    ]
    lines = [line.split("\t") for line in printed("tsv").splitlines()]
    assert lines[0][:4] == ["picturebook", "text->image", "253", "253"]
    assert lines[1][4] == f"{wanted[1]['recall@1']:.4f}"
    table = [line.split() for line in printed("table").splitlines()]
    assert table[0] == ["direction", "metric", "picturebook"]
    assert ["text->image", "median_rank", "1"] in table
    assert ["image->text", "recall@1", f"{wanted[1]['recall@1']:.4f}"] in table
    assert len(table) == 1 + 2 * 7


def test_two_models_side_by_side(dogs: Path, small_clip: Path, known: dict[str, str], run: Run) -> None:
    shutil.copytree(small_clip, dogs / "mine")
    arguments = ["captions.csv", "--compare", "picturebook", "./mine"]
    gates = ["--min", "mrr=1", "--min", "recall@10=1"]
    done = run("eval", *arguments, *gates, "--format", "table", cwd=dogs, env=known)
    both = figures(run, *arguments, cwd=dogs, env=known)
    assert [result["model"] for result in both] == ["picturebook", "picturebook", *[str(dogs / "mine")] * 2]
    assert both[:2] == figures(run, "captions.csv", cwd=dogs, env=known)
    assert both[2:] == figures(run, "captions.csv", "--model", "mine", cwd=dogs)
    head, *lines = (line.split() for line in done.stdout.decode().splitlines())
    assert head == ["direction", "metric", "picturebook", "./mine"]
    shown = {(line[0], line[1]): line[2:] for line in lines}
    assert shown["image->text", "mrr"] == [f"{both[1]['mrr']:.4f}", f"{both[3]['mrr']:.4f}"]
    assert both[1]["mrr"] == 1 > both[3]["mrr"]  # the other one has random weights
    # Gates hold for both models.
    assert done.returncode == 1
    complaints = [line for line in done.stderr.decode().splitlines() if "mrr" in line]
    assert complaints
    assert all(f"mrr of {dogs / 'mine'} " in complaint for complaint in complaints)


# -- gates -------------------------------------------------------------------------------------------------------


def test_a_gate_that_is_met_or_not_decides_the_exit_code(sample_index: Path, run: Run) -> None:
    plain = run("eval", CAPTIONS, cwd=sample_index)
    met = run("eval", CAPTIONS, "--min", "recall@5=0.95", "--min", "i2t.mrr=0.9", cwd=sample_index)
    assert (met.returncode, met.stderr.decode(), met.stdout) == (0, "", plain.stdout)
    unmet = run("eval", CAPTIONS, "--min", "t2i.recall@1=1", "--min", "recall@10=0.5", cwd=sample_index)
    assert (unmet.returncode, unmet.stdout) == (1, plain.stdout)
    said = unmet.stderr.decode()
    assert re.search(r"text->image recall@1\b.* picturebook\b.* 0\.9\d*\b.* 1\.\n", said)
    assert said.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_standard_output_is_an_error_of_one_line(sample_index: Path, run: Run) -> None:
    done = run("eval", CAPTIONS, "--min", "mrr=1", cwd=sample_index, line='"$@" > /dev/full')
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"clipsearch: ")
    assert done.stderr.count(b"\n") == 1


# -- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["captions.csv", "--min", "recall@3=0.5"], "recall@1, recall@5, recall@10, mrr"),
        (["captions.csv", "--split", "test"], "captions.csv"),
        (["captions.csv", "--images", "nowhere"], "nowhere"),
        (["nothing.csv"], "nothing.csv"),
        (["bad.csv"], "'img', 'caption'"),
        (["gone.csv"], "x.png, y.png. Name their folder with --images DIR"),
        (["captions.csv", "--compare", "picturebook"], "--compare"),
        (["captions.csv", "--model", "picturebook", "--compare", "a", "b"], "--model"),
        (["captions.csv", "--compare", "picturebook", "picturebook"], "picturebook"),
        (["captions.csv", "--compare", "picturebook", "pikturebook"], "'picturebook'"),
        (["captions.csv", "--json", "--format", "csv"], "format"),
    ],
)
def test_bad_input_is_an_error_of_one_line_and_nothing_is_written(
    arguments: list[str], said: str, dogs: Path, run: Run
) -> None:
    (dogs / "bad.csv").write_text("img,caption\ndog_0.webp,a dog\n")
    (dogs / "gone.csv").write_text("image,caption\nx.png,a dog\ny.png,a dog\ndog_0.webp,a dog\n")
    before = files_in(dogs)
    done = run("eval", *arguments, cwd=dogs)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()
    assert done.stderr.startswith(b"clipsearch: ")
    assert done.stderr.count(b"\n") == 1
    assert files_in(dogs) == before


def test_missing_images_can_be_left_out(dogs: Path, known: dict[str, str], run: Run) -> None:
    wanted = figures(run, "captions.csv", cwd=dogs, env=known)
    with (dogs / "captions.csv").open("a") as file:
        file.write("gone.png,a cat\n")
    done = run("eval", "captions.csv", "--skip-missing", "--json", cwd=dogs, env=known)
    assert (done.returncode, json.loads(done.stdout)) == (0, wanted)
    assert re.search(r"\b1 of 4 images\b", done.stderr.decode())


def test_broken_images_are_named_and_take_no_part(dogs: Path, known: dict[str, str], run: Run) -> None:
    wanted = figures(run, "captions.csv", cwd=dogs, env=known)
    (dogs / "broken.png").write_bytes((dogs / "dog_1.png").read_bytes()[:300])
    with (dogs / "captions.csv").open("a") as file:
        file.write("broken.png,a cat\nbroken.png,an orange dog is running in the city\n")
    for more, code in (([], 0), (["--strict"], 2)):
        done = run("eval", "captions.csv", "--json", *more, cwd=dogs, env=known)
        assert (done.returncode, json.loads(done.stdout)) == (code, wanted)
        assert b"broken.png: " in done.stderr
        assert done.stderr.count(b"\n") == 1
    (dogs / "captions.csv").write_text("image,caption\nbroken.png,a dog\n")
    done = run("eval", "captions.csv", cwd=dogs, env=known)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"1 images" in done.stderr


def test_the_other_formats_of_captions(dogs: Path, known: dict[str, str], run: Run) -> None:
    wanted = figures(run, "captions.csv", cwd=dogs, env=known)
    with (dogs / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    (dogs / "tokens").write_text("".join(f"{row['image']}#0\t{row['caption']}\n" for row in rows))
    paint(dogs / "other.png", "red")
    images = [{"filename": r["image"], "split": "test", "sentences": [{"raw": r["caption"]}]} for r in rows]
    images.append({"filename": "other.png", "split": "train", "sentences": [{"raw": "a red wall"}]})
    (dogs / "karpathy.json").write_text(json.dumps({"images": images}))
    (dogs / "in").mkdir()
    coco = {
        "images": [{"id": number, "file_name": row["image"]} for number, row in enumerate(rows)],
        "annotations": [{"image_id": number, "caption": row["caption"]} for number, row in enumerate(rows)],
    }
    (dogs / "in" / "coco.json").write_text(json.dumps(coco))
    for arguments in (["tokens"], ["karpathy.json", "--split", "test"], ["in/coco.json", "--images", "."]):
        assert figures(run, *arguments, cwd=dogs, env=known) == wanted
