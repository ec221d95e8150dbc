"""`clipsearch tune --method lora`: what is trained, and what is left after any end."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import families
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import PICTUREBOOK, Run, index
from PIL import Image
from transformers import AutoModel
from warm import Warm

from clipsearch.errors import ClipsearchError, InputError, ModelError
from clipsearch.models.disk.files import fingerprint, locate
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.search.embedder import Embedder
from clipsearch.tasks.tuning import training as training_module
from clipsearch.tasks.tuning.captioned import together
from clipsearch.tasks.tuning.checkpoint import Checkpoint, working_folder
from clipsearch.tasks.tuning.measuring import Score
from clipsearch.tasks.tuning.pictures import Pixels
from clipsearch.tasks.tuning.towers import Towers
from clipsearch.tasks.tuning.training import Material, Step, Training

COLOURS = ("red", "green", "blue", "yellow", "white", "black")

STOPPED = """
import os, sys
from clipsearch import cli
from clipsearch.tasks.tuning import checkpoint

checkpoint.SECONDS = 0.0  # one after each step
at, number = int(sys.argv.pop(1)), int(sys.argv.pop(1))
save, saved = checkpoint.Checkpoint.save, []

def save_and_end(*state):
    save(*state)
    saved.append(state)
    if len(saved) == at:
        os.kill(os.getpid(), number)

