"""The page of `--html`: what is in it, what it does in a browser, and that no name and no accident does any harm."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import headless, opened, until
from colour_files import REC_709, matrix_profile, srgb_curve
from conftest import COLOURS, TESTS, deny, paint
from PIL import Image, ImageCms

from clipsearch.errors import InputError
from clipsearch.output import gallery
from clipsearch.output.atomic import check_replaceable
from clipsearch.output.gallery import PAGE, Section, write_gallery
from clipsearch.output.thumbnails import thumbnail
from clipsearch.search.hit import Hit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE: Sequence[bytes] = (
    b"<img src=x onerror=alert(1)>.jpg",
    b'"><script>alert(1)<',  # no slash in names: the rest of it is in a folder's
    b"' onfocus=alert(1) autofocus='.jpg",
    b"&amp;&lt;.jpg",
    b"two\nlines\tand\ra tab.jpg",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe.jpg".encode(),
    "\N{DOG FACE} d\N{LATIN SMALL LETTER E WITH ACUTE}j\N{LATIN SMALL LETTER A WITH GRAVE} vu.jpg".encode(),
    b"%41#?.jpg",
    b"{{title}} ${name}.jpg",
    b"<!--.jpg",
    b"caf\xe9 'n' \\x41.jpg",
)


def hit(path: Path | bytes, rank: int = 1, *, confidence: float | None = 0.5) -> Hit:
    path_bytes = os.fsencode(path)
    found = os.path.exists(path_bytes)
    status = os.stat(path_bytes) if found else os.stat(os.devnull)
    width, height = thumbnail(path_bytes, 10**6).size if found and status.st_size > 100 else (None, None)
    score = 0.4 - rank / 1000
    return Hit(rank, score, confidence, path_bytes, width, height, status.st_size, status.st_mtime_ns, None)


def hits(paths: Sequence[Path | bytes]) -> list[Hit]:
    return [hit(path, rank) for rank, path in enumerate(paths, 1)]


@pytest.fixture
def ten(tmp_path: Path) -> list[Path]:
    """Pictures of different colours."""
    return [paint(tmp_path / "pictures" / f"{colour}.png", colour) for colour in COLOURS]


@pytest.fixture
def page_of_ten(tmp_path: Path, ten: list[Path]) -> Path:
    write_gallery(tmp_path / "page.html", [Section("ten colours", hits(ten))])
    return tmp_path / "page.html"


def hostile(folder: Path) -> list[bytes]:
    """Files with such names as the file system takes, each with its own picture."""
    paths = []
    for number, name in enumerate(HOSTILE):
        parent = folder / f"{number}</script><script>alert(1)<"  # and `/script>` is the next folder
        (parent / "script>").mkdir(parents=True)
        path = os.path.join(os.fsencode(parent), b"script>", name)
        drawn = paint(folder / f"{number}.jpg", COLOURS[number % 10])
        try:
            os.rename(drawn, path)
        except OSError:  # macOS has no names that are not UTF-8
            continue
        paths.append(path)
    return paths


class Reader(HTMLParser):
    """The elements of a page, as a browser without script sees them."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(page.read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, tag: str, kind: str | None = None) -> list[dict[str, str]]:
        return [found for name, found in self.elements if name == tag and kind in (None, found.get("class"))]


def pictures_in(page: Path) -> list[Image.Image]:
    sources = re.findall(r'src="data:image/webp;base64,([^"]+)"', page.read_text("utf-8"))
    return [Image.open(io.BytesIO(base64.b64decode(source))) for source in sources]


# --- what is in the page ---


def test_a_page_says_what_there_is_to_say(tmp_path: Path) -> None:
    large = paint(tmp_path / "large.jpg", "red", (1500, 1000))
    found = hit(large)._replace(score=0.31251, confidence=0.876, size=3_210_000, taken_at="2021-07-04T12:30:05")
    write_gallery(tmp_path / "page.html", [Section("a red wall", [found])])
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<h1>a red wall</h1>" in page
    assert "<title>a red wall · clipsearch</title>" in page
    assert "1 hit · score: cosine" in page
    assert '<span class="name" title="large.jpg">large.jpg</span>' in page
    assert '<span class="figures">0.313<b>88%</b></span>' in page
    (tile,) = Reader(tmp_path / "page.html").all("button", "tile")
    assert tile["aria-label"] == "1: large.jpg, score 0.313, 88% sure"
    assert tile["data-path"] == str(large)
    assert tile["data-facts"] == (
        "Rank 1 · score 0.313 · 88% sure · 1500 × 1000 pixels · 3.2 MB · taken 2021-07-04 12:30:05"  # noqa: RUF001
    )
    (picture,) = pictures_in(tmp_path / "page.html")
    assert (picture.format, picture.size) == ("WEBP", (1024, 683))


