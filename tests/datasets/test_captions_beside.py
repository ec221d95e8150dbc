"""Captions beside images, in folders and archives, as img2dataset writes them."""

from __future__ import annotations

import csv
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from archive_files import picture, tar, zipped
from conftest import REPOSITORY, Run

from clipsearch.datasets.captions import read_captions
from clipsearch.errors import InputError

RED, BLUE = picture("red"), picture("blue")


def read(place: Path, **options: Any) -> dict[str, str]:  # noqa: ANN401  (those of what is tested)
    found = read_captions(place, **options)
    assert len(found.images) == len(found.pairs)
    return {os.path.basename(os.fsdecode(found.images[image].path)): found.texts[text] for text, image in found.pairs}


def members(*numbers: int) -> dict[str, bytes]:
    """As img2dataset writes them."""
    found: dict[str, bytes] = {}
    for n in numbers:
        meta = {"caption": f"caption {n}", "key": f"{n:09}", "status": "success", "error_message": None}
        found[f"{n:09}.jpg"] = RED
        found[f"{n:09}.json"] = json.dumps(meta).encode()
        found[f"{n:09}.txt"] = f"caption {n}\n".encode()
    return found


def test_shards_and_files_of_img2dataset_are_read(tmp_path: Path) -> None:
    tar(tmp_path / "00000.tar", members(0, 1))
    zipped(tmp_path / "00001.zip", members(2))
    (tmp_path / "00002").mkdir()
    for name, content in members(3).items():
        (tmp_path / "00002" / name).write_bytes(content)
    (tmp_path / "00000_stats.json").write_text("{}")
    expected = {f"{n:09}.jpg": f"caption {n}" for n in range(4)}
    assert read(tmp_path) == expected
    assert read(tmp_path / "00000.tar") == {f"{n:09}.jpg": f"caption {n}" for n in range(2)}
    assert read(tmp_path / "00002") == {"000000003.jpg": "caption 3"}


def test_text_comes_before_json_and_neither_is_needed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = {
        "a.png": RED,
        "a.txt": b" two\n lines ",
        "a.json": b'{"caption": "another"}',
        "b.png": RED,
        "b.json": b'{"caption": null, "text": "from text"}',
        "c.png": RED,
        "d.png": BLUE,
        "d.json": b'{"caption": ""}',
        "e.v2.png": BLUE,
        "e.v2.txt": "grün".encode("latin-1"),
    }
    archive = tar(tmp_path / "x.tar", content)
    with caplog.at_level(logging.WARNING):
        found = read(archive, encoding="latin-1")
    assert found == {"a.png": "two lines", "b.png": "from text", "e.v2.png": "grün"}
    assert caplog.messages == [f"Left out: 2 of 5 images in {archive} without a caption."]


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ({"a.png": RED}, {}, "none of 1 image has a file with its name"),
        ({"a.txt": b"a"}, {}, "no image has a file with its name"),
        ({"a.png": RED, "a.json": b"{"}, {}, r"a\.json is no JSON"),
        ({"a.png": RED, "a.txt": b"\xff"}, {}, r"a\.txt"),
        ({"a.png": RED, "a.txt": b"x" * (2 << 20)}, {}, "too large"),
        ({"a.png": RED, "a.txt": b"a"}, {"images": "."}, "holds the images itself"),
        ({"a.png": RED, "a.txt": b"a"}, {"split": "test"}, "has no splits"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: dict[str, bytes], options: dict[str, str], said: str) -> None:
    archive = tar(tmp_path / "x.tar", content)
    with pytest.raises(InputError, match=said):
        read(archive, **options)


def test_a_table_can_name_members(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", {"in/a.png": RED})
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\nx.tar!/in/a.png,red\n")
    assert read(table) == {"a.png": "red"}
    table.write_text("image,caption\nx.tar!/in/a.png,red\nx.tar!/b.png,blue\n")
    with pytest.raises(InputError, match=r"1 of 2 images are not in .*: x\.tar!/b\.png"):
        read(table)


def test_eval_and_tune_take_shards(tmp_path: Path, run: Run) -> None:
    samples = REPOSITORY / "sample-images"
    with (samples / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))[::12]
    content: dict[str, bytes] = {}
    for number, row in enumerate(rows):
        name = row["image"]
        content[f"{number:05}{os.path.splitext(name)[1]}"] = (samples / name).read_bytes()
        content[f"{number:05}.txt"] = row["caption"].encode()
    tar(tmp_path / "shards" / "0.tar", content)
    done = run("eval", "shards", "--model", "picturebook", "--json", "--min", "t2i.recall@5=0.8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [one["candidates"] for one in json.loads(done.stdout)] == [len(rows)] * 2
    tar(tmp_path / "shards" / "1.tar", dict(list(content.items())[:6]))
    for shard, options, said in (
        ("0.tar", ["--split", "x"], b"has no splits"),
        ("1.tar", [], b"3 captions are too few to learn from"),  # all of them were read
    ):
        few = run("tune", f"shards/{shard}", "--model", "picturebook", "--out", "new", *options, cwd=tmp_path)
        assert few.returncode == 2
        assert said in few.stderr
