"""Which images a search is about: each filter against what the test itself knows of its pictures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import COLOURS, Run, index, paint
from PIL import Image

import clipsearch
from clipsearch.errors import InputError
from clipsearch.index import joined_rows, selection
from clipsearch.index.filters import FilterArguments, Filters, moment
from clipsearch.search.hit import Hit
from clipsearch.search.index import Index

CAFE = b"pics/cats/caf\xe9.png"
NOW = datetime.now().replace(microsecond=0)  # noqa: DTZ005  (local, as all dates here)


def readable(value: object) -> str:
    """The name of a case, the same in every process."""
    return str(sorted(value) if isinstance(value, set) else value)


class Fact(NamedTuple):
    """What the test knows of a picture."""

    width: int
    """As it is seen."""
    height: int
    date: datetime


def day(text: str) -> datetime:
    return datetime.fromisoformat(text)


FACTS: dict[bytes, Fact] = {
    b"pics/wide.png": Fact(96, 40, day("2024-05-31T00:00:00")),
    b"pics/tall.png": Fact(40, 96, day("2024-05-30T23:59:59")),
    b"pics/square.png": Fact(64, 64, day("2023-12-31T12:00:00")),
    b"pics/#hash.png": Fact(48, 64, NOW - timedelta(days=40)),
    b"pics/!bang.png": Fact(48, 48, NOW - timedelta(hours=3)),
    b"pics/dogs/rex.jpg": Fact(80, 60, day("2020-02-29T10:00:00")),  # from EXIF
    b"pics/dogs/turned.jpg": Fact(60, 80, day("2022-01-01T00:00:00")),  # EXIF turns it
    b"pics/dogs/deep/a.png": Fact(50, 50, day("2021-07-01T08:30:00")),
    b"pics/cats/tom.png": Fact(100, 30, day("2024-05-31T18:30:00")),
    b"pics/cats/dogs/mix.png": Fact(30, 31, day("2024-06-01T00:00:00")),
    CAFE: Fact(64, 48, NOW - timedelta(days=1)),
    b"other/dogs.png": Fact(20, 10, day("2000-01-01T00:00:00")),
}
PICS = {name for name in FACTS if name.startswith(b"pics/")}
DOGS = {name for name in FACTS if name.startswith(b"pics/dogs/")}
CATS = {name for name in FACTS if name.startswith(b"pics/cats/")}
MIX = b"pics/cats/dogs/mix.png"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder with these pictures and their index. Tests read it only."""
    base = tmp_path_factory.mktemp("base")
    for i, (name, fact) in enumerate(FACTS.items()):
        target = os.path.join(os.fsencode(base), name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        size, exif, changed = (fact.width, fact.height), Image.Exif(), fact.date
        if name.endswith(b"turned.jpg"):
            size, exif[0x0112] = size[::-1], 6  # Orientation: a quarter turn
        if name.endswith(b"rex.jpg"):
            exif.get_ifd(0x8769)[0x9003] = fact.date.strftime("%Y:%m:%d %H:%M:%S")  # DateTimeOriginal
            changed = day("2024-06-15T00:00:00")
        picture = base / f"picture{os.path.splitext(os.fsdecode(name))[1]}"
        os.rename(paint(picture, COLOURS[i % len(COLOURS)], size, exif=exif), target)
        os.utime(target, (changed.timestamp(), changed.timestamp()))
    assert index(run, "pics", "other", "--model", "picturebook", cwd=base)["images"] == len(FACTS)
    return base


@pytest.fixture
def opened(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The index, from within its folder."""
    monkeypatch.chdir(base)
    with clipsearch.open_index() as found:
        yield found


@pytest.fixture(autouse=True)
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are found in several parts, as those of many images are."""
    monkeypatch.setattr(joined_rows, "_JOINED", 5)
    monkeypatch.setattr(selection, "_SOME", 2)


def names(hits: list[Hit], base: Path) -> list[bytes]:
    return [hit.path_bytes.removeprefix(os.fsencode(base) + b"/") for hit in hits]


def check(opened: Index, base: Path, wanted: set[bytes], **filters: Any) -> None:  # noqa: ANN401  (FilterArguments)
    """With these filters, exactly these images come, in the order that they have without; and `k` of them."""
    every = opened.search("red", None)
    order = [hit for hit, name in zip(every, names(every, base), strict=True) if name in wanted]
    found = opened.search("red", None, **filters)
    assert names(found, base) == names(order, base)
    assert [hit.rank for hit in found] == list(range(1, len(wanted) + 1))
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in order], abs=1e-6)
    assert opened.search("red", 2, **filters) == found[:2]