checkpoint.Checkpoint.save = save_and_end
cli.main()
"""
"""Runs the command line, and sends itself a signal after a number of checkpoints."""


class Coloured(NamedTuple):
    """A folder with pictures in one colour each, a table of captions, and a program that runs the command on them."""

    folder: Path
    tune: Callable[..., CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory, with_torch: Warm, small_clip: Path) -> Coloured:
    folder = tmp_path_factory.mktemp("coloured")
    rng = np.random.default_rng(0)
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "caption"))
        for i in range(60):
            name, colour = f"{i}.png", COLOURS[i % len(COLOURS)]
            pixels = np.asarray(Image.new("RGB", (70, 64), colour)).astype(int) + rng.integers(-40, 40, (64, 70, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            rows.writerow((name, f"a {colour} thing"))
    program = folder / "stopped.py"
    program.write_text(STOPPED)

    def tune(
        *options: str | Path, at: int = 0, number: int = signal.SIGKILL, env: Mapping[str, str] | None = None
    ) -> CompletedProcess[bytes]:
        arguments = ["tune", "captions.csv", "--model", small_clip, "--method", "lora", *options]
        return with_torch.run([program, str(at), str(int(number)), *arguments], cwd=folder, env=env)

    return Coloured(folder, tune)


@pytest.fixture(scope="module")
def tuned(coloured: Coloured) -> tuple[Path, dict[str, Any], str]:
    """The folder of a model that was tuned in one go, what was printed, and what was said."""
    done = coloured.tune("--out", "whole", "--json")
    assert done.returncode == 0, done.stderr.decode()
    return coloured.folder / "whole", json.loads(done.stdout), done.stderr.decode()


def test_it_is_a_plain_model_whose_layers_differ(tuned: tuple[Path, dict[str, Any], str], small_clip: Path) -> None:
    out, report, said = tuned
    assert (report["method"], report["better"], report["same_images"]) == ("lora", True, False)
    assert report["base"]["fingerprint"] == fingerprint(small_clip)
    of = {(one["images"], one["metric"]): one for one in report["measures"]}
    assert of["test", "mrr"]["before"] < of["test", "mrr"]["after"]
    assert json.loads((out / "tuning.json").read_text("utf-8")) == {
        "fingerprint": fingerprint(out),
        "seed": 0,
        **report,
    }
    base, model = (AutoModel.from_pretrained(folder, dtype=torch.float32) for folder in (small_clip, out))
    others = model.state_dict()
    changed = {name for name, value in base.state_dict().items() if not torch.equal(value, others[name])}
    ends = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")
    layers = {name for name in others if name.endswith(ends)}
    assert changed == layers | {"text_projection.weight"}  # captions that several pictures share moved further
    assert "There is no control set" in said
    assert not list(out.parent.glob(".*.tuning"))


def test_the_command_that_it_names_makes_an_index(
    tuned: tuple[Path, dict[str, Any], str], coloured: Coloured, run: Run, tmp_path: Path
) -> None:
    out, _, said = tuned
    last = said.splitlines()[-1]
    assert last.startswith("Wrote whole. Its vectors of pictures are new, so it needs an index of its own: ")
    words = shlex.split(last.rpartition(": ")[2])
    assert words == ["clipsearch", "index", "PATH", "--model", "whole", "--index", "whole-index"]
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        shutil.copy(coloured.folder / f"{i}.png", tmp_path / "pictures")
    index(run, "pictures", "--model", out, "--index", tmp_path / "own", cwd=tmp_path)
    done = run("query", "a red thing", "--index", tmp_path / "own", "--json", "--verbose", cwd=tmp_path)
    assert len(json.loads(done.stdout)) == 10
    assert f"model: {out}" in done.stderr.decode()


def test_a_stopped_run_goes_on_and_comes_to_the_same(
    tuned: tuple[Path, dict[str, Any], str], coloured: Coloured
) -> None:
    work = coloured.folder / ".parts.tuning"
    done = coloured.tune("--out", "parts", at=4, number=signal.SIGINT)
    assert done.returncode == 130
    assert "Stopped after step 4 of 20; the same command goes on from there." in done.stderr.decode()
    other = coloured.tune("--out", "parts", "--seed", "1")
    assert other.returncode == 2
    assert f"{work} has the checkpoint of a run with other options" in other.stderr.decode()
    done = coloured.tune("--out", "parts", "--verbose", at=6)
    assert done.returncode == -signal.SIGKILL
    assert "training: goes on after step 4 of 20" in done.stderr.decode()
    assert sorted(path.name for path in work.iterdir() if path.name != "lock") == [
        *("checkpoint.safetensors", "pictures.bin", "pictures.json")
    ]
    assert not (coloured.folder / "parts").exists()
    done = coloured.tune("--out", "parts", "--verbose", "--json")
    assert done.returncode == 0, done.stderr.decode()
    (later,) = re.findall(r"training: goes on after step (\d+) of 20", done.stderr.decode())
    assert 4 < int(later) <= 13
    assert json.loads(done.stdout) == tuned[1]
    weights = (coloured.folder / "parts" / "model.safetensors").read_bytes()
    assert weights == (tuned[0] / "model.safetensors").read_bytes()
    assert not work.exists()


def test_images_keep_their_vectors_if_only_texts_are_trained(
    coloured: Coloured, small_clip: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        shutil.copy(coloured.folder / f"{i}.png", tmp_path / "pictures")
    done = coloured.tune("--out", tmp_path / "texts", "--towers", "text", "--json")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["same_images"]
    assert f"An index of {small_clip} answers it as it is" in done.stderr.decode()
    base, model = (AutoModel.from_pretrained(folder).state_dict() for folder in (small_clip, tmp_path / "texts"))
    assert all(name.startswith("text_") for name, value in base.items() if not torch.equal(value, model[name]))
    index(run, "pictures", "--model", shutil.copytree(small_clip, tmp_path / "base"), cwd=tmp_path)
    scores = []
    for options in ((), ("--model", "texts")):
        if options:
            shutil.rmtree(tmp_path / "base")  # the model does not need it
        done = run("query", "a red thing", *options, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        scores.append({hit["path"]: hit["score"] for hit in json.loads(done.stdout)})
    assert scores[0] != scores[1]


def test_nothing_is_left_of_a_run_that_cannot_begin(coloured: Coloured, tmp_path: Path) -> None:
    (coloured.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    rows = (coloured.folder / "captions.csv").read_text("utf-8")
    captions = coloured.folder / "with-broken.csv"
    captions.write_text(rows.replace("59.png", "broken.png"))
    done = coloured.tune("--out", tmp_path / "out", "--control", captions)
    assert done.returncode == 2
    assert f"Cannot read {coloured.folder / 'broken.png'}" in done.stderr.decode()
    assert "Leave its line out" in done.stderr.decode()
    assert not list(tmp_path.iterdir())


def test_without_peft_it_says_what_to_type(coloured: Coloured, with_torch: Warm) -> None:
    program = coloured.folder / "without.py"
    program.write_text("import sys\nsys.modules['peft'] = None\nfrom clipsearch import cli\ncli.main()\n")
    arguments = ["tune", "captions.csv", "--out", "none", "--towers", "image"]
    done = with_torch.run([program, *arguments], cwd=coloured.folder)
    assert done.returncode == 2
    assert (
        done.stderr.decode()
        .strip()
        .endswith("Weights are trained with peft, which is not installed. Install it: pip install 'clipsearch[tune]'")
    )


def test_two_runs_do_not_make_the_same_folder(tmp_path: Path) -> None:
    with (
        working_folder(tmp_path / "out"),
        pytest.raises(InputError, match="Another clipsearch is making"),
        working_folder(tmp_path / "out"),
    ):
        pass


# -- towers and training -------------------------------------------------------------------------------------------


def towers_of(folder: Path, which: str = "both", **options: Any) -> Towers:  # noqa: ANN401  (of an encoder)
    return Towers(locate(str(folder)), EncoderOptions(**options), which, seed=0)


def material(towers: Towers, count: int = 12) -> Material:
    """Random images; texts 0 and 1 are of two images each, and image 5 has two texts. The last third is known."""
    rng = np.random.default_rng(1)
    side = towers.size[0]
    images = Pixels(rng.integers(0, 255, (count, side, side, 3), np.uint8), np.arange(count))
    texts: list[Sequence[int]] = [[0, *rng.integers(3, 200, 4).tolist(), 1] for _ in range(count)]
    own = [(0, 0), (0, 1), (1, 2), (1, 3), (4, 4), (5, 5), (6, 5), (6, 6)]
    new, known = [(7, 0), (7, 6)], [(i, i) for i in range(8, count)]
    words: list[Sequence[int]] = [[0, 9, 1], [0, 11, 12, 1]]
    return Material(texts, images, np.array(own), np.array(new), np.array(known), words)


def training_of(towers: Towers, folder: Path, epochs: int = 3) -> Training:
    folder.mkdir(exist_ok=True)
    return Training(towers, material(towers), Checkpoint(folder, {}), epochs=epochs, seed=0)


def slopes(towers: Towers) -> npt.NDArray[np.float32]:
    return np.concatenate([one.grad.flatten().numpy() for one in towers.parameters.values() if one.grad is not None])


@pytest.mark.parametrize("which", ["text", "image", "both"])
def test_gradients_do_not_depend_on_how_much_is_computed_at_once(which: str, small_clip: Path, tmp_path: Path) -> None:
    found = []
    for most in (100, 3):
        towers = towers_of(small_clip, which)
        with torch.no_grad():
            for value in towers.parameters.values():  # or half of the gradients would be zero
                value.add_(torch.full_like(value, 0.01))
        towers.most_images = towers.most_texts = most
        training = training_of(towers, tmp_path)
        training._backward(training._drawn())
        found.append(slopes(towers))
    assert np.abs(found[0]).max() > 1e-4
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-6)


def test_the_loss_is_that_of_its_definition(small_clip: Path, tmp_path: Path) -> None:
    towers = towers_of(small_clip)
    training = training_of(towers, tmp_path)
    given = training._material
    pairs = np.concatenate([given.own, given.new, given.known])
    batch = together(pairs, pairs)
    rng = np.random.default_rng(2)
    ids = np.concatenate([batch.texts, len(given.texts) + np.arange(2)])
    texts, images = (
        torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((count, 32)).astype(np.float32)), dim=-1)
        for count in (len(ids), len(batch.images))
    )
    right = {tuple(pair) for pair in pairs.tolist()}
    scale = training_module._SHARPNESS * towers.scale
    logits = (scale * texts[: len(batch.texts)] @ images.T).numpy().astype(np.float64)
    total = 0.0
    for text, image in right:
        row, column = batch.texts.tolist().index(text), batch.images.tolist().index(image)
        by_text = [logits[row, j] for j, i in enumerate(batch.images) if (text, i) not in right or i == image]
        by_image = [logits[j, column] for j, t in enumerate(batch.texts) if (t, image) not in right or t == text]
        total += np.log(np.exp(by_text).sum()) + np.log(np.exp(by_image).sum()) - 2 * logits[row, column]
    known = [i for i in range(len(batch.texts)) if batch.texts[i] >= 8]
    stay = [*known, len(batch.texts), len(batch.texts) + 1]
    off = ((texts - training._old_texts[ids])[stay].square().sum(1).mean()) + (
        (images - training._old_images[batch.images])[batch.images >= 8].square().sum(1).mean()
    )
    wanted = total / 2 / len(right) + training_module._HOLD * float(off)
    assert float(training._loss_of(texts, images, batch, ids)) == pytest.approx(wanted, rel=1e-4)


def test_the_best_weights_are_kept_and_a_training_ends_that_gains_nothing(small_clip: Path, tmp_path: Path) -> None:
    towers = towers_of(small_clip)
    scores = iter([0.1, 0.3, 0.6, *[0.2] * 50])
    kept: list[npt.NDArray[np.float32]] = []
    steps: list[Step] = []

    def evaluate() -> Score:
        kept.append(np.concatenate([one.detach().flatten().numpy() for one in towers.parameters.values()]))
        return Score(next(scores), 0.0, 0.0)

    training = training_of(towers, tmp_path, epochs=40)
    training.run(evaluate, steps.append)
    assert len(kept) == 3 + 5
    assert [step.done for step in steps] == list(range(1, 15))
    now = np.concatenate([one.detach().flatten().numpy() for one in towers.parameters.values()])
    assert (now == kept[2]).all()
    assert (now != kept[-1]).any()
    assert steps[-1].best == Score(0.6, 0.0, 0.0)


@pytest.mark.parametrize("family", ["siglip", "siglip2-fixed", "metaclip_2"])
def test_weights_are_those_of_the_adapted_model(family: str, tmp_path: Path) -> None:
    folder = families.make(family, tmp_path / "base")
    towers = towers_of(folder)
    training = training_of(towers, tmp_path / "work")
    for _ in range(3):
        assert training.step()
    towers.mix(0.5)
    texts, pixels = training._material.texts[:4], training._material.images
    from clipsearch.models.in_numpy.changed_weights import with_changed_weights

    (tmp_path / "new").mkdir()
    with_changed_weights(locate(str(folder)), towers.changes(), tmp_path / "new")
    plain = towers_of(tmp_path / "new")
    before = towers_of(folder)
    for embed, given in ((Towers.all_texts, texts), (Towers.all_images, pixels)):
        wanted = embed(towers, given)  # type: ignore[arg-type]
        np.testing.assert_allclose(embed(plain, given), wanted, atol=2e-5)  # type: ignore[arg-type]
        assert np.abs(embed(before, given) - wanted).max() > 1e-3  # type: ignore[arg-type]
    embedder = Embedder(locate(str(folder)))
    words = ["a dog", "snow"]
    ids = [embedder.tokenize(word).ids for word in words]
    np.testing.assert_allclose(before.all_texts(ids), embedder.embed_texts(words), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("siglip2", InputError, "images of any proportions"),
        ("chinese_clip", ModelError, "text tower is neither CLIP's nor SigLIP's"),
        ("open_clip", ModelError, "Save the model with `save_pretrained`"),
        ("fp16", InputError, "in fp32 or bf16"),
    ],
)
def test_what_cannot_be_trained_is_said(
    kind: str, error: type[ClipsearchError], said: str, small_clip: Path, tmp_path: Path
) -> None:
    folder = small_clip if kind in ("fp16", "open_clip") else families.make(kind, tmp_path / "model")
    files = locate(str(folder))
    if kind == "open_clip":
        files = replace(files, layout="open_clip")
    with pytest.raises(error, match=said):
        Towers(files, EncoderOptions(precision="fp16" if kind == "fp16" else "auto"), "both", seed=0)


def test_bf16_is_close(small_clip: Path) -> None:
    """As it is computed where a device is fast with it; the adapters themselves stay in fp32."""
    one, other = towers_of(small_clip), towers_of(small_clip, precision="bf16")
    given = material(one)
    for embed, what in ((Towers.all_texts, given.texts), (Towers.all_images, given.images)):
        found = [embed(towers, what) for towers in (one, other)]  # type: ignore[arg-type]
        assert (found[0] != found[1]).any()
        assert (found[0] * found[1]).sum(1).min() > 0.99
    assert all(value.dtype == torch.float32 for value in other.parameters.values())


def test_picturebook_is_read_in_one_thread() -> None:
    towers_of(PICTUREBOOK)
    assert torch.get_num_threads() == 1
