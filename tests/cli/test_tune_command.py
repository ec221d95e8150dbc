"""`clipsearch tune`, and what an index of its base does with the model that it makes."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PICTUREBOOK, SAMPLES, Run, index
from transformers import CLIPModel

import clipsearch
from clipsearch.models.disk.files import fingerprint
from scripts.picturebook.novelties import NOVELTIES, novelties

KINDS = tuple(kind.name for kind in NOVELTIES)


def write_captions(file: Path, rows: Sequence[tuple[str, str]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("image", "caption"), *rows])
    return file


def read_captions(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return [(row["image"], row["caption"]) for row in csv.DictReader(opened)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder with an index of drawn pictures, most of them of things whose names the model never saw."""
    folder = tmp_path_factory.mktemp("drawn")
    novelties(folder, count=24, held_out=5, old=60)
    index(run, ".", "--model", "picturebook", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def tuned(drawn: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a tuned model, and what the command printed."""
    out = tmp_path_factory.mktemp("models") / "tuned"
    done = run("tune", "new.csv", "--control", "control.csv", "--out", out, "--json", cwd=drawn)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode() == (
        f"Wrote {out}. An index of picturebook answers it as it is: clipsearch query --model {out} TERM\n"
    )
    return out, json.loads(done.stdout)


def new_captions(drawn: Path) -> list[tuple[str, str]]:
    """The captions of the new kinds, with whole paths."""
    return [(str(drawn / image), text) for image, text in read_captions(drawn / "new.csv")]


def hits(run: Run, *arguments: str | Path, cwd: Path) -> list[dict[str, Any]]:
    done = run("query", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def test_it_says_what_it_reached(tuned: tuple[Path, dict[str, Any]]) -> None:
    out, report = tuned
    assert (report["method"], report["better"], report["base"]["name"]) == ("query", True, "picturebook")
    of = {(one["images"], one["metric"]): one for one in report["measures"]}
    assert set(of) == {(i, m) for i in ("test", "control") for m in ("recall@1", "recall@5", "recall@10", "mrr")}
    mrr = of["test", "mrr"]
    assert mrr["before"] < mrr["after"]
    assert 0 < mrr["change_interval"][0] <= mrr["after"] - mrr["before"] <= mrr["change_interval"][1]
    assert of["control", "recall@1"]["before"] - of["control", "recall@1"]["after"] <= 0.01
    note = json.loads((out / "tuning.json").read_text("utf-8"))
    assert note == {"fingerprint": fingerprint(out), "seed": 0, **report}
    assert note["base"]["fingerprint"] == fingerprint(PICTUREBOOK)


def test_transformers_loads_it_and_nothing_but_the_projection_of_texts_differs(
    tuned: tuple[Path, dict[str, Any]],
) -> None:
    base, model = (CLIPModel.from_pretrained(folder, dtype=torch.float32) for folder in (PICTUREBOOK, tuned[0]))
    others = model.state_dict()
    assert [name for name, value in base.state_dict().items() if not torch.equal(value, others[name])] == [
        "text_projection.weight"
    ]
    assert sorted(path.name for path in tuned[0].iterdir()) == sorted(
        [*(path.name for path in PICTUREBOOK.iterdir() if path.name != "README.md"), "tuning.json"]
    )


def test_an_index_of_its_base_answers_it_at_once(tuned: tuple[Path, dict[str, Any]], drawn: Path, run: Run) -> None:
    files = list((drawn / ".clipsearch").iterdir())
    before = {path: path.read_bytes() for path in files if path.name in ("embeddings.npy", "index.db")}
    shares = []
    for name in KINDS:
        options = ("-k", "5", "--under", "held-out")
        both = [hits(run, f"a {name}", *options, *more, cwd=drawn) for more in ((), ("--model", tuned[0]))]
        shares.append([np.mean([f"/{name}_" in hit["path"] for hit in found]) for found in both])
    old, new = np.mean(shares, axis=0)
    assert old < 0.2  # one kind of ten
    assert new > old + 0.25
    assert {path: path.read_bytes() for path in before} == before
    with clipsearch.open_index(drawn, model=str(tuned[0])) as own, clipsearch.open_index(drawn) as base:
        found = hits(run, "an anvil", "-k", "5", "--model", tuned[0], cwd=drawn)
        assert [str(hit.path) for hit in own.search("an anvil", 5)] == [str(drawn / hit["path"]) for hit in found]
        # Pictures are found as before, by the vectors of the index.
        picture = drawn / "new/anvil_0.png"
        assert [hit.score for hit in own.similar(picture)] == [hit.score for hit in base.similar(picture)]


def test_commands_take_vectors_of_pictures_from_an_index_of_the_base(
    tuned: tuple[Path, dict[str, Any]], drawn: Path, run: Run
) -> None:
    done = run("eval", "held-out.csv", "--model", tuned[0], "--json", "--verbose", cwd=drawn)
    assert done.returncode == 0
    assert "pictures: 50 of 50 known to the index" in done.stderr.decode()
    plain = run("eval", "held-out.csv", "--json", cwd=drawn)
    assert json.loads(plain.stdout)[0]["mrr"] < json.loads(done.stdout)[0]["mrr"]
    labels = [part for name in KINDS for part in ("--label", name)]
    right = []
    for more in ((), ("--model", tuned[0])):
        done = run("classify", "--indexed", *labels, "--json", "--under", "held-out", *more, cwd=drawn)
        assert done.returncode == 0, done.stderr.decode()
        right.append(np.mean([f"/{row['label']}_" in row["path"] for row in json.loads(done.stdout)]))
    assert right[1] > right[0] + 0.2
    texts = [part for name in KINDS for part in ("--text", f"a {name}")]
    ranks = [
        json.loads(run("caption-rank", "new/grolk_0.png", *texts, "--json", *more, cwd=drawn).stdout)
        for more in ((), ("--model", tuned[0]))
    ]
    assert ranks[0] != ranks[1]


def test_index_goes_on_with_the_base(tuned: tuple[Path, dict[str, Any]], drawn: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(drawn, tmp_path / "copy")
    shutil.copy(SAMPLES / "dogs" / "dog_0.webp", tmp_path / "copy" / "another.webp")
    done = run("index", "--model", tuned[0], "--json", cwd=tmp_path / "copy")
    assert done.returncode == 0, done.stderr.decode()
    status = json.loads(run("status", "--json", cwd=tmp_path / "copy").stdout)
    assert (status["model"], status["images"]) == ("picturebook", 411)


def test_it_can_be_tuned_again(tuned: tuple[Path, dict[str, Any]], drawn: Path, tmp_path: Path, run: Run) -> None:
    """What is made from a tuned model names the same base."""
    rows = new_captions(drawn)[::4]
    other = [(image, text.replace("florp", "velk").replace("anvil", "ompf")) for image, text in rows]
    out = tmp_path / "again"
    done = run(
        "tune",
        write_captions(tmp_path / "c.csv", other),
        "-o",
        out,
        "--model",
        tuned[0],
        "--control",
        "control.csv",
        "--json",
        cwd=drawn,
    )
    report = json.loads(done.stdout)
    assert report["base"] == tuned[1]["base"]
    assert (done.returncode == 0) == report["better"] == out.exists()


def test_the_function_does_the_same_and_the_same_seed_gives_the_same_weights(
    tuned: tuple[Path, dict[str, Any]], drawn: Path, tmp_path: Path
) -> None:
    with clipsearch.load_model("picturebook", drawn) as model:
        report = clipsearch.tune(drawn / "new.csv", tmp_path / "out", control=drawn / "control.csv", model=model)
    assert (report.folder, report.tuned.verdict) == (tmp_path / "out", None)
    assert report.as_json() == tuned[1]
    assert fingerprint(tmp_path / "out") == fingerprint(tuned[0])


def test_what_is_no_better_is_not_written(drawn: Path, tmp_path: Path, run: Run) -> None:
    """Captions in random order teach nothing."""
    rows = new_captions(drawn)
    texts = np.random.default_rng(0).permutation([text for _, text in rows])
    mixed = write_captions(
        tmp_path / "c.csv", [(image, str(text)) for (image, _), text in zip(rows, texts, strict=True)]
    )
    # With the same pictures as control set, it cannot learn either that these pictures are not those.
    done = run("tune", mixed, "--control", "new.csv", "--out", tmp_path / "out", "--json", cwd=drawn)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert not report["better"]
    assert done.stderr.decode() == f"Nothing was written. {report['verdict']}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv"]


def test_another_index_refuses_it(tuned: tuple[Path, dict[str, Any]], tmp_path: Path, run: Run) -> None:
    shutil.copytree(SAMPLES / "dogs", tmp_path / "dogs")
    model = shutil.copytree(PICTUREBOOK, tmp_path / "other")
    base = CLIPModel.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        base.visual_projection.weight *= 1.5
    base.save_pretrained(model)
    assert run("index", "dogs", "--model", model, cwd=tmp_path).returncode == 0
    done = run("query", "a zorp", "--model", tuned[0], cwd=tmp_path)
    assert done.returncode == 2
    assert f"was made with model {model.resolve()}, not {tuned[0].resolve()}" in done.stderr.decode()


def test_a_folder_whose_weights_were_changed_since_is_refused(
    tuned: tuple[Path, dict[str, Any]], drawn: Path, tmp_path: Path, run: Run
) -> None:
    copy = shutil.copytree(tuned[0], tmp_path / "copy")
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    done = run("query", "a zorp", "--model", copy, cwd=drawn)
    assert done.returncode == 2
    assert "vectors of two models cannot be compared" in done.stderr.decode()


@pytest.mark.parametrize("wrong", ["missing", "broken", "few", "equal", "exists", "no parent", "no model"])
def test_bad_input(wrong: str, drawn: Path, tmp_path: Path, run: Run) -> None:
    rows = new_captions(drawn)[:12]
    more: list[str | Path] = []
    if wrong == "missing":
        rows.append(("gone.png", "a zorp"))
        said = "1 of 13 images are not in"
    elif wrong == "broken":
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
        rows.append((str(tmp_path / "broken.png"), "a zorp"))
        said = f"Cannot read {tmp_path / 'broken.png'}: "
    elif wrong == "few":
        rows, said = rows[:9], "9 captions are too few"
    elif wrong == "equal":
        rows, said = [(image, "a zorp") for image, _ in rows], "All captions are 'a zorp'"
    elif wrong == "exists":
        (tmp_path / "out").mkdir()
        said = f"{tmp_path / 'out'} exists already. Name another folder with --out"
    elif wrong == "no parent":
        more, said = ["--out", tmp_path / "none" / "out"], f"There is no folder {tmp_path / 'none'}"
    else:
        model = shutil.copytree(PICTUREBOOK, tmp_path / "model")
        (model / "model.safetensors").unlink()
        more, said = ["--model", model], "holds no weights"
    captions = write_captions(tmp_path / "c.csv", rows)
    before = sorted(tmp_path.rglob("*"))
    done = run("tune", captions, *(more if "--out" in more else ["--out", tmp_path / "out", *more]), cwd=drawn)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert done.stdout == b""
    assert sorted(tmp_path.rglob("*")) == before
