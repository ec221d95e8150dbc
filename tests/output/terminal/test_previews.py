"""Thumbnails in a terminal: a pseudo-terminal that answers as real ones do, and tmux itself."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from archive_files import tar
from PIL import Image
from rich.cells import cell_len
from warm import Begun, Warm

from clipsearch.errors import InputError
from clipsearch.images.codecs.decoding import decode
from clipsearch.output import thumbnails
from clipsearch.output.terminal.detection import _Answers, _protocol
from clipsearch.output.terminal.drawing import NUMBERS, Drawing
from clipsearch.output.terminal.previews import _Tile, _write, check_terminal, show_previews
from clipsearch.output.thumbnails import thumbnail, thumbnail_of_region
from clipsearch.search.hit import Hit

TIMEOUT = 120
CELL = (10, 20)
# Shows what it was given as hits, then what is left to read, and whether the modes are as before.
SHOW = """
import ast, fcntl, os, select, sys, termios
terminal = 2
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
from pathlib import Path
from clipsearch.output.paths import show_from
from clipsearch.output.terminal import detection
from clipsearch.output.terminal.previews import show_previews
from clipsearch.search.hit import Hit
show_from(Path.cwd())
detection._PATIENCE = float(sys.argv[1])
before = termios.tcgetattr(terminal)
hits = [Hit(*each) for each in ast.literal_eval(sys.argv[2])]
show_previews([(None, hits)], sys.stdout.buffer, crop=sys.argv[3:] == ["crop"])
same = termios.tcgetattr(terminal) == before
modes = termios.tcgetattr(terminal)
modes[3] &= ~(termios.ICANON | termios.ECHO)
termios.tcsetattr(terminal, termios.TCSANOW, modes)
left = os.read(terminal, 1000) if select.select([terminal], [], [], 0)[0] else b""
os.write(terminal, f"\\nEND {same} {left!r}".encode())
"""
DA1 = b"\x1b[?62;22c"
DA1_WITH_SIXEL = b"\x1b[?62;4;22c"
KITTY = b"\x1b_Gi=31;OK\x1b\\"


def name(terminal: str) -> bytes:
    return b"\x1bP>|" + terminal.encode() + b"\x1b\\"


class Cell(NamedTuple):
    character: str
    ink: str
    ground: str


@dataclass
class Screen:
    """What a terminal makes of the bytes it is sent: just enough of one for what is sent here."""

    cells: dict[tuple[int, int], Cell] = field(default_factory=dict)
    """By row and column; rows count from where it began."""
    pictures: list[tuple[int, int, str]] = field(default_factory=list)
    """Row, column, and the escape sequence."""
    row: int = 0
    column: int = 0

    def text(self) -> list[str]:
        rows = [[*row] for row in np.full((self.row + 1, 200), " ").tolist()]
        for (row, column), cell in self.cells.items():
            rows[row][column] = cell.character
            if cell_len(cell.character) == 2:
                rows[row][column + 1] = ""
        return ["".join(row).rstrip() for row in rows]


TOKENS = re.compile(
    r"(?P<string>\x1b(?:_|\]|P).*?(?:\x1b\\|\x07))|\x1b\[(?P<csi>[?>\d;]*[A-Za-z])|(?P<saved>\x1b[78])|(?P<one>.)",
    re.DOTALL,
)


def screen_of(sent: bytes) -> Screen:
    screen, saved, ink, ground = Screen(), (0, 0), "", ""
    for token in TOKENS.finditer(sent.decode()):
        if string := token["string"]:
            screen.pictures.append((screen.row, screen.column, string))
        elif csi := token["csi"]:
            number = int(csi[:-1]) if csi[:-1].isdigit() else 1
            if csi[-1] == "m":
                colours = dict(re.findall(r"(?:^|;)(3|4)(8;2;\d+;\d+;\d+|8;5;\d+)", csi[:-1]))
                ink, ground = colours.get("3", ""), colours.get("4", "")
            screen.row += {"A": -number, "B": number}.get(csi[-1], 0)
            screen.column += number if csi[-1] == "C" else 0
        elif token["saved"] == "\x1b7":
            saved = screen.row, screen.column
        elif token["saved"] == "\x1b8":
            screen.row, screen.column = saved
        elif token["one"] == "\n":
            screen.row += 1
        elif token["one"] == "\r":
            screen.column = 0
        else:
            assert token["one"].isprintable() or token["one"] == " ", f"{token['one']!r} in {sent[-200:]!r}"
            screen.cells[screen.row, screen.column] = Cell(token["one"], ink, ground)
            screen.column += cell_len(token["one"])
    return screen


@contextmanager
def pseudo_terminal(columns: int, lines: int, cell: tuple[int, int] | None) -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    width, height = cell or (0, 0)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, columns * width, lines * height))
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def converse(master: int, process: Begun, answers: bytes) -> bytes:
    """All that `process` sends, which is answered once it asks."""
    sent, answered, end = b"", not answers, time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        if not select.select([master], [], [], 0.05)[0]:
            if process.poll() is not None:
                return sent
            continue
        try:
            sent += os.read(master, 1 << 16)
        except OSError:  # all have closed it
            return sent
        if not answered and b"\x1b[c" in sent:
            answered = True
            for answer in re.findall(rb"[^\x1b]+|\x1b[^\x1b]*", answers):  # over a line that is slow, one after another
                os.write(master, answer)
                time.sleep(0.02)
    raise AssertionError(sent)


def hit(path: Path, rank: int = 1, confidence: float | None = 0.5) -> Hit:
    return Hit(rank, 0.25, confidence, os.fsencode(path), None, None, 1, 1, None)


def shown(
    hits: Sequence[Hit],
    warm: Warm,
    *,
    answers: bytes = DA1,
    columns: int = 80,
    lines: int = 40,
    cell: tuple[int, int] | None = CELL,
    patience: float = TIMEOUT,
    cwd: Path | None = None,
    crop: bool = False,
    **variables: str,
) -> Screen:
    """The screen after `show_previews`, which must leave nothing to read and change no mode."""
    status, sent = run(
        hits, warm, answers=answers, columns=columns, lines=lines, cell=cell, patience=patience, cwd=cwd,
        crop=crop, **variables,
    )  # fmt: skip
    shows, _, end = sent.replace(b"\r\n", b"\n").rpartition(b"\nEND ")
    assert (status, end) == (0, b"True b''"), sent[-2000:].decode()
    screen = screen_of(b"\r\n".join(shows.split(b"\n")))
    for wiped in [picture for picture in screen.pictures if "a=q" in picture[2]]:
        screen.pictures.remove(wiped)
    return screen


def run(
    hits: Sequence[Hit],
    warm: Warm,
    *,
    answers: bytes,
    columns: int = 80,
    lines: int = 40,
    cell: tuple[int, int] | None = CELL,
    patience: float = TIMEOUT,
    cwd: Path | None = None,
    crop: bool = False,
    **variables: str,
) -> tuple[int, bytes]:
    """Exit status, and what was sent to the terminal; standard input is no terminal."""
    foreign = ("TMUX", "TMUX_PANE", "TERM_PROGRAM", "LC_TERMINAL", "COLORTERM", "NO_COLOR", "FORCE_COLOR")
    own = {key: value for key, value in warm.environment.items() if key not in foreign}
    own |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | variables
    values = [tuple(each) for each in hits]
    with pseudo_terminal(columns, lines, cell) as (master, slave):
        before = termios.tcgetattr(slave)
        program = ["-c", f"import os; os.setsid()\n{SHOW}", str(patience), repr(values), *["crop"] * crop]
        with Warm(warm.address, own) as forking, forking.begin(program, cwd=cwd, stdout=slave, stderr=slave) as process:
            sent = converse(master, process, answers)
        if process.returncode:
            assert termios.tcgetattr(slave) == before
        return process.returncode or 0, sent


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """400 x 200: four fields of clear colours."""
    image = Image.new("RGB", (400, 200))
    for i, colour in enumerate([(200, 30, 40), (20, 160, 60), (30, 60, 180), (240, 200, 20)]):
        image.paste(colour, (i % 2 * 200, i // 2 * 100, i % 2 * 200 + 200, i // 2 * 100 + 100))
    path = tmp_path / "fields.png"
    image.save(path)
    return path


def expected(path: Path, size: tuple[int, int]) -> Image.Image:
    return thumbnail(os.fsencode(path), max(size)).resize(size)


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean, of 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


def kitty_image(sequence: Sequence[str]) -> tuple[dict[str, str], Image.Image]:
    """Control data of the first part, and the picture of all."""
    parts = [re.fullmatch(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", part) for part in sequence]
    keys = [dict(pair.split("=") for pair in part[1].split(",")) for part in parts if part]
    assert [part["m"] for part in keys] == ["1"] * (len(sequence) - 1) + ["0"]
    assert all(set(part) == {"m"} for part in keys[1:])
    data = "".join(part[2] for part in parts if part)
    assert all(len(part[2]) <= 4096 for part in parts if part)
    return keys[0], Image.open(io.BytesIO(base64.b64decode(data)))


def sixel_image(sequence: str) -> Image.Image:
    """As the VT340 manual describes it; what is not drawn stays magenta."""
    start = re.match(r'\x1bP0;1q"1;1;(\d+);(\d+)', sequence)
    assert start, sequence[:50]
    width, height = int(start[1]), int(start[2])
    pixels = np.full((height, width, 3), (255, 0, 255), dtype=np.uint8)
    palette: dict[int, tuple[int, ...]] = {}
    left, top, colour = 0, 0, 0
    tokens = re.findall(r"#\d+(?:;2;\d+;\d+;\d+)?|!\d+[?-~]|[?-~]|[$-]", sequence[start.end() : -2])
    assert "".join(tokens) == sequence[start.end() : -2]
    for part in tokens:
        if part[0] == "#":
            colour, *rest = map(int, part[1:].split(";"))
            if rest:
                palette[colour] = tuple(round(each * 2.55) for each in rest[1:])
        elif part == "$":
            left = 0
        elif part == "-":
            left, top = 0, top + 6
        else:
            times = int(part[1:-1]) if part[0] == "!" else 1
            for row in range(6):
                if (ord(part[-1]) - 63) >> row & 1:
                    pixels[top + row, left : left + times] = palette[colour]
            left += times
            assert left <= width
    return Image.fromarray(pixels)


def test_kitty_gets_the_pixels_and_room_for_them(picture: Path, without_torch: Warm) -> None:
    screen = shown([hit(picture)], without_torch, answers=KITTY + DA1)
    keys, image = kitty_image([sequence for _, _, sequence in screen.pictures])
    assert keys == {"a": "T", "C": "1", "f": "100", "c": "40", "r": "10", "q": "2", "m": keys["m"]}
    assert image.size == (400, 200)
    assert difference(image.convert("RGB"), expected(picture, (400, 200))) < 1
    assert {(row, column) for row, column, _ in screen.pictures} == {(0, 0)}
    lines = screen.text()
    assert lines[:10] == [""] * 10
    assert lines[10] == "1  0.2500  0.50"
    assert lines[11].endswith("fields.png")
    assert (screen.row, screen.column) == (12, 0)


def with_box(path: Path, box: tuple[int, int, int, int], rank: int = 1) -> Hit:
    with Image.open(path) as image:
        return hit(path, rank)._replace(width=image.width, height=image.height, box=box)


def pixels_at_kitty(hit: Hit, warm: Warm, *, crop: bool = False) -> Image.Image:
    screen = shown([hit], warm, answers=KITTY + DA1, crop=crop)
    return kitty_image([sequence for _, _, sequence in screen.pictures])[1].convert("RGB")


@pytest.mark.parametrize(
    "box", [(0, 0, 400, 200), (40, 30, 240, 150), (0, 0, 50, 50), (300, 100, 400, 200), (100, 80, 104, 82)]
)
def test_the_box_is_outlined(picture: Path, without_torch: Warm, box: tuple[int, int, int, int]) -> None:
    drawn = np.asarray(pixels_at_kitty(with_box(picture, box), without_torch), float)
    plain = np.asarray(expected(picture, (400, 200)), float)
    rows, columns = np.nonzero((np.abs(drawn - (255, 214, 10)) < 40).all(axis=2) & (np.abs(drawn - plain).max(2) > 10))
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert edges == pytest.approx(box, abs=3)
    changed = np.abs(drawn - plain).max(axis=2) > 10
    left, top, right, bottom = box
    assert not changed[top + 8 : bottom - 8, left + 8 : right - 8].any()
    changed[max(0, top - 8) : bottom + 8, max(0, left - 8) : right + 8] = False
    assert not changed.any()


def pixels_in_blocks(hit: Hit, warm: Warm) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What half blocks show of a picture of 2 x 1, as (24, 48, 3) colours."""
    cells = shown([hit], warm).cells
    rows = [[cells[row, column] for column in range(48)] for row in range(12)]
    codes = [[getattr(cell, half) for cell in row] for row in rows for half in ("ink", "ground")]
    return np.array([[code.split(";")[2:] for code in row] for row in codes], float)


