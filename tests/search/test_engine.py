"""A few images are embedded in NumPy and many in torch, with the same vectors; a run that turns out long hands over."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import families
import numpy as np
import numpy.typing as npt
import pytest
from conftest import PICTUREBOOK, SAMPLES, Run, index, paint
from fresh import COMMAND, HEAVY, loaded_by
from PIL import Image
from warm import Warm

from clipsearch.api import build_index
from clipsearch.errors import ModelError, UnreadableImageError
from clipsearch.images.finding import find_images
from clipsearch.index.reading import Store
from clipsearch.models.disk.files import ModelFiles, fingerprint
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.models.in_numpy import image_cache
from clipsearch.models.in_numpy.image_tower import ImageTower
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.search import engine
from clipsearch.search.embedder import Embedder
from clipsearch.search.engine import ImageEngine

FILES = ModelFiles("picturebook", PICTUREBOOK, None)
DOGS = sorted(find_images(os.fsencode(SAMPLES / "dogs")))
Vectors = npt.NDArray[np.float32]


def vectors(embedder: Embedder) -> Vectors:
    found = [image.vector for image in embedder.images(DOGS)]
    return np.stack([vector for vector in found if not isinstance(vector, UnreadableImageError)])


@pytest.fixture
def in_numpy() -> ImageTower:
    image_cache.save(fingerprint(PICTUREBOOK), FILES)
    tower = image_cache.load(fingerprint(PICTUREBOOK))
    assert tower is not None
    return tower


LOOK_AT_ONE = [
    ["similar", "new.png"],
    ["query", "a dog", "--image", "new.png"],
    ["score", "new.png", "--text", "a dog"],
    ["classify", "new.png", "--label", "a dog", "--label", "a cat"],
    ["caption-rank", "new.png", "--text", "a dog"],
    ["embed", "new.png", "--out", "new.npy"],
]


@pytest.fixture(scope="module")
def siglip_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of one image, made with a small SigLIP, whose text tower is in the cache."""
    folder = tmp_path_factory.mktemp("siglip")
    model = families.make("siglip2-fixed", folder / "model")
    paint(folder / "images" / "one.png", "teal")
    with build_index(folder / "images", folder / ".clipsearch", model=str(model)) as made:
        assert len(made.search("a dog")) == 1
    return folder


@pytest.mark.parametrize("family", ["sample_index", "siglip_index"], ids=["CLIP", "SigLIP"])
@pytest.mark.parametrize("arguments", LOOK_AT_ONE, ids=lambda arguments: arguments[0])
def test_commands_that_look_at_one_new_image_load_no_model_library(
    arguments: list[str], family: str, request: pytest.FixtureRequest, tmp_path: Path, environment: dict[str, str]
) -> None:
    paint(tmp_path / "new.png", "#8040c0")
    named = {"CLIPSEARCH_INDEX": str(request.getfixturevalue(family) / ".clipsearch")}
    loaded = loaded_by(COMMAND.format(arguments=["clipsearch", *arguments]), environment | named, tmp_path)
    assert "PIL" in loaded  # it was really looked at
    assert not loaded & (HEAVY - {"PIL", "csv", "html"})


def test_both_engines_give_the_same_vectors() -> None:
    with (
        Embedder(FILES, options=EncoderOptions(engine="numpy")) as one,
        Embedder(FILES, options=EncoderOptions(engine="torch")) as two,
    ):
        np.testing.assert_allclose(vectors(one), vectors(two), atol=1e-5, rtol=0)
        assert (one.engine, two.engine) == ("numpy", "torch")