def test_without_confidence_none_is_shown(tmp_path: Path, ten: list[Path]) -> None:
    write_gallery(tmp_path / "page.html", [Section("like this", [hit(ten[0], confidence=None)])])
    page = (tmp_path / "page.html").read_text("utf-8").split("</script>")[1]
    assert "%" not in page
    assert "sure" not in page


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_600, "1.0 MB"), (7_654_321_000, "7.7 GB")],
)
def test_sizes_are_for_people(size: int, shown: str, tmp_path: Path, ten: list[Path]) -> None:
    write_gallery(tmp_path / "page.html", [Section("x", [hit(ten[0])._replace(size=size)])])
    (tile,) = Reader(tmp_path / "page.html").all("button", "tile")
    assert f" · {shown} · changed " in tile["data-facts"]


def test_many_images_are_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ten: list[Path]) -> None:
    monkeypatch.setattr(gallery, "_SIDES", ((9, 48), (10, 32)))
    write_gallery(tmp_path / "page.html", [Section("x", hits(ten))])
    assert {picture.size for picture in pictures_in(tmp_path / "page.html")} == {(32, 24)}
    write_gallery(tmp_path / "page.html", [Section("x", hits(ten[:9]))])
    assert {picture.size for picture in pictures_in(tmp_path / "page.html")} == {(48, 36)}


def test_an_image_that_several_queries_found_is_in_the_page_once(tmp_path: Path, ten: list[Path]) -> None:
    gone = tmp_path / "gone.png"
    sections = [Section("one", hits([*ten[:3], gone])), Section("two", hits([gone, *ten[1:5]])), Section("three", [])]
    write_gallery(tmp_path / "page.html", sections)
    page = Reader(tmp_path / "page.html")
    assert len(pictures_in(tmp_path / "page.html")) == 5
    assert [len(page.all("button", "tile")), len(page.all("span", "gone"))] == [9, 2]
    named = {image["id"]: image["alt"] for image in page.all("img") if image.get("id", "").startswith("p")}
    again = {image["data-same"]: image["alt"] for image in page.all("img") if "data-same" in image}
    assert sorted(again.values()) == ["blue.png", "green.png"]
    assert again.items() <= named.items()
    links = [link["href"] for link in page.all("a") if "href" in link]
    assert links == ["#query1", "#query2", "#query3"] == [f"#{section['id']}" for section in page.all("section")]
    assert "Nothing found." in (tmp_path / "page.html").read_text("utf-8")


def test_files_that_are_gone_or_broken_say_so_in_their_tiles(tmp_path: Path, ten: list[Path]) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    write_gallery(
        tmp_path / "page.html", [Section("x", hits([tmp_path / "gone.jpg", ten[0], tmp_path / "broken.jpg"]))]
    )
    tiles = Reader(tmp_path / "page.html").all("button", "tile")
    assert [tile["aria-label"].partition("no picture: ")[2] for tile in tiles] == [
        *("it is gone", "", "not an image of a known format"),
    ]
    assert len(pictures_in(tmp_path / "page.html")) == 1


def test_a_page_needs_nothing_from_elsewhere(page_of_ten: Path) -> None:
    text = re.sub('base64,[^"]+|file://', "", page_of_ten.read_text("utf-8"))
    assert not re.search(r"https?:|@import|url\(|//[a-z]", text)
    page = Reader(page_of_ten)
    assert {element["rel"]: element["href"] for element in page.all("link")} == {"icon": "data:,"}
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.all("img") if "src" in image)
    assert page.all("script") == page.all("style") == [{}]  # one of each, and neither from elsewhere
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    assert not any("style" in element or name.startswith("on") for _, element in page.elements for name in element)


def test_names_and_queries_stay_text(tmp_path: Path) -> None:
    paths = hostile(tmp_path / "pictures")
    title = "</title><script>alert(1)</script> {{policy}} \udce9 & \"quotes\"\n'and' \ud800"
    plain = [Section("x", hits(paths)), Section("y", [])]
    write_gallery(tmp_path / "plain.html", plain)
    write_gallery(tmp_path / "page.html", [Section(title, hits(paths)), Section(title, [])])
    page = Reader(tmp_path / "page.html")
    kinds = [tag for tag, _ in page.elements]
    assert kinds == [tag for tag, _ in Reader(tmp_path / "plain.html").elements]  # no name and no query added any
    tiles = page.all("button", "tile")
    assert [len(tile) for tile in tiles] == [len(tiles[0]) + ("data-copy" in tile) for tile in tiles]
    assert tiles[0]["data-path"] == os.fsdecode(paths[0])
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "{{policy}} \\udce9 &amp; &quot;quotes&quot;\\n&#x27;and&#x27; \\ud800" in text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
    places = "{{policy}} {{contents}} {{title}}"
    write_gallery(tmp_path / "page.html", [Section(places, [])])
    text = (tmp_path / "page.html").read_text("utf-8")
    assert f"<title>{places} · clipsearch</title>" in text
    assert f"<h1>{places}</h1>" in text