def test_what_is_known_of_images_is_what_comes_out(opened: Index, base: Path) -> None:
    hits = opened.search("red", None)
    assert {name: (hit.width, hit.height, hit.date) for name, hit in zip(names(hits, base), hits, strict=True)} == {
        name: (fact.width, fact.height, fact.date.isoformat()) for name, fact in FACTS.items()
    }


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({"after": "2024-05-31"}, lambda f: f.date >= day("2024-05-31")),
        ({"before": "2024-05-31"}, lambda f: f.date < day("2024-05-31")),
        ({"after": "2024-05-31T00:00:01"}, lambda f: f.date >= day("2024-05-31T00:00:01")),
        ({"before": "2024-05-31T00:00:01"}, lambda f: f.date < day("2024-05-31T00:00:01")),
        ({"after": "2024-05-31", "before": "2024-06-01"}, lambda f: f.date.date() == date(2024, 5, 31)),
        ({"after": "2024-05", "before": "2024-06"}, lambda f: (f.date.year, f.date.month) == (2024, 5)),
        ({"after": "2022", "before": "2024"}, lambda f: f.date.year in (2022, 2023)),
        ({"after": "2024-05-31T18:30", "before": "2024-06"}, lambda f: f.date == day("2024-05-31T18:30")),
        ({"before": "2020-02-29T10:00:01"}, lambda f: f.date < day("2020-02-29T10:00:01")),
        ({"after": "12h"}, lambda f: f.date >= NOW - timedelta(hours=12)),
        ({"after": "180min"}, lambda f: f.date > NOW - timedelta(hours=3)),
        ({"after": "30d"}, lambda f: f.date >= NOW - timedelta(days=30)),
        ({"after": "6w"}, lambda f: f.date >= NOW - timedelta(weeks=6)),
        ({"after": "2mo", "before": "30d"}, lambda f: NOW - timedelta(days=58) <= f.date < NOW - timedelta(days=30)),
        ({"after": "100y"}, lambda _: True),
        ({"after": date(2024, 5, 31)}, lambda f: f.date >= day("2024-05-31")),
        ({"before": datetime(2024, 5, 31, 18, 30)}, lambda f: f.date < day("2024-05-31T18:30")),  # noqa: DTZ001
        ({"min_width": 64}, lambda f: f.width >= 64),
        ({"min_width": 65}, lambda f: f.width >= 65),
        ({"min_height": 80}, lambda f: f.height >= 80),
        ({"min_width": 61, "min_height": 60}, lambda f: f.width >= 61 and f.height >= 60),
        ({"orientation": "landscape"}, lambda f: f.width > f.height),
        ({"orientation": "portrait"}, lambda f: f.width < f.height),
        ({"orientation": "square"}, lambda f: f.width == f.height),
        ({"orientation": "portrait", "min_height": 65, "before": "2023"}, lambda f: (f.width, f.height) == (60, 80)),
    ],
)  # fmt: skip
def test_dates_and_shapes(opened: Index, base: Path, filters: Any, fits: Callable[[Fact], bool]) -> None:  # noqa: ANN401
    check(opened, base, {name for name, fact in FACTS.items() if fits(fact)}, **filters)


@pytest.mark.parametrize(
    ("glob", "wanted"),
    [
        ("*", set(FACTS)),
        ("**", set(FACTS)),
        ("*.jpg", {b"pics/dogs/rex.jpg", b"pics/dogs/turned.jpg"}),
        ("t*.png", {b"pics/tall.png", b"pics/cats/tom.png"}),
        ("*.PNG", set()),
        ("wide.png", {b"pics/wide.png"}),
        ("/wide.png", set()),  # with a slash it is seen from here
        ("pics/wide.png", {b"pics/wide.png"}),
        ("/pics/wide.png", {b"pics/wide.png"}),
        ("dogs", DOGS | {MIX}),
        ("dogs/", DOGS | {MIX}),
        ("dogs/*", set()),
        ("pics/dogs", DOGS),
        ("pics/*.png", {name for name in PICS if name.count(b"/") == 1}),
        ("pics/**/*.png", {name for name in PICS if name.endswith(b".png")}),
        ("**/dogs/*.png", {MIX}),
        ("**/dogs/**", DOGS | {MIX}),
        ("pics/*/dogs/", {MIX}),
        ("caf?.png", {CAFE}),
        ("[wt]*.png", {b"pics/wide.png", b"pics/tall.png", b"pics/cats/tom.png"}),
        (r"\#hash.png", {b"pics/#hash.png"}),
        (r"\!bang.png", {b"pics/!bang.png"}),
        ("!dogs", set(FACTS) - DOGS - {MIX}),
        ("!*", set()),
        (["*.jpg", "wide.png"], {b"pics/dogs/rex.jpg", b"pics/dogs/turned.jpg", b"pics/wide.png"}),
        (["*.png", "!dogs"], {name for name in FACTS if name.endswith(b".png")} - DOGS - {MIX}),
        (["!dogs", "*.png"], {name for name in FACTS if name.endswith(b".png")}),  # the last that matches decides
        (["pics", "!pics/dogs", "turned.jpg"], PICS - DOGS | {b"pics/dogs/turned.jpg"}),
        (["!*.png", "!*.jpg"], set()),
    ],
    ids=readable,
)
def test_globs(opened: Index, base: Path, glob: str | list[str], wanted: set[bytes]) -> None:
    check(opened, base, wanted, glob=glob)


