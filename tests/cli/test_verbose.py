"""`--verbose` says what is used and why, on stderr and a line for each fact; without it nothing of that is heard."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PICTUREBOOK, SAMPLES, Run, make_clip, paint
from terminal import on_a_terminal
from tiny import MODEL, update
from warm import Warm

from clipsearch.api import load_model, open_index, pull_model
from clipsearch.cli.import_ import import_
from clipsearch.images.finding import find_images
from clipsearch.index.format import FOLDER
from clipsearch.index.reading import Store
from clipsearch.index.writing import Writer
from clipsearch.models.disk.files import ModelFiles, fingerprint
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.search.embedder import Embedder
from clipsearch.search.messages import BY_DEFAULT, model_used
from clipsearch.tasks.model_check import check_model

PB = ("--model", "picturebook")
BUNDLED = "model: picturebook (bundled with clipsearch)"
FINGERPRINT = f"fingerprint: {fingerprint(PICTUREBOOK)}"
KEYS = (
    "index",
    "model",
    "fingerprint",
    "texts",
    "images",
    "files",
    "device",
    "precision",
    "engine",
    "picture",
    "pictures",
)
IN_TORCH = EncoderOptions(device="cpu", engine="torch")
TEXT_TOWER = "texts: in the text tower, without torch, from "


class Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.INFO:
            self.messages.append(record.getMessage())


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What clipsearch logs for `--verbose`, as it comes."""
    handler, log = Messages(), logging.getLogger("clipsearch")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler.messages
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


def facts(said: bytes) -> list[str]:
    """The lines that `--verbose` adds."""
    lines = said.decode().splitlines()
    return [line for line in lines if line.partition(": ")[0] in KEYS]


def told(run: Run, *arguments: str | Path, cwd: Path) -> list[str]:
    """What a command says with `--verbose`; without it, it prints the same and says nothing of that."""
    plain, verbose = run(*arguments, cwd=cwd), run(*arguments, "-v", cwd=cwd)
    assert plain.returncode == verbose.returncode == 0, verbose.stderr.decode()
    assert plain.stdout == verbose.stdout
    assert facts(plain.stderr) == []
    lines = verbose.stderr.decode().splitlines()
    assert [line for line in lines if line not in facts(verbose.stderr)] == plain.stderr.decode().splitlines()
    return facts(verbose.stderr)


def keys(lines: Sequence[str]) -> list[str]:
    return [line.partition(": ")[0] for line in lines]


# -- commands --------------------------------------------------------------------------------------------------------


def test_a_query_tells_of_index_model_and_text_tower(sample_index: Path, run: Run) -> None:
    lines = told(run, "query", "a dog is sleeping", "-k", "1", cwd=sample_index)
    assert lines[:3] == [f"index: {sample_index / FOLDER}", f"{BUNDLED}, that of the index", FINGERPRINT]
    assert lines[3].startswith(TEXT_TOWER)
    assert Path(lines[3].removeprefix(TEXT_TOWER)).is_dir()
    assert len(lines) == 4


@pytest.mark.parametrize(
    "arguments", [("similar", "dogs/dog_0.webp"), ("query", "--image", "dogs/dog_0.webp")], ids=["similar", "query"]
)
def test_an_image_that_the_index_knows_is_said_to_need_no_model(
    sample_index: Path, run: Run, arguments: tuple[str, str]
) -> None:
    lines = told(run, *arguments[:-1], f"sample-images/{arguments[-1]}", cwd=sample_index)
    assert lines == [f"index: {sample_index / FOLDER}", "picture: known to the index, so it needs no model"]


def test_an_image_that_no_index_knows_tells_of_the_engine(
    tmp_path: Path, sample_index: Path, logged: list[str]
) -> None:
    new = paint(tmp_path / "new.png", "red")
    with open_index(sample_index) as index:
        index.similar(new)
    *told, images, engine = logged
    assert told == [f"index: {sample_index / FOLDER}", f"{BUNDLED}, that of the index", FINGERPRINT]
    assert images.startswith("images: in the image tower, without torch, from ")
    assert engine.startswith("engine: numpy (sooner for up to ")