def test_links_and_copied_paths_lead_to_the_files_whatever_their_names(tmp_path: Path) -> None:
    paths = hostile(tmp_path / "pictures")
    write_gallery(tmp_path / "page.html", [Section("x", hits(paths))])
    tiles = Reader(tmp_path / "page.html").all("button", "tile")
    for path, tile in zip(paths, tiles, strict=True):
        assert Path(os.fsdecode(path)).as_uri() == tile["data-href"]
        assert re.fullmatch(r"file:///[\w/.~%-]+", tile["data-href"], re.ASCII)
        odd = os.path.basename(path).startswith((b"two\n", b"\xe2", b"caf\xe9"))
        assert odd == ("data-copy" in tile)
        if odd:
            assert tile["data-copy"].isascii()
            typed = subprocess.run(  # noqa: S602  (a shell is what it is for)
                f"printf %s {tile['data-copy']}", shell=True, executable="/bin/bash", capture_output=True, check=True
            )
            assert typed.stdout == path
        else:
            assert tile["data-path"].encode() == path


def test_images_are_in_srgb_whatever_profile_they_had(tmp_path: Path) -> None:
    screen = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    paint(tmp_path / "screen.png", "red", icc_profile=screen)
    paint(tmp_path / "swapped.png", "blue", icc_profile=matrix_profile(REC_709, srgb_curve(), order="gbr"))
    Image.new("CMYK", (64, 48), (0, 255, 255, 0)).save(
        tmp_path / "printer.jpg", icc_profile=screen[:16] + b"CMYK" + screen[20:]
    )
    found = hits([tmp_path / name for name in ("screen.png", "swapped.png", "printer.jpg")])
    write_gallery(tmp_path / "page.html", [Section("red", found)])
    for picture in pictures_in(tmp_path / "page.html"):
        assert "icc_profile" not in picture.info
        red, green, blue = np.asarray(picture.convert("RGB"))[24, 32]
        assert red > 220
        assert max(green, blue) < 40


def test_where_an_image_was_taken_is_not_in_the_page(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x010F] = "Camera of mine"
    paint(tmp_path / "here.jpg", "red", exif=exif)
    write_gallery(tmp_path / "page.html", [Section("x", hits([tmp_path / "here.jpg"]))])
    (picture,) = pictures_in(tmp_path / "page.html")
    assert set(picture.info) <= {"loop", "background", "timestamp", "duration"}


