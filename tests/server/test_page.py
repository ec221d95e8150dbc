"""The page that is served, in a browser: typing, filters, keys, one picture, parts of it, pictures from outside."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import headless, until
from conftest import COLOURS, REPOSITORY, SAMPLES, Run, index, paint
from serving import TOKEN, Client, serving

from clipsearch.index.format import FOLDER

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page, Route

HOSTILE = "<img src=x onerror=alert(1)>.jpg"
TILES = "document.querySelectorAll('#grid .tile').length"
NAMES = "[...document.querySelectorAll('#grid .name')].map((name) => name.textContent)"
IS_OPEN = "document.getElementById('view').open"
FOCUSED = "document.activeElement.closest('li')?.dataset.number"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with headless() as browser:
        yield browser


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder with drawings of three years, one of a hostile name, and their index."""
    folder = tmp_path_factory.mktemp("album")
    for number, picture in enumerate(sorted(SAMPLES.glob("[dv]*/*.*"))):
        place = folder / "pictures" / picture.parent.name / picture.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, place)
        os.utime(place, (1.6e9 + 86_400 * 30 * number, 1.6e9 + 86_400 * 30 * number))
    paint(folder / "pictures" / HOSTILE, "red", (90, 60))
    index(run, "pictures", "--model", "picturebook", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def client(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with serving([album / FOLDER], tmp_path_factory.mktemp("thumbnails")) as (_, client):
        yield client


@contextmanager
def page_of(browser: Browser, client: Client, query: str = "", **options: Any) -> Iterator[Page]:  # noqa: ANN401
    """The page; at the end, whatever a page must never do is looked for."""
    context = browser.new_context(**{"viewport": {"width": 1000, "height": 700}, "locale": "en-GB"} | options)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    wrong: list[str] = []

    def dismissed(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", dismissed)
    elsewhere: list[str] = []
    here = f"http://127.0.0.1:{client.port}/"
    context.on("request", lambda request: elsewhere.append(request.url))
    try:
        page.goto(f"{here}?token={TOKEN}{query}")
        assert TOKEN not in page.url
        yield page
        page.evaluate("new Promise(requestAnimationFrame)")
        assert wrong == []
        assert [url for url in elsewhere if not url.startswith((here, f"blob:{here}"))] == []
    finally:
        context.close()


def settled(page: Page, first: str) -> None:
    """Wait until the best hit's name begins so."""
    until(page, f"({NAMES})[0]?.startsWith({first!r}) ?? false")


def chips(page: Page) -> list[str]:
    return [chip.strip() for chip in page.locator("#chips .text").all_text_contents()]


def test_hits_come_while_one_types_and_terms_become_chips(chromium: Browser, client: Client) -> None:
    with page_of(chromium, client) as page:
        assert "Type what the pictures should show" in page.inner_text("#hint")
        assert page.evaluate("document.activeElement.id") == "words"
        page.keyboard.type("a dog is sleeping")
        settled(page, "dog_")
        assert page.inner_text("#summary") == "34 pictures"
        page.keyboard.press("Enter")
        page.keyboard.type("-a fence")
        page.keyboard.press("Enter")
        assert chips(page) == ["a dog is sleeping", "a fence"]
        assert page.locator("#chips .away").count() == 1
        page.get_by_label("Weight of a fence").select_option("0.5")
        until(page, "location.search.includes('not=0.5%3Aa+fence')")
        page.get_by_label("a fence: unwanted. Change").click()
        until(page, "location.search.includes('q=0.5%3Aa+fence')")
        page.get_by_label("Remove a fence").click()
        assert chips(page) == ["a dog is sleeping"]
        page.focus("#words")
        page.keyboard.press("Backspace")  # takes the last term back to be changed
        assert (chips(page), page.input_value("#words")) == ([], "a dog is sleeping")


def test_without_words_the_newest_pictures_are_shown(chromium: Browser, client: Client) -> None:
    with page_of(chromium, client) as page:
        settled(page, HOSTILE)  # was painted just now
        assert page.inner_text("#summary") == "34 pictures, the newest first"
        assert page.input_value("#sort") == "date"
        assert page.locator("#grid h2").count() > 2
        page.select_option("#sort", "date-reverse")
        until(page, "document.getElementById('summary').textContent.endsWith('the oldest first')")
        page.click("#grid .tile >> nth=0")
        assert "score" not in page.inner_text("#facts")
        page.click("#more")
        until(page, "document.getElementById('summary').textContent.startsWith('The 34 that fit best')")
        page.click("#chips button >> nth=-1")
        until(page, "document.getElementById('summary').textContent.endsWith('the oldest first')")


def test_every_state_has_an_address_and_the_back_button_works(chromium: Browser, client: Client) -> None:
    with page_of(chromium, client) as page:
        page.keyboard.type("a dog")
        settled(page, "dog_")
        page.keyboard.press("Enter")
        page.keyboard.type("a car")
        page.keyboard.press("Enter")
        until(page, "document.title.startsWith('a dog + a car')")
        address = page.url
        page.go_back()
        until(page, "document.title.startsWith('a dog ·')")
        assert page.url.endswith("?q=a+dog")
        page.go_forward()
        until(page, f"location.href === {address!r}")
    with page_of(chromium, client, "&" + address.partition("?")[2]) as page:
        until(page, f"{TILES} > 0")
        assert chips(page) == ["a dog", "a car"]


def test_filters_confidence_and_order(chromium: Browser, client: Client) -> None:
    with page_of(chromium, client, "&q=a+dog") as page:
        settled(page, "dog_")
        page.click("#filtering")
        until(page, "document.querySelectorAll('#folders option').length === 3")
        page.fill("#under", "pictures/vehicles")
        page.keyboard.press("Tab")
        until(page, "!document.getElementById('summary').textContent.startsWith('34')")
        assert "under=pictures%2Fvehicles" in page.url
        page.click("#unfilter")
        until(page, "document.getElementById('summary').textContent.startsWith('34')")
        page.focus("#confidence")
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        until(page, "location.search.includes('min_confidence=0.5')")
        until(page, "Number.parseInt(document.getElementById('summary').textContent) < 34")
        assert page.inner_text("#percent") == "50 %"
        page.evaluate("document.getElementById('confidence').value = 0")
        page.dispatch_event("#confidence", "input")
        page.select_option("#sort", "date")
        until(page, "document.querySelectorAll('#grid h2').length > 2")
        days = page.locator("#grid h2").all_text_contents()
        assert days[0].endswith("· 1")
        assert "2023" in days[1]
        assert page.inner_text("#summary") == "The 34 that fit best, by date"


def test_keys_lead_through_the_grid_and_one_picture(chromium: Browser, client: Client) -> None:
    with page_of(chromium, client, "&q=a+dog") as page:
        settled(page, "dog_")
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowDown")
        assert page.evaluate(FOCUSED) == "0"
        columns = page.evaluate(
            "[...document.querySelectorAll('#grid li')].filter((li) => li.dataset.top === '0').length"
        )
        for key, number in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns), ("ArrowUp", 0)):
            page.keyboard.press(key)
            assert page.evaluate(FOCUSED) == str(number)
        page.keyboard.press("End")
        assert page.evaluate(FOCUSED) == "33"
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        until(page, IS_OPEN)
        first = page.inner_text("#name")
        assert "384 \N{MULTIPLICATION SIGN} 384 pixels" in page.inner_text("#facts")
        assert page.inner_text("#path").endswith(f"/dogs/{first}")
        until(page, "document.getElementById('picture').naturalWidth > 300")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#name") != first
        page.keyboard.press("c")
        until(page, "document.getElementById('said').textContent === 'Path copied'")
        assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#path")
        page.keyboard.press("Escape")
        until(page, f"!{IS_OPEN}")
        assert page.evaluate(FOCUSED) == "1"
        until(page, "!location.search.includes('show=')")
        page.keyboard.press("Enter")
        until(page, f"{IS_OPEN} && location.search.includes('show=')")
        page.go_back()  # as Escape does
        until(page, f"!{IS_OPEN}")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "words"


def test_more_and_less_like_a_picture_and_a_part_of_one(chromium: Browser, client: Client) -> None:
    with page_of(chromium, client, "&q=a+red+car") as page:
        until(page, f"{TILES} > 0")
        page.click("#grid .tile >> nth=0")
        name = page.inner_text("#name")
        page.click("#more")
        until(page, f"!{IS_OPEN} && document.querySelectorAll('#chips li').length === 1")
        settled(page, name)
        assert chips(page) == ["a picture"]
        until(page, "document.getElementById('sure').classList.contains('off')")
        page.click("#grid .tile >> nth=3")
        page.keyboard.press("l")
        until(page, "document.querySelectorAll('#chips .away').length === 1")
        assert "unlike=" in page.url
        page.click("#grid .tile >> nth=0")
        until(page, "document.getElementById('picture').naturalWidth > 300")
        box = page.locator("#picture").bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.7, steps=4)
        page.mouse.up()
        until(page, "location.search.includes('%40')")
        assert chips(page) == ["part of a picture"]
        edges = page.evaluate("new URLSearchParams(location.search).get('like').split('@')[1]").split(",")
        assert [float(edge.rstrip("%")) for edge in edges] == pytest.approx([30, 30, 80, 70], abs=2)
        until(page, f"{TILES} > 0")
        page.click("#grid .tile >> nth=0")
        page.keyboard.press("r")  # the same with keys alone
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        until(page, "location.search.includes('%4025%25%2C23%25%2C77%25%2C73%25')")