@pytest.mark.parametrize(
    ("under", "wanted"),
    [
        ("pics", PICS),
        ("pics/dogs/", DOGS),
        ("./pics/cats/../dogs", DOGS),
        ("pics/dogs/rex.jpg", {b"pics/dogs/rex.jpg"}),
        (".", set(FACTS)),
        ("/", set(FACTS)),
        (Path("pics/dogs"), DOGS),
        (["pics/dogs", "other"], DOGS | {b"other/dogs.png"}),
        (["pics/cats", "pics", "pics/cats/dogs", "pics/cats"], PICS),  # none comes twice
        ([os.fsdecode(CAFE), "pics/dogs"], DOGS | {CAFE}),
        ([], set()),
    ],
    ids=readable,
)
def test_folders(opened: Index, base: Path, under: Any, wanted: set[bytes]) -> None:  # noqa: ANN401
    check(opened, base, wanted, under=under)
    absolute = base / under if isinstance(under, str | Path) else [base / path for path in under]
    check(opened, base, wanted, under=absolute)


def test_files(opened: Index, base: Path) -> None:
    wanted = {b"pics/wide.png", CAFE, MIX}
    check(opened, base, wanted, files=[*map(os.fsdecode, wanted), "pics", "pics/none.png", "/etc/passwd", ""])
    check(opened, base, wanted, files={base / os.fsdecode(name) for name in wanted})
    once = iter([base / os.fsdecode(name) for name in wanted])
    assert len(opened.search("red", None, files=once)) == 3
    check(opened, base, set(), files=[])


def test_filters_narrow_each_other(opened: Index, base: Path) -> None:
    wanted = {
        name
        for name, fact in FACTS.items()
        if name in DOGS | CATS and fact.width >= 50 and fact.date < day("2024-06-01") and name.endswith(b"g")
    } - {b"pics/dogs/rex.jpg"}
    assert len(wanted) == 3
    check(
        opened,
        base,
        wanted,
        under=["pics/dogs", "pics/cats"],
        glob=["*g", "!rex.*"],
        min_width=50,
        before="2024-06",
        files=[os.fsdecode(name) for name in FACTS],
    )


def test_filters_come_before_ranking_also_for_many_queries_and_images(opened: Index, base: Path) -> None:
    for hits in opened.search_many(["red", "green", "blue"], 3, glob="dogs"):
        assert len(hits) == 3
        assert set(names(hits, base)) <= DOGS | {MIX}
    similar = opened.similar("pics/wide.png", None, orientation="landscape")
    assert set(names(similar, base)) == {n for n, f in FACTS.items() if f.width > f.height} - {b"pics/wide.png"}