@pytest.mark.parametrize("given", [EncoderOptions(), EncoderOptions("cpu"), EncoderOptions(precision="fp32")])
def test_few_images_take_numpy_and_many_torch(given: EncoderOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    with Embedder(FILES, options=given) as embedder:
        vectors(embedder)
        assert embedder.engine == "numpy"
    monkeypatch.setattr(engine, "START_OF_TORCH", 1e-9)
    with Embedder(FILES, options=given) as embedder:
        vectors(embedder)
        assert embedder.engine == "torch"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_numbers_take_torch(precision: str) -> None:
    with Embedder(FILES, options=EncoderOptions(precision=precision)) as embedder:
        assert embedder.engine == "torch"
    with (
        Embedder(FILES, options=EncoderOptions(precision=precision, engine="numpy")) as embedder,
        pytest.raises(ModelError, match="fp32"),
    ):
        _ = embedder.engine


def test_a_model_that_numpy_cannot_compute_takes_torch(tmp_path: Path) -> None:
    files = ModelFiles("test", families.make("groupvit", tmp_path / "model"), None)
    with Embedder(files) as embedder:
        assert embedder.engine == "torch"
    in_numpy = EncoderOptions(engine="numpy")
    with Embedder(files, options=in_numpy) as embedder, pytest.raises(ModelError, match="'test'"):
        _ = embedder.engine


def test_a_cache_that_cannot_be_written_takes_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path / "cache"))
    with Embedder(FILES) as embedder:
        assert embedder.engine == "torch"


def test_the_more_work_an_image_is_the_fewer_are_left_to_numpy() -> None:
    small, large = (engine.most_images(work) for work in (10**9, 10**11))
    assert small > 10 * large > 0
    assert engine.most_images(10**13) == 0


# -- handing over --------------------------------------------------------------------------------------------------


class Counting:
    """An engine half that counts what it is given."""

    def __init__(self, half: Encoder | ImageTower) -> None:
        self.half = half
        self.seen = 0
        self.real = half.encode_images
        half.encode_images = self.encode  # type: ignore[method-assign]

    def encode(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> Vectors:
        self.seen += len(pixels)
        return self.real(pixels)


def until_torch(handing_over: ImageEngine) -> None:
    deadline = time.monotonic() + 60
    while handing_over.name == "numpy":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_hands_over_in_its_middle_and_embeds_no_image_twice(in_numpy: ImageTower) -> None:
    encoder = Encoder(FILES, "cpu")
    rng = np.random.default_rng(0)
    pixels = [in_numpy.preprocessing(noise(rng)) for _ in range(12)]
    alone = encoder.encode_images(pixels)
    first, second = Counting(in_numpy), Counting(encoder)
    handing_over = ImageEngine(in_numpy, lambda: encoder)
    handing_over.most = 4
    parts = [handing_over.encode_images(pixels[:4])]
    assert handing_over.name == "numpy"
    parts.append(handing_over.encode_images(pixels[4:6]))  # more than thought: torch is loaded meanwhile
    until_torch(handing_over)
    assert handing_over.batch_size == encoder.batch_size
    parts.append(handing_over.encode_images(pixels[6:]))
    assert first.seen + second.seen == len(pixels)
    assert second.seen >= 6
    np.testing.assert_allclose(np.concatenate(parts), alone, atol=1e-5, rtol=0)


def noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (100, 120, 3), np.uint8))


def test_where_torch_cannot_be_loaded_numpy_goes_on(in_numpy: ImageTower, caplog: pytest.LogCaptureFixture) -> None:
    def load() -> Encoder:
        raise ModelError("Memory is short.")

    handing_over = ImageEngine(in_numpy, load)
    handing_over.most = 0
    blank = np.full((*(in_numpy.preprocessing.seen or ()), 3), 128, np.uint8)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(handing_over.encode_images([blank])) == 1
            time.sleep(0.05)
    (record,) = caplog.records
    assert "Memory is short." in record.getMessage()
    assert handing_over.name == "numpy"


