"""Pictures made for a text: the model finds them closer, they repeat, and SVG is what was drawn."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import families
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import SAMPLES, Run
from PIL import Image, ImageDraw
from terminal import shown_on_a_terminal
from transformers import AutoModel
from warm import Begun, Warm

import clipsearch
from clipsearch.errors import InputError
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.search.embedder import Embedder
from clipsearch.tasks.imagining.ascent import Ascent
from clipsearch.tasks.imagining.strokes import StrokeCanvas
from clipsearch.tasks.imagining.views import views

TEXT = "a red car"
MODEL = ("--model", "picturebook")
STYLES = ["pixels", "strokes"]
Levels = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def model() -> Embedder:
    return clipsearch.load_model("picturebook")


def ascent(
    model: Embedder, *texts: str, style: str = "pixels", seed: int = 0, start: Image.Image | None = None
) -> Ascent:
    wanted, *unwanted = model.embed_texts(texts)
    return Ascent(model.images_in_torch(), wanted, unwanted, style=style, seed=seed, start=start)


def climbed(model: Embedder, *texts: str, steps: int = 12, style: str = "pixels", seed: int = 0) -> Image.Image:
    one = ascent(model, *texts, style=style, seed=seed)
    for _ in one.climb(steps):
        pass
    return one.picture(96)


def levels(path: Path, side: int = 64) -> Levels:
    """(side, side, 3) levels of a picture."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((side, side)), np.float32)


def cosine(model: Embedder, picture: Image.Image, text: str) -> float:
    return float((model.embed_images([picture]) @ model.embed_texts([text]).T)[0, 0])


@pytest.mark.parametrize("style", STYLES)
def test_the_score_rises(style: str, model: Embedder) -> None:
    one = ascent(model, TEXT, style=style)
    before = cosine(model, one.picture(96), TEXT)
    scores = [step.score for step in one.climb(15)]
    after = cosine(model, one.picture(96), TEXT)
    assert after > before + 0.2
    assert np.mean(scores[-3:]) > np.mean(scores[:3]) + 0.1


@pytest.mark.parametrize("style", STYLES)
def test_a_seed_repeats_itself_and_another_differs(style: str, model: Embedder) -> None:
    one, same, other = (climbed(model, TEXT, style=style, seed=seed, steps=4) for seed in (3, 3, 4))
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != other.tobytes()


def test_what_is_unwanted_fits_less(model: Embedder) -> None:
    unwanted = "a red car in the city"
    without, against = climbed(model, TEXT), climbed(model, TEXT, unwanted)
    assert cosine(model, against, unwanted) < cosine(model, without, unwanted) - 0.02


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_gradients_are_those_of_transformers(family: str, tmp_path: Path, small_clip: Path) -> None:
    folder = small_clip if family == "clip" else families.make(family, tmp_path / "model")
    theirs: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    with Embedder(ModelFiles("test", folder, None), options=EncoderOptions(device="cpu", precision="fp32")) as opened:
        encoder = opened.images_in_torch()
    colours = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    direction = torch.randn(encoder.embed_colours(colours).shape[1], generator=torch.Generator().manual_seed(1))
    (encoder.embed_colours(colours) @ direction).sum().backward()  # type: ignore[no-untyped-call]
    ours, colours.grad = colours.grad, None
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (encoder.preprocessing.mean, encoder.preprocessing.std))
    vectors = theirs.get_image_features(pixel_values=(colours - mean) / std).pooler_output
    (torch.nn.functional.normalize(vectors, dim=-1) @ direction).sum().backward()  # type: ignore[no-untyped-call]
    assert ours is not None
    torch.testing.assert_close(ours, colours.grad, atol=1e-5, rtol=1e-3)


def test_looks_are_of_the_picture_and_differ() -> None:
    columns = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    looks = views(columns, 32, 8, noise=0, random=torch.Generator().manual_seed(0))
    assert looks.shape == (8, 3, 32, 32)
    assert 0 <= float(looks.min()) < 0.3
    assert 0.7 < float(looks.max()) <= 1
    assert len({float(look.mean()) for look in looks}) == 8
    # Nothing is upside down or mirrored: to the right it gets lighter.
    assert bool((looks.mean(dim=(1, 2)).diff(dim=1)[:, 2:-2] > 0).all())


