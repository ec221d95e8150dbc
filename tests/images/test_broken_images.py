"""Hundreds of broken image files: none crashes the process, hangs it or takes its memory, and each says what is wrong.

Run as a script with a folder, this decodes the files there one after the other; the test does so in a child process.
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import REPOSITORY, TESTS, Run
from image_files import COLOUR, HEIGHT, WIDTH, ImageFile, dng, image_files, png_chunk, saved
from rare_files import rare_files

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs.decoding import DecodedImage, decode
from clipsearch.images.codecs.quiet import quiet_decoders
from clipsearch.index.reading import Store
from clipsearch.index.verifying import verify

MAX_MEGAPIXELS = 4
LIES = ((1100, 1000), (60000, 60000))
"""Sizes that headers are made to claim: one within the limit, though more than is looked at in one part, and one
beyond it."""
SECONDS = 120
PICTURE = "picture"
MOST_MEMORY = 300 << 20
"""For the whole child: Python, NumPy and all decoders, and the largest picture that is allowed."""


# --- the corpus ---


def broken_corpus(folder: Path) -> list[Path]:
    """Write broken, lying and misnamed image files of every format into `folder`: the same ones each time."""
    previews = {"preview": saved(COLOUR, "JPEG"), "pixels": COLOUR, "plain": None}
    raws = [ImageFile(f"{name}.dng", dng(preview), COLOUR) for name, preview in previews.items()]
    files = [*image_files(), *rare_files()[::3], *raws]
    paths = []
    for number, (name, content) in enumerate(_broken(files)):
        path = folder / f"{number:04}-{name}"
        path.write_bytes(content)
        paths.append(path)
    return paths


def _broken(files: list[ImageFile]) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(20240229)
    for file, other in pairwise([*files, files[0]]):
        stem, suffix = file.name.rsplit(".", 1)
        yield f"{stem}-misnamed.{other.name.rsplit('.', 1)[1]}", file.content
        for damage, content in (*_cut(file.content, rng), *_damaged(file.content, rng), *_lying(file.content)):
            yield f"{stem}-{damage}.{suffix}", content
        yield (
            f"{stem}-spliced.{suffix}",
            file.content[: len(file.content) // 2] + other.content[len(other.content) // 2 :],
        )
    yield from _foreign(rng)


def _cut(content: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    for place, cut in (
        ("head", rng.randrange(1, 40)),
        ("middle", rng.randrange(len(content))),
        ("end", len(content) - 1),
    ):
        yield f"cut-{place}", content[:cut]


def _damaged(content: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Flipped bits in the header, in a few places and in many, and zeros over a stretch as a bad disk leaves them."""
    for name, flips, within in (("header", 1, 64), ("bits", 3, len(content)), ("noise", 30, len(content))):
        damaged = bytearray(content)
        for _ in range(flips):
            damaged[rng.randrange(min(within, len(damaged)))] ^= 1 << rng.randrange(8)
        yield name, bytes(damaged)
    start = rng.randrange(len(content))
    zeros = min(len(content) - start, len(content) // 4)
    yield "zeros", content[:start] + bytes(zeros) + content[start + zeros :]


def _lying(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Other sizes wherever the true one seems to be written."""
    for width, height in LIES:
        lies = content.replace(f"{WIDTH} {HEIGHT}".encode(), f"{width} {height}".encode())
        for order in "<>":
            for kind in "HI":
                pair = struct.Struct(f"{order}2{kind}")
                lies = lies.replace(pair.pack(WIDTH, HEIGHT), pair.pack(width, height))
                lies = lies.replace(pair.pack(HEIGHT, WIDTH), pair.pack(height, width))
            # TIFF has one entry for each: the tags for width, height and rows in a strip
            for tag, true, claimed in ((256, WIDTH, width), (257, HEIGHT, height), (278, HEIGHT, height)):
                entry = struct.Struct(f"{order}HHII")
                lies = lies.replace(entry.pack(tag, 4, 1, true), entry.pack(tag, 4, 1, claimed))
        if content.startswith(b"\x89PNG"):
            lies = _with_checksum(lies)
        if lies != content:
            yield f"claims-{width}", lies


def _with_checksum(png: bytes) -> bytes:
    return png[:8] + png_chunk(b"IHDR", png[16:29]) + png[33:]


def _foreign(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Other things with the names of images."""
    yield "empty.png", b""
    yield "text.tga", b"Dear Sir or Madam,\n" * 100
    yield "page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    yield "postscript.tif", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n"
    yield "drawing.webp", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
    yield "layers.bmp", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(400)
    yield "film.heic", b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + rng.randbytes(400)
    yield "box.avif", b"\0\0\0\x14ftypavif\0\0\0\0avif" + rng.randbytes(400)
    yield "box.heic", b"\0\0\0\x14ftypheic\0\0\0\0heic" + rng.randbytes(400)
    for size in (1, 17, 1000, 100_000):
        yield f"random-{size}.jpg", rng.randbytes(size)
    header = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
    bomb = zlib.compress(bytes(50 << 20))
    for kind, data in ((b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0"), (b"iCCP", b"x\0\0")):
        yield f"bomb-{kind.decode()}.png", header + png_chunk(kind, data + bomb)
    yield "bomb-IDAT.png", header + png_chunk(b"IDAT", bomb) + png_chunk(b"IEND", b"")
    many = struct.pack("<HHH", 0, 1, 65535) + struct.pack("<BBBBHHII", 64, 32, 0, 0, 1, 32, 100, 22) * 65535
    yield "many.ico", many
    circle = b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8)
    yield "circle.tiff", circle


# --- the test ---


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of broken files. Tests read it only."""
    folder = tmp_path_factory.mktemp("broken") / "corpus"
    folder.mkdir()
    assert len(broken_corpus(folder)) >= 800
    return folder


@pytest.fixture(scope="module")
def outcomes(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each file is, by its name, when they are decoded one after the other in a process of its own."""
    report = tmp_path_factory.mktemp("report") / "report.json"
    command = [sys.executable, "-X", "faulthandler", __file__, str(corpus), str(report)]
    try:
        env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, *TESTS)))}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=REPOSITORY, env=env
        )
    except subprocess.TimeoutExpired as expired:
        said = (expired.stdout or b"").decode("utf-8", "replace")
        raise AssertionError(f"decoding hangs on {said.splitlines()[-1:]}") from expired
    names = done.stdout.splitlines()
    assert done.returncode == 0, f"decoding fails on {names[-1:]}: {done.stderr}"
    assert names == sorted(os.listdir(corpus))
    assert done.stderr == ""
    result = json.loads(report.read_text())
    assert result["peak_memory"] < MOST_MEMORY
    found: dict[str, str] = result["outcomes"]
    return found


