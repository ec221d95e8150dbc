"""Hits in every format, in a pipe and on a terminal, with every kind of name; and the same with many queries."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import subprocess
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import COLOURS, Run, index, paint
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from terminal import on_a_terminal
from warm import Warm

from clipsearch.images.codecs.box import parse_box
from clipsearch.output.hits import COLUMNS, Found, write_hits
from clipsearch.output.table import cut, write_table
from clipsearch.search.hit import Hit

# Names of pictures, and how a terminal shows those that it may not get as they are.
NAMES: dict[str, dict[bytes, str]] = {
    "plain": {b"plain.png": "plain.png", b"sub/plain.png": "sub/plain.png"},
    "odd": {
        b"with  spaces .png": "with  spaces .png",
        b"quo\"te's.png": "quo\"te's.png",
        b"com,ma.png": "com,ma.png",
        b"tab\tbed.png": r"tab\tbed.png",
        b"new\nline.png": r"new\nline.png",
        b"carriage\rreturn.png": r"carriage\rreturn.png",
        b"esc\x1b[31m.png": r"esc\x1b[31m.png",
        b"delete\x7f.png": r"delete\x7f.png",
        "control\N{CONTROL SEQUENCE INTRODUCER}2J.png".encode(): r"control\x9b2J.png",
        "emoji\N{GRINNING FACE}.png".encode(): "emoji\N{GRINNING FACE}.png",
        "\u753b\u50cf\u30d5\u30a1\u30a4\u30eb.png".encode(): "\u753b\u50cf\u30d5\u30a1\u30a4\u30eb.png",
        "cafe\N{COMBINING ACUTE ACCENT}.png".encode(): "cafe\N{COMBINING ACUTE ACCENT}.png",
        "over\N{RIGHT-TO-LEFT OVERRIDE}gnp.png".encode(): r"over\u202egnp.png",
        b"[bold]brackets[/].png": "[bold]brackets[/].png",
        b"-dash.png": "-dash.png",
        b"=cmd().png": "=cmd().png",
    },
    "not UTF-8": {b"caf\xe9.png": r"caf\xe9.png", b"\xff\xfe.png": r"\xff\xfe.png"},
}
ALL = {name: shown for kind in NAMES.values() for name, shown in kind.items()}

# How names come out. exact: byte for byte. escaped: what a terminal would obey, and bytes that are not UTF-8, as
# escapes. replaced: with replacement characters, and lossless in `path_bytes`.
WAYS = {
    # format    where        plain     odd        not UTF-8
    ("auto", "pipe"): ("exact", "exact", "exact"),
    ("auto", "terminal"): ("exact", "escaped", "escaped"),
    ("table", "pipe"): ("exact", "escaped", "escaped"),
    ("table", "terminal"): ("exact", "escaped", "escaped"),
    ("tsv", "pipe"): ("exact", "exact", "exact"),
    ("tsv", "terminal"): ("exact", "escaped", "escaped"),
    ("csv", "pipe"): ("exact", "exact", "exact"),
    ("csv", "terminal"): ("exact", "escaped", "escaped"),
    ("json", "pipe"): ("exact", "exact", "replaced"),
    ("json", "terminal"): ("exact", "exact", "replaced"),
    ("jsonl", "pipe"): ("exact", "exact", "replaced"),
    ("jsonl", "terminal"): ("exact", "exact", "replaced"),
    ("paths", "pipe"): ("exact", "exact", "exact"),
    ("paths", "terminal"): ("exact", "escaped", "escaped"),
    ("-0", "pipe"): ("exact", "exact", "exact"),
    ("-0", "terminal"): ("exact", "exact", "exact"),
}
TSV_START = rb"(?m)^\d+\t-?\d\.\d{4}\t\d\.\d{3}\t"
TABLE_ROW = rb" *\d+ +-?\d\.\d{4} +\d\.\d\d  (.*?) +\d+x\d+  \d{4}-\d\d-\d\d"

Output = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder with pictures of all these names and their index. Tests read it only."""
    folder = tmp_path_factory.mktemp("names")
    for i, name in enumerate(ALL):
        # Pillow wants names that it can encode.
        picture = paint(folder / "picture.png", COLOURS[i % len(COLOURS)], (64 + i, 48))
        target = os.path.join(os.fsencode(folder), b"p", name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(picture, target)
    assert index(run, "p", "--model", "picturebook", cwd=folder)["images"] == len(ALL)
    return folder


@pytest.fixture(scope="module")
def output(folder: Path, run: Run, without_torch: Warm) -> Output:
    """What a query says on a pipe or a terminal; each is run once."""
    known: dict[object, subprocess.CompletedProcess[bytes]] = {}

    def output(*arguments: str, where: str = "pipe", columns: int = 200) -> subprocess.CompletedProcess[bytes]:
        key = (arguments, where, columns)
        if key not in known:
            command = ("query", *arguments)
            known[key] = (
                on_a_terminal(*command, cwd=folder, warm=without_torch, columns=columns)
                if where == "terminal"
                else run(*command, cwd=folder, env={"COLUMNS": str(columns)})
            )
        return known[key]

    return output


def flags(form: str) -> list[str]:
    return {"auto": [], "-0": ["-0"]}.get(form, ["--format", form])


def names_in(out: bytes, form: str, where: str) -> list[bytes]:
    """The names as they stand in `out`, in their order."""
    if form == "auto":
        form = "table" if where == "terminal" else "tsv"
    if form == "tsv":
        start, *fields = re.split(TSV_START, out)
        assert start == b""
        assert all(field.endswith(b"\n") for field in fields)
        return [field[:-1] for field in fields]
    if form == "table":
        header, *lines = out.removesuffix(b"\n").split(b"\n")
        assert header.split() == [b"rank", b"score", b"conf", b"path", b"size", b"date"]
        matches = [re.fullmatch(TABLE_ROW, line) for line in lines]
        return [match[1] if match else b"?" for match in matches]
    if form == "csv":
        return [os.fsencode(row["path"]) for row in csv_rows(out)]
    if form in ("json", "jsonl"):
        return [hit["path"].encode() for hit in json_hits(out, form)]
    end = b"\0" if form == "-0" else b"\n"
    if form == "paths" and where == "pipe":  # a name may hold a line end itself
        out = out.replace(b"new\nline", b"new\0line")
        return [name.replace(b"\0", b"\n") for name in out.removesuffix(b"\n").split(b"\n")]
    assert out.endswith(end)
    return out.removesuffix(end).split(end)


def csv_rows(out: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out.decode("utf-8", "surrogateescape"), newline=""), strict=True))


