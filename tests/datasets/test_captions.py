"""Files with captions in four formats, and what is refused in them, and how."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES

from clipsearch.datasets.captions import Captions, read_captions
from clipsearch.errors import InputError

CSV = "image,caption\na.jpg,a dog\nin/b.jpg,a cat\na.jpg,a black dog\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With three files that stand for pictures: nothing here opens one."""
    for name in ("a.jpg", "in/b.jpg", "c d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    return tmp_path


def written(folder: Path, content: str | bytes | dict[str, Any] | list[Any], name: str = "captions") -> Path:
    path = folder / name
    if isinstance(content, dict | list):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def told(captions: Captions, folder: Path) -> list[tuple[str, str]]:
    """Every pair as image and caption."""
    return [
        (os.path.relpath(os.fsdecode(captions.images[image].path), folder), captions.texts[text])
        for text, image in captions.pairs
    ]


DOGS_AND_CAT = [("a.jpg", "a dog"), ("in/b.jpg", "a cat"), ("a.jpg", "a black dog")]


def karpathy(**more: object) -> dict[str, Any]:
    return {
        "dataset": "flickr8k",
        "images": [
            {
                "filename": "a.jpg",
                "split": "test",
                "sentences": [{"raw": "a dog", "tokens": ["a", "dog"]}, {"raw": "a black dog"}],
            },
            {"filepath": "in", "filename": "b.jpg", "split": "train", "sentences": [{"raw": "a cat"}]},
            {"filename": "c d.jpg", "split": "test", "sentences": [{"raw": "a bird", **more}]},
        ],
    }


def coco() -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "in/b.jpg"}, {"id": 1, "file_name": "no"}],
        "annotations": [
            {"image_id": 7, "id": 1, "caption": "a dog"},
            {"image_id": 9, "id": 2, "caption": "a cat"},
            {"image_id": 7, "id": 3, "caption": "a black dog\n"},
        ],
    }


# -- formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        CSV.replace("\n", "\r\n"),
        "\n\n" + CSV.replace("\n", "\n\n"),
        "\ufeff" + CSV,
        CSV.replace(",", "\t"),
        "Caption ,n,FILENAME\na dog,1,a.jpg\n a cat ,2,in/b.jpg\na black dog,3,./a.jpg",
        'path,text\n"a.jpg","a dog"\n"in/b.jpg","a cat"\n"in/../a.jpg","a black dog"\n',
        "a.jpg#0\ta dog\nin/b.jpg#0\ta cat\n\na.jpg#1\ta black dog \n",
        "a.jpg#0\ta dog\r\nin/b.jpg#0\ta cat\r\na.jpg#11\ta black dog\r\n",
        coco(),
    ],
    ids=["csv", "crlf", "blank lines", "bom", "tsv", "other names", "quoted", "tokens", "tokens crlf", "coco"],
)
def test_the_same_captions_in_every_format(content: str | dict[str, Any], folder: Path) -> None:
    found = read_captions(written(folder, content))
    assert told(found, folder) == DOGS_AND_CAT
    assert found.missing == []
    assert [file.size for file in found.images] == [5, 5]


def test_karpathys_json_and_its_splits(folder: Path) -> None:
    path = written(folder, karpathy())
    test = [("a.jpg", "a dog"), ("a.jpg", "a black dog"), ("c d.jpg", "a bird")]
    assert told(read_captions(path, split="test"), folder) == test
    assert told(read_captions(path, split="train"), folder) == [("in/b.jpg", "a cat")]
    assert sorted(told(read_captions(path), folder)) == sorted([*test, ("in/b.jpg", "a cat")])
    with pytest.raises(InputError, match=r"'val'.* 'test', 'train'"):
        read_captions(path, split="val")


def test_the_sample_captions() -> None:
    found = read_captions(SAMPLES / "captions.csv")
    assert len(found.images) == len(found.pairs) == 253
    assert ("dogs/dog_1.png", "an orange dog is sleeping in the garden") in told(found, SAMPLES)


def test_equal_captions_are_one_text_and_equal_pairs_one_pair(folder: Path) -> None:
    found = read_captions(written(folder, "image,caption\na.jpg,a dog\nin/b.jpg, a dog \na.jpg,a dog\n"))
    assert found.texts == ["a dog"]
    assert found.pairs == [(0, 0), (0, 1)]


def test_commas_quotes_and_line_ends_in_captions(folder: Path) -> None:
    found = read_captions(written(folder, 'image,caption\nc d.jpg,"a dog, ""Rex"",\nand a cat"\n'))
    assert told(found, folder) == [("c d.jpg", 'a dog, "Rex",\nand a cat')]


def test_captions_in_any_script(folder: Path) -> None:
    found = read_captions(written(folder, "image,caption\na.jpg,眠っている犬 🐕\n"))
    assert found.texts == ["眠っている犬 🐕"]


def test_images_come_from_the_folder_that_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(folder, "image,caption\nb.jpg,a cat\n")
    assert told(read_captions(path, images=folder / "in"), folder) == [("in/b.jpg", "a cat")]
    absolute = written(folder, f"image,caption\n{folder}/in/b.jpg,a cat\n")
    assert told(read_captions(absolute), folder) == [("in/b.jpg", "a cat")]
    monkeypatch.chdir(folder / "in")
    assert read_captions(Path("../captions"), images=Path()).images[0].path == os.fsencode(folder / "in" / "b.jpg")
    with pytest.raises(InputError, match="folder"):
        read_captions(path, images=folder / "out")