def test_thumbnails_are_upright_and_never_larger_than_the_image(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    path = os.fsencode(paint(tmp_path / "turned.jpg", "red", (1200, 800), exif=turned))
    assert thumbnail(path, 300).size == (200, 300)
    assert thumbnail(path, 5000).size == (800, 1200)
    assert thumbnail(os.fsencode(paint(tmp_path / "line.png", "red", (900, 2))), 100).size == (100, 1)


# --- the box of a hit ---

PROPORTIONS = [
    ((1600, 1200), (900, 100, 1300, 500)),
    ((3000, 250), (1500, 0, 1750, 250)),
    ((250, 3000), (0, 2750, 250, 3000)),
    ((40, 30), (0, 0, 20, 20)),
    ((600, 600), (0, 0, 600, 600)),
    ((500, 400), (470, 370, 500, 400)),
]
"""Sizes of pictures, and boxes in them."""
TINY = 3


def boxed(folder: Path, size: tuple[int, int], box: tuple[int, int, int, int], rank: int = 1) -> Hit:
    """A hit whose picture is blue, but red in its box."""
    folder.mkdir(exist_ok=True)
    image = Image.new("RGB", size, (30, 60, 150))
    image.paste((255, 0, 0), box)
    image.save(folder / f"{rank}.png")
    return hit(folder / f"{rank}.png", rank)._replace(width=size[0], height=size[1], box=box)


@pytest.fixture
def six(tmp_path: Path) -> list[Hit]:
    return [boxed(tmp_path / "pictures", *one, rank) for rank, one in enumerate(PROPORTIONS, 1)]


@pytest.fixture
def page_of_six(tmp_path: Path, six: list[Hit]) -> Path:
    write_gallery(tmp_path / "page.html", [Section("red", [*six, six[0]._replace(box=None)])])
    return tmp_path / "page.html"


def test_the_box_of_a_hit_is_outlined_and_said(page_of_six: Path, six: list[Hit]) -> None:
    page, text = Reader(page_of_six), page_of_six.read_text("utf-8")
    assert page.all("html") == [{"lang": "en", "data-boxes": "shown"}]
    assert "frame: the part of the picture that fits best" in text
    tiles = page.all("button", "tile")
    assert tiles[0]["aria-label"] == "1: 1.png, score 0.399, 50% sure, box 900,100,1300,500"
    assert " · 1600 × 1200 pixels · box 900,100,1300,500 · " in tiles[0]["data-facts"]  # noqa: RUF001
    assert "box" not in tiles[6]["aria-label"] + tiles[6]["data-facts"]
    outlines = [outline for outline in page.all("svg", "box") if outline.get("id") != "box"]
    assert len(outlines) == len(six)
    assert outlines[0]["viewbox"] == "0 0 1024 768"
    assert (
        page.all("rect")[0]
        == page.all("rect")[1]
        == {"x": "576.00", "y": "64.00", "width": "256.00", "height": "256.00"}
    )


def test_a_page_without_boxes_says_nothing_of_them(page_of_ten: Path) -> None:
    page = Reader(page_of_ten)
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("rect") == []
    assert "frame:" not in page_of_ten.read_text("utf-8")


def test_a_cropped_page_shows_the_regions_and_what_has_none_whole(tmp_path: Path, six: list[Hit]) -> None:
    other = six[0]._replace(box=(0, 600, 800, 1200))
    sections = [Section("red", [*six, other]), Section("again", [six[0], six[0]._replace(box=None)])]
    write_gallery(tmp_path / "page.html", sections, crop=True)
    page, text = Reader(tmp_path / "page.html"), (tmp_path / "page.html").read_text("utf-8")
    assert page.all("rect") == []
    assert "cut to the part of the picture that fits best" in text
    sizes = [(400, 400), (250, 250), (250, 250), (20, 20), (600, 600), (30, 30), (800, 600), (1024, 768)]
    shows = pictures_in(tmp_path / "page.html")  # each region and each picture once
    assert [picture.size for picture in shows] == sizes
    colours = [np.asarray(picture.convert("RGB"), float).mean((0, 1)) for picture in shows]
    assert all(np.abs(colour - (255, 0, 0)).max() < 8 for colour in colours[:6])
    assert np.abs(colours[6] - (30, 60, 150)).max() < 8
    tiles = page.all("button", "tile")
    assert (tiles[0]["data-width"], tiles[0]["data-height"]) == ("400", "400")
    assert " · 1600 × 1200 pixels · box 900,100,1300,500 · " in tiles[0]["data-facts"]  # noqa: RUF001


def test_a_region_that_is_no_longer_in_its_picture_says_so(tmp_path: Path, six: list[Hit]) -> None:
    paint(six[0].path, "red", (100, 80))
    write_gallery(tmp_path / "page.html", [Section("red", six[:2])], crop=True)
    tiles = Reader(tmp_path / "page.html").all("button", "tile")
    assert "no picture: it has changed since it was indexed: now it has 100 x 80 pixels" in tiles[0]["aria-label"]
    assert len(pictures_in(tmp_path / "page.html")) == 1


# --- whole or not at all ---


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_page_of_ours_is_replaced_and_another_file_is_not(tmp_path: Path, page_of_ten: Path, ten: list[Path]) -> None:
    before = page_of_ten.read_bytes()
    write_gallery(page_of_ten, [Section("one", hits(ten[:1]))])
    assert page_of_ten.read_bytes() != before
    for content in (b"<!doctype html><title>My diary</title>", b"", ten[0].read_bytes()):
        mine = tmp_path / "mine.html"
        mine.write_bytes(content)
        with pytest.raises(InputError, match=r"mine\.html .* page"):
            write_gallery(mine, [Section("one", hits(ten[:1]))])
        assert mine.read_bytes() == content
    assert left_in(tmp_path) == {"pictures", "page.html", "mine.html"}


def test_a_link_stays_a_link(tmp_path: Path, page_of_ten: Path, ten: list[Path]) -> None:
    (tmp_path / "link.html").symlink_to(page_of_ten)
    (tmp_path / "new.html").symlink_to(tmp_path / "not-yet.html")
    for link in ("link.html", "new.html"):
        write_gallery(tmp_path / link, [Section("one", hits(ten[:1]))])
        assert (tmp_path / link).is_symlink()
        assert "<h1>one</h1>" in (tmp_path / link).read_text("utf-8")


def test_places_that_cannot_hold_a_page_are_refused_in_one_line(tmp_path: Path, ten: list[Path]) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = left_in(tmp_path)
    for name, said in {
        "pictures": f"{tmp_path}/pictures is a folder",
        "nowhere/page.html": f"{tmp_path}/nowhere ",
        "pictures/red.png/page.html": "Not a directory",
        "pipe": f"{tmp_path}/pipe exists",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises(InputError) as refused:
            write_gallery(tmp_path / name, [Section("one", hits(ten[:1]))])
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
    assert left_in(tmp_path) == before


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, ten: list[Path]) -> None:
    sections = [Section("one", hits(ten[:1]))]
    (tmp_path / "locked").mkdir()
    with deny(tmp_path / "locked", 0o500), pytest.raises(InputError, match=r"locked/page\.html: Permission denied"):
        write_gallery(tmp_path / "locked" / "page.html", sections)
    with deny(tmp_path / "locked"), pytest.raises(InputError, match=r"locked/page\.html: Permission denied"):
        check_replaceable(tmp_path / "locked" / "page.html", PAGE)


@pytest.mark.parametrize("accident", [KeyboardInterrupt, MemoryError])
def test_a_page_that_is_not_finished_leaves_nothing_behind(
    tmp_path: Path, page_of_ten: Path, ten: list[Path], monkeypatch: pytest.MonkeyPatch, accident: type[BaseException]
) -> None:
    before = page_of_ten.read_bytes()

    def fail(path: bytes, side: int) -> Image.Image:
        if path.endswith(b"gray.png"):
            raise accident
        return thumbnail(path, side)

    monkeypatch.setattr(gallery, "thumbnail", fail)
    with pytest.raises(accident):
        write_gallery(page_of_ten, [Section("again", hits(ten))])
    assert page_of_ten.read_bytes() == before
    assert left_in(tmp_path) == {"pictures", "page.html"}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, ten: list[Path]) -> None:
    script = """
import os, resource, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2].split(os.pathsep)
from test_gallery import Section, hits, write_gallery
from clipsearch.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
found = hits([Path(path) for path in sys.argv[3:]])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_gallery(Path(sys.argv[1]), [Section("one", found)])
except InputError as error:
    print(error)
"""
    large = [paint(path.with_suffix(".jpg"), "red", (2000, 1500)) for path in ten]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            tmp_path / "page.html",
            os.pathsep.join([str(Path(__file__).parent), *map(str, TESTS)]),
            *large,
        ],
        capture_output=True,
        check=False,
    )
    assert b"page.html" in done.stdout, done.stderr.decode()
    assert left_in(tmp_path) == {"pictures"}