def json_hits(out: bytes, form: str = "json") -> list[dict[str, Any]]:
    return list(json.loads(out)) if form == "json" else [json.loads(line) for line in out.split(b"\n")[:-1]]


@pytest.mark.parametrize("kind", list(NAMES))
@pytest.mark.parametrize(("form", "where"), list(WAYS))
def test_how_names_come_out(output: Output, form: str, where: str, kind: str) -> None:
    done = output("red", "-k", "all", *flags(form), where=where)
    assert (done.returncode, done.stderr) == (0, b"")
    found = names_in(done.stdout, form, where)
    assert len(found) == len(ALL)
    way = WAYS[form, where][list(NAMES).index(kind)]
    for name, shown in NAMES[kind].items():
        wanted = {"exact": name, "escaped": shown.encode(), "replaced": name.decode("utf-8", "replace").encode()}[way]
        assert b"p/" + wanted in found
    if way == "replaced":
        raw = [base64.b64decode(hit["path_bytes"]) for hit in json_hits(done.stdout, form) if "path_bytes" in hit]
        assert sorted(raw) == sorted(b"p/" + name for name in NAMES[kind])


@pytest.mark.parametrize(("form", "where"), list(WAYS))
def test_all_formats_have_the_same_order(output: Output, form: str, where: str) -> None:
    order = names_in(output("red", "-k", "all", "-0").stdout, "-0", "pipe")
    assert sorted(order) == sorted(b"p/" + name for name in ALL)
    forms = [
        {name, b"p/" + ALL[name[2:]].encode(), name.decode("utf-8", "replace").encode()} for name in order
    ]  # of one name
    found = names_in(output("red", "-k", "all", *flags(form), where=where).stdout, form, where)
    assert all(name in possible for name, possible in zip(found, forms, strict=True))