@pytest.mark.parametrize("command", ["similar", "score"])
def test_the_engine_can_be_chosen(command: str, sample_index: Path, tmp_path: Path, run: Run) -> None:
    new = paint(tmp_path / "new.png", "#8040c0")
    more = ["--text", "a dog"] if command == "score" else []
    done = run(command, new, *more, "--engine", "torch", "-v", cwd=sample_index)
    assert done.returncode == 0
    assert b"engine: torch (as asked for)" in done.stderr
    done = run(command, new, *more, "--engine", "numpy", "-v", cwd=sample_index)
    assert b"engine: numpy (as asked for)" in done.stderr


def test_an_engine_that_cannot_do_it_is_one_line_with_a_way_out(sample_index: Path, tmp_path: Path, run: Run) -> None:
    new = paint(tmp_path / "new.png", "#8040c0")
    done = run("score", new, "--text", "a", "--engine", "numpy", "--precision", "bf16", cwd=sample_index)
    (said,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (2, b"")
    assert said.endswith("it computes on the processor in fp32 only. Leave --engine out.")


# -- index ---------------------------------------------------------------------------------------------------------

HANDING_OVER = """
import os, signal, sys
from clipsearch.index import run
from clipsearch.models.in_numpy.image_tower import ImageTower
from clipsearch.models.in_torch.image_encoder import ImageEncoder  # so torch is there soon
from clipsearch.search import engine
engine.START_OF_TORCH = 0.02
run.CHECKPOINT_SECONDS = 0.1
seen = {{"numpy": 0, "torch": 0}}
def count(name, kind):
    real = kind.encode_images
    def encode(self, pixels):
        vectors = real(self, pixels)
        seen[name] += len(pixels)
        if seen["torch"] > {killed_after}:
            os.kill(os.getpid(), signal.SIGKILL)
        return vectors
    kind.encode_images = encode
count("numpy", ImageTower)
count("torch", ImageEncoder)
from clipsearch.cli import run
sys.argv = ["clipsearch", "index", "images", "--model", "picturebook", "-v", "--json"]
code = run()
print(seen["numpy"], seen["torch"], file=sys.stderr)
sys.exit(code)
"""
NEW = 150


@pytest.fixture(scope="module")
def new_images(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder `images` of which nearly all is new; what is first is known to the index beside it."""
    folder = tmp_path_factory.mktemp("new") / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise(rng).save(folder / "known.png")
    index(run, "images", "--model", "picturebook", cwd=folder.parent)
    for number in range(40):
        shutil.copy(folder / "known.png", folder / f"a{number:02}.png")
    for number in range(NEW):
        noise(rng).save(folder / f"b{number:03}.png")
    return folder


def vectors_of(folder: Path) -> tuple[list[bytes], npt.NDArray[np.float16]]:
    """The paths in an index, and the vector of each."""
    with closing(Store.open(folder / ".clipsearch")) as store:
        assert store.is_whole()
        records = sorted(record for record in store.records() if record.row is not None)
        matrix = store.matrix()[0]
        paths = [os.path.basename(record.path) for record in records]
        return paths, np.stack([matrix[record.row] for record in records]).astype(np.float16)


@pytest.fixture(scope="module")
def of_one_engine(new_images: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> dict[str, Any]:
    """What the index holds that one engine alone makes."""
    made = {}
    for name in ("numpy", "torch"):
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(new_images, folder / "images")
        index(run, "images", "--model", "picturebook", "--engine", name, cwd=folder)
        made[name] = vectors_of(folder)
    return made


@pytest.mark.parametrize("killed_after", [NEW, 20])
def test_an_index_run_hands_over_and_makes_the_same_index_also_after_a_kill(
    *, killed_after: int, new_images: Path, of_one_engine: dict[str, Any], tmp_path: Path, run: Run, with_torch: Warm
) -> None:
    shutil.copytree(new_images.parent, tmp_path, dirs_exist_ok=True)
    program = tmp_path / "program.py"
    program.write_text(HANDING_OVER.format(killed_after=killed_after))
    done = with_torch.run([program], cwd=tmp_path)
    assert b"engine: numpy until torch is loaded" in done.stderr
    if killed_after == NEW:
        in_numpy, in_torch = map(int, done.stderr.split()[-2:])
        assert min(in_numpy, in_torch) > 0
        assert in_numpy + in_torch == NEW  # none twice
        assert json.loads(done.stdout)["engine"] == "torch"
    else:
        assert done.returncode == -signal.SIGKILL
        index(run, "images", cwd=tmp_path)
    paths, vectors = vectors_of(tmp_path)
    for others, wanted in of_one_engine.values():
        assert paths == others
        # Within 1e-5, they are the same numbers of 16 bits or neighbours.
        assert (np.abs(vectors - wanted) <= np.spacing(np.abs(wanted)) + np.float16(1e-5)).all()


TOO_HEAVY = {
    *("transformers", "huggingface_hub", "tokenizers", "scipy", "sklearn", "pandas", "torchvision", "accelerate"),
    *("sympy", "pydantic", "rich"),
}
"""Top-level modules that images in torch can do without, though some come with torch or transformers."""
WITHOUT_COMPILER = """
import sys
compiler = {"torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.fx.experimental.symbolic_shapes"}
assert not compiler & sys.modules.keys(), compiler & sys.modules.keys()
"""


@pytest.mark.usefixtures("sample_index")  # so that the text tower is in the cache
@pytest.mark.parametrize(("command", "family"), [("index", "picturebook"), ("embed", "siglip2_fixed")])
def test_torch_computes_images_without_transformers(
    command: str, family: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "images").mkdir()
    noise(np.random.default_rng(1)).save(tmp_path / "images" / "one.png")
    model = family if family == "picturebook" else str(getattr(families, family)(tmp_path / family))
    more = ["-q"] if command == "index" else ["--out", "x.npy"]
    arguments = ["clipsearch", command, "images", "--model", model, "--engine", "torch", *more]
    loaded = loaded_by(COMMAND.format(arguments=arguments) + WITHOUT_COMPILER, environment, tmp_path)
    assert "torch" in loaded
    assert not loaded & TOO_HEAVY


def test_index_embeds_few_images_without_a_model_library(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "images").mkdir()
    noise(np.random.default_rng(1)).save(tmp_path / "images" / "one.png")
    arguments = ["clipsearch", "index", "images", "--model", "picturebook", "-q"]
    loaded = loaded_by(COMMAND.format(arguments=arguments), environment, tmp_path)
    assert "PIL" in loaded
    assert not loaded & {"torch", "transformers", "huggingface_hub"}
    assert len(vectors_of(tmp_path)[0]) == 1


@pytest.mark.parametrize(("engine_asked_for", "reason"), [("numpy", "NumPy, as asked for"), ("torch", "small")])
def test_index_says_which_engine_it_was(engine_asked_for: str, reason: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "images").mkdir()
    noise(np.random.default_rng(1)).save(tmp_path / "images" / "one.png")
    arguments = ("--model", "picturebook", "--engine", engine_asked_for, "--json")
    summary = json.loads(run("index", "images", *arguments, cwd=tmp_path).stdout)
    assert summary["engine"] == engine_asked_for
    assert reason in summary["precision_reason"]
    assert json.loads(run("status", "--json", cwd=tmp_path).stdout)["engine"] == engine_asked_for


def test_many_expected_images_wait_for_torch(in_numpy: ImageTower) -> None:
    loaded = threading.Event()

    def load() -> Encoder:
        loaded.wait()
        return Encoder(FILES, "cpu")

    waiting = ImageEngine(in_numpy, load, expected=engine.most_images(in_numpy.work) + 1)
    assert waiting.is_loading
    loaded.set()
    blank = np.full((*(in_numpy.preprocessing.seen or ()), 3), 128, np.uint8)
    assert waiting.encode_images([blank]).shape == (1, in_numpy.dim)
    assert waiting.name == "torch"
    assert not waiting.is_loading