def test_an_image_that_torch_embeds_tells_of_device_and_precision(
    tmp_path: Path, sample_index: Path, logged: list[str]
) -> None:
    new = paint(tmp_path / "new.png", "red")
    with Embedder(Store.open(sample_index / FOLDER), options=IN_TORCH) as embedder:
        embedder.image(new.read_bytes(), b"new.png")
    assert logged == [
        f"{BUNDLED}, that of the index",
        FINGERPRINT,
        "engine: torch (as asked for)",
        "device: cpu (as asked for)",
        "precision: fp32 (the model is small)",
    ]


def test_images_are_counted_that_an_index_knows(tmp_path: Path, sample_index: Path, run: Run) -> None:
    new = paint(tmp_path / "p" / "new.png", "red").parent
    arguments = ("score", new, "sample-images/dogs", "--text", "a dog", "--device", "cpu", "--precision", "bf16")
    done = run(*arguments, "-v", cwd=sample_index)
    lines = facts(done.stderr)
    assert keys(lines) == [
        *("index", "model", "fingerprint", "texts"),
        *("engine", "device", "precision", "pictures"),
    ]
    dogs = len(list((SAMPLES / "dogs").iterdir()))
    assert lines[4] == "engine: torch (NumPy computes on the processor and in fp32 only)"
    assert lines[5] == "device: cpu (as asked for)"
    assert lines[6].startswith("precision: bf16 (as asked for")
    assert lines[7] == f"pictures: {dogs} of {dogs + 1} known to the index"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["caption-rank", "sample-images/dogs/dog_0.webp", "-t", "a dog"], ["index", "model", "fingerprint", "texts"]),
        (["cluster", "-n", "2", "--label", "a dog"], ["index", "model", "fingerprint", "texts"]),
        (["classify", "--indexed", "-l", "dog", "-l", "cat"], ["index", "model", "fingerprint", "texts"]),
        (["tokens", "a dog"], ["index", "model", "fingerprint", "texts"]),
        (["embed", "sample-images/dogs", "-o", "{}/x.npy", "--force"], ["index", "model", "fingerprint", "pictures"]),
        (["eval", "sample-images/captions.csv"], ["index", "model", "fingerprint", "pictures", "texts"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_every_command_tells_what_it_uses(
    tmp_path: Path, sample_index: Path, run: Run, arguments: list[str], wanted: list[str]
) -> None:
    done = run(*(argument.format(tmp_path) for argument in arguments), "-v", cwd=sample_index)
    assert done.returncode == 0, done.stderr.decode()
    lines = facts(done.stderr)
    assert sorted(keys(lines)) == sorted(wanted)
    assert lines[0] == f"index: {sample_index / FOLDER}"


def test_index_tells_of_a_model_only_when_it_is_needed(pictures: Path, run: Run) -> None:
    folder = pictures.parent
    lines = facts(run("index", "pictures", *PB, "--verbose", cwd=folder).stderr)
    assert lines[:3] == [
        f"index: {folder / FOLDER} (to be made)",
        f"{BUNDLED}, as asked for",
        FINGERPRINT,
    ]
    assert keys(lines[3:]) == ["images", "engine"]
    assert lines[4].startswith("engine: numpy (sooner for ")
    assert facts(run("index", "-v", cwd=folder).stderr) == [
        f"index: {folder / FOLDER}",
        "model: picturebook, not loaded: there was nothing to embed",
    ]
    assert facts(run("index", cwd=folder).stderr) == []


def test_quiet_and_verbose_exclude_each_other(pictures: Path, run: Run) -> None:
    done = run("index", "pictures", *PB, "-q", "-v", cwd=pictures.parent)
    assert done.returncode == 2
    assert b"--quiet and --verbose" in done.stderr
    assert not (pictures.parent / FOLDER).exists()


def test_import_tells_which_file_named_the_model(
    tmp_path: Path, sample_index: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "v.npy"
    assert run("embed", sample_index / "sample-images" / "dogs", "-o", file, cwd=sample_index).returncode == 0
    monkeypatch.chdir(tmp_path)
    assert import_(file, tmp_path / "v.csv", verbose=True) == 0
    lines = facts(capsys.readouterr().err.encode())
    assert lines[:2] == [f"index: {tmp_path / FOLDER} (to be made)", f"{BUNDLED}, from {tmp_path / 'v.json'}"]
    assert keys(lines[2:]) == ["fingerprint", "images", "engine"]


# -- where it goes ---------------------------------------------------------------------------------------------------

LONG = "a dog " * 100


def test_the_library_warns_of_what_a_user_must_know_and_informs_of_the_rest(
    sample_index: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(sample_index)
    with caplog.at_level(logging.INFO, "clipsearch"), open_index() as index:
        index.search(LONG)
    assert {record.name.partition(".")[0] for record in caplog.records} == {"clipsearch"}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    infos = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    (warning,) = warnings
    assert "a dog a dog" in warning
    assert keys(infos) == ["index", "model", "fingerprint", "texts"]
    assert len(caplog.records) == len(warnings) + len(infos)


def test_each_line_is_said_once(sample_index: Path, run: Run) -> None:
    plain, verbose = (run("query", LONG, *also, cwd=sample_index).stderr.splitlines() for also in ((), ("-v",)))
    assert len(plain) == 1
    assert b"a dog a dog" in plain[0]
    assert [line for line in verbose if line not in plain] == [line.encode() for line in facts(b"\n".join(verbose))]
    assert len(set(verbose)) == len(verbose) == 5


def test_quiet_says_nothing_of_what_is_logged(pictures: Path, tmp_path: Path, run: Run) -> None:
    env = {"CLIPSEARCH_CACHE": str(tmp_path / "cache")}
    assert run("index", "pictures", *PB, cwd=pictures.parent, env=env).returncode == 0

    def said(*arguments: str) -> list[str]:
        """When the text tower is damaged, and there is something to embed."""
        (tower,) = (tmp_path / "cache").glob("text-towers-*/*/tokenizer.json")
        tower.write_bytes(b"")
        paint(pictures / f"{len(list(pictures.iterdir()))}.png", "red", (70 + len(list(pictures.iterdir())), 50))
        done = run("index", *arguments, cwd=pictures.parent, env=env)
        assert done.returncode == 0, done.stderr.decode()
        return done.stderr.decode().splitlines()

    assert said("-q") == []
    assert sum("made anew" in line for line in said()) == 1


def test_a_damaged_text_tower_is_said_once_and_before_it_is_made_anew(
    tmp_path: Path, sample_index: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(sample_index)
    caplog.set_level(logging.INFO, "clipsearch")

    def damage() -> None:
        caplog.clear()
        (tower,) = (tmp_path / "cache").glob("text-towers-*/*/tokenizer.json")
        tower.write_bytes(b"")

    pull_model("picturebook")
    damage()
    with open_index() as index:
        index.search("a dog")
    (said,) = [i for i, message in enumerate(caplog.messages) if "made anew" in message]
    assert said < next(i for i, message in enumerate(caplog.messages) if message.startswith(TEXT_TOWER))
    damage()
    pull_model("picturebook")
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "made anew" in warning.getMessage()
    damage()
    check_model("picturebook")  # its report says so
    assert not any("made anew" in message for message in caplog.messages)


def test_a_progress_bar_leaves_what_is_said_as_it_is(pictures: Path, with_torch: Warm) -> None:
    """Neither broken into lines as wide as the terminal, nor coloured, nor overwritten."""
    odd = pictures.parent / "[bold] a model in a folder with a long name :smile:"
    shutil.copytree(PICTUREBOOK, odd)
    arguments = ("index", "pictures", "--model", odd, "-v")
    done = on_a_terminal(*arguments, cwd=pictures.parent, warm=with_torch, columns=30, stderr=True)
    assert done.returncode == 0
    lines = facts(b"\n".join(line.rpartition(b"\x1b[2K")[2] for line in done.stdout.splitlines()))
    assert b"Indexing" in done.stdout
    assert b"Searching" not in done.stdout.partition(b"Indexing")[2]
    assert lines[:3] == [
        f"index: {pictures.parent / FOLDER} (to be made)",
        f"model: {odd}, as asked for",
        FINGERPRINT,
    ]
    assert keys(lines[3:]) == ["images", "engine"]
    assert lines[4].startswith("engine: numpy (sooner for ")


# -- who chose the model ---------------------------------------------------------------------------------------------


def test_it_is_told_who_chose_the_model(
    tmp_path: Path, sample_index: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    def lines(model: str | None = None) -> list[str]:
        logged.clear()
        with load_model(model) as embedder:
            embedder.tokenize("a dog")
        return list(logged)

    monkeypatch.chdir(sample_index)
    assert lines()[1] == f"{BUNDLED}, that of the index"
    assert lines("picturebook")[1] == f"{BUNDLED}, as asked for"
    monkeypatch.setenv("CLIPSEARCH_MODEL", "picturebook")
    assert lines()[1] == f"{BUNDLED}, from CLIPSEARCH_MODEL"
    other = lines(str(small_clip))
    assert other[:2] == [
        f"index: {sample_index / FOLDER} is not used, for its model is picturebook",
        f"model: {small_clip}, as asked for",
    ]
    monkeypatch.delenv("CLIPSEARCH_MODEL")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clipsearch.toml").write_text('model = "picturebook"\n')
    assert lines()[:2] == ["index: none here or above", f"{BUNDLED}, from {tmp_path / 'clipsearch.toml'}"]


def test_a_model_from_the_hub_is_told_with_repository_and_revision() -> None:
    line = model_used("openai", "3d74acf9", BY_DEFAULT)
    assert line == "model: openai (openai/clip-vit-base-patch32 at 3d74acf9), the default"
    line = model_used("someone/some-clip", "0123abcd", "as asked for")
    assert line == "model: someone/some-clip (someone/some-clip at 0123abcd), as asked for"


# -- in Python -------------------------------------------------------------------------------------------------------


def test_each_fact_is_told_once(sample_index: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    monkeypatch.chdir(sample_index)
    with open_index() as index:
        index.search("a dog")
        index.search("a cat")
    assert keys(logged) == ["index", "model", "fingerprint", "texts"]


def test_a_text_tower_that_numpy_cannot_compute_is_told(tmp_path: Path, logged: list[str]) -> None:
    folder = make_clip(tmp_path / "odd", activation="gelu_new")
    with Embedder(ModelFiles("odd", folder, None)) as embedder:
        embedder.embed_texts(["a dog"])
    assert logged[0] == "model: odd, as asked for"
    assert "texts: in the whole model, through transformers" in logged


def test_counting_begins_anew_and_ends_where_reading_does(
    sample_index: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.chdir(sample_index)
    files = list(find_images(str(sample_index / "sample-images" / "dogs").encode()))
    with load_model() as embedder:
        for _ in range(2):
            assert len(list(embedder.images(files))) == len(files)
    counted = [line for line in logged if line.startswith("pictures:")]
    assert counted == [f"pictures: {len(files)} of {len(files)} known to the index"] * 2


def test_names_do_nothing_to_a_terminal(pictures: Path, run: Run) -> None:
    folder = pictures.parent / "\x1b[2J"
    shutil.copytree(PICTUREBOOK, folder)
    done = run("tokens", "a dog", "--model", folder, "-v", cwd=pictures.parent)
    assert done.returncode == 0, done.stderr.decode()
    assert b"\x1b" not in done.stderr
    assert re.search(rb"^model: .*\\x1b\[2J, as asked for$", done.stderr, re.MULTILINE)
    update(pictures.parent / FOLDER, pictures)
    with Writer.locked(pictures.parent / FOLDER) as writer:
        writer.set_model(replace(MODEL, name=str(folder)))
        writer.commit()
    assert rb"\x1b[2J, 48 dimensions" in run("status", cwd=pictures.parent).stdout
