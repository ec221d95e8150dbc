"""`clipsearch models`: list, show and pull, as users run them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from conftest import PICTUREBOOK, Run, index, paint
from fresh import COMMAND, HEAVY, loaded_by
from hub_server import serving

from clipsearch.models.disk.catalog import DEFAULT, ENTRIES
from clipsearch.models.disk.files import fingerprint
from clipsearch.models.in_numpy.sealed import cache_folder
from clipsearch.output.models import write_list
from clipsearch.tasks.describing import describe, listed

SMALL = "somebody/small-clip"


def test_the_table_fits_a_terminal_and_marks_the_default(tmp_path: Path, run: Run) -> None:
    done = run("models", "--format", "table", cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["name", "what", "M", "dim", "px", "lang", "ImgNet", "COCO", "disk"]
    assert [line.split()[0].rstrip("*") for line in lines[1:]] == [entry.name for entry in ENTRIES]
    assert [line.split()[0] for line in lines if "*" in line.split()[0]] == [f"{DEFAULT}*"]
    assert [line.split()[-1] for line in lines[1:]] == ["no"] * (len(ENTRIES) - 1) + ["yes"]
    assert run("models", "list", "--format", "table", cwd=tmp_path).stdout == done.stdout


def test_a_wide_terminal_shows_licences_and_repositories_too() -> None:
    found = listed()
    out = io.BytesIO()
    write_list(found, "table", out, screen=170)
    for line, one in zip(out.getvalue().decode().splitlines()[1:], found, strict=True):
        assert line.rstrip().endswith(one.entry.repository or one.entry.licence)
        assert one.entry.licence in line


def test_every_format_has_the_same_models(tmp_path: Path, run: Run) -> None:
    def printed(*form: str) -> str:
        done = run("models", *form, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode()

    records = json.loads(printed("--json"))
    assert [record["name"] for record in records] == [entry.name for entry in ENTRIES]
    assert [record["default"] for record in records] == [entry.name == DEFAULT for entry in ENTRIES]
    assert [record["on_disk"] for record in records] == [False] * (len(ENTRIES) - 1) + [True]
    assert records[0]["repository"] == ENTRIES[0].repository
    assert records[0]["imagenet"] == pytest.approx(ENTRIES[0].imagenet)
    assert Path(records[-1]["path"]) == PICTUREBOOK
    assert records[-1]["bytes"] == sum(size for _, size in described_files("picturebook"))
    assert [json.loads(line) for line in printed("--format", "jsonl").splitlines()] == records
    tsv = [line.split("\t") for line in printed().splitlines()]
    assert [line[0] for line in tsv] == [record["name"] for record in records]
    assert {len(line) for line in tsv} == {len(records[0])}
    rows = list(csv.DictReader(io.StringIO(printed("--format", "csv"))))
    assert list(rows[0]) == list(records[0])
    assert [row["on_disk"] for row in rows][-2:] == ["no", "yes"]


def described_files(name: str) -> tuple[tuple[str, int], ...]:
    inside = describe(name).inside
    assert inside is not None
    return inside.files


def test_show_reads_the_towers_from_the_files(small_clip: Path) -> None:
    found = describe(str(small_clip))
    inside = found.inside
    assert inside is not None
    assert (found.entry, found.repository) == (None, None)
    assert (inside.family, inside.dim, inside.dtypes) == ("clip", 32, ("F32",))
    assert (inside.image.layers, inside.image.width, inside.image.heads) == (2, 64, 4)
    assert (inside.text.layers, inside.text.width, inside.text.heads) == (2, 64, 4)
    assert (inside.image_size, inside.patch, inside.context) == (64, 16, 24)
    assert inside.preprocessing == (
        "resize the shorter side to 64, crop 64 x 64, mean 0.48 0.46 0.41, std 0.27 0.26 0.28"
    )
    assert inside.fingerprint == fingerprint(small_clip)
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(small_clip)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert inside.parameters == pytest.approx(counted / 1e6, abs=1e-6)


def test_show_of_an_open_clip_folder(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    shapes = {
        "visual.conv1.weight": (48, 3, 8, 8),
        **{f"visual.transformer.resblocks.{layer}.ln_1.weight": (48,) for layer in range(3)},
        **{f"transformer.resblocks.{layer}.ln_1.weight": (32,) for layer in range(5)},
        "token_embedding.weight": (100, 32),
        "positional_embedding": (16, 32),
        "text_projection": (32, 24),
    }
    save_file(
        {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}, tmp_path / "open_clip_model.safetensors"
    )
    config = {
        "model_cfg": {"embed_dim": 24, "vision_cfg": {"image_size": 40}, "text_cfg": {"heads": 4}},
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    inside = describe(str(tmp_path)).inside
    assert inside is not None
    assert (inside.family, inside.dim, inside.dtypes) == ("open_clip", 24, ("F16",))
    assert (inside.image.layers, inside.image.width, inside.image.heads) == (3, 48, None)
    assert (inside.text.layers, inside.text.width, inside.text.heads) == (5, 32, 4)
    assert (inside.image_size, inside.patch, inside.context) == (40, 8, 16)
    assert "mean 0.5 0.5 0.5, std 0.25 0.25 0.25" in inside.preprocessing


def test_show_in_words_and_in_json(tmp_path: Path, run: Run) -> None:
    table = run("models", "show", "picturebook", "--format", "table", cwd=tmp_path).stdout.decode()
    assert "resize the shorter side to 96" in table
    assert "model.safetensors" in table
    record = json.loads(run("models", "show", "picturebook", "--json", cwd=tmp_path).stdout)
    assert record["fingerprint"] == fingerprint(PICTUREBOOK)
    assert {file["name"] for file in record["files"]} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert record["bytes"] == sum(file["bytes"] for file in record["files"])


def test_show_of_a_model_that_is_not_here(tmp_path: Path, run: Run) -> None:
    done = run("models", "show", "openai", "--json", cwd=tmp_path)
    assert done.returncode == 0
    record = json.loads(done.stdout)
    assert (record["on_disk"], record["path"], record["files"]) == (False, None, [])
    assert record["repository"] == "openai/clip-vit-base-patch32"
    assert "clipsearch models pull openai" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", SMALL), f"clipsearch models pull {SMALL}"),
        (("show", "openia"), "'openai'"),
        (("show", "./nowhere"), "'./nowhere'"),
        (("pull", "openia"), "'openai'"),
        (("pull", SMALL), "HF_HUB_OFFLINE"),
        (("pull", "ViT-B-32.pt"), "the model openai"),
        (("pull",), "Missing argument"),
        (("--json", "show", "picturebook"), "clipsearch models show"),
        (("lost",), "No such command"),
    ],
)
def test_mistakes(tmp_path: Path, run: Run, arguments: tuple[str, ...], said: str) -> None:
    done = run("models", *arguments, cwd=tmp_path)
    message = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in message
    assert len(message.strip().splitlines()) == 1


def test_pull_fetches_prepares_and_says_what_is_next(
    tmp_path: Path, run: Run, small_clip: Path, environment: dict[str, str]
) -> None:
    with serving() as hub:
        commit = hub.add(SMALL, small_clip)
        online = hub.environment(tmp_path / "hf") | {"CLIPSEARCH_CACHE": str(tmp_path / "cache")}
        done = run("models", "pull", SMALL, "--json", cwd=tmp_path, env=online)
        said = done.stderr.decode()
        assert done.returncode == 0, said
        downloading, preparing, following = said.splitlines()
        assert repr(SMALL) in downloading
        assert repr(SMALL) in preparing
        assert f"clipsearch index ./images --model {SMALL}" in following
        assert "Warning" not in said
        (record,) = json.loads(done.stdout)
        assert (record["name"], record["revision"], record["fetched"]) == (SMALL, commit, True)
        assert (tmp_path / record["path"] / "model.safetensors").is_file()
        (tower,) = (tmp_path / "cache").glob("text-towers-*/*")
        assert tower.name == fingerprint(small_clip)
    offline = online | {"HF_HUB_OFFLINE": "1"}
    shown = json.loads(run("models", "show", SMALL, "--json", cwd=tmp_path, env=offline).stdout)
    assert (shown["on_disk"], shown["text_tower_ready"], shown["revision"]) == (True, True, commit)
    # The hub is gone, and it does not matter; torch is not needed either.
    arguments = ["clipsearch", "models", "pull", SMALL]
    loaded = loaded_by(COMMAND.format(arguments=arguments), environment | online, tmp_path)
    assert not loaded & {"torch", "transformers"}


def test_pull_of_the_bundled_model_and_of_a_folder(tmp_path: Path, run: Run) -> None:
    done = run("models", "pull", "picturebook", cwd=tmp_path)
    assert done.returncode == 0
    assert "bundled" in done.stderr.decode()
    shutil.copytree(PICTUREBOOK, tmp_path / "copy")  # its text tower is prepared already
    done = run("models", "pull", "./copy", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.decode().split("\t")[-1] == "copy\n"
    assert "Downloading" not in done.stderr.decode()


class Screen(io.StringIO):
    """A terminal, as far as a progress bar asks."""

    def isatty(self) -> bool:
        return True


def test_a_download_has_a_bar_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from clipsearch.cli.progress import ProgressBar

    monkeypatch.setenv("TERM", "xterm")

    def interrupted() -> None:
        with ProgressBar() as bar:
            bar.downloading(0, 5_000_000)
            bar.downloading(2_500_000, 5_000_000)
            raise KeyboardInterrupt

    screen, pipe = Screen(), io.StringIO()
    for stream in (screen, pipe):
        monkeypatch.setattr(sys, "stderr", stream)
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    assert "Downloading" in screen.getvalue()
    assert "2.5/5.0 MB" in screen.getvalue()
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h") == 1  # the cursor is back
    assert pipe.getvalue() == ""


@pytest.mark.parametrize(
    "arguments", [["models", "--help"], ["models", "pull", "--help"], ["models"], ["models", "--json"]]
)
def test_listing_loads_nothing_heavy(arguments: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    loaded = loaded_by(COMMAND.format(arguments=["clipsearch", *arguments]), environment, tmp_path)
    assert not loaded & ((HEAVY | {"numpy", "tokenizers"}) - {"huggingface_hub"})
    assert "httpx" not in loaded
    assert "httpx2" not in loaded


def test_what_was_pulled_is_indexed_and_searched(tmp_path: Path, run: Run, small_clip: Path) -> None:
    with serving() as hub:
        hub.add(SMALL, small_clip)
        online = hub.environment(tmp_path / "hf") | {"CLIPSEARCH_CACHE": str(cache_folder())}
        paint(tmp_path / "p" / "a.png", "red")
        done = run("index", "p", "--model", SMALL, "--json", cwd=tmp_path, env=online)  # fetches it by itself
        assert json.loads(done.stdout)["embedded"] == 1
        assert repr(SMALL) in done.stderr.decode()
    assert run("query", "a dog", cwd=tmp_path, env=online).stdout.decode().endswith("p/a.png\n")
    assert index(run, "p", "--model", str(small_clip), cwd=tmp_path)["reused"] == 1
