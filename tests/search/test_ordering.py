"""The order of hits: by score, date and path, and in groups."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from pathlib import Path

import pytest
from conftest import Run, index, paint

import clipsearch
from clipsearch.errors import InputError
from clipsearch.output.table import write_table
from clipsearch.search.hit import Hit
from clipsearch.search.ordering import group_hits, sort_hits

DAYS = {"new/c": "20240601", "old/a": "20230715", "new/b": "20240531", "old/d": "20240531"}


def hit(path: str, score: float, taken_at: str | None, mtime_ns: int = 0) -> Hit:
    return Hit(1, score, None, path.encode(), 1, 1, 1, mtime_ns, taken_at)


HITS = [
    hit("/b/late.jpg", 0.1, "2024-06-01T08:00:00"),
    hit("/a/early.jpg", 0.3, "1999-12-31T23:59:59"),
    hit("/b/noon.jpg", 0.2, "2024-06-01T12:00:00"),
    hit("/a/same.jpg", 0.2, "2024-06-01T12:00:00"),
]


def names(hits: list[Hit]) -> list[str]:
    return [hit.path.name for hit in hits]


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        ("date", ["early.jpg", "late.jpg", "same.jpg", "noon.jpg"]),
        ("path", ["early.jpg", "same.jpg", "late.jpg", "noon.jpg"]),
        ("score", ["early.jpg", "same.jpg", "noon.jpg", "late.jpg"]),
    ],
)
def test_hits_are_sorted_whatever_their_order_was(by: str, wanted: list[str]) -> None:
    for seed in range(5):
        mixed = random.Random(seed).sample(HITS, len(HITS))
        assert names(sort_hits(mixed, by)) == wanted
        assert names(sort_hits(mixed, by, reverse=True)) == wanted[::-1]


def test_a_picture_without_a_date_has_that_of_its_file() -> None:
    before, after = hit("/x.jpg", 0.1, None, 9 * 10**17), hit("/y.jpg", 0.1, None, 10**18)  # 1998 and 2001
    assert names(sort_hits([*HITS, after, before]))[:3] == ["x.jpg", "early.jpg", "y.jpg"]


def test_groups_come_in_the_order_of_their_first_hits() -> None:
    assert {day: names(of) for day, of in group_hits(HITS, "day").items()} == {
        "2024-06-01": ["late.jpg", "noon.jpg", "same.jpg"],
        "1999-12-31": ["early.jpg"],
    }
    assert list(group_hits(HITS, "month")) == ["2024-06", "1999-12"]
    assert list(group_hits(HITS, "folder")) == ["/b", "/a"]


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(InputError, match="score, date, path"):
        sort_hits(HITS, "size")
    with pytest.raises(InputError, match="day, month, folder"):
        group_hits(HITS, "year")


# --- the commands ---


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Four pictures in two folders, with dates in their names, and their index. Tests read it only."""
    folder = tmp_path_factory.mktemp("album")
    for colour, (name, day) in zip(("red", "green", "blue", "orange"), DAYS.items(), strict=True):
        paint(folder / f"{name}_{day}.png", colour).rename(folder / os.path.dirname(name) / f"{day}_{name[-1]}.png")
    index(run, ".", "--model", "picturebook", cwd=folder)
    return folder


def paths(run: Run, cwd: Path, *arguments: str) -> list[str]:
    done = run("query", "a red car", "--format", "paths", *arguments, cwd=cwd)
    assert done.returncode == 0
    return [line.rpartition("_")[2][0] for line in done.stdout.decode().splitlines()]


def test_the_order_of_a_query(album: Path, run: Run) -> None:
    best = paths(run, album)
    assert paths(run, album, "--sort", "date") == ["a", "b", "d", "c"]
    assert paths(run, album, "--sort", "date", "--reverse") == ["c", "d", "b", "a"]
    assert paths(run, album, "--sort", "path") == ["b", "c", "a", "d"]
    assert paths(run, album, "--reverse") == best[::-1]
    assert paths(run, album, "--by", "day") == ["a", "b", "d", "c"]
    of_best = [one for one in best if (one in "bc") == (best[0] in "bc")]
    assert paths(run, album, "--by", "folder")[:2] == of_best


def test_ranks_and_fields_of_a_group(album: Path, run: Run) -> None:
    hits = json.loads(run("query", "a red car", "--by", "month", "--json", cwd=album).stdout)
    assert [hit["month"] for hit in hits] == ["2023-07", "2024-05", "2024-05", "2024-06"]
    assert sorted(hit["rank"] for hit in hits) == [1, 2, 3, 4]
    assert all(hit["date"].startswith(hit["month"]) for hit in hits)
    head, *rows = run("query", "a red car", "--by", "folder", "--format", "csv", cwd=album).stdout.decode().splitlines()
    assert head.startswith("folder,rank,score")
    assert sorted(row.split(",")[0] for row in rows) == ["new", "new", "old", "old"]
    lines = run("query", "a red car", "--by", "day", cwd=album).stdout.decode().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["2023-07-15", "2024-05-31", "2024-05-31", "2024-06-01"]
    nothing = run("query", "a red car", "--by", "day", "--format", "csv", "--min-score", "0.99", cwd=album)
    assert nothing.stdout.startswith(b"day,rank")


