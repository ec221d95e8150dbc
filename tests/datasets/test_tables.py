"""Tables as people and programs write them: encodings, separators, headers, quotes; one reader for every command."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import COLOURS, Run, index, paint

from clipsearch.datasets.captions import read_captions
from clipsearch.datasets.labels import table_labels
from clipsearch.datasets.tables import Column, check_encoding, decoded, lines_of, read_table
from clipsearch.errors import InputError
from clipsearch.exchange.reading import read_paths
from clipsearch.output.hints import with_hints

COLUMNS = (Column("image", "paths", ("image", "filepath")), Column("caption", "texts", ("caption", "title")))
ROWS = [("a.png", "a dog"), ("b.png", "a cat, asleep")]
PLAIN = 'image,caption\na.png,a dog\nb.png,"a cat, asleep"\n'


class Read(NamedTuple):
    rows: list[tuple[str, ...]]
    assumed: str | None
    lines: list[str]


def read(content: str | bytes, encoding: str | None = None, name: str = "t.csv") -> Read:
    raw = content if isinstance(content, bytes) else content.encode()
    table = read_table(decoded(raw, name, encoding), name, COLUMNS)
    rows = list(table.rows)
    return Read([row.values for row in rows], table.assumed, [row.where for row in rows])


def refused(content: str | bytes, encoding: str | None = None) -> str:
    with pytest.raises(InputError) as error:
        read(content, encoding)
    return with_hints(error.value)


# -- separators and headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\r\n\r\n" + PLAIN.replace("\n", "\n\n\n"),
        PLAIN.replace("image", "  IMAGE ").replace("caption", "Caption\t"),
        'n,caption,image,x\n1,a dog,a.png,\n2,"a cat, asleep",b.png,y\n',
        'image,caption,,\na.png,a dog,,\nb.png,"a cat, asleep",,\n,,,\n',
        'image,caption\na.png,a dog,\nb.png,"a cat, asleep",,\n',
        'image, caption\na.png, a dog\nb.png, "a cat, asleep"\n',
        '"image","caption"\n"a.png","a dog"\n"b.png","a cat, asleep"',
        'sep=,\nimage,caption\na.png,a dog\nb.png,"a cat, asleep"\n',
        PLAIN + "\x20\n",
    ],
)
def test_what_is_plain_is_read_without_a_word(content: str) -> None:
    found = read(content)
    assert (found.rows, found.assumed) == (ROWS, None)


@pytest.mark.parametrize(
    ("content", "separated"),
    [
        ("image;caption\na.png;a dog\nb.png;a cat, asleep\n", "semicolons"),
        ("image\tcaption\na.png\ta dog\nb.png\ta cat, asleep\n", "tabs"),
        ("image|caption\na.png|a dog\nb.png|a cat, asleep\n", "vertical bars"),
        ("image| caption\na.png| a dog\nb.png| a cat, asleep\n", "vertical bars"),
        ('"image";"caption"\r\n"a.png";"a dog"\r\n"b.png";"a cat, asleep"\r\n', "semicolons"),
        ("sep=;\r\nimage;caption\r\na.png;a dog\r\nb.png;a cat, asleep\r\n", "semicolons"),
        ("a,b;image;caption\n1,2,3;a.png;a dog\n,,;b.png;a cat, asleep\n", "semicolons"),
        ('image\tcaption\tnote, or two\na.png\ta dog\t"1,2,3"\nb.png\ta cat, asleep\t;;;\n', "tabs"),
    ],
)
def test_the_header_says_what_separates_fields(content: str, separated: str) -> None:
    found = read(content)
    assert found.rows == ROWS
    assert found.assumed == f"t.csv: read as UTF-8, separated by {separated}, paths in 'image', texts in 'caption'."


def test_what_open_clip_is_trained_with_is_read() -> None:
    found = read("filepath\ttitle\na.png\ta dog\nb.png\ta cat, asleep\n")
    assert found.rows == ROWS
    assert found.assumed == "t.csv: read as UTF-8, separated by tabs, paths in 'filepath', texts in 'title'."


def test_of_several_columns_that_fit_the_first_of_the_list_counts() -> None:
    assert read("title,filepath,image,caption\nno,no,a.png,a dog\n").rows == [("a.png", "a dog")]


def test_where_one_column_decides_nothing_the_rows_do() -> None:
    def paths(content: str) -> tuple[list[tuple[str, ...]], str | None]:
        table = read_table(decoded(content.encode(), "t"), "t", COLUMNS[:1])
        return [row.values for row in table.rows], table.assumed

    assert paths("image\na.png\nb;c.png\n") == ([("a.png",), ("b;c.png",)], None)
    assert paths("image\nb,c.png\n")[0] == [("b,c.png",)]


def test_quoted_fields_have_line_ends_of_any_kind_and_lines_are_counted_on() -> None:
    found = read('image;caption\r\na.png;"a dog,\r\n""Rex""\nand\rmore"\r\n\r\nb.png;x\r\n')
    assert found.rows == [("a.png", 'a dog,\r\n"Rex"\nand\rmore'), ("b.png", "x")]
    assert found.lines == ["t.csv, line 2", "t.csv, line 7"]


# -- encodings ---------------------------------------------------------------------------------------------------

KOREAN = "image,caption\n강아지.png,강아지가 잔다\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_mark_says_what_a_file_is_written_in(encoding: str, end: str) -> None:
    is_marked = encoding in ("utf-8-sig", "utf-16", "utf-32")
    content = (("" if is_marked else "\ufeff") + KOREAN.replace("\n", end)).encode(encoding)
    called = "-".join(encoding.upper().split("-")[:2])
    for given in (None, "cp949"):  # nobody writes a mark by mistake
        found = read(content, given)
        assert found.rows == [("강아지.png", "강아지가 잔다")]
        told = f"t.csv: read as {called}, separated by commas, paths in 'image', texts in 'caption'."
        assert found.assumed == (None if called == "UTF-8" else told)


@pytest.mark.parametrize(
    ("encoding", "name", "text"),
    [
        ("cp949", "강아지.png", "강아지가 잔다"),
        ("euc-kr", "강아지.png", "강아지가 잔다"),
        ("latin-1", "café.png", "ein Müller"),
        ("shift_jis", "犬.png", "眠っている犬"),
        ("UTF-16-LE", "강아지.png", "강아지가 잔다"),
        ("utf8", "강아지.png", "강아지가 잔다"),
    ],
)
def test_another_encoding_is_named(encoding: str, name: str, text: str) -> None:
    found = read(f"image;caption\n{name};{text}\n".encode(encoding), encoding)
    assert found.rows == [(name, text)]
    called = "UTF-8" if encoding == "utf8" else encoding
    assert found.assumed == f"t.csv: read as {called}, separated by semicolons, paths in 'image', texts in 'caption'."


def test_a_byte_that_does_not_fit_is_named_with_its_line() -> None:
    assert re.match(
        r"t\.csv, line 3: .*0xff .*cp949", refused(b"image,caption\r\na.png,x\r\nb.png,\xff\xff\r\n", "cp949")
    )
    cut = codecs.BOM_UTF16_LE + PLAIN.encode("utf-16-le")[:-1]
    assert re.match(r"t\.csv, line 3: .*0x0a .*UTF-16\.", refused(cut))
    assert "--encoding utf-16-le" in refused(PLAIN.encode("utf-16-le"))
    assert re.match(r"t\.csv .*UTF-8: .*NUL .*line 4", refused(PLAIN.encode() + b"c.png,x\0\n"))


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13", "undefined", "a\0b"])
def test_what_is_no_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(InputError, match="cp949"):
        check_encoding(encoding)
    assert "cp949" in refused(PLAIN, encoding)


def test_lines_end_as_any_system_ends_them() -> None:
    for end in ("\n", "\r\n", "\r"):
        assert lines_of(f"a{end}{end}b{end}") == ["a", "", "b", ""]
    assert lines_of("a\rb\nc") == ["a\rb", "c"]


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image;label\n", "t.csv has no column for the caption: its first line has 'image', 'label'."),
        ("image;label\n", "'image', 'label'. Name one of them caption or title."),
        ("a\tb\n", "t.csv has no column for the image and none for the caption: its first line has 'a', 'b'. Name"),
        ("a\tb\n", "Name one of them image or filepath, and one caption or title."),
        ("", "t.csv has no column for the image and none for the caption: its first line has nothing."),
        ("image;caption\na.png;a dog; asleep\n", "t.csv, line 2: the header has 2 fields, this line 3. A field with"),
        ("image;caption\na.png;a dog; asleep\n", "A field with a semicolon in it needs quotes."),
        ("image,caption\n\na.png\n", "t.csv, line 3: the header has 2 fields, this line 1."),
        ('image,caption\na.png,"a dog\nb.png,x\n', "t.csv, line 2: unexpected end of data. A field with quotes"),
        ('image,caption\na.png,"a" dog\n', "t.csv, line 2: "),
        ('"image,caption\na.png,x\n', "t.csv, line 1: "),
        ('image,caption\na.png,"' + "x" * 200_000, "t.csv, line 2: field larger than field limit"),
        (b"bild,\xfcberschrift\n", "If the file is in another encoding, name that: --encoding cp949"),
    ],
)
def test_bad_tables_are_refused_with_what_was_found_and_what_was_looked_for(content: str | bytes, said: str) -> None:
    assert said in refused(content)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_changed_in_a_table_it_is_read_or_refused(seed: int) -> None:
    random = np.random.default_rng(seed)
    content = bytearray('image;caption\r\na.png;"a dog; ""Rex"""\r\nb.png;x\r\n'.encode(("utf-8", "utf-16")[seed % 2]))
    for _ in range(200):
        changed = content.copy()
        for place in random.integers(0, len(content), 3):
            changed[place] = random.choice([0, 10, 13, 34, 44, 59, 92, 255, int(random.integers(256))])
        with contextlib.suppress(InputError):
            read(bytes(changed[: int(random.integers(1, len(content) + 1))]))