def test_half_blocks_show_the_outline(picture: Path, without_torch: Warm) -> None:
    drawn = pixels_in_blocks(with_box(picture, (240, 34, 360, 167)), without_torch)  # of 400 x 200
    changed = np.abs(drawn - pixels_in_blocks(hit(picture), without_torch)).max(axis=2) > 40
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == pytest.approx((4, 20, 29, 43), abs=1)
    assert not changed[7:17, 32:40].any()
    line = drawn[8:16, 29].mean(axis=0)  # yellow
    assert min(line[:2]) > 150 > 2 * line[2]


@pytest.mark.parametrize("box", [(0, 0, 200, 100), (250, 120, 350, 200), (0, 90, 400, 110)])
def test_a_crop_shows_the_region_alone(picture: Path, without_torch: Warm, box: tuple[int, int, int, int]) -> None:
    shows = pixels_at_kitty(with_box(picture, box), without_torch, crop=True)
    with Image.open(picture) as image:
        wanted = image.crop(box)
    across, down = wanted.size
    margin = shows.height - down  # whole characters
    assert shows.width - across in range(CELL[0])
    assert margin in range(CELL[1])
    assert difference(shows.crop((0, margin, across, shows.height)), wanted) == 0


def test_a_crop_without_a_region_is_the_whole(picture: Path, without_torch: Warm) -> None:
    assert difference(pixels_at_kitty(hit(picture), without_torch, crop=True), expected(picture, (400, 200))) < 1