# --- in a browser ---


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as browser:
        yield browser


def focused(page: Page) -> str:
    """The name of the picture whose tile has the focus."""
    return str(page.evaluate("document.activeElement.querySelector('.name')?.textContent ?? ''"))


def shown(page: Page) -> str:
    """The name of the picture that is enlarged, or nothing."""
    return page.locator("dialog[open] h2").text_content() or "" if page.locator("dialog[open]").count() else ""


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def clipboard(page: Page) -> str:
    page.get_by_text("Path copied").wait_for()
    return str(page.evaluate("navigator.clipboard.readText()"))


def columns(page: Page) -> int:
    return int(page.evaluate("getComputedStyle(document.querySelector('.grid')).gridTemplateColumns.split(' ').length"))


@pytest.mark.parametrize("width", [320, 700, 1400])
def test_arrows_move_in_the_grid_whatever_its_columns(browser: Browser, page_of_ten: Path, width: int) -> None:
    names = [f"{colour}.png" for colour in COLOURS]
    with opened(browser, page_of_ten) as page:
        page.set_viewport_size({"width": width, "height": 700})
        wide = columns(page)
        assert wide >= 2
        press(page, "ArrowDown")
        assert focused(page) == names[0]
        press(page, "ArrowRight")
        assert focused(page) == names[1]
        press(page, "ArrowDown")
        assert focused(page) == names[1 + wide]
        press(page, "ArrowLeft", "ArrowUp")
        assert focused(page) == names[0]
        press(page, "ArrowUp", "ArrowLeft")
        assert focused(page) == names[0]
        press(page, "End", "ArrowRight", "ArrowDown")
        assert focused(page) == names[9]
        press(page, "Home")
        assert focused(page) == names[0]
        press(page, *["ArrowRight"] * (wide - 1), *["ArrowDown"] * 10)  # the last row is shorter
        assert focused(page) == names[9 - (10 - wide) % wide if 10 % wide == 0 else 9]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        frame = page.locator(".frame").last.bounding_box()
        assert frame is not None
        assert frame["width"] == pytest.approx(frame["height"], abs=1)