@pytest.mark.parametrize("form", ["auto", "table", "tsv", "csv", "json", "jsonl", "paths"])
def test_a_terminal_gets_nothing_that_it_would_obey(output: Output, form: str) -> None:
    out = output("red", "-k", "all", *flags(form), where="terminal").stdout.decode()
    assert out.count("\t") == (3 * len(ALL) if form == "tsv" else 0)  # between fields only
    text = out.replace("\r\n", "\n").replace("\t", "")
    assert {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")} == {"\n"}


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_in_a_pipe_holds_no_raw_control_character(output: Output, form: str) -> None:
    out = output("red", "-k", "all", *flags(form)).stdout.decode()
    assert {c for c in out if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")} == {"\n"}
    assert out.isascii()  # so that any encoding can print it
    assert "emoji\\ud83d\\ude00" in out


def test_the_fields_of_json_and_jsonl_are_the_same_and_in_order(output: Output) -> None:
    hits = json_hits(output("red", "-k", "all", "--format", "json").stdout)
    assert hits == json_hits(output("red", "-k", "all", "--format", "jsonl").stdout, "jsonl")
    assert hits == json_hits(output("red", "-k", "all", "--json").stdout)
    names = ["rank", "score", "confidence", "path", "width", "height", "bytes", "date", "date_source"]
    for rank, hit in enumerate(hits, 1):
        assert [name for name in hit if name != "path_bytes"] == names
        assert hit["rank"] == rank
        assert 64 <= hit["width"] < 64 + len(ALL)
        assert hit["height"] == 48
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", hit["date"])


def test_csv_follows_rfc_4180(output: Output, folder: Path) -> None:
    out = output("red", "-k", "all", "--format", "csv").stdout
    assert out.startswith(b"rank,score,confidence,path,width,height,bytes,date,date_source\r\n")
    assert out.endswith(b"\r\n")
    # Line ends are CR LF, all but those within quotes.
    outside = b"".join(re.split(rb'"(?:[^"]|"")*"', out))
    assert outside.count(b"\n") == outside.count(b"\r\n") == len(ALL) + 1
    # Quotes are where they must be and nowhere else, and doubled within.
    assert re.findall(rb'"(?:[^"]|"")*"', out)
    for name in ALL:
        needs = any(byte in name for byte in b'",\r\n')
        field = b'"p/' + name.replace(b'"', b'""') + b'"' if needs else b"p/" + name
        assert b"," + field + b"," in out
    # Every field is what JSON says.
    hits = json_hits(output("red", "-k", "all", "--json").stdout)
    for row, hit in zip(csv_rows(out), hits, strict=True):
        assert [int(row[name]) for name in ("rank", "width", "height", "bytes")] == [
            *(hit[name] for name in ("rank", "width", "height", "bytes"))
        ]
        assert float(row["score"]) == pytest.approx(hit["score"], abs=1e-6)
        assert float(row["confidence"]) == pytest.approx(hit["confidence"], abs=1e-6)
        assert row["date"] == hit["date"]
        assert os.stat(os.path.join(os.fsencode(folder), os.fsencode(row["path"]))).st_size == int(row["bytes"])


def test_tsv_says_rank_score_and_confidence_as_json_does(output: Output) -> None:
    starts = re.findall(TSV_START, output("red", "-k", "all").stdout)
    hits = json_hits(output("red", "-k", "all", "--json").stdout)
    for start, hit in zip(starts, hits, strict=True):
        rank, score, confidence, _ = start.split(b"\t")
        assert int(rank) == hit["rank"]
        assert float(score) == pytest.approx(hit["score"], abs=6e-5)
        assert float(confidence) == pytest.approx(hit["confidence"], abs=6e-4)


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("auto", b""),
        ("table", b""),
        ("tsv", b""),
        ("csv", b"rank,score,confidence,path,width,height,bytes,date,date_source\r\n"),
        ("json", b"[]\n"),
        ("jsonl", b""),
        ("paths", b""),
        ("-0", b""),
    ],
)
def test_nothing_found(output: Output, form: str, wanted: bytes) -> None:
    done = output("red", "--min-score", "1", *flags(form))
    assert (done.returncode, done.stdout) == (1, wanted)
    assert done.stderr.startswith(b"Nothing found: the closest image has score ")


# -- the table ---------------------------------------------------------------------------------------------------


def hit(path: str | bytes, *, rank: int = 1, score: float = 0.25, confidence: float | None = 0.5) -> Hit:
    raw = path.encode() if isinstance(path, str) else path
    return Hit(rank, score, confidence, raw, 64, 48, 1234, 1_700_000_000 * 10**9, "2024-05-31T18:30:00")


def in_regions(form: str, *boxes: tuple[int, int, int, int] | None, **options: Any) -> str:  # noqa: ANN401
    """Hits of a search in which regions took part."""
    found = [hit(f"{number}.png")._replace(box=box, among_regions=True) for number, box in enumerate(boxes)]
    out = io.BytesIO()
    write_hits([Found("red", found)], form, out, **options)
    return out.getvalue().decode()