def test_a_region_that_is_gone_says_so(picture: Path, without_torch: Warm) -> None:
    screen = shown([with_box(picture, (350, 150, 450, 250))], without_torch, answers=KITTY + DA1, crop=True)
    assert "changed since" in " ".join("".join(screen.text()).split())


@pytest.mark.parametrize("side", [20, 100, 300])
def test_the_region_of_a_large_jpeg_is_decoded_at_the_scale_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """It is decoded small, and yet looks like the region of the whole."""
    levels = np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path = tmp_path / "large.jpg"
    whole = Image.fromarray(levels).resize((3200, 2400), Image.Resampling.BICUBIC)
    whole.save(path, quality=95)
    box = (1203, 401, 2003, 1001)
    sizes: list[tuple[int, int]] = []
    reference = decode(path.read_bytes()).image.crop(box).resize((side, side * 3 // 4), Image.Resampling.LANCZOS)

    def watched(*given: Any, **options: Any) -> Any:  # noqa: ANN401
        decoded = decode(*given, **options)
        sizes.append(decoded.image.size)
        return decoded

    monkeypatch.setattr(thumbnails, "decode", watched)
    shows = thumbnail_of_region(os.fsencode(path), box, (3200, 2400), side)
    assert difference(shows, reference) < 4
    (decoded,) = sizes
    assert decoded[0] < 3200 * 2 * side / 800 + 400 if side < 300 else decoded[0] <= 3200
    thumbnail_of_region(os.fsencode(path), box, None, side)
    assert sizes[1] == (3200, 2400)  # whose size is not known


def test_kitty_stretches_no_image(tmp_path: Path, without_torch: Warm) -> None:
    Image.new("RGB", (95, 30), (10, 100, 200)).save(tmp_path / "odd.png")
    screen = shown([hit(tmp_path / "odd.png")], without_torch, answers=KITTY + DA1)
    keys, image = kitty_image([sequence for _, _, sequence in screen.pictures])
    assert (keys["c"], keys["r"], image.size) == ("10", "2", (100, 40))
    assert image.getchannel("A").getbbox() == (0, 10, 95, 40)  # on its caption, the rest is transparent


def test_sixel_shows_the_pixels(picture: Path, without_torch: Warm) -> None:
    screen = shown([hit(picture)], without_torch, answers=DA1_WITH_SIXEL, cell=(9, 17))
    [(row, column, sequence)] = screen.pictures
    image = sixel_image(sequence)
    assert image.size == (400, 200)
    assert difference(image, expected(picture, image.size)) < 3
    assert (row, column) == (0, 0)
    assert screen.text()[12].startswith("1  ")  # 34 bands of 6 pixels are 204, and 12 rows of 17


def test_sixel_of_many_colours_leaves_no_pixel_out(tmp_path: Path, without_torch: Warm) -> None:
    values = np.random.default_rng(1).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    image = Image.fromarray(values).resize((437, 331), Image.Resampling.BICUBIC)
    image.save(path)
    screen = shown([hit(path)], without_torch, answers=DA1_WITH_SIXEL)
    drawn = sixel_image(screen.pictures[0][2])
    assert difference(drawn, expected(path, drawn.size)) < 12
    assert not (np.asarray(drawn) == (255, 0, 255)).all(axis=2).any()


def test_iterm2_gets_a_file_and_the_side_that_limits_it(picture: Path, without_torch: Warm) -> None:
    screen = shown(
        [hit(picture), hit(picture, 2)], without_torch, answers=name("iTerm2 3.5.10") + KITTY + DA1_WITH_SIXEL
    )
    assert [(row, column) for row, column, _ in screen.pictures] == [(0, 0), (0, 40)]
    sequence = re.fullmatch(r"\x1b\]1337;File=(.*):(.*)\x07", screen.pictures[0][2])
    assert sequence
    data = base64.b64decode(sequence[2])
    assert sequence[1] == f"inline=1;size={len(data)};width=38;height=auto;preserveAspectRatio=1"
    image = Image.open(io.BytesIO(data))
    assert image.size == (400, 200)  # sharper than 38 x 10 characters for screens that have smaller pixels
    assert difference(image, expected(picture, image.size)) < 2


def test_half_blocks_have_the_colours_of_the_pixels(picture: Path, without_torch: Warm) -> None:
    screen = shown([hit(picture)], without_torch)
    assert not screen.pictures
    small = np.asarray(Image.open(picture))
    for row in range(12):
        for column in range(48):
            y, x = (row + 0.5) * 200 / 12, (column + 0.5) * 400 / 48
            if min(abs(y - 100), abs(x - 200)) > 25:  # away from edges, which resampling makes soft
                colour = "8;2;{};{};{}".format(*small[int(y), int(x)])
                assert screen.cells[row, column] == Cell("▀", colour, colour), (row, column)
    assert (12, 0) in screen.cells
    assert max(column for row, column in screen.cells if row < 12 and screen.cells[row, column].ink) == 47


def test_a_half_block_is_two_pixels(tmp_path: Path, without_torch: Warm) -> None:
    image = Image.new("RGB", (3, 4), (10, 20, 30))
    image.putpixel((1, 2), (200, 0, 0))
    image.putpixel((1, 3), (0, 200, 0))
    image.save(tmp_path / "dots.png")
    screen = shown([hit(tmp_path / "dots.png")], without_torch)
    grey = "8;2;10;20;30"
    for place in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)]:
        assert screen.cells[place] == Cell("▀", grey, grey)
    assert screen.cells[1, 1] == Cell("▀", "8;2;200;0;0", "8;2;0;200;0")
    assert screen.text()[2] == "1  0.2500  0.50"  # never larger than the picture itself