# -- the same reader everywhere ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "encoding", "told"),
    [
        ("Path;CAPTION;Label\n강아지.png;잔다;개\n".encode("cp949"), "cp949", "cp949, separated by semicolons"),
        ("filepath\ttitle\tlabel\n강아지.png\t잔다\t개\n".encode("utf-16"), None, "UTF-16, separated by tabs"),
        ("path,text,label\r강아지.png,잔다,개\r".encode(), None, None),
    ],
)
def test_captions_labels_and_names_come_from_the_same_tables(
    content: bytes, encoding: str | None, told: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(content)
    picture = os.fsencode(paint(tmp_path / "강아지.png", "red"))
    captions = read_captions(table, encoding=encoding)
    assert ([file.path for file in captions.images], captions.texts) == ([picture], ["잔다"])
    assert table_labels(table, encoding=encoding) == {picture: "개"}
    assert read_paths(table, encoding=encoding) == ["강아지.png".encode()]
    assert len(caplog.messages) == (3 if told else 0)
    assert all(line.startswith(f"{table}: read as {told}, paths in ") for line in caplog.messages)


def test_other_formats_come_in_other_encodings_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint(tmp_path / "강아지.png", "red")
    data = {"images": [{"id": 1, "file_name": "강아지.png"}], "annotations": [{"image_id": 1, "caption": "잔다"}]}
    for text in (json.dumps(data, ensure_ascii=False), "강아지.png#0\t잔다\n", "강아지.png#0\t잔다\r"):
        (tmp_path / "c").write_bytes(text.encode("utf-16"))
        assert read_captions(tmp_path / "c").texts == ["잔다"]
        (tmp_path / "c").write_bytes(text.encode("euc-kr"))
        assert read_captions(tmp_path / "c", encoding="euc-kr").texts == ["잔다"]
    assert caplog.messages == [f"{tmp_path / 'c'}: read as {one}." for one in ("UTF-16", "euc-kr")] * 3
    for content in ("/강아지.png\r\n/b\r\n", "/강아지.png\0/b\0", "/강아지.png\r/b"):
        for encoding, given in (("utf-16", None), ("utf-8-sig", None), ("cp949", "cp949")):
            (tmp_path / "n.TXT").write_bytes(content.encode(encoding))
            assert read_paths(tmp_path / "n.TXT", encoding=given) == ["/강아지.png".encode(), b"/b"]


def test_names_that_are_not_there_for_their_encoding_are_told_so(tmp_path: Path) -> None:
    paint(tmp_path / "강아지.png", "red")
    (tmp_path / "t.csv").write_bytes("image,caption,label\n강아지.png,a dog,dog\n".encode("cp949"))
    for refusing in (read_captions, table_labels):
        with pytest.raises(InputError) as caught:
            refusing(tmp_path / "t.csv")
        assert "--encoding cp949" in with_hints(caught.value)


def test_names_in_the_encoding_of_their_table_are_found(tmp_path: Path) -> None:
    """As an old archive leaves them; one that is written as everything else here comes first."""
    old, new = "강아지.png".encode("cp949"), "고양이.png".encode()
    try:
        for name in (old, new, "고양이.png".encode("cp949")):
            os.rename(paint(tmp_path / "x.png", "red"), os.path.join(os.fsencode(tmp_path), name))
    except OSError:
        pytest.skip("this file system wants UTF-8")
    (tmp_path / "t.csv").write_bytes(
        "image,caption,label\n강아지.png,잔다,개\n고양이.png,논다,고양이\n".encode("cp949")
    )
    captions = read_captions(tmp_path / "t.csv", encoding="cp949")
    assert [os.path.basename(file.path) for file in captions.images] == [old, new]
    labels = table_labels(tmp_path / "t.csv", encoding="cp949")
    assert [os.path.basename(path) for path in labels] == [old, new]


def test_blanks_around_a_name_count_only_where_they_are_its_own(tmp_path: Path) -> None:
    for name in ("a.png", " b.png", "b.png"):
        paint(tmp_path / name, "red")
    (tmp_path / "t.csv").write_text("image,caption\n a.png ,x\n b.png,y\nb.png,z\n")
    found = [os.path.basename(file.path) for file in read_captions(tmp_path / "t.csv").images]
    assert found == [b"a.png", b" b.png", b"b.png"]


def test_commands_read_tables_in_any_encoding(tmp_path: Path, run: Run) -> None:
    """And each says in one line what it assumed."""
    names = [f"{colour}-강아지.png" for colour in COLOURS[:2]]
    for name, colour in zip(names, COLOURS, strict=False):
        paint(tmp_path / "p" / name, colour)
    rows = "".join(f"p/{name}\t{colour} 개\n" for name, colour in zip(names, COLOURS, strict=False))
    (tmp_path / "captions.tsv").write_bytes(("FilePath\tTitle\n" + rows).encode("utf-16"))
    (tmp_path / "truth.csv").write_bytes(("Image;LABEL\n" + rows.replace("\t", ";")).encode("cp949"))
    (tmp_path / "queries.txt").write_bytes("red\r\n빨강\r\n".encode("utf-16"))
    index(run, "p", "--model", "picturebook", cwd=tmp_path)

    done = run("eval", "-", "--json", cwd=tmp_path, line='cat captions.tsv | "$@"')
    assert (done.returncode, json.loads(done.stdout)[0]["queries"]) == (0, 2)
    assert done.stderr.decode().splitlines() == [
        "standard input: read as UTF-16, separated by tabs, paths in 'FilePath', texts in 'Title'."
    ]
    done = run("classify", "--indexed", "--truth", "truth.csv", "--encoding", "cp949", cwd=tmp_path)
    assert done.returncode == 0
    said = "truth.csv: read as cp949, separated by semicolons, paths in 'Image', labels in 'LABEL'.\n"
    assert done.stderr.decode() == said
    done = run("query", "--from", "queries.txt", "-k", "1", "--json", cwd=tmp_path)
    assert [hit["query"] for hit in json.loads(done.stdout)] == ["red", "빨강"]
    assert done.stderr.decode() == "queries.txt: read as UTF-16.\n"
    done = run("query", "red", "--encoding", "cp949", cwd=tmp_path)
    assert done.returncode == 2
    assert b"--encoding" in done.stderr