def test_a_box_is_an_array_or_null_where_regions_took_part() -> None:
    boxes, cells, arrays = [(0, 512, 1170, 1682), None], ["0,512,1170,1682", ""], [[0, 512, 1170, 1682], None]
    assert [one["box"] for one in json.loads(in_regions("json", *boxes))] == arrays
    assert [json.loads(line)["box"] for line in in_regions("jsonl", *boxes).splitlines()] == arrays
    for form in ("csv", "safe-csv"):
        rows = list(csv.DictReader(io.StringIO(in_regions(form, *boxes))))
        assert list(rows[0]) == [*COLUMNS, "box"]
        assert [row["box"] for row in rows] == cells
    assert str(parse_box(cells[0])) == cells[0]  # so it is what `similar --box` takes
    assert [len(line.split("\t")) for line in in_regions("tsv", *boxes).splitlines()] == [4, 4]
    assert in_regions("paths", *boxes) == "0.png\n1.png\n"


def test_no_format_tells_of_boxes_where_there_are_no_regions() -> None:
    out = io.BytesIO()
    for form in ("json", "jsonl", "csv", "tsv", "table", "paths"):
        write_hits([Found("red", [hit("a.png")])], form, out)
    assert b"box" not in out.getvalue()


def test_a_table_shows_boxes_if_a_hit_has_one_and_if_there_is_room() -> None:
    assert "box" not in in_regions("table", None, None)
    wide = in_regions("table", (0, 512, 1170, 1682), None, screen=100).splitlines()
    assert wide[0].split()[-1] == "box"
    assert wide[1].endswith("  0,512,1170,1682")
    assert not wide[2].endswith("0")
    narrow = in_regions("table", (0, 512, 1170, 1682), None, screen=30).splitlines()
    assert "box" not in narrow[0]
    assert max(map(len, narrow)) <= 30


def table(hits: Sequence[Hit], width: int | None) -> list[str]:
    out = io.BytesIO()
    write_table([(None, hits, None)], out, width)
    return out.getvalue().decode().splitlines()


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_a_table_fits_the_terminal(output: Output, columns: int) -> None:
    done = output("red", "-k", "all", where="terminal", columns=columns)
    lines = done.stdout.decode().split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(ALL) + 1
    assert all(cell_len(line) <= columns for line in lines)
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (None, "rank score conf path size date"),
        (52, "rank score conf path size date"),  # as wide as all of it
        (51, "rank score conf path size"),
        (40, "rank score conf path size"),
        (39, "rank score conf path"),
        (33, "rank score conf path"),
        (32, "rank score conf path"),  # and now the path is cut
    ],
)
def test_a_narrow_terminal_goes_without_date_then_size_then_the_middle_of_paths(
    width: int | None, columns: str
) -> None:
    path = "/pictures/a.p"
    header, line = table([hit(path)], width)
    assert header.split() == columns.split()
    assert (path in line) == (width != 32)
    assert ("2024-05-31" in line) == ("date" in columns)
    assert ("64x48" in line) == ("size" in columns)
    assert width is None or cell_len(line) <= width


def test_a_path_that_is_too_long_loses_its_middle_and_keeps_its_end() -> None:
    path = "/photos/2024/holidays in the mountains/day one/IMG_20240531_183000_panorama.jpg"
    _, line = table([hit(path)], 60)
    shown = line.split("  ")[-1]
    start, end = shown.split("\N{HORIZONTAL ELLIPSIS}")
    assert path.startswith(start)
    assert path.endswith(end)
    assert start.startswith("/photos/")
    assert end.endswith("panorama.jpg")
    assert cell_len(line) == 60
    assert len(end) > len(start)


def test_columns_are_aligned_in_cells() -> None:
    names = [
        "/a.png",
        "/\u753b\u50cf.png",
        "/cafe\N{COMBINING ACUTE ACCENT}.png",
        "/\N{GRINNING FACE}.png",
        "/x\x1b.png",
    ]
    scores = (0.3, -0.2, 0, 1, 0.1)
    hits = [hit(names[i], rank=9 + i, score=score) for i, score in enumerate(scores)]
    _, *lines = table(hits, 80)
    assert len({cell_len(line[: line.index("64x48")]) for line in lines}) == 1
    assert len({cell_len(line[: line.index("/")]) for line in lines}) == 1
    assert [line.split()[0] for line in lines] == ["9", "10", "11", "12", "13"]


