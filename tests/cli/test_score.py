"""`clipsearch score`: pictures against texts, as numbers, as a table, and as a heatmap to look at."""

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
from browser import headless, opened
from conftest import PICTUREBOOK, SAMPLES, Run, paint
from fresh import COMMAND, HEAVY, loaded_by
from PIL import Image
from terminal import on_a_terminal
from warm import Warm

from clipsearch.errors import InputError
from clipsearch.models.logits import Logits
from clipsearch.output.heatmap import check_heatmap, shade, write_heatmap
from clipsearch.output.matrix import records, write_matrix
from clipsearch.tasks.similarity import IMAGES, TEXTS, Comparison, compare

DOG, CAT = "sample-images/dogs/dog_0.webp", "sample-images/cats/black_cat_eating_kitchen.webp"
TEXT = ["--text", "a dog", "--text", "a cat", "--text", "a pizza"]


def scored(run: Run, *arguments: str | Path, cwd: Path) -> list[dict[str, Any]]:
    done = run("score", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def comparison(pictures: list[bytes | str] | None = None, texts: list[str] | None = None) -> Comparison:
    """Two pictures and three texts: the first picture is the second text, the second one is the third."""
    images = np.array([[0, 1, 0], [0, 0.6, 0.8]], np.float32)
    given = texts or ["a dog", "a cat", "a car"]
    return compare(pictures or ["a.png", "b.png"], images, given, np.eye(3, dtype=np.float32), logits=Logits(10))


def table(found: Comparison, screen: int | None, *, probabilities: bool = False) -> list[str]:
    out = io.BytesIO()
    write_matrix(found, "table", out, screen=screen, probabilities=probabilities)
    return out.getvalue().decode().splitlines()


# -- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["texts", "images"])
def test_numbers_are_those_of_plain_transformers(run: Run, sample_index: Path, tmp_path: Path, over: str) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    texts = ["a dog is sleeping", "a black cat", "a pizza on a table", "a red car"]
    (tmp_path / "texts.txt").write_text("\n".join(texts), "utf-8")
    files = sorted(path for folder in ("dogs", "food") for path in (SAMPLES / folder).iterdir())[::5]
    # 1. What a short notebook would do.
    model = CLIPModel.from_pretrained(PICTUREBOOK, dtype=torch.float32)
    pixels = AutoImageProcessor.from_pretrained(PICTUREBOOK, backend="pil")(
        images=[Image.open(path).convert("RGB") for path in files], return_tensors="pt"
    )
    tokens = AutoTokenizer.from_pretrained(PICTUREBOOK)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens, **pixels).logits_per_image
    cosines = (logits / model.logit_scale.exp()).detach().numpy()
    wanted = logits.softmax(dim=1 if over == "texts" else 0).numpy()
    # 2. With the vectors of an index.
    known = sample_index / "sample-images"
    given = [known / path.relative_to(SAMPLES) for path in files]
    rows = scored(run, *given, "--texts-from", tmp_path / "texts.txt", "--probs", "--over", over, cwd=sample_index)
    assert [row["text"] for row in rows] == texts * len(files)
    assert [row["path"] for row in rows[:: len(texts)]] == [str(path.relative_to(sample_index)) for path in given]
    scores, probabilities = (np.reshape([row[name] for row in rows], (-1, 4)) for name in ("score", "probability"))
    np.testing.assert_allclose(scores, cosines, atol=1e-3)
    # A softmax is at most as steep as half its scale, where all cosines are off by as much.
    steepness = float(model.logit_scale.detach().exp()) / 2
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5 + steepness * np.abs(scores - cosines).max())
    np.testing.assert_allclose(probabilities.sum(axis=1 if over == "texts" else 0), 1, atol=1e-5)
    places = np.reshape([row["rank"] for row in rows], (-1, 4))
    best = wanted.argmax(axis=1 if over == "texts" else 0)
    lines = places if over == "texts" else places.T
    assert [line.tolist().index(1) for line in lines] == best.tolist()


def test_it_works_without_any_index(run: Run, tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "dogs" / "dog_0.webp", tmp_path)
    rows = scored(run, "dog_0.webp", *TEXT, "--model", "picturebook", cwd=tmp_path)
    assert [set(row) for row in rows] == [{"path", "text", "score", "rank"}] * 3
    assert {row["text"]: row["rank"] for row in rows}["a dog"] == 1