def drawn_by_pillow(svg: str, side: int) -> Levels:
    """(side, side, 3) levels of an SVG file of curves, drawn in four times the size and reduced."""
    times = 4
    root = ET.fromstring(svg)  # noqa: S314  (our own)
    space = "{http://www.w3.org/2000/svg}"
    assert root.get("viewBox") == f"0 0 {side} {side}"
    ground = root.find(f"{space}rect")
    assert ground is not None
    canvas = Image.new("RGB", (side * times, side * times), str(ground.get("fill")))
    for path in root.iter(f"{space}path"):
        numbers = [float(one) for one in re.findall(r"-?[\d.]+", str(path.get("d")))]
        points = np.array(numbers).reshape(4, 2) * times
        t = np.linspace(0, 1, 200)[:, np.newaxis]
        curve = (1 - t) ** 3 * points[0] + 3 * t * (1 - t) ** 2 * points[1] + 3 * t**2 * (1 - t) * points[2]
        curve += t**3 * points[3]
        radius = float(str(path.get("stroke-width"))) * times / 2 - 0.5  # Pillow draws the edge, too
        mask = Image.new("L", canvas.size)
        pen = ImageDraw.Draw(mask)
        for x, y in curve:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        opacity = float(str(path.get("stroke-opacity")))
        canvas.paste(str(path.get("stroke")), mask=mask.point(lambda level, opacity=opacity: round(level * opacity)))
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float32)


@pytest.fixture(scope="module")
def strokes(model: Embedder) -> Ascent:
    """Strokes after some steps."""
    one = ascent(model, TEXT, style="strokes")
    for _ in one.climb(3):
        pass
    return one


@pytest.mark.parametrize("side", [128, 191, 256])
def test_svg_renders_to_the_picture(side: int, strokes: Ascent) -> None:
    picture = np.asarray(strokes.picture(side), np.float32)
    svg = strokes.svg(side)
    assert svg
    difference = np.abs(drawn_by_pillow(svg, side) - picture)
    assert difference.mean() < 2.5  # of 255; edges are drawn in another way
    assert (difference.max(axis=2) > 40).mean() < 0.01


def test_strokes_can_be_made_from_a_picture(model: Embedder) -> None:
    blue = Image.new("RGB", (300, 200), "blue")
    for style in STYLES:
        red, _, bluish = np.asarray(ascent(model, TEXT, style=style, start=blue).picture(96)).mean(axis=(0, 1))
        assert bluish > 200
        assert red < 60


def test_soft_strokes_have_gradients_everywhere() -> None:
    canvas = StrokeCanvas(96, torch.device("cpu"), torch.Generator().manual_seed(0), None)
    canvas.render().square().sum().backward()  # type: ignore[no-untyped-call]
    for group in canvas.parameters():
        (values,) = group["params"]
        assert torch.isfinite(values.grad).all()
        assert (values.grad != 0).any()