def test_an_image_that_is_gone_passes_no_filter(base: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(base, tmp_path / "copy")
    (tmp_path / "copy" / "pics" / "dogs" / "rex.jpg").unlink()
    assert index(run, cwd=tmp_path / "copy")["embedded"] == 0
    done = run("query", "red", "-0", "--glob", "*.jpg", cwd=tmp_path / "copy")
    assert done.stdout == b"pics/dogs/turned.jpg\0"
    done = run("query", "red", "-0", "--under", "pics/dogs/rex.jpg", cwd=tmp_path / "copy")
    assert (done.returncode, done.stdout) == (2, b"")


# -- with the real command ---------------------------------------------------------------------------------------


def found(run: Run, *arguments: str | bytes | Path, cwd: Path, env: Mapping[str, str] | None = None) -> set[bytes]:
    """The paths that a query for all images prints."""
    done = run("query", "red", "-k", "all", "-0", *arguments, cwd=cwd, env=env)
    assert done.returncode == bool(not done.stdout), done.stderr.decode()
    listed = done.stdout.split(b"\0")[:-1]
    assert len(listed) == len(set(listed))
    return set(listed)


def test_every_option_reaches_its_filter(base: Path, run: Run) -> None:
    arguments = ["--under", "pics/dogs", "--under", "pics/cats", "--glob", "*g", "-g", "!rex.*", "--after", "2022"]
    arguments += ["--before", "2024-06", "--min-width", "60", "--min-height", "30"]
    assert found(run, *arguments, cwd=base) == {b"pics/dogs/turned.jpg", b"pics/cats/tom.png"}
    assert found(run, *arguments, "--orientation", "portrait", cwd=base) == {b"pics/dogs/turned.jpg"}
    listed = json.loads(run("query", "red", "-k", "2", "--glob", "*.jpg", "--json", cwd=base).stdout)
    assert {hit["path"] for hit in listed} == {"pics/dogs/rex.jpg", "pics/dogs/turned.jpg"}
    assert {(hit["width"], hit["height"]) for hit in listed} == {(80, 60), (60, 80)}
    assert {hit["date"] for hit in listed} == {"2020-02-29T10:00:00", "2022-01-01T00:00:00"}


def test_no_image_passes_the_filters(base: Path, run: Run) -> None:
    done = run("query", "red", "--glob", "*.tiff", cwd=base)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"*.tiff" in done.stderr


def test_the_message_holds_nothing_that_a_terminal_would_obey(base: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "esc\x1b[31m"
    folder.mkdir()
    done = run("query", "red", "--under", folder, cwd=base)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"\x1b" not in done.stderr
    assert rb"esc\x1b[31m" in done.stderr


def test_from_a_folder_below_an_index_answers_for_that_folder(base: Path, run: Run) -> None:
    dogs = base / "pics" / "dogs"
    here = {b"rex.jpg", b"turned.jpg", b"deep/a.png"}
    whole = os.fsencode(base) + b"/"
    everything = {name.removeprefix(b"pics/dogs/") if name in DOGS else whole + name for name in FACTS}
    assert found(run, cwd=dogs) == here
    assert found(run, "--under", "..", cwd=dogs) == {name for name in everything if b"/other/" not in name}
    assert found(run, "--under", "../..", cwd=dogs) == everything
    assert found(run, "--under", "deep", cwd=dogs) == {b"deep/a.png"}
    assert found(run, "--index", base, cwd=dogs) == everything
    assert found(run, cwd=dogs, env={"CLIPSEARCH_INDEX": str(base)}) == everything
    assert found(run, cwd=base) == set(FACTS)
    similar = run("similar", "rex.jpg", "-0", cwd=dogs)
    assert set(similar.stdout.split(b"\0")[:-1]) == here - {b"rex.jpg"}


def test_below_a_folder_without_images_the_message_names_it(base: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(base / ".clipsearch", tmp_path / ".clipsearch")
    shutil.copytree(base / "pics", tmp_path / "pics")
    (tmp_path / "notes").mkdir()
    done = run("query", "red", cwd=tmp_path / "notes")
    assert (done.returncode, done.stdout) == (1, b"")
    assert str(tmp_path / "notes") in done.stderr.decode()
    assert found(run, "--under", "..", "--glob", "wide.png", cwd=tmp_path / "notes")


def test_a_program_says_from_where_globs_are_seen(opened: Index, base: Path) -> None:
    check(opened, base, {b"pics/dogs/rex.jpg", b"pics/dogs/turned.jpg"}, glob="/dogs/*.jpg", seen_from=base / "pics")
    check(opened, base, set(), glob="/dogs/*.jpg")


def test_globs_are_seen_from_the_current_folder(base: Path, run: Run) -> None:
    pics = base / "pics"
    assert found(run, "--glob", "/wide.png", cwd=pics) == {b"wide.png"}
    assert found(run, "--glob", "dogs/*", cwd=pics) == {b"dogs/rex.jpg", b"dogs/turned.jpg", b"dogs/deep/a.png"}
    assert found(run, "--glob", "pics/wide.png", cwd=pics) == set()


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
def test_a_list_of_files(base: Path, run: Run, tmp_path: Path, separator: bytes, last: bool) -> None:  # noqa: FBT001
    listed = [b"pics/wide.png", CAFE, b"./pics/dogs/rex.jpg", b"pics/unknown.png", os.fsencode(base) + b"/" + MIX]
    (tmp_path / "list").write_bytes(separator.join(listed) + (separator if last else b""))
    wanted = {b"pics/wide.png", CAFE, b"pics/dogs/rex.jpg", MIX}
    assert found(run, "--files-from", tmp_path / "list", cwd=base) == wanted


def test_a_list_of_files_on_standard_input(base: Path, run: Run) -> None:
    def piped(content: bytes, cwd: Path) -> subprocess.CompletedProcess[bytes]:
        return run("query", "red", "-0", "--files-from", "-", cwd=cwd, stdin=content)

    assert piped(b"rex.jpg\ndeep/a.png\n", base / "pics" / "dogs").stdout.count(b"\0") == 2
    nothing = piped(b"", base)
    assert (nothing.returncode, nothing.stdout) == (1, b"")


def test_a_tilde_in_a_list_of_files_is_a_name_like_any_other(tmp_path: Path, run: Run) -> None:
    paint(tmp_path / "~" / "a.png", "red")
    index(run, ".", "--model", "picturebook", cwd=tmp_path)
    (tmp_path / "list").write_text("~/a.png\n")
    assert found(run, "--files-from", "list", cwd=tmp_path) == {b"~/a.png"}


# -- dates as people write them ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2024-05-31", "2024-05-31T00:00:00"),
        ("2024-05", "2024-05-01T00:00:00"),
        ("2024", "2024-01-01T00:00:00"),
        (" 2024-05 ", "2024-05-01T00:00:00"),
        ("2024-05-31T18:30", "2024-05-31T18:30:00"),
        ("2024-05-31 18:30:05", "2024-05-31T18:30:05"),
        ("30d", "2024-03-01T12:30:15"),
        ("12h", "2024-03-31T00:30:15"),
        ("2w", "2024-03-17T12:30:15"),
        ("2 w", "2024-03-17T12:30:15"),
        ("90min", "2024-03-31T11:00:15"),
        ("0d", "2024-03-31T12:30:15"),
        ("1mo", "2024-02-29T12:30:15"),  # there is no 31st of February
        ("13mo", "2023-02-28T12:30:15"),
        ("6mo", "2023-09-30T12:30:15"),
        ("3mo", "2023-12-31T12:30:15"),
        ("12mo", "2023-03-31T12:30:15"),
        ("1y", "2023-03-31T12:30:15"),
        ("2023y", "0001-03-31T12:30:15"),
    ],
)
def test_what_moment_is_meant(text: str, wanted: str) -> None:
    assert moment(text, day("2024-03-31T12:30:15")) == day(wanted)


def test_a_year_before_a_leap_day_is_the_day_before() -> None:
    assert moment("1y", day("2024-02-29T00:00:00")) == day("2023-02-28T00:00:00")
    assert moment("4y", day("2024-02-29T00:00:00")) == day("2020-02-29T00:00:00")


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be changed here")
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("2024-05-31T18:30Z", "2024-05-31T14:30:00"),
        ("2024-05-31T18:30z", "2024-05-31T14:30:00"),
        ("2024-12-31T18:30+02:00", "2024-12-31T11:30:00"),
        ("2024-05-31T18:30", "2024-05-31T18:30:00"),
        (datetime(2024, 5, 31, 18, 30, tzinfo=UTC), "2024-05-31T14:30:00"),
    ],
)
def test_a_time_zone_is_counted_in(monkeypatch: pytest.MonkeyPatch, given: str | datetime, wanted: str) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")  # New York's, for which no data base is needed
        time.tzset()
        filters = Filters.of(FilterArguments(after=given))
    time.tzset()
    assert filters.after == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "soon", "today", "2024-13", "2024-00", "2024-02-30", "2023-02-29", "2024-5-1", "31.05.2024", "0000"),
        *("30", "d", "-3d", "+3d", "3 weeks", "30d ago", "1.5d", "1e3d", "5M", "24:00", "2024-05-31T25:00"),
        *("9000y", "99999y", "9999999mo", "9" * 30 + "d", "9" * 30 + "y"),
    ],
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^after: .* date"):
        Filters.of(FilterArguments(after=text))


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (FilterArguments(after="2024-05-31", before="2024-05-31"), "after 2024-05-31T00:00:00 and before"),
        (FilterArguments(after="1d", before="2d"), " and before "),
        (FilterArguments(glob="!"), "glob: '!'"),
        (FilterArguments(glob=["*.jpg", "#x"]), "glob: '#x'"),
        (FilterArguments(glob=["*.jpg", "["]), r"glob: '\['"),
        (FilterArguments(min_height=-1), "height"),
        (FilterArguments(orientation="round"), "'round'.* landscape, portrait, square"),
    ],
)
def test_what_no_image_can_fulfil_is_refused(filters: FilterArguments, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Filters.of(filters)


def test_an_unknown_folder_is_refused_and_a_known_one_that_is_gone_is_not(base: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(base, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "pics" / "cats")
    with clipsearch.open_index(tmp_path / "copy") as opened:
        assert len(opened.search("red", under=tmp_path / "copy" / "pics" / "cats")) == len(CATS)
        with pytest.raises(InputError, match=r"under: .*cows"):
            opened.search("red", under=tmp_path / "copy" / "cows")
    (tmp_path / "copy" / "empty").mkdir()
    assert found(run, "--under", "empty", cwd=tmp_path / "copy") == set()


@pytest.mark.parametrize("zone", ["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "NST3:30NDT,M3.2.0,M11.1.0", "LINT-14"])
def test_what_is_shown_and_what_is_filtered_is_the_same_moment(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    """Also before 1970 and after 2037, where SQLite's local time is another one, and around a change of the clock."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        moments = [-149_000_000 + 1800 * i for i in range(4)]  # 1965
        moments += [1_729_989_000 + 1800 * i for i in range(6)]  # the end of summer time in Europe, 2024
        moments += [2_531_344_000 + 1800 * i for i in range(4)]  # 2050
        moments += [-4_000_000_000, 0, 4_200_000_000]
        for i, seconds in enumerate(moments):
            path = paint(tmp_path / "p" / f"{i:02}.png", COLOURS[i % len(COLOURS)], (40 + i, 40))
            os.utime(path, (seconds, seconds))
        index(run, "p", "--model", "picturebook", cwd=tmp_path)
        with clipsearch.open_index(tmp_path) as opened:
            every = opened.search("red", None)
            assert len(every) == len(moments)
            for bound in {hit.date for hit in every} | {hit.date[:10] for hit in every}:
                later = {hit.path for hit in opened.search("red", None, after=bound)}
                assert later == {hit.path for hit in every if hit.date >= bound}, bound
                earlier = {hit.path for hit in opened.search("red", None, before=bound)}
                assert earlier == {hit.path for hit in every if hit.date < bound}, bound
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--files-from", "list"], "listed"),
        (["--under", "empty"], "empty"),
        (["--glob", "*.nowhere"], "*.nowhere"),
        (["--glob", "*.png", "--min-width", "10000"], "filters"),
        (["--under", "pics", "--glob", "*.nowhere"], "*.nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_list_a_folder_or_a_pattern_that_matches_nothing_at_all_is_named(
    base: Path, run: Run, arguments: list[str], says: str
) -> None:
    (base / "empty").mkdir(exist_ok=True)
    (base / "list").write_text("nowhere.png\n")
    done = run("query", "red", *arguments, cwd=base)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert says in done.stderr.decode()


@pytest.mark.parametrize(
    "content",
    [
        b"pics/wide.png\r\npics/tall.png\r\n",
        b"\xef\xbb\xbfpics/wide.png\npics/tall.png\n",
        "pics/wide.png\r\npics/tall.png\r\n".encode("utf-16"),
        "\ufeffpics/wide.png\npics/tall.png".encode("utf-16-be"),
        b"pics/wide.png\0pics/tall.png\0",
        b"\n\npics/wide.png\n\npics/tall.png\n\n",
    ],
)
def test_a_list_may_come_from_any_editor(base: Path, run: Run, content: bytes) -> None:
    (base / "list").write_bytes(content)
    done = run("query", "red", "--files-from", "list", "--format", "paths", cwd=base)
    assert sorted(done.stdout.split()) == [b"pics/tall.png", b"pics/wide.png"], done.stderr.decode()


def test_a_carriage_return_may_be_part_of_a_name(tmp_path: Path, run: Run) -> None:
    os.rename(paint(tmp_path / "p" / "a.png", "red"), tmp_path / "p" / "a\r.png")
    os.rename(paint(tmp_path / "p" / "b.png", "blue"), tmp_path / "p" / "b.png\r.png")
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    (tmp_path / "list").write_bytes(b"p/a\r.png\n")
    done = run("query", "red", "--files-from", "list", "-0", cwd=tmp_path)
    assert done.stdout == b"p/a\r.png\0"