def test_broken_images_are_refused_one_by_one(corpus: Path, outcomes: dict[str, str]) -> None:
    print(json.dumps(Counter(outcomes.values()).most_common(), indent=1))  # noqa: T201  (shown by pytest -s)
    assert list(outcomes) == sorted(os.listdir(corpus))


def test_an_index_of_broken_images_accounts_for_every_file(
    corpus: Path, outcomes: dict[str, str], tmp_path: Path, run: Run
) -> None:
    options = ("--index", tmp_path / "index", "--max-pixels", str(MAX_MEGAPIXELS))
    found = run(
        *("index", corpus.name, "--model", "picturebook", *options, "--json"), cwd=corpus.parent, timeout=SECONDS
    )
    assert found.returncode == 0, found.stderr.decode()
    assert len(found.stderr) < 5_000
    summary = json.loads(found.stdout)
    unreadable = {os.path.basename(file["path"]) for file in summary["unreadable"]}
    with closing(Store.open(tmp_path / "index")) as store:
        assert verify(store) == []
        images = {os.path.basename(os.fsdecode(record.path)) for record in store.records() if record.row is not None}
    # In threads, where what was read beyond its memory would show, they are what they are one after the other.
    assert images == {name for name, outcome in outcomes.items() if outcome == PICTURE}
    assert unreadable == outcomes.keys() - images
    assert summary["images"] == len(images)
    again = json.loads(run("index", *options, "--json", cwd=corpus.parent).stdout)
    assert (again["device"], again["reused"], len(again["unreadable"])) == (None, len(images), len(unreadable))


def _decode_all(folder: Path, report: Path) -> None:
    """Decode the files in `folder` and note what they are; each is named on stdout before it is touched."""
    outcomes = {}
    with quiet_decoders():
        for path in sorted(folder.iterdir()):
            print(path.name, flush=True)  # noqa: T201
            outcomes[path.name] = _outcome(path)
    report.write_text(json.dumps({"peak_memory": _peak_memory(), "outcomes": outcomes}))


def _outcome(path: Path) -> str:
    """A picture, or the first words of why there is none. Anything else ends the process."""
    try:
        picture = decode(path.read_bytes(), path.name.encode(), max_pixels=MAX_MEGAPIXELS * 10**6)
    except UnreadableImageError as error:
        reason = str(error)
        assert reason.isprintable()
        assert 0 < len(reason) <= 200
        assert " at 0x" not in reason
        return reason.partition(":")[0]
    assert isinstance(picture, DecodedImage)
    assert picture.image.mode == "RGB"
    assert picture.width * picture.height <= MAX_MEGAPIXELS * 10**6
    return PICTURE


def _peak_memory() -> int:
    """Bytes that this process ever had; on Linux not from `getrusage`, which counts the parent before `exec`, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    _decode_all(Path(sys.argv[1]), Path(sys.argv[2]))