PASTE = """(data) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], 'a.png', {type: 'image/png'}));
  dispatchEvent(KIND === 'paste' ? new ClipboardEvent('paste', {clipboardData: given})
    : new DragEvent('drop', {dataTransfer: given}));
}"""


def test_pictures_from_outside_are_pasted_dropped_or_chosen(chromium: Browser, client: Client, tmp_path: Path) -> None:
    picture = paint(tmp_path / "new.png", "teal", (300, 200))
    data = base64.b64encode(picture.read_bytes()).decode()
    with page_of(chromium, client) as page:
        for number, kind in enumerate(("paste", "drop"), 1):
            page.evaluate(PASTE.replace("KIND", repr(kind)), data)
            until(page, f"document.querySelectorAll('#chips li').length === {number}")
        page.set_input_files("#file", picture)
        until(page, "document.querySelectorAll('#chips li').length === 3")
        until(page, f"{TILES} > 0")
        until(page, "document.querySelector('#chips img').naturalWidth === 300")
        page.wait_for_load_state("networkidle")  # each picture is another search, which replaces the hits
        page.click("#grid .pick >> nth=0", force=True)
        page.click("#command")
        until(page, "document.getElementById('said').textContent.includes('has no path')")


def test_several_hits_are_selected(chromium: Browser, client: Client, tmp_path: Path) -> None:
    with page_of(chromium, client, "&q=a+dog&not=2:snow", accept_downloads=True) as page:
        settled(page, "dog_")
        page.click("#grid .pick >> nth=0", force=True)
        page.click("#grid .tile >> nth=2", modifiers=["Shift"])
        assert page.inner_text("#selected") == "3 selected"
        page.click("#paths")
        until(page, "document.getElementById('said').textContent === 'Paths copied'")
        paths = page.evaluate("navigator.clipboard.readText()").split("\n")
        assert [Path(path).name for path in paths] == page.evaluate(NAMES)[:3]
        page.click("#command")
        until(page, "document.getElementById('said').textContent === 'Command copied'")
        typed = page.evaluate("navigator.clipboard.readText()")
        assert typed.startswith("clipsearch query 'a dog' --not 2:snow --index ")
        assert typed.endswith(" -k 3")
        with page.expect_download() as download:
            page.click("#zip")
        download.value.save_as(tmp_path / "pictures.zip")
        shutil.unpack_archive(tmp_path / "pictures.zip", tmp_path / "out")
        assert sorted(os.listdir(tmp_path / "out")) == sorted(Path(path).name for path in paths)
        page.keyboard.press("Escape")
        until(page, "document.getElementById('selection').hidden")