def test_arrows_go_on_in_the_next_query(browser: Browser, tmp_path: Path, ten: list[Path]) -> None:
    sections = [Section("one", hits(ten[:2])), Section("none", []), Section("two", hits(ten[2:]))]
    write_gallery(tmp_path / "page.html", sections)
    with opened(browser, tmp_path / "page.html") as page:
        press(page, "ArrowRight", "ArrowRight", "ArrowRight")
        assert focused(page) == "blue.png"
        press(page, "ArrowUp")
        assert focused(page) == "red.png"
        press(page, "ArrowRight", "ArrowDown")
        assert focused(page) == "orange.png"
        # Of all tiles, Tab stops at one.
        assert page.locator(".tile[tabindex='0']").count() == 1


def test_an_image_is_enlarged_and_left_by_keys(browser: Browser, page_of_ten: Path, ten: list[Path]) -> None:
    with opened(browser, page_of_ten) as page:
        press(page, "ArrowDown", "ArrowRight", "Enter")
        assert shown(page) == "green.png"
        assert page.locator("dialog .path").text_content() == str(ten[1])
        assert page.locator("#original").get_attribute("href") == ten[1].as_uri()
        # Its middle is white, and the rest of its own colour.
        colour = """picture => picture.decode().then(() => {
            const canvas = new OffscreenCanvas(1, 1).getContext("2d");
            canvas.drawImage(picture, 0, 0, 4, 4, 0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
        })"""
        assert page.locator("#picture").evaluate(colour) == pytest.approx([0, 128, 0], abs=6)
        box = page.locator("#picture").bounding_box()
        assert box is not None
        assert box["width"] > 500  # of 64 pixels
        press(page, "ArrowRight")
        assert shown(page) == "blue.png"
        assert page.locator("#picture").evaluate(colour) == pytest.approx([0, 0, 255], abs=6)
        press(page, "ArrowLeft", "ArrowLeft", "ArrowLeft")
        assert shown(page) == "red.png"
        assert page.locator("#back").is_disabled()
        press(page, "End", "ArrowRight")
        assert shown(page) == "yellow.png"
        assert page.locator("#next").is_disabled()
        press(page, "Home", "ArrowRight", "ArrowRight", "Escape")
        assert shown(page) == ""
        until(page, "document.activeElement.ariaLabel?.startsWith('3: blue.png')")
        press(page, "ArrowRight")
        assert focused(page) == "orange.png"


def test_an_image_is_enlarged_and_left_by_clicks(browser: Browser, page_of_ten: Path) -> None:
    with opened(browser, page_of_ten) as page:
        page.locator(".tile").nth(2).click()
        assert shown(page) == "blue.png"
        page.get_by_role("button", name="Next picture").click()
        assert shown(page) == "orange.png"
        page.get_by_role("button", name="Previous picture").click(click_count=3)
        assert shown(page) == "red.png"
        page.locator("#picture").click()
        assert shown(page) == ""
        page.locator(".tile").nth(9).click()
        page.get_by_role("button", name="Close").click()
        assert shown(page) == ""


def test_an_arrow_that_ends_hands_its_focus_on(browser: Browser, page_of_ten: Path) -> None:
    with opened(browser, page_of_ten) as page:
        press(page, "ArrowDown", "Enter")
        page.locator("#next").focus()
        press(page, *["Enter"] * 9)
        assert shown(page) == "yellow.png"
        assert page.evaluate("document.activeElement.id") == "copy"


def test_c_copies_the_path(browser: Browser, page_of_ten: Path, ten: list[Path]) -> None:
    with opened(browser, page_of_ten) as page:
        press(page, "ArrowDown", "ArrowRight", "c")
        assert clipboard(page) == str(ten[1])
    with opened(browser, page_of_ten) as page:
        press(page, "ArrowDown", "Enter", "ArrowRight", "ArrowRight", "c")
        assert clipboard(page) == str(ten[2])
    with opened(browser, page_of_ten) as page:
        page.locator(".tile").nth(4).click()
        page.get_by_role("button", name="Copy path").click()
        assert clipboard(page) == str(ten[4])


@pytest.mark.parametrize("loss", ["Promise.reject(new Error('no'))", "null()"])
def test_copying_works_where_pages_have_no_clipboard(
    browser: Browser, page_of_ten: Path, ten: list[Path], loss: str
) -> None:
    with opened(browser, page_of_ten) as page:
        page.evaluate(f"void (navigator.clipboard.writeText = () => {loss})")
        press(page, "ArrowDown", "ArrowRight", "c")
        assert clipboard(page) == str(ten[1])
        assert focused(page) == "green.png"
        press(page, "Enter", "ArrowRight", "c")
        assert clipboard(page) == str(ten[2])
        assert page.locator("textarea").count() == 0
        assert page.evaluate("document.activeElement.id") == "copy"