def test_a_model_of_any_proportions_is_refused(tmp_path: Path) -> None:
    with (
        Embedder(ModelFiles("test", families.make("siglip2", tmp_path / "model"), None)) as embedder,
        pytest.raises(InputError, match="proportions"),
    ):
        ascent(embedder, TEXT)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_picture_strokes_and_frames(run: Run, sample_index: Path, tmp_path: Path) -> None:
    options = (
        "--style",
        "strokes",
        "--steps",
        "4",
        "--size",
        "128",
        "--frames",
        "way",
        "--every",
        "2",
        "--not",
        "snow",
    )
    env = {"CLIPSEARCH_INDEX": str(sample_index)}
    done = run("imagine", TEXT, "-o", "car.png", *options, "--not", "snow", "--json", *MODEL, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr.decode()
    said = json.loads(done.stdout)
    assert (said["picture"], said["svg"], said["text"], said["steps"]) == ("car.png", "car.svg", TEXT, 4)
    assert sorted(path.name for path in (tmp_path / "way").iterdir()) == ["0.png", "2.png", "4.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["car.png", "car.svg", "way"]
    with Image.open(tmp_path / "car.png") as picture:
        assert (picture.size, picture.info["Title"]) == ((128, 128), TEXT)
    assert (tmp_path / "way" / "4.png").read_bytes() == (tmp_path / "car.png").read_bytes()
    # What it says is what the other commands say of the file.
    scored = run("score", "car.png", "--text", TEXT, "--text", "snow", "--json", *MODEL, cwd=tmp_path)
    assert [said["score"], said["unwanted"][0]["score"]] == pytest.approx(
        [one["score"] for one in json.loads(scored.stdout)], abs=1e-3
    )
    similar = run("similar", "car.png", "-k", "3", "--json", "--index", sample_index, cwd=tmp_path)
    assert [hit["path"] for hit in said["closest"]] == [hit["path"] for hit in json.loads(similar.stdout)]
    # An earlier picture is replaced.
    again = run("imagine", TEXT, "-o", "car.png", "--steps", "1", "--size", "64", *MODEL, cwd=tmp_path)
    assert again.returncode == 0, again.stderr.decode()
    assert again.stdout.decode().splitlines()[0].startswith("Wrote car.png after 1 steps")
    with Image.open(tmp_path / "car.png") as picture:
        assert picture.size == (64, 64)
        picture.load()


def test_a_picture_can_be_begun_with_another(run: Run, tmp_path: Path) -> None:
    begun = SAMPLES / "dogs" / "dog_1.png"
    done = run(
        *("imagine", "a dog", "-o", "x.png", "--steps", "1", "--size", "192", "--init", begun, *MODEL), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr.decode()
    assert np.abs(levels(begun, 192) - levels(tmp_path / "x.png", 192)).mean() < 20


@pytest.mark.parametrize(
    "arguments",
    [
        [TEXT, "-o", "x.jpg"],
        [TEXT, "-o", "nowhere/x.png"],
        [TEXT, "-o", "foreign.png"],
        [TEXT, "-o", "x.png", "--steps", "0"],
        [TEXT, "-o", "x.png", "--size", "10"],
        [TEXT, "-o", "x.png", "--init", "nowhere.png"],
        [TEXT, "-o", "x.png", "--init", "text.png"],
        [TEXT, "-o", "x.png", "--frames", "full"],
        [TEXT, "-o", "x.png", "--not", " "],
        [" ", "-o", "x.png"],
        [TEXT, "-o", "x.png", "--engine", "numpy"],
        [TEXT, "-o", "text.png", "--style", "strokes"],
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_writes_nothing(arguments: list[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (9, 9)).save(tmp_path / "foreign.png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = run("imagine", *arguments, *MODEL, cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1), done.stderr.decode()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def started(with_torch: Warm, folder: Path) -> Begun:
    """A long run whose first frames are there."""
    options = ("--steps", "100000", "--size", "64", "--frames", "way", "--every", "1")
    process = with_torch.begin(["-m", "clipsearch", "imagine", TEXT, "-o", "car.png", *options, *MODEL], cwd=folder)
    while not (folder / "way").is_dir() or len(list((folder / "way").glob("[0-9]*.png"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def test_an_interrupt_writes_what_there_is(with_torch: Warm, tmp_path: Path) -> None:
    with started(with_torch, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=120)
    assert process.returncode == 130, said.decode()
    assert said.decode().splitlines()[-1] == "Interrupted."
    steps = int(re.findall(rb"after (\d+) steps", out)[0])
    assert 2 <= steps < 100000
    with Image.open(tmp_path / "car.png") as picture:
        assert picture.size == (64, 64)
        picture.load()


def test_a_kill_leaves_nothing_half_written(with_torch: Warm, tmp_path: Path) -> None:
    with started(with_torch, tmp_path) as process:
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "car.png").exists()
    for path in (tmp_path / "way").glob("[0-9]*.png"):
        levels(path)


def test_progress_shows_steps_and_score(with_torch: Warm, tmp_path: Path) -> None:
    arguments = ("imagine", TEXT, "-o", "car.png", "--steps", "3", "--size", "64", *MODEL)
    shown = shown_on_a_terminal(["-m", "clipsearch", *arguments], tmp_path, with_torch, columns=120)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"Imagining .* 3/3 steps.* cosine 0\.\d{3}", plain)
