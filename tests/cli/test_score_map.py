"""`clipsearch score --map`: a page that shows where in pictures texts fit."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import families
import numpy as np
import pytest
from browser import headless, opened
from conftest import REPOSITORY, SAMPLES, Run, paint
from fresh import COMMAND, HEAVY, loaded_by
from PIL import Image

import clipsearch
from clipsearch.errors import InputError
from clipsearch.output.text_maps import check_map, shade

DOG, PIZZA = SAMPLES / "dogs" / "dog_0.webp", SAMPLES / "food" / "pizza_room.jpg"
HOSTILE = '</svg><script>alert(1)</script> & "{{sections}}" \x1b[31m \\1'
MODEL = ("--model", "picturebook")


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A pizza in a picture of 600 x 300 pixels, in the middle of which the model sees 300 x 300."""
    both = Image.new("RGB", (600, 300), "white")
    with Image.open(PIZZA) as image:
        both.paste(image.convert("RGB").resize((300, 300)), (150, 0))
    both.save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def rings(page: str) -> list[tuple[float, float]]:
    """Where each map is best, in the pixels of the page's picture."""
    found = re.findall(r'<circle class="under" cx="([\d.]+)" cy="([\d.]+)"', page)
    return [(float(x), float(y)) for x, y in found]


def test_the_rings_are_where_patches_and_texts_have_the_highest_cosine(run: Run, wide: Path, tmp_path: Path) -> None:
    texts = ["a pizza", "a blue window", HOSTILE.replace("\x1b", "")]
    given = [part for text in texts for part in ("--text", text)]
    plain = run("score", wide, DOG, *given, "--json", *MODEL, cwd=tmp_path)
    done = run("score", wide, DOG, *given, "--json", *MODEL, "--map", "map.html", cwd=tmp_path)
    assert (done.returncode, done.stderr.decode().splitlines()[-1]) == (0, "Wrote map.html.")
    assert done.stdout == plain.stdout
    page = (tmp_path / "map.html").read_text("utf-8")
    wanted = []
    with clipsearch.load_model("picturebook") as model:
        for path, (left, top, side) in ((wide, (150, 0, 300)), (DOG, (0, 0, 384))):
            for one in model.text_map(path, texts):
                row, column = divmod(int(one.argmax()), 6)
                wanted.append((left + (column + 0.5) / 6 * side, top + (row + 0.5) / 6 * side))
    np.testing.assert_allclose(rings(page), wanted, atol=2)
    rows = json.loads(done.stdout)
    assert re.findall(r"score (-?[\d.]+) ·", page) == [f"{row['score']:.3f}" for row in rows]
    assert page.count("The model sees the framed part only.") == 1
    assert page.count('<rect class="frame"') == len(texts)
    assert page.count("data:image/webp;base64,") == 2  # each picture once, whatever the number of texts
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []


def test_the_worked_example_points_at_each_chicken(run: Run, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "examples.md").read_text("utf-8")
    (command,) = re.findall(r"^clipsearch (score .*--map .*)$", text, re.MULTILINE)
    done = run(*shlex.split(command)[:-1], tmp_path / "map.html", "--model", "picturebook", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr.decode()
    page = (tmp_path / "map.html").read_text("utf-8")
    (white, _), (black, _), _ = rings(page)
    assert black < 384 / 2 < white
    *chickens, pizza = (float(best) for best in re.findall(r"best patch (-?[\d.]+)", page))
    assert pizza < min(chickens) / 2


def test_names_and_texts_are_shown_and_not_obeyed(run: Run, tmp_path: Path) -> None:
    name = '<img src=x onerror="alert(1)">&.png'
    paint(tmp_path / name, "red")
    done = run("score", name, "--text", HOSTILE, *MODEL, "--map", "map.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    content = (tmp_path / "map.html").read_bytes()
    assert b"\x1b" not in content
    with headless() as browser, opened(browser, tmp_path / "map.html") as page:
        assert page.locator("h2").inner_text() == name
        assert page.locator(".text").inner_text() == HOSTILE.replace("\x1b", "\\x1b")
        assert page.locator("script").count() == 1


def test_a_map_fades_and_changes_in_a_browser(run: Run, wide: Path, tmp_path: Path) -> None:
    run("score", wide, "--text", "a pizza", "--text", "a dog", *MODEL, "--map", "map.html", cwd=tmp_path)
    with headless() as browser, opened(browser, tmp_path / "map.html", color_scheme="dark") as page:
        # 1. One map of each picture and text is seen, over the part that the model sees.
        def seen() -> list[str | None]:
            return [one.get_attribute("class") for one in page.locator("image.map:visible").all()]

        assert seen() == ["map all smooth"] * 2
        picture, layer = (page.locator(where).first.bounding_box() for where in ("svg.picture", "image.map:visible"))
        assert picture is not None
        assert layer is not None
        assert layer["width"] == pytest.approx(picture["width"] / 2, rel=0.02)
        assert layer["x"] - picture["x"] == pytest.approx(picture["width"] / 4, rel=0.02)
        # 2. The boxes change it, and the colours' meaning with it.
        page.check("#cells")
        page.check("#own")
        assert seen() == ["map own cells"] * 2
        assert page.locator(".legend").inner_text().split("\n")[:2] == ["lowest", "highest"]
        # 3. The slider fades it.
        opacity = "map => getComputedStyle(map).opacity"
        assert page.locator("image.map:visible").first.evaluate(opacity) == "0.65"
        page.fill("#strength", "0")
        assert page.locator("image.map:visible").first.evaluate(opacity) == "0"
        # 4. Light or dark.
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        page.click("#theme")
        assert page.evaluate(ground) != dark


def test_one_map_needs_no_colours_of_its_own(run: Run, tmp_path: Path) -> None:
    run("score", DOG, "--text", "a dog", *MODEL, "--map", "map.html", cwd=tmp_path)
    with headless() as browser, opened(browser, tmp_path / "map.html") as page:
        assert page.title() == 'Where "a dog" fits · clipsearch'
        assert not page.locator("#own").is_visible()
        assert page.locator("#cells").is_visible()


def test_a_picture_on_standard_input_has_a_map(sample_index: Path, run: Run, tmp_path: Path) -> None:
    arguments = ("score", "-", "-t", "a dog", "--map", tmp_path / "map.html")
    done = run(*arguments, cwd=sample_index, stdin=DOG.read_bytes())
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"-\ta dog\t")
    assert ">-</h2>" in (tmp_path / "map.html").read_text("utf-8")


def test_a_map_needs_no_model_library(sample_index: Path, environment: dict[str, str], tmp_path: Path) -> None:
    target = str(tmp_path / "map.html")
    dog = "sample-images/dogs/dog_0.webp"
    code = COMMAND.format(arguments=["clipsearch", "score", dog, "--text", "a dog", "--map", target])
    assert not loaded_by(code, environment, sample_index) & (HEAVY - {"PIL", "filelock", "pillow_heif"})
    assert rings(Path(target).read_text("utf-8"))


def test_a_model_for_any_proportions_sees_all_of_a_picture(run: Run, wide: Path, tmp_path: Path) -> None:
    folder = families.make("siglip2", tmp_path / "model")
    done = run("score", wide, "--text", "a dog", "--model", folder, "--map", "map.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    page = (tmp_path / "map.html").read_text("utf-8")
    assert "framed part" not in page
    assert 'x="0.00" y="0.00" width="600.00" height="300.00"' in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--map", "map.png"], ".html"),
        (["--map", "nowhere/map.html"], "nowhere"),
        (["--map", "mine.html"], "mine.html"),
        (["--map", "dog.html"], "dog.html"),
        (["--map", "-"], ".html"),
        (["--map", "map.html", "--heatmap", "./map.html"], "--heatmap"),
        (["--map", "map.html", "--engine", "torch"], "Leave --engine out."),
        (["--map", "map.html", "--precision", "bf16"], "Leave --device and --precision out."),
        (["--map", "map.html", "--model", "groupvit"], "clipsearch models"),
        (["--map", "map.html", "--texts-from", "many.txt"], "201"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_what_has_no_map_is_one_line_and_writes_nothing(
    arguments: list[str], said: str, run: Run, tmp_path: Path
) -> None:
    shutil.copy(DOG, tmp_path / "dog.html")
    (tmp_path / "mine.html").write_text("my own")
    (tmp_path / "many.txt").write_text("\n".join(f"text {i}" for i in range(200)))
    families.make("groupvit", tmp_path / "groupvit")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run("score", DOG, "--text", "a dog", *MODEL, *arguments, cwd=tmp_path)
    message = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert message.count("\n") == 1, message
    assert said in message
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_page_of_another_kind_may_be_replaced_and_too_many_maps_are_refused(tmp_path: Path) -> None:
    (tmp_path / "map.html").write_text('<meta name="generator" content="clipsearch 0.1.0">')
    check_map(tmp_path / "map.html", 20, 10)
    with pytest.raises(InputError, match="21 x 10"):
        check_map(tmp_path / "map.html", 21, 10)


def test_what_fits_better_is_lighter_for_all_eyes() -> None:
    lights = [np.dot(shade(step / 100), (0.2126, 0.7152, 0.0722)) for step in range(101)]
    assert lights == sorted(lights)
    assert len(set(lights)) == 101
    blues = [
        np.dot(shade(step / 100), (0.5, 0.5, 0)) for step in range(101)
    ]  # to eyes without red and green cones apart
    assert blues == sorted(blues)