def test_names_and_queries_do_nothing(browser: Browser, tmp_path: Path) -> None:
    paths = hostile(tmp_path / "pictures")
    title = "</title><script>alert(1)</script><img src=x onerror=alert(2)>"
    write_gallery(tmp_path / "page.html", [Section(title, hits(paths)), Section(title, hits(paths))])
    with opened(browser, tmp_path / "page.html") as page:
        assert page.title() == "2 queries · clipsearch"
        assert page.locator("h2").first.text_content() in (title, "")
        assert page.locator("section h2").first.text_content() == title
        assert page.locator("script").count() == 1
        assert page.locator("[onerror], [onfocus], [autofocus]").count() == 0
        until(page, "document.querySelectorAll('img[src]').length >= 1")
        press(page, "ArrowRight", "Enter")
        for tile in page.locator(".tile").all():
            assert shown(page) == tile.locator(".name").text_content()
            assert page.locator("dialog .path").text_content() == tile.get_attribute("data-path")
            press(page, "c", "ArrowRight")
        assert page.locator("#view img").count() == 1


def test_a_hit_without_an_image_says_why_when_enlarged(browser: Browser, tmp_path: Path, ten: list[Path]) -> None:
    write_gallery(tmp_path / "page.html", [Section("x", hits([ten[0], tmp_path / "gone.jpg", ten[1]]))])
    with opened(browser, tmp_path / "page.html") as page:
        press(page, "ArrowRight", "Enter", "ArrowRight")
        assert shown(page) == "gone.jpg"
        assert page.locator("dialog [role=status]").count() == 1  # outside of an open dialog nothing is heard
        assert page.locator("dialog .gone").is_visible()
        assert page.locator("dialog .gone").text_content() == "No picture: it is gone"
        assert not page.locator("#picture").is_visible()
        press(page, "ArrowRight")
        assert page.locator("#picture").is_visible()
        assert not page.locator("dialog .gone").is_visible()


def test_images_of_several_queries_are_shown_in_each(browser: Browser, tmp_path: Path, ten: list[Path]) -> None:
    sections = [Section("one", hits(ten)), *[Section(f"again {number}", hits(ten[::-1])) for number in range(20)]]
    write_gallery(tmp_path / "page.html", sections)
    with opened(browser, tmp_path / "page.html") as page:
        until(page, "!document.querySelector('#query2 img[data-same]')")
        assert page.locator("img[data-same]").count() > 100  # those far away have time
        press(page, "ArrowRight", "Enter", "End")
        assert shown(page) == "red.png"
        sources = "images => images.map(image => image.src)"
        once = page.locator("img[id^=p]:not(#picture)").evaluate_all(sources)
        assert page.locator("#picture").get_attribute("src") == once[0]
        press(page, "Escape")
        until(page, "!document.querySelector('#query21 img[data-same]')")
        for section in ("#query2 img", "#query21 img"):
            assert page.locator(section).evaluate_all(sources) == once[::-1]