def test_a_hostile_name_is_a_name(chromium: Browser, client: Client) -> None:
    with page_of(chromium, client, "&q=a+red+square") as page:
        until(page, f"({NAMES}).length > 0")
        at = page.evaluate(NAMES).index(HOSTILE)
        page.click(f"#grid .tile >> nth={at}")
        until(page, IS_OPEN)
        assert page.inner_text("#name") == HOSTILE


def test_a_mistake_is_said_and_nothing_found_too(chromium: Browser, client: Client) -> None:
    with page_of(chromium, client, "&q=a+dog&after=2090-01-01") as page:
        until(page, "document.getElementById('hint').textContent.startsWith('Nothing fits')")


def test_twenty_thousand_hits_are_scrolled_and_only_some_are_in_the_page(chromium: Browser, client: Client) -> None:
    answer = client.ask("/api/search?q=a+dog&k=1").json
    (hit,) = answer["hits"]

    def many(route: Route) -> None:
        asked = parse_qs(urlsplit(route.request.url).query)
        start = int(asked.get("offset", ["0"])[0])
        ranks = range(start + 1, min(start + int(asked["k"][0]), 20_000) + 1)
        route.fulfill(json=answer | {"total": 20_000, "hits": [hit | {"rank": rank} for rank in ranks]})

    with page_of(chromium, client) as page:
        page.route("**/api/search*", many)
        page.keyboard.type("a dog")
        until(page, f"{TILES} > 0")
        for _ in range(500):
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            assert page.evaluate(TILES) < 150
            if page.locator("#grid li[aria-posinset='20000']").count():
                break
            page.evaluate("new Promise(requestAnimationFrame)")
        until(page, "document.querySelector('#grid li[aria-posinset=\"20000\"]') !== null")
        assert page.inner_text("#summary") == "20,000 pictures"
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Home")
        assert page.evaluate(FOCUSED) == "0"
        assert page.evaluate("scrollY") < 300