def test_images_that_the_index_knows_need_no_model_library(
    sample_index: Path, environment: dict[str, str], run: Run
) -> None:
    code = COMMAND.format(arguments=["clipsearch", "score", DOG, "--text", "a dog"])
    assert not loaded_by(code, environment, sample_index) & {"torch", "transformers", "rich"}
    code = COMMAND.format(arguments=["clipsearch", "score", "--help"])
    assert not loaded_by(code, environment, sample_index) & (HEAVY | {"numpy", "tokenizers"})
    (row,) = scored(run, DOG, "--text", "a dog is sleeping", cwd=sample_index)
    hits = json.loads(run("query", "a dog is sleeping", "-k", "all", "--json", cwd=sample_index).stdout)
    assert row["score"] == pytest.approx(next(hit["score"] for hit in hits if hit["path"] == DOG), abs=5e-4)


def test_folders_and_standard_input_stand_where_they_are_named(sample_index: Path, run: Run) -> None:
    command = ["score", CAT, "-", "sample-images/food", CAT, *TEXT, "--json"]
    done = run(*command, cwd=sample_index, stdin=(sample_index / DOG).read_bytes())
    assert done.returncode == 0, done.stderr.decode()
    rows = json.loads(done.stdout)
    names = [row["path"] for row in rows[::3]]
    food = sorted(f"sample-images/food/{path.name}" for path in (SAMPLES / "food").iterdir())
    assert names == [CAT, "-", *food]
    (best,) = (row["text"] for row in rows if row["path"] == "-" and row["rank"] == 1)
    assert best == "a dog"


def test_what_cannot_be_read_is_named_and_the_rest_is_done(run: Run, sample_index: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad\x1b.png"
    bad.write_text("no picture")
    done = run("score", bad, DOG, "--text", "a dog", "--format", "tsv", cwd=sample_index)
    assert done.returncode == 0
    assert [line.split(b"\t")[0] for line in done.stdout.splitlines()] == [DOG.encode()]
    said = done.stderr.decode()
    assert "bad\\x1b.png: " in said
    strict = run("score", bad, DOG, "--text", "a dog", "--format", "tsv", "--strict", cwd=sample_index)
    assert (strict.returncode, strict.stdout) == (2, done.stdout)
    none = run("score", bad, "--text", "a dog", cwd=sample_index)
    assert (none.returncode, none.stdout) == (2, b"")
    assert none.stderr.decode().startswith(f"{said}clipsearch: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([DOG], "--text"),
        ([DOG, "--text", " "], "--text: "),
        ([DOG, "--text", b"caf\xe9"], "UTF-8"),
        ([DOG, "--text", "a", "--text", "b", "--text", " a "], "'a'"),
        ([DOG, "--texts-from", "twice.txt"], "twice.txt, line 1; twice.txt, line 3"),
        ([DOG, "--texts-from", "nowhere.txt"], "nowhere.txt"),
        (["-", "-", "--text", "a"], "standard input"),
        (["-", "--texts-from", "-"], "standard input"),
        (["nowhere.png", "--text", "a"], "nowhere.png"),
        ([DOG, "--text", "a", "--json", "--format", "csv"], "format"),
        ([DOG, "--text", "a", "--heatmap", "map.gif"], "map.gif"),
        ([DOG, "--text", "a", "--heatmap", "nowhere/map.html"], "nowhere"),
        (["--text", "a"], "Missing argument"),
    ],
    ids=lambda value: None if isinstance(value, list) else value.split()[0],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, arguments: list[str | bytes], said: str
) -> None:
    shutil.copytree(SAMPLES / "dogs", tmp_path / "sample-images" / "dogs")
    (tmp_path / "twice.txt").write_text("a dog\n\na dog \n", "utf-8")
    before = sorted(tmp_path.rglob("*"))
    done = run("score", *arguments, "--model", "picturebook", cwd=tmp_path)
    message = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert message.count("\n") == 1
    assert said in message
    assert sorted(tmp_path.rglob("*")) == before


# -- tables and records ------------------------------------------------------------------------------------------