@pytest.mark.parametrize("name", [b"#?%41 <b>.png", b"caf\xe9.png"])
def test_the_original_is_one_click_away(browser: Browser, tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    try:
        os.rename(paint(tmp_path / "drawn.png", "red", (70, 50)), path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    write_gallery(tmp_path / "page.html", [Section("x", hits([path]))])
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        page.locator(".tile").click()
        with page.expect_popup() as popup:
            page.get_by_role("link", name="Open original").click()
        popup.value.wait_for_load_state()
        assert popup.value.locator("img").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [70, 50]
    finally:
        context.close()


def test_dark_and_light_follow_the_system_and_the_button(browser: Browser, page_of_ten: Path) -> None:
    def colours(page: Page) -> tuple[int, int]:
        """How light ground and text are."""
        levels = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        ground, text = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in page.evaluate(levels))
        return ground, text

    for scheme in ("light", "dark"):
        with opened(browser, page_of_ten, color_scheme=scheme) as page:
            ground, text = colours(page)
            assert ground - text > 400 if scheme == "light" else text - ground > 400
            page.get_by_role("button", name="Switch between light and dark").click()
            assert colours(page) != (ground, text)
            page.get_by_role("button", name="Switch between light and dark").click()
            assert colours(page) == (ground, text)


def test_five_hundred_hits(browser: Browser, tmp_path: Path) -> None:
    paths = []
    for number in range(500):
        shade = f"rgb({number % 256}, {number // 256 * 200}, 99)"
        paths.append(paint(tmp_path / "pictures" / f"{number:03}.jpg", shade, (160, 120)))
    write_gallery(tmp_path / "page.html", [Section("shades", hits(paths))])
    with opened(browser, tmp_path / "page.html") as page:
        assert page.locator(".tile").count() == 500
        press(page, "ArrowDown", "End", "Enter")
        assert shown(page) == "499.jpg"
        press(page, "Escape")
        until(page, "document.activeElement.matches('.tile')")
        assert page.locator(".tile").last.is_visible()
        whole = "images => images.every(image => image.complete && image.naturalWidth === 160)"
        until(page, f"({whole})([...document.querySelectorAll('.frame img')].slice(-5))")
        # What is out of sight is not drawn, but has its place: the page is as long as it will ever be.
        long = page.evaluate("document.documentElement.scrollHeight")
        press(page, "Home")
        assert page.evaluate("document.documentElement.scrollHeight") == long


def extent(shot: bytes, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of all pixels of a screenshot that are nearly of this colour."""
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), float)
    rows, columns = np.nonzero(np.abs(pixels - colour).max(axis=2) < 45)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_outline_is_drawn_where_the_thing_is(browser: Browser, page_of_six: Path, scheme: str) -> None:
    red, yellow = (255, 0, 0), (255, 214, 10)
    with opened(browser, page_of_six, color_scheme=scheme) as page:
        places = [*page.locator(".frame").all()[: len(PROPORTIONS)], page.locator("#stage")]
        for i, place in enumerate([*places, *places[-1:] * (len(PROPORTIONS) - 1)]):
            if i == len(PROPORTIONS):
                page.locator(".tile").first.click()
            elif i > len(PROPORTIONS):
                press(page, "ArrowRight")
            until(page, "[...document.images].every(image => image.complete || !image.src)")
            outline = extent(place.screenshot(), yellow)
            press(page, "b")
            thing = extent(place.screenshot(), red)
            press(page, "b")
            soft = 16 if i % len(PROPORTIONS) == TINY else 4  # a pixel of it is as wide as that
            assert outline == pytest.approx(thing, abs=soft), PROPORTIONS[i % len(PROPORTIONS)]


def test_outlines_are_hidden_and_shown_by_keys_and_buttons(browser: Browser, page_of_six: Path) -> None:
    def is_drawn(place: str) -> bool:
        return page.locator(f"{place} .box rect").first.is_visible()

    with opened(browser, page_of_six) as page:
        assert is_drawn(".frame")
        press(page, "b")
        assert not is_drawn(".frame")
        assert page.locator("#said").text_content() == "Frames hidden"
        press(page, "ArrowRight", "Enter")
        assert not is_drawn("#stage")
        page.locator("dialog").get_by_role("button", name="Show frames").click()
        assert is_drawn("#stage")
        press(page, "b", "ArrowRight")
        assert (shown(page), is_drawn("#stage")) == ("2.png", False)
        press(page, "b", "Escape")
        assert is_drawn(".frame")
        page.locator("header").get_by_role("button", name="Hide frames").focus()
        press(page, "Enter")
        assert not is_drawn(".frame")
        page.locator("header").get_by_role("button", name="Show frames").click()
        assert is_drawn(".frame")


def test_an_outline_lets_clicks_through_and_does_not_stay_with_the_next_picture(
    browser: Browser, page_of_six: Path
) -> None:
    with opened(browser, page_of_six) as page:
        page.locator(".frame").nth(4).click()  # its outline is all around it
        assert shown(page) == "5.png"
        assert page.locator("#box rect").count() == 2
        press(page, "End")
        assert (shown(page), page.locator("#box rect").count()) == ("1.png", 0)
        page.locator("#stage").click(position={"x": 500, "y": 300})
        assert shown(page) == ""


def test_a_page_without_boxes_has_nothing_to_hide(browser: Browser, page_of_ten: Path) -> None:
    with opened(browser, page_of_ten) as page:
        assert page.locator(".toggle:visible").count() == 0
        press(page, "b")
        assert page.locator("#said").text_content() == ""
        press(page, "ArrowRight", "Enter")
        assert page.locator(".toggle:visible").count() == 0


def test_pages_are_printed_light_with_all_pictures_and_outlines(
    browser: Browser, tmp_path: Path, six: list[Hit]
) -> None:
    sections = [Section("red", six), *[Section("again", six[::-1]) for _ in range(20)]]
    write_gallery(tmp_path / "page.html", sections)
    with opened(browser, tmp_path / "page.html", color_scheme="dark") as page:
        assert page.locator("img[data-same]").count() > 0
        page.emulate_media(media="print")
        page.evaluate("void dispatchEvent(new Event('beforeprint'))")
        assert page.locator("img[data-same]").count() == 0
        until(page, "[...document.images].every(image => image.complete || !image.src)")
        assert page.locator("header button:visible").count() == 0
        shot = page.locator(".frame").first.screenshot()
        assert extent(shot, (255, 214, 10))  # it is there
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert min(map(int, re.findall(r"\d+", ground)[:3])) > 200