def test_a_table_names_each_group_once(album: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a red car\na cat\n")
    lines = run("query", "a red car", "--by", "month", "--format", "table", cwd=album).stdout.decode().splitlines()
    assert lines[0].startswith("rank")
    assert [line for line in lines[1:] if "_" not in line] == ["2023-07", "2024-05", "2024-06"]
    arguments = ("query", "--from", str(tmp_path / "lines"), "--by", "folder", "--format", "table")
    tables = run(*arguments, cwd=album).stdout.decode().split("\n\n")
    assert [table.splitlines()[0] for table in tables] == ["a red car", "a cat"]
    assert all(table.splitlines().count("new") == 1 for table in tables)


@pytest.mark.parametrize(("dated", "left_out", "stays"), [(False, b"date", b"size"), (True, b"size", b"date")])
def test_a_narrow_table_in_order_of_time_keeps_the_dates(dated: bool, left_out: bytes, stays: bytes) -> None:  # noqa: FBT001
    out = io.BytesIO()
    write_table([(None, HITS, None)], out, 40, dated=dated)
    assert left_out not in out.getvalue()
    assert stays in out.getvalue()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sort", "date", "-k", "2"], "Sorted: the 2 best. To take all that fit well: --min-confidence 0.8 -k all"),
        (["--by", "folder", "-k", "2"], "Grouped: the 2 best."),
        (["--sort", "date", "-k", "all"], "Sorted: all 4, however little they fit."),
        (["--sort", "date", "-k", "2", "--min-score", "-1"], "Sorted: the 2 best images of those that fit."),
        (["--sort", "date", "--min-score", "-1"], ""),
        (["--reverse", "-k", "2"], ""),
    ],
)
def test_what_was_sorted_is_said(album: Path, run: Run, options: list[str], said: str) -> None:
    done = run("query", "a red car", *options, cwd=album)
    assert done.stderr.decode().strip()[: len(said) or None] == said


def test_similar_has_an_order_too(album: Path, run: Run) -> None:
    done = run("similar", "old/20240531_d.png", "--by", "day", "--reverse", cwd=album)
    days = [line.split("\t")[0] for line in done.stdout.decode().splitlines()]
    assert days == ["2024-06-01", "2024-05-31", "2023-07-15"]
    assert "--min-score X" in done.stderr.decode()


def test_the_page_has_a_heading_for_each_group(album: Path, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("query", "a <red> car", "--by", "month", "--html", str(page), cwd=album).returncode == 0
    html = page.read_text("utf-8")
    assert "<h1>a &lt;red&gt; car</h1>" in html
    assert [html.count(f"<h2>{month}</h2>") for month in ("2023-07", "2024-05", "2024-06")] == [1, 1, 1]
    (tmp_path / "lines").write_text("a red car\na cat\n")
    run("query", "--from", str(tmp_path / "lines"), "--by", "folder", "--html", str(page), cwd=album)
    html = page.read_text("utf-8")
    assert "<h1>2 queries</h1>" in html
    assert "<h2>a cat \N{MIDDLE DOT} old</h2>" in html


def labels(run: Run, cwd: Path, *arguments: str) -> list[dict[str, str]]:
    done = run("classify", *arguments, "-l", "a dog", "-l", "a red car", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_classify_has_an_order_for_files_and_for_the_index(album: Path, run: Run) -> None:
    for source in (["old", "new"], ["--indexed"]):
        by_day = labels(run, album, *source, "--by", "day")
        assert [row["day"] for row in by_day] == ["2023-07-15", "2024-05-31", "2024-05-31", "2024-06-01"]
        sure = [row["probability"] for row in labels(run, album, *source, "--sort", "probability")]
        assert sure == sorted(sure, reverse=True)
        by_path = labels(run, album, *source, "--sort", "path", "--reverse")
        assert [row["path"][-5] for row in by_path] == ["d", "a", "c", "b"]
        assert [row["folder"] for row in labels(run, album, *source, "--by", "folder")] in (
            ["old", "old", "new", "new"],
            ["new", "new", "old", "old"],
        )
    assert [row["path"][:3] for row in labels(run, album, "old", "new")] == ["old", "old", "new", "new"]


def test_classify_dates_files_like_the_index(tmp_path: Path, album: Path, run: Run) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0132] = "2001:02:03 04:05:06"  # DateTime
    paint(tmp_path / "20240531_x.jpg", "red", exif=exif)
    shutil.copy(album / "new" / "20240531_b.png", tmp_path / "unnamed.png")
    os.utime(tmp_path / "unnamed.png", (0, 86_400 * 365))
    days = [row["day"] for row in labels(run, tmp_path, ".", "--by", "day", "--model", "picturebook")]
    assert days == ["1971-01-01", "2001-02-03"]
    index(run, ".", "--model", "picturebook", cwd=tmp_path)
    for source in ([str(tmp_path)], ["--indexed"]):  # files whose contents the index knows, and the index
        assert [row["day"] for row in labels(run, tmp_path, *source, "--by", "day")] == days


def test_a_report_has_no_order(album: Path, run: Run) -> None:
    done = run("classify", "old", "new", "--truth", "folders", "--report", "--by", "day", cwd=album)
    assert done.returncode == 2
    assert "--by" in done.stderr.decode()


def test_from_python(album: Path) -> None:
    with clipsearch.open_index(album) as opened:
        groups = clipsearch.group_hits(clipsearch.sort_hits(opened.search("a red car")), "folder")
    assert [Path(folder).name for folder in groups] == ["old", "new"]