def test_names_of_images_need_not_be_utf8(folder: Path) -> None:
    name = b"caf\xe9.jpg"
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"1")
    except OSError:
        pytest.skip("this file system wants UTF-8")
    found = read_captions(written(folder, b"image,caption\n" + name + b",a coffee\n"))
    assert found.images[0].path == os.fsencode(folder) + b"/" + name


# -- missing images ----------------------------------------------------------------------------------------------


def test_missing_images_are_counted_and_named(folder: Path) -> None:
    rows = "".join(f"gone/{number}.jpg,a dog\n" for number in range(5))
    path = written(folder, CSV + rows + "gone/1.jpg,again\n")
    with pytest.raises(InputError) as error:
        read_captions(path)
    assert "5 of 7 " in str(error.value)
    assert "gone/0.jpg, gone/1.jpg, gone/2.jpg, ..." in str(error.value)
    assert error.value.hints == ("images-or-skip",)
    found = read_captions(path, skip_missing=True)
    assert told(found, folder) == DOGS_AND_CAT
    assert len(found.missing) == 5
    assert found.missing[0] == os.fsencode(folder / "gone" / "0.jpg")


def test_if_all_images_are_missing_leaving_them_out_does_not_help(folder: Path) -> None:
    path = written(folder, "x.jpg#0\ta dog\n")
    for skip in (False, True):
        with pytest.raises(InputError, match="1 of 1 ") as error:
            read_captions(path, skip_missing=skip)
        assert error.value.hints == ("images",)


def test_a_folder_under_the_name_of_an_image_is_not_missing_but_unreadable(folder: Path) -> None:
    found = read_captions(written(folder, "image,caption\nin,a dog\na.jpg,a cat\na.jpg/x,a cow\n"), skip_missing=True)
    assert len(found.images) == 2
    assert len(found.missing) == 1


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no caption"),
        ("\n\n", "no caption"),
        ("image,caption\n", "no caption"),
        ("img,caption\na.jpg,a dog\n", "column for the image: .* 'img', 'caption'"),
        ("image,label\na.jpg,a dog\n", "column for the caption: .* 'image', 'label'"),
        ("a.jpg,a dog\n", "image .* caption: .* 'a.jpg', 'a dog'"),
        (
            "image,caption\na.jpg,a dog, asleep\n",
            "line 2: .* 2 .* 3",
        ),
        ("image,caption\na.jpg\n", "line 2: .* 2 .* 1"),
        ("image,caption\na.jpg,  \n", "line 2: the caption"),
        ("image,caption\n,a dog\n", "line 2: the image"),
        ('image,caption\na.jpg,"a dog\n', "line 2: "),
        ('image,caption\na.jpg,"a" dog\n', "line 2: "),
        (b"image,caption\na.jpg,caf\xe9\n", "line 2: the caption .*0xe9"),
        ("image,caption\na.jpg,a dog\n".encode("utf-16-le"), "NUL byte in line 1."),
        (b"\x89PNG\r\n\x1a\n\0\0", "UTF-8"),
        ("a.jpg#0\ta dog\na.jpg a cat\n", "line 2: .*image#number"),
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ([], "known format"),
        ({"images": {}}, "known format"),
        ({"images": []}, "no caption"),
        ({"images": [3]}, r"images\[0\] is no object"),
        ({"images": [{"filename": "a.jpg"}]}, r"images\[0\]: sentences is missing"),
        ({"images": [{"filename": 5, "sentences": []}]}, r"images\[0\]: filename is '5'"),
        ({"images": [{"filename": "a.jpg", "sentences": ["a dog"]}]}, r"images\[0\].sentences is no object"),
        ({"images": [], "annotations": 3}, "annotations is no array"),
        ({"images": [], "annotations": [{"image_id": 1, "caption": "a"}]}, r"annotations\[0\]: .* image .* 1"),
        ({"images": [{"id": 1}], "annotations": []}, r"images\[0\]: file_name is missing"),
        (
            {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": [1, 2]}]},
            r"annotations\[0\]: caption is missing",
        ),
        ({"images": [{"filename": "a.jpg", "sentences": [{"raw": "\ud83d"}]}]}, "the caption .*UTF-8"),
        ({"images": [{"filename": "\ud83d", "sentences": [{"raw": "a dog"}]}]}, "name of a file"),
        ({"images": [{"filename": "a\0.jpg", "sentences": [{"raw": "a dog"}]}]}, "1 of 1 "),
    ],
)
def test_what_cannot_be_understood_is_named(content: Any, said: str, folder: Path) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match=said):
        read_captions(written(folder, content))


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_captions(folder / "nothing.csv")
    with pytest.raises(InputError, match="There is no caption in"):
        read_captions(folder / "in")


@pytest.mark.parametrize("content", [CSV, "a.jpg#0\ta dog\n", coco()])
def test_only_karpathys_json_has_splits(content: str | dict[str, Any], folder: Path) -> None:
    with pytest.raises(InputError, match="split"):
        read_captions(written(folder, content), split="test")


def test_a_split_that_is_not_said_of_each_image_is_an_error(folder: Path) -> None:
    data = karpathy()
    del data["images"][1]["split"]
    with pytest.raises(InputError, match=r"images\[1\]: split"):
        read_captions(written(folder, data), split="test")