def test_without_any_confidence_its_column_is_left_out() -> None:
    assert table([hit("/a.png", confidence=None)], 80)[0].split() == ["rank", "score", "path", "size", "date"]


@pytest.mark.parametrize("form", ["table", "auto"])
def test_a_pipe_has_no_width(folder: Path, run: Run, form: str, tmp_path: Path) -> None:
    narrow = run("query", "red", "-k", "2", *flags(form), "--index", folder, cwd=tmp_path, env={"COLUMNS": "40"})
    assert "\N{HORIZONTAL ELLIPSIS}" not in narrow.stdout.decode("utf-8", "replace")
    assert narrow.stdout.count(os.fsencode(folder)) == 2


# Characters as people see them: narrow, wide, and such as are made of several.
SEEN = st.sampled_from(
    [
        *("a", "/", ".", "\N{HORIZONTAL BAR}", "\u753b", "\u30d5", "\N{HANGUL SYLLABLE GAG}", "\N{GRINNING FACE}"),
        *("e\N{COMBINING ACUTE ACCENT}", "\N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-5}"),
        "\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}",
    ]
)


@given(st.lists(SEEN, max_size=40), st.integers(1, 60))
def test_a_cut_path_fits_and_only_whole_characters_are_left(characters: list[str], cells: int) -> None:
    text = "".join(characters)
    short = cut(text, cells)
    assert cell_len(short) <= cells
    if cell_len(text) <= cells:
        assert short == text
        return
    start, dots, end = short.partition("\N{HORIZONTAL ELLIPSIS}")
    assert dots
    ends = {"".join(characters[i:]) for i in range(len(characters) + 1)}
    starts = {"".join(characters[:i]) for i in range(len(characters) + 1)}
    assert start in starts
    assert end in ends
    assert len(start) + len(end) < len(text)
    # No more is cut than must be: a wide character at each side may not have fitted.
    assert cell_len(short) >= cells - 2
    if cells >= 8:
        assert end


# -- many queries ------------------------------------------------------------------------------------------------