def test_half_blocks_in_256_colours(picture: Path, without_torch: Warm) -> None:
    screen = shown([hit(picture)], without_torch, COLORTERM="")
    blocks = [cell for cell in screen.cells.values() if cell.character == "▀"]
    assert blocks
    assert all(re.fullmatch(r"8;5;\d+", code) for cell in blocks for code in (cell.ink, cell.ground))
    assert screen.cells[0, 0].ink == "8;5;160"  # (215, 0, 0), the nearest to (200, 30, 40)


def test_no_color_is_about_colours_that_nobody_asked_for(picture: Path, without_torch: Warm) -> None:
    screen = shown([hit(picture)], without_torch, NO_COLOR="1")
    assert screen.cells[0, 0].ink == "8;2;200;30;40"


@pytest.mark.parametrize(
    ("answers", "protocol"),
    [
        (_Answers(), "blocks"),
        (_Answers(name="XTerm(390)", sixel=True), "sixel"),
        (_Answers(name="kitty(0.42.1)", kitty=True), "kitty"),
        (_Answers(name="ghostty 1.2.0", kitty=True), "kitty"),
        (_Answers(name="WezTerm 20240203", kitty=True, sixel=True), "iterm2"),
        (_Answers(name="iTerm2 3.6", kitty=True, sixel=True), "iterm2"),
        (_Answers(name="Konsole 24.12", kitty=True, sixel=True), "sixel"),
        (_Answers(name="Konsole 20.12"), "blocks"),
        (_Answers(name="foot(1.20)", sixel=True), "sixel"),
    ],
)
def test_each_terminal_gets_what_it_does_best(
    answers: _Answers, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TERM_PROGRAM", "LC_TERMINAL"):
        monkeypatch.delenv(variable, raising=False)
    assert _protocol(answers) == protocol


def test_an_old_iterm2_is_known_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_TERMINAL", "iTerm2")
    assert _protocol(_Answers(sixel=True)) == "iterm2"
    assert _protocol(_Answers(name="XTerm(390)", sixel=True)) == "sixel"


def test_the_environment_decides(picture: Path, without_torch: Warm) -> None:
    screen = shown([hit(picture)], without_torch, answers=KITTY + DA1, CLIPSEARCH_PREVIEW="sixel")
    assert sixel_image(screen.pictures[0][2]).size == (400, 200)
    status, sent = run([hit(picture)], without_torch, answers=b"", CLIPSEARCH_PREVIEW="blocks", cell=None)
    assert status == 0
    assert b"\x1b[c" not in sent  # then nothing needs to be asked


def test_the_size_of_characters_is_asked_for(picture: Path, without_torch: Warm) -> None:
    screen = shown([hit(picture)], without_torch, answers=KITTY + b"\x1b[6;40;20t" + DA1, cell=None)
    keys, _ = kitty_image([sequence for _, _, sequence in screen.pictures])
    assert (keys["c"], keys["r"]) == ("20", "5")


def test_a_terminal_that_never_answers_gets_half_blocks(picture: Path, without_torch: Warm) -> None:
    screen = shown([hit(picture)], without_torch, answers=b"", patience=0.1)
    assert screen.cells[0, 0] == Cell("▀", "8;2;200;30;40", "8;2;200;30;40")


def test_ctrl_c_leaves_the_terminal_as_it_was(picture: Path, without_torch: Warm) -> None:
    status, sent = run([hit(picture)], without_torch, answers=b"\x03" + DA1)  # `run` compares the modes
    assert status != 0
    assert b"KeyboardInterrupt" in sent
    assert "▀".encode() not in sent


def test_ctrl_c_amid_an_image_ends_the_image() -> None:
    class Interrupted(io.BytesIO):
        flushed = False

        def flush(self) -> None:
            if not self.flushed:
                self.flushed = True
                raise KeyboardInterrupt

    out = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        _write([_Tile(Drawing(2, ["  "], "\x1b_Gm=0;AAAA"), ["caption"])], 10, out)
    assert out.getvalue().endswith(b"\x18\x1b\\\x1b[0m\n\n")  # cancelled, ended, and below


def test_three_stand_side_by_side(picture: Path, without_torch: Warm) -> None:
    hits = [hit(picture, rank) for rank in range(1, 6)]
    screen = shown(hits, without_torch, answers=KITTY + DA1)
    places = sorted({(row, column) for row, column, sequence in screen.pictures if "a=T" in sequence})
    assert places == [(0, 0), (0, 27), (0, 54), (10, 0), (10, 27)]
    assert screen.text()[7].split() == ["1", "0.2500", "0.50", "2", "0.2500", "0.50", "3", "0.2500", "0.50"]
    assert screen.text()[17].split() == ["4", "0.2500", "0.50", "5", "0.2500", "0.50"]


@pytest.mark.parametrize("columns", [1, 5, 20, 79, 80, 200])
@pytest.mark.parametrize("protocol", ["blocks", "kitty"])
def test_no_line_is_wider_than_the_terminal(picture: Path, without_torch: Warm, columns: int, protocol: str) -> None:
    hits = [hit(picture, rank) for rank in range(1, 8)]
    screen = shown(hits, without_torch, columns=columns, lines=12, CLIPSEARCH_PREVIEW=protocol)
    assert max(column for _, column in screen.cells) < max(1, columns - 1)
    for _, column, sequence in screen.pictures:
        if "a=T" in sequence:
            keys = dict(pair.split("=") for pair in sequence[3 : sequence.index(";")].split(","))
            assert column + int(keys["c"]) <= max(1, columns - 1)
            assert int(keys["r"]) <= 12 - 4


def test_images_of_one_row_stand_on_their_captions(tmp_path: Path, without_torch: Warm) -> None:
    for file, size in (("tall.png", (100, 200)), ("wide.png", (200, 40))):
        Image.new("RGB", size, (10, 100, 200)).save(tmp_path / file)
    hits = [hit(tmp_path / "tall.png"), hit(tmp_path / "wide.png", 2)]
    screen = shown(hits, without_torch, answers=KITTY + DA1)
    assert [(row, column) for row, column, _ in screen.pictures] == [(0, 0), (8, 40)]
    assert screen.text()[10] == f"{'1  0.2500  0.50':40}2  0.2500  0.50"


def test_what_cannot_be_read_says_why(picture: Path, without_torch: Warm, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    archive = tar(tmp_path / "a.tar", {"b/c.png": picture.read_bytes()})
    hits = [hit(broken), hit(Path(f"{archive}!/b/c.png"), 2), hit(Path(f"{archive}!/gone.png"), 3)]
    screen = shown(hits, without_torch, answers=KITTY + DA1)
    assert [column for _, column, sequence in screen.pictures if "a=T" in sequence] == [27]
    text = "\n".join(screen.text())
    assert "image of a known format" in text
    assert text.count("Cannot be read") == 2
    assert "1  0.2500" in text
    assert "3  0.2500" in text


def test_captions_are_cut_between_characters_and_harmless(picture: Path, without_torch: Warm, tmp_path: Path) -> None:
    long = picture.rename(tmp_path / ("夜景" * 30 + "e\u0301nd\x1b[31m.png"))
    screen = shown([hit(long, confidence=None)], without_torch, answers=KITTY + DA1, cwd=tmp_path)
    rank, path = screen.text()[10:12]
    assert rank == "1  0.2500"
    assert cell_len(path) <= 48
    assert path.startswith("夜景")
    assert path.endswith("nd\\x1b[31m.png")


def test_bytes_of_a_name_that_are_no_text_are_shown(picture: Path, without_torch: Warm) -> None:
    odd = os.fsencode(picture.parent) + b"/\xff.png"
    try:
        os.rename(picture, odd)
    except OSError:
        pytest.skip("this file system has no such names")
    screen = shown([hit(Path(os.fsdecode(odd)))], without_torch, cwd=picture.parent)
    assert screen.text()[-2] == "\\xff.png"


def test_no_hits_no_questions(without_torch: Warm) -> None:
    status, sent = run([], without_torch, answers=b"")
    assert (status, sent) == (0, b"\r\nEND True b''")


def test_a_file_is_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, pytest.raises(InputError, match=r"--preview.*terminal"):
        check_terminal(out)
    with (tmp_path / "out").open("wb") as out, pytest.raises(InputError, match=r"--preview.*terminal"):
        show_previews([], out)
    assert not (tmp_path / "out").read_bytes()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TERM": "dumb"}, ["TERM=dumb", "colours"]),
        ({"CLIPSEARCH_PREVIEW": "ascii"}, ["CLIPSEARCH_PREVIEW is 'ascii'", "kitty, iterm2, sixel, blocks"]),
    ],
)
def test_what_cannot_be_done_is_said(
    variables: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLIPSEARCH_PREVIEW", raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with pseudo_terminal(80, 24, CELL) as (_, slave), os.fdopen(os.dup(slave), "wb", buffering=0) as out:
        with pytest.raises(InputError) as told:
            check_terminal(out)
        for word in words:
            assert word in str(told.value)


def test_kittys_marks_follow_its_rule() -> None:
    """Marks above a letter that are part of no composed letter, in the order of Unicode."""
    composed = set()
    for code in range(sys.maxunicode):
        parts = unicodedata.decomposition(chr(code))
        composed |= set() if parts.startswith("<") else {chr(int(part, 16)) for part in parts.split()}
    above = [chr(code) for code in range(0x300, ord(NUMBERS[-1]) + 1) if unicodedata.combining(chr(code)) == 230]
    assert [mark for mark in above if mark not in composed and not unicodedata.decomposition(mark)] == [*NUMBERS]


class Tmux:
    """A server of its own, without anybody's settings."""

    def __init__(self, folder: str, environment: Mapping[str, str]) -> None:
        self.command = ["tmux", "-S", f"{folder}/s", "-f", "/dev/null"]
        foreign = ("TMUX", "TMUX_PANE", "COLORTERM", "TERM_PROGRAM")
        self.environment = {key: value for key, value in environment.items() if key not in foreign}
        self.environment |= {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C.UTF-8"}

    def __call__(self, *arguments: str) -> str:
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        ).stdout

    def show(self, picture: Path) -> None:
        """In the pane; returns when it is done."""
        script = SHOW.replace("terminal = 2\nfcntl.ioctl(terminal, termios.TIOCSCTTY, 0)", "terminal = 0")
        values = repr([(1, 0.25, 0.5, os.fsencode(picture), None, None, 1, 1, None)])
        command = [sys.executable, "-c", script, str(TIMEOUT), values]
        file = picture.parent / "show.sh"
        file.write_text(f"{' '.join(_quoted(word) for word in command)}\ntmux wait-for -S shown\nexec cat\n")
        self("respawn-pane", "-k", f"sh {file}")
        self("wait-for", "shown")


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


@pytest.fixture
def tmux(environment: dict[str, str]) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        server = Tmux(folder, environment)
        server("new-session", "-d", "-x", "100", "-y", "40", "cat")
        try:
            yield server
        finally:
            server("kill-server")


def test_inside_tmux_half_blocks_have_all_colours(picture: Path, tmux: Tmux) -> None:
    tmux.show(picture)
    text = tmux("capture-pane", "-p", "-e")
    plain = tmux("capture-pane", "-p").splitlines()
    assert "▀" * 48 in plain[0]
    assert text.startswith("\x1b[38;2;200;30;40m\x1b[48;2;200;30;40m▀")
    caption = next(row for row, line in enumerate(plain) if line == "1  0.2500  0.50")
    assert plain[caption - 1] == "▀" * 48
    assert plain[caption + 3] == "END True b''"


@contextmanager
def attached(tmux: Tmux, answers: bytes) -> Iterator[tuple[int, bytearray]]:
    """A client of tmux, in a terminal that gives these answers; what it sends there is collected on demand."""
    with pseudo_terminal(100, 41, CELL) as (master, slave):
        client = subprocess.Popen(
            [*tmux.command, "attach"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=tmux.environment,
            start_new_session=True,
        )
        sent = bytearray()
        try:
            os.write(master, answers)
            yield master, sent
        finally:
            client.kill()
            client.wait(TIMEOUT)


def collect(master: int, sent: bytearray, until: bytes) -> None:
    end = time.monotonic() + TIMEOUT
    while until not in sent:
        assert time.monotonic() < end, bytes(sent[-2000:])
        if select.select([master], [], [], 0.05)[0]:
            sent += os.read(master, 1 << 16)


def wait_for_name(tmux: Tmux, wanted: str) -> None:
    end = time.monotonic() + TIMEOUT
    while wanted not in tmux("list-clients", "-F", "#{client_termtype}"):
        assert time.monotonic() < end
        time.sleep(0.05)


def placeholders(text: str) -> list[list[tuple[int, int, int]]]:
    """Row, column and mark of each placeholder, line by line."""
    pattern = "\U0010eeee(" + "|".join(NUMBERS) + ")" + f"([{NUMBERS}])([{NUMBERS}])"
    lines = [re.findall(pattern, line) for line in text.splitlines()]
    return [[(NUMBERS.index(a), NUMBERS.index(b), NUMBERS.index(c)) for a, b, c in line] for line in lines if line]


def test_inside_tmux_kitty_gets_pixels_past_it_and_placeholders_through_it(picture: Path, tmux: Tmux) -> None:
    tmux("set", "-g", "allow-passthrough", "on")
    with attached(tmux, DA1 + name("kitty(0.42.1)")) as (master, sent):
        wait_for_name(tmux, "kitty")
        tmux.show(picture)
        collect(master, sent, b"END True b''")
    parts = re.findall(rb"\x1b_G[^\x1b]*\x1b\\", sent)
    keys, image = kitty_image([part.decode() for part in parts])
    drawn = image.getchannel("A").getbbox()
    assert drawn
    assert difference(image.crop(drawn).convert("RGB"), expected(picture, (400, 200))) < 1
    assert (keys["a"], keys["U"], keys["q"]) == ("T", "1", "2")
    number = int(keys["i"])
    rows = placeholders(tmux("capture-pane", "-p"))
    assert rows == [[(row, column, number >> 24) for column in range(int(keys["c"]))] for row in range(int(keys["r"]))]
    assert f"\x1b[38;5;{number & 0xFFFFFF}m\U0010eeee" in tmux("capture-pane", "-p", "-e")


def test_inside_tmux_iterm2_gets_a_file_past_it_at_the_right_place(picture: Path, tmux: Tmux) -> None:
    tmux("set", "-g", "allow-passthrough", "on")
    with attached(tmux, DA1 + name("iTerm2 3.5.10")) as (master, sent):
        wait_for_name(tmux, "iTerm2")
        tmux.show(picture)
        collect(master, sent, b"END True b''")
    file = re.search(rb"\x1b\[(?:1;1)?H\x1b\]1337;File=inline=1;[^:]*:([^\x07]*)\x07", sent)
    assert file
    assert difference(Image.open(io.BytesIO(base64.b64decode(file[1]))), expected(picture, (400, 200))) < 2


def test_inside_tmux_that_lets_nothing_past_kitty_gets_half_blocks(picture: Path, tmux: Tmux) -> None:
    tmux("set", "-g", "allow-passthrough", "off")
    with attached(tmux, DA1 + name("kitty(0.42.1)")):
        wait_for_name(tmux, "kitty")
        tmux.show(picture)
        assert "▀" * 48 in tmux("capture-pane", "-p")