def test_what_is_new_in_the_index_is_shown_as_it_comes(chromium: Browser, tmp_path: Path, run: Run) -> None:
    for colour in COLOURS[:2]:
        paint(tmp_path / "pictures" / f"{colour}.png", colour)
    index(run, "pictures", "--model", "picturebook", cwd=tmp_path)
    with (
        serving([tmp_path / FOLDER], tmp_path / "cache", watch=True) as (_, client),
        page_of(chromium, client, "&q=a+red+square") as page,
    ):
        until(page, "document.getElementById('summary').textContent === '2 pictures'")
        paint(tmp_path / "pictures" / "new.png", "teal")
        index(run, cwd=tmp_path)
        until(page, "document.getElementById('summary').textContent === '3 pictures'")
        page.click("#tell")
        until(page, "document.querySelector('#status dd')?.textContent === '3'")
        page.go_back()
        until(page, "document.querySelector('dialog[open]') === null")


AXE = "axe_playwright_python"
VIOLATIONS = """axe.run().then(({violations}) =>
  violations.map((one) => [one.id, one.impact, one.nodes.map((node) => node.html)]))"""


def test_axe_finds_nothing_serious_in_light_and_dark(chromium: Browser, client: Client) -> None:
    pytest.importorskip(AXE)
    axe = next(file for file in resources.files(AXE).iterdir() if file.name.startswith("axe.min"))
    with page_of(
        chromium, client, "&q=a+dog&not=snow", viewport={"width": 400, "height": 800}, bypass_csp=True
    ) as page:
        until(page, f"{TILES} > 0")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # at 400 pixels
        page.add_script_tag(content=axe.read_text("utf-8"))
        page.click("#filtering")
        page.click("#grid .pick >> nth=0", force=True)
        for step in ("", "#grid .tile >> nth=1", "#tell"):
            if step:
                page.click(step)
                until(page, "document.querySelector('dialog[open]') !== null")
            for scheme in ("light", "dark"):
                page.evaluate(f"document.documentElement.dataset.theme = {scheme!r}")
                found = page.evaluate(VIOLATIONS)
                assert [one for one in found if one[1] in ("serious", "critical")] == []
            if step:
                page.keyboard.press("Escape")
                until(page, "document.querySelector('dialog[open]') === null")


def test_the_scripts_are_short_and_load_nothing_from_elsewhere() -> None:
    files = [
        *(REPOSITORY / "clipsearch/server/page").iterdir(),
        *(REPOSITORY / "clipsearch/output/page_parts").iterdir(),
    ]
    for file in files:
        text = file.read_text("utf-8")
        assert text.count("\n") < 400, file.name
        assert "innerHTML" not in text
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), file.name