QUERIES = ["red", "2:blue", "tab\there", "red", 'a "quoted", one', "esc\x1b[31mape"]


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with these queries, and blank lines between them."""
    path = tmp_path_factory.mktemp("queries") / "queries.txt"
    path.write_text("\n" + "\n \n".join(QUERIES))
    return str(path)


def test_in_json_each_hit_has_its_query_first(output: Output, queries: str) -> None:
    hits = json_hits(output("--from", queries, "-k", "2", "--json").stdout)
    assert [hit["query"] for hit in hits] == [query for query in QUERIES for _ in range(2)]
    assert [hit["rank"] for hit in hits] == [1, 2] * len(QUERIES)
    assert all(next(iter(hit)) == "query" for hit in hits)
    assert hits == json_hits(output("--from", queries, "-k", "2", "--format", "jsonl").stdout, "jsonl")


def test_in_csv_the_query_is_the_first_column(output: Output, queries: str) -> None:
    out = output("--from", queries, "-k", "2", "--format", "csv").stdout
    assert out.startswith(("query," + ",".join(COLUMNS) + "\r\n").encode())
    rows = csv_rows(out)
    assert [row["query"] for row in rows] == [query for query in QUERIES for _ in range(2)]
    hits = json_hits(output("--from", queries, "-k", "2", "--json").stdout)
    assert [int(row["width"]) for row in rows] == [hit["width"] for hit in hits]


@pytest.mark.parametrize(("form", "fields"), [("auto", 5), ("tsv", 5), ("paths", 2)])
def test_on_lines_the_query_is_the_first_field(output: Output, queries: str, form: str, fields: int) -> None:
    arguments = ("--from", queries, "-k", "2", "--glob", "plain.png", *flags(form))  # names without a line end
    lines = output(*arguments).stdout.decode().splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        query.replace("\t", r"\t").replace("\x1b", r"\x1b") for query in QUERIES for _ in range(2)
    ]
    assert {len(line.split("\t")) for line in lines} == {fields}
    assert {line.split("\t")[-1] for line in lines} == {"p/plain.png", "p/sub/plain.png"}


def test_with_nul_query_and_path_end_with_nul(output: Output, queries: str) -> None:
    out = output("--from", queries, "-k", "2", "-0").stdout
    assert out.endswith(b"\0")
    fields = out[:-1].split(b"\0")
    assert fields[::2] == [query.encode() for query in QUERIES for _ in range(2)]
    hits = json_hits(output("--from", queries, "-k", "2", "--json").stdout)
    assert [name.decode("utf-8", "replace") for name in fields[1::2]] == [hit["path"] for hit in hits]


def test_in_a_table_each_query_is_a_heading(output: Output, tmp_path: Path) -> None:
    path = tmp_path / "queries.txt"
    path.write_text("red\nesc\x1b[31mape\n")
    for where in ("pipe", "terminal"):
        text = output("--from", str(path), "-k", "1", "--format", "table", where=where).stdout.decode()
        first, second = text.removesuffix("\n").split("\n\n")
        assert first.splitlines()[0] == "red"
        assert second.splitlines()[0] == r"esc\x1b[31mape"
        assert [part.splitlines()[1].split()[0] for part in (first, second)] == ["rank", "rank"]
        assert [len(part.splitlines()) for part in (first, second)] == [3, 3]


def test_a_query_that_finds_nothing_says_so_below_its_heading() -> None:
    out = io.BytesIO()
    write_hits([Found("a", [hit("/x.png")]), Found("b", [])], "table", out, many=True, screen=80)
    assert out.getvalue().decode().split("\n\n")[1] == "b\nnothing found\n"


@pytest.mark.parametrize("form", ["table", "tsv", "csv", "json", "jsonl", "paths"])
def test_a_terminal_gets_no_query_that_it_would_obey(form: str) -> None:
    out = io.BytesIO()
    evil = "esc\x1b[31m \N{RIGHT-TO-LEFT OVERRIDE}\x7f"
    write_hits([Found(evil, [hit("/x.png")])], form, out, many=True, screen=80)
    text = out.getvalue().decode().replace("\r\n", "\n")
    assert {c for c in text if unicodedata.category(c) in ("Cc", "Cf")} <= {"\n", "\t"}


def test_an_empty_field_stands_for_no_confidence() -> None:
    for form, wanted in (("tsv", b"1\t0.2500\t\t/x.png\n"), ("csv", b"1,0.250000,,/x.png,64,48,1234,")):
        out = io.BytesIO()
        write_hits([Found("a", [hit("/x.png", confidence=None)])], form, out)
        assert wanted in out.getvalue()
    out = io.BytesIO()
    write_hits([Found("a", [hit("/x.png", confidence=None)])], "json", out)
    assert json_hits(out.getvalue())[0]["confidence"] is None


HARMFUL = ("=1+1.png", "+1.png", "-1.png", "@SUM(A1).png", "=cmd|' ' !A0.png")


def test_names_that_spreadsheets_would_run_are_made_harmless_if_that_is_asked_for(tmp_path: Path, run: Run) -> None:
    for number, name in enumerate((*HARMFUL, "plain.png")):
        paint(tmp_path / name, COLOURS[number])
    index(run, ".", "--model", "picturebook", cwd=tmp_path)

    def cells(*options: str) -> list[dict[str, str]]:
        done = run("query", "red", "--not", "a dog", "--format", "csv", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        return list(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))

    exact, safe = cells(), cells("--spreadsheet-safe")
    assert {row["path"] for row in exact} == {*HARMFUL, "plain.png"}
    assert [row["path"] for row in safe] == [
        f"'{row['path']}" if row["path"] in HARMFUL else row["path"] for row in exact
    ]
    numbers = [(row["score"], row["bytes"]) for row in safe]
    assert numbers == [(row["score"], row["bytes"]) for row in exact]  # also where a score is negative
    assert any(score.startswith("-") for score, _ in numbers)


@pytest.mark.parametrize(
    "command",
    [
        ["query", "red"],
        ["duplicates"],
        ["tokens", "red"],
        ["models", "list"],
        ["score", "sample-images/dogs", "--text", "=a dog", "--model", "picturebook"],
    ],
    ids=lambda command: command[0],
)
def test_only_csv_can_be_made_safe_for_spreadsheets(sample_index: Path, run: Run, command: list[str]) -> None:
    for form in ([], ["--format", "tsv"], ["--json"]):
        done = run(*command, *form, "--spreadsheet-safe", cwd=sample_index)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr == b"clipsearch: --spreadsheet-safe is for CSV: add --format csv.\n"
    done = run(*command, "--format", "csv", "--spreadsheet-safe", cwd=sample_index)
    assert done.returncode in (0, 1), done.stderr.decode()
    assert b"\n=" not in done.stdout
    assert b",=" not in done.stdout