def test_a_matrix_has_texts_for_columns_and_a_star_for_the_best() -> None:
    assert table(comparison(), None) == [
        "       a dog     a cat     a car",
        "a.png   0.0000    1.0000*   0.0000",
        "b.png   0.0000    0.6000    0.8000*",
    ]
    assert table(comparison(), None, probabilities=True)[1] == "a.png   0.0000    0.9999*   0.0000"


def test_a_matrix_that_is_too_wide_becomes_a_list() -> None:
    matrix = table(comparison(), 35)
    assert max(map(len, matrix)) == 35
    assert table(comparison(), 34) == [
        "path   text    score  rank",
        "a.png  a dog  0.0000     2",
        "a.png  a cat  1.0000     1",
        "a.png  a car  0.0000     2",
        "b.png  a dog  0.0000     3",
        "b.png  a cat  0.6000     2",
        "b.png  a car  0.8000     1",
    ]


def test_texts_that_only_look_alike_lose_no_column() -> None:
    lines = table(comparison(texts=["\x1b", "\\x1b", "path"]), None)
    assert len(lines) == 7
    assert "\x1b" not in "".join(lines)
    assert len(table(comparison(texts=["path", "text", "score"]), None)) == 3


def test_competing_images_have_ranks_among_each_other() -> None:
    found = comparison()
    other = compare(
        found.images, found.scores, found.texts, np.eye(3, dtype=np.float32), logits=Logits(10), axis=IMAGES
    )
    assert [row["rank"] for row in records(other)] == [1, 1, 2, 1, 2, 1]
    assert [row["rank"] for row in records(found)] == [2, 1, 2, 3, 2, 1]
    assert TEXTS != IMAGES


def test_a_terminal_gets_a_matrix_and_a_pipe_records(sample_index: Path, without_torch: Warm) -> None:
    given = ["score", DOG, CAT, "--text", "a dog", "--text", "a cat"]
    shown = on_a_terminal(*given, cwd=sample_index, warm=without_torch, columns=100).stdout.decode().splitlines()
    assert shown[0].split("  ")[-1].strip() == "a cat"
    assert [line.split()[0] for line in shown[1:]] == [DOG, CAT]
    assert "*" in shown[1]
    narrow = on_a_terminal(*given, cwd=sample_index, warm=without_torch, columns=60).stdout.decode().splitlines()
    assert len(narrow) == 5
    assert max(map(len, narrow)) <= 60


def test_csv_has_a_header_and_a_row_for_each_pair(run: Run, sample_index: Path) -> None:
    done = run("score", DOG, CAT, "--text", 'a "dog", sleeping', "--probs", "--format", "csv", cwd=sample_index)
    rows = list(csv.reader(io.StringIO(done.stdout.decode(), newline="")))
    assert rows[0] == ["path", "text", "score", "probability", "rank"]
    assert [(row[:2], row[3:]) for row in rows[1:]] == [
        ([path, 'a "dog", sleeping'], ["1.000000", "1"]) for path in (DOG, CAT)
    ]


# -- heatmaps ----------------------------------------------------------------------------------------------------

HOSTILE = ['</text><script>alert(1)</script> & "$x^2$"', "{{pictures}} \\1 犬 \x1b[31m \uffff", "a car"]


@pytest.fixture
def files(tmp_path: Path) -> list[bytes]:
    """Two pictures with hostile names; one is there no more."""
    path = paint(tmp_path / '<img src=x onerror="alert(1)">&.png', "red")
    return [bytes(path), bytes(tmp_path / "gone.png")]


def test_a_heatmap_is_drawn_whatever_names_and_texts_say(tmp_path: Path, files: list[bytes]) -> None:
    target = tmp_path / "map.html"
    found = comparison([*files], HOSTILE)
    assert write_heatmap(target, found, files) == f"Wrote {target}."
    content = target.read_bytes()
    assert b"<script" not in content
    assert b"\x1b" not in content
    assert content.count(b"data:image/jpeg;base64,") == 1
    assert re.findall(rb'<td class="v\d+( best)?">(.*?)</td>', content) == [
        *((b"", b"0.000"), (b"", b"0.000")),
        *((b" best", b"1.000"), (b"", b"0.600")),
        *((b"", b"0.000"), (b" best", b"0.800")),
    ]
    write_heatmap(target, found, files, probabilities=True)  # it may replace itself
    assert target.read_bytes() != content
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []


def test_a_page_is_quiet_and_shows_its_matrix_in_a_browser(tmp_path: Path, files: list[bytes]) -> None:
    target = tmp_path / "map.html"
    write_heatmap(target, comparison([*files], HOSTILE), files)
    with headless() as browser, opened(browser, target) as page:
        assert page.locator("tbody th").all_inner_texts()[0] == '</text><script>alert(1)</script> & "$x^2$"'
        assert page.locator("tbody td").all_inner_texts() == ["0.000", "0.000", "1.000", "0.600", "0.000", "0.800"]
        assert page.locator("td.best").all_inner_texts() == ["1.000", "0.800"]
        assert page.locator("img").evaluate("image => image.complete && image.naturalWidth") == 64
        # The policy lets the page's own style be.
        painted = page.locator("td.best").first.evaluate("cell => getComputedStyle(cell).backgroundColor")
        assert painted == "rgb(18, 58, 124)"


def test_a_page_prints_its_colours_and_all_columns_on_one_sheet(tmp_path: Path, files: list[bytes]) -> None:
    target = tmp_path / "map.html"
    one, many = np.ones((1, 1), np.float32), np.ones((25, 1), np.float32)
    write_heatmap(target, compare(files[:1] * 25, many, ["a"], one, logits=Logits(1)), files[:1] * 25)
    with headless() as browser, opened(browser, target, color_scheme="dark") as page:
        page.emulate_media(media="print")
        cell = page.locator("td.best").first
        assert cell.evaluate("cell => getComputedStyle(cell).printColorAdjust") == "exact"
        assert page.locator("tbody th").evaluate("cell => getComputedStyle(cell).position") == "static"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_no_other_file_is_overwritten(tmp_path: Path, files: list[bytes]) -> None:
    target = tmp_path / "mine.html"
    target.write_text("my own")
    with pytest.raises(InputError, match=r"mine\.html"):
        write_heatmap(target, comparison([*files]), files)
    assert target.read_text() == "my own"
    folder = tmp_path / "folder.html"
    folder.mkdir()
    with pytest.raises(InputError, match=r"folder\.html"):
        write_heatmap(folder, comparison([*files]), files)


@pytest.mark.parametrize("name", ["map.svg", "map.png", "map", ".html"])
def test_what_is_no_page_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{re.escape(name)}.*\.html"):
        check_heatmap(tmp_path / name, 1, 1)
    check_heatmap(tmp_path / "map.HTML", 1, 1)


@pytest.mark.parametrize(("pictures", "texts"), [(401, 1), (1, 401), (101, 100)])
def test_a_heatmap_too_large_to_look_at_is_refused(tmp_path: Path, pictures: int, texts: int) -> None:
    check_heatmap(tmp_path / "map.html", 100, 100)
    with pytest.raises(InputError, match=rf"\b{pictures}\b.*\b{texts}\b"):
        check_heatmap(tmp_path / "map.html", pictures, texts)


def test_equal_values_have_one_colour_in_the_middle(tmp_path: Path, files: list[bytes]) -> None:
    one = np.ones((1, 1), np.float32)
    target = tmp_path / "map.html"
    write_heatmap(target, compare(files[:1], one, ["a"], one, logits=Logits(1)), files[:1])
    assert b'<td class="v32 best">' in target.read_bytes()


def test_numbers_can_be_read_on_every_colour() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lights = []
    for step in range(101):
        ground, ink = map(light, shade(step / 100))
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5
        lights.append(ground)
    assert lights == sorted(lights, reverse=True)


def test_the_command_writes_a_heatmap_beside_its_numbers(run: Run, sample_index: Path, tmp_path: Path) -> None:
    target = tmp_path / "map.html"
    done = run("score", DOG, *TEXT, "--probs", "--heatmap", target, cwd=sample_index)
    assert (done.returncode, done.stderr.decode()) == (0, f"Wrote {target}.\n")
    assert len(done.stdout.splitlines()) == 3
    assert b"%</td>" in target.read_bytes()
