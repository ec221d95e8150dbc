"""Known labels: names of folders, CSV, and CIFAR's files, which are pickles and may be hostile."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_files import CLASSES, cifar_10, operations, python_2_pickle, rows
from conftest import Run, paint
from PIL import Image

from clipsearch.datasets import cifar
from clipsearch.datasets.labels import cifar_files, folder_labels, is_cifar, labels_of, read_cifar, table_labels
from clipsearch.errors import InputError

# -- pickles -----------------------------------------------------------------------------------------------------


def test_a_pickle_by_python_2_means_what_python_says() -> None:
    value = {b"data": rows(3), b"labels": [0, 255, 256, -1], b"label": b"x" * 300, b"more": {b"a": [b"b"]}}
    content = python_2_pickle(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2 knows the old names and complains
        wanted = pickle.loads(content, encoding="bytes")  # noqa: S301  (our own)
    found = cifar.read_dict(content)
    assert list(found) == ["data", "labels", "label", "more"]
    assert np.array_equal(found.pop("data"), wanted.pop(b"data"))
    assert found == {key.decode(): item for key, item in wanted.items()}


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_by_python_3_and_this_numpy_are_read(protocol: int, order: Any) -> None:  # noqa: ANN401
    data = np.asarray(rows(5), order=order)
    value: dict[str, Any] = {
        "data": data,
        "fine_labels": list(range(300)),
        "none": None,
        "yes": True,
        "pair": (1, "zwei", b"3"),
    }
    found = cifar.read_dict(pickle.dumps(value, protocol))
    assert np.array_equal(found.pop("data"), value.pop("data"))
    assert found == value


def test_the_old_and_the_new_name_of_the_same_function_are_both_read() -> None:
    content = python_2_pickle({b"data": rows(2)})
    assert b"numpy.core.multiarray" in content
    renamed = content.replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    assert np.array_equal(cifar.read_dict(content)["data"], cifar.read_dict(renamed)["data"])


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def called(module: bytes, name: bytes, argument: bytes) -> bytes:
    """A pickle of protocol 2 that calls a function with a text."""
    return b"\x80\x02c" + module + b"\n" + name + b"\n" + operations(argument) + b"\x85R."


ARRAY = python_2_pickle({b"data": rows(1)})
HOSTILE = {
    "os.system": called(b"os", b"system", b"touch hit"),
    "posix.system": called(b"posix", b"system", b"touch hit"),
    "builtins.eval": called(b"builtins", b"eval", b"open('hit', 'w')"),
    "__builtin__.eval": called(b"__builtin__", b"eval", b"open('hit', 'w')"),
    "builtins.getattr": called(b"builtins", b"getattr", b"x"),
    "numpy.load": called(b"numpy", b"load", b"other.npy"),
    "numpy.core.multiarray.scalar": called(b"numpy.core.multiarray", b"scalar", b"x"),
    "numpy.f2py.diagnose.run": called(b"numpy.f2py.diagnose", b"run", b"x"),
    "_codecs.decode": called(b"_codecs", b"decode", b"x"),
    "by a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93\x8c\x03hit\x85R.",
    "by names on the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch hit\x85R.",
    "INST": b"(U\x09touch hitios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nU\x09touch hito.",
    "NEWOBJ": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "EXT1": b"\x80\x02\x82\x01.",
    "PERSID": b"Pfile\n.",
    "BINPERSID": b"\x80\x02K\x01Q.",
    "an array made by calling its type": b"\x80\x02cnumpy\nndarray\nK\x01\x85R.",
    "attributes of what is named": b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.",
    "attributes of a dict": b"\x80\x02}}U\x01aK\x01sb.",
    "objects": ARRAY.replace(b"U\x02u1", b"U\x02O8"),
    "floats": ARRAY.replace(b"U\x02u1", b"U\x02f8"),
    "no content": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R)b.",
    "a shape that is too large": ARRAY.replace(b"(K\x01J", b"(K\x02J"),
    "a long memory": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a large array that is reserved by its maker": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n"
    b"(cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01btR.",
    "nested tuples as key": b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
    "more bytes than there are": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.",
    "nothing on the stack": b"\x80\x02R.",
    "no mark": b"\x80\x02]e.",
    "nothing remembered": b"\x80\x02h\x07.",
    "a list as key": b"\x80\x02}]K\x01s.",
    "items for a number": b"\x80\x02K\x01K\x02a.",
    "a name that is no text": b"\x80\x04](" + b"]" * 5000 + b"\x8c\x01a\x93.",
    "a shape that is no size": ARRAY.replace(b"(K\x01J", b"(J\xff\xff\xff\xffJ"),
    "an empty array of a huge side": b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\n)R(K\x01(K\x00\x8a\x09"
    + b"\xff" * 8
    + b"\x7ftcnumpy\ndtype\nU\x02u1\x85R\x89U\x00tbs.",
    "an odd number of items": b"\x80\x02}(K\x01u.",
    "no dict": b"\x80\x02K\x01.",
    "no end": ARRAY[:-1],
    "half of it": ARRAY[: len(ARRAY) // 2],
    "nothing": b"",
    "protocol 9": b"\x80\x09.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_and_damaged_pickles_are_refused_and_not_run(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cifar_10(tmp_path, rows(1), [0])
    for name in ("test_batch", "batches.meta"):
        good = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(HOSTILE[what])
        with pytest.raises(InputError) as refused:
            read_cifar(tmp_path / "test_batch")
        assert str(tmp_path / name) in str(refused.value)
        (tmp_path / name).write_bytes(good)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batches.meta", "test_batch"]
    assert len(read_cifar(tmp_path / "test_batch").truth) == 1


def test_what_is_refused_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (HOSTILE["os.system"], HOSTILE["by names on the stack"], pickle.dumps(Hostile("touch hit"))):
        with pytest.raises(ValueError, match="system"):
            cifar.read_dict(content)
        assert not Path("hit").exists()
        pickle.loads(content)  # noqa: S301  (so the test above means something)
        Path("hit").unlink()


def test_a_hostile_object_deep_inside_is_refused() -> None:
    value = {"data": rows(1), "labels": [0], "filenames": [{"a": [Hostile("false")]}]}
    with pytest.raises(ValueError, match="system"):
        cifar.read_dict(pickle.dumps(value, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pickletools, of escapes in texts
def test_whatever_is_changed_in_a_pickle_it_is_read_or_refused() -> None:
    rng = np.random.default_rng(5)
    value = {"data": rows(1)[:, :8], "labels": [1, 300], "none": None, "pair": (1, "b", b"c")}
    sources = [pickle.dumps(value, 4), pickle.dumps(value, 3), python_2_pickle({b"data": rows(1)[:, :8], b"n": [7]})]
    read = 0
    for number in range(6000):
        content = bytearray(sources[number % 3])
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        try:
            cifar.read_dict(bytes(content))
            read += 1
        except ValueError:
            pass
    assert 0 < read < 6000


def test_a_command_on_a_hostile_file_ends_in_one_line(tmp_path: Path, run: Run) -> None:
    cifar_10(tmp_path, rows(1), [0]).write_bytes(HOSTILE["os.system"])
    done = run("classify", "test_batch", "--model", "picturebook", cwd=tmp_path)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout, said.count("\n")) == (2, b"", 1)
    assert "test_batch" in said
    assert "os.system" in said
    assert not (tmp_path / "hit").exists()


# -- CIFAR -------------------------------------------------------------------------------------------------------


def test_a_batch_is_images_and_what_they_show(tmp_path: Path) -> None:
    data = np.zeros((2, 3072), np.uint8)
    data[1, 5 * 32 + 7] = 200  # red of line 5, column 7
    data[1, 1024 + 5 * 32 + 7] = 100  # its green
    data[1, 3071] = 50  # blue of the last pixel
    batch = read_cifar(cifar_10(tmp_path, data, [2, 0]))
    assert (batch.truth, batch.labels) == (["cat", "airplane"], CLASSES)
    assert batch.pixels.shape == (2, 32, 32, 3)
    assert batch.pixels[1, 5, 7].tolist() == [200, 100, 0]
    assert batch.pixels[1, 31, 31].tolist() == [0, 0, 50]
    assert not batch.pixels[0].any()


def test_images_of_a_batch_are_files_with_the_same_pixels(tmp_path: Path) -> None:
    batch = read_cifar(cifar_10(tmp_path / "cifar", rows(3), [0, 1, 2]))
    (tmp_path / "out").mkdir()
    files = cifar_files([batch, batch], tmp_path / "out")
    assert len(files) == 6
    for i, file in enumerate(files):
        with Image.open(os.fsdecode(file.path)) as image:
            assert np.array_equal(np.asarray(image), batch.pixels[i % 3])
        assert file.size == os.path.getsize(file.path)


def test_cifar_100_has_fine_and_coarse_labels(tmp_path: Path) -> None:
    value = {b"fine_labels": [1, 2], b"coarse_labels": [1, 0], b"data": rows(2), b"filenames": [b"a", b"b"]}
    (tmp_path / "test").write_bytes(python_2_pickle(value))
    meta = {b"fine_label_names": [b"apple", b"aquarium_fish", b"baby"], b"coarse_label_names": [b"fish", b"fruit"]}
    (tmp_path / "meta").write_bytes(python_2_pickle(meta))
    assert read_cifar(tmp_path / "test").truth == ["aquarium_fish", "baby"]
    assert read_cifar(tmp_path / "test").labels == ["apple", "aquarium_fish", "baby"]
    assert read_cifar(tmp_path / "test", coarse=True).truth == ["fruit", "fish"]


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({b"labels": [0]}, "data and labels"),
        ({b"data": rows(1)}, "data and labels"),
        ({b"labels": [0], b"data": rows(1)[:, :3000]}, "3072"),
        ({b"labels": [0], b"data": [1, 2]}, "3072"),
        ({b"labels": [0, 1], b"data": rows(1)}, " 0 to 2"),
        ({b"labels": [3], b"data": rows(1)}, " 0 to 2"),
        ({b"labels": [-1], b"data": rows(1)}, " 0 to 2"),
        ({b"labels": [b"cat"], b"data": rows(1)}, " 0 to 2"),
        ({b"labels": b"cat", b"data": rows(1)}, " 0 to 2"),
    ],
)
def test_a_batch_that_is_none_is_an_error(batch: dict[bytes, Any], said: str, tmp_path: Path) -> None:
    cifar_10(tmp_path, rows(1), [0]).write_bytes(python_2_pickle(batch))
    with pytest.raises(InputError, match=said):
        read_cifar(tmp_path / "test_batch")


def test_cifar_10_has_no_coarse_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="CIFAR-100"):
        read_cifar(cifar_10(tmp_path, rows(1), [0]), coarse=True)


def test_a_batch_without_the_file_beside_it_says_so(tmp_path: Path) -> None:
    batch = cifar_10(tmp_path, rows(1), [0])
    (tmp_path / "batches.meta").unlink()
    with pytest.raises(InputError, match="unpack"):
        read_cifar(batch)
    (tmp_path / "batches.meta").write_bytes(python_2_pickle({b"label_names": 7}))
    with pytest.raises(InputError, match="label_names"):
        read_cifar(batch)


def test_cifar_is_told_from_images_by_its_first_bytes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for ending in ("png", "jpg", "webp", "gif", "tif", "bmp", "ico"):
        assert not is_cifar(paint(tmp_path / f"a.{ending}", "red"))
    assert not is_cifar(tmp_path)
    assert not is_cifar(tmp_path / "fifo")
    assert not is_cifar(tmp_path / "missing")
    assert is_cifar(cifar_10(tmp_path, rows(1), [0]))


# -- folders and CSV ---------------------------------------------------------------------------------------------


def test_an_image_shows_what_its_folder_is_named_for() -> None:
    assert folder_labels([b"/a/train/cat/1.png", b"/a/train/dog/2.png", b"/\xff/3.png"]) == ["cat", "dog", "\ufffd"]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder with three pictures, one of them with a name that is not UTF-8."""
    for name in ("a.png", "b.png"):
        paint(tmp_path / "in" / name, "red")
    os.rename(paint(tmp_path / "c.png", "red"), os.path.join(os.fsencode(tmp_path), b"c\xff.png"))
    return tmp_path


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_names_images_from_its_own_folder_on(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    absolute = three / "in" / "b.png"
    csv = write(
        three / "truth.csv",
        b"\xef\xbb\xbflabel,note,image\r\ncat,,in/a.png\r\n"
        b'"a dog, or two",x,%s\r\ncat,,c\xff.png\r\ncat,again,./in/a.png\r\n' % os.fsencode(absolute),
    )
    found = table_labels(csv)
    folder = os.fsencode(three)
    assert found == {
        folder + b"/in/a.png": "cat",
        folder + b"/in/b.png": "a dog, or two",
        folder + b"/c\xff.png": "cat",
    }
    assert labels_of([folder + b"/in/b.png"], found, csv) == ["a dog, or two"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,name\nin/a.png,cat\n", "column for the label: .* 'image', 'name'"),
        ("a,b\nin/a.png,cat\n", "column for the image .* label"),
        ("", "column for the image"),
        ("image,label\n", "names no image"),
        ("image,label\nin/a.png\n", "line 2: .* 2 .* 1"),
        ("image,label\nin/a.png,cat\n,cat\n", "line 3: the image"),
        ("image,label\nin/a.png,  \n", "line 2: the label"),
        ("image,label\nin/a.png,cat\nin/gone.png,cat\n", "gone.png"),
        ("image,label\nin/a.png,cat\nin/a.png,dog\n", "line 3: in/a.png .*'cat'"),
        ('image,label\n"in/a.png,cat\n', "unexpected end of data"),
        (b"image,label\nin/a.png,\xff\n", "line 2: the label .*0xff"),
        ("image,label\nin/a\0.png,cat\n", "line"),
    ],
)
def test_a_csv_that_cannot_be_used_says_where(content: str | bytes, said: str, three: Path) -> None:
    with pytest.raises(InputError, match=said) as error:
        table_labels(write(three / "truth.csv", content))
    assert "truth.csv" in str(error.value)


def test_a_csv_without_an_image_names_it(three: Path) -> None:
    csv = write(three / "truth.csv", "image,label\nin/a.png,cat\n")
    with pytest.raises(InputError, match=r"b\.png.* 1 more"):
        labels_of([os.fsencode(three / "in" / name) for name in ("a.png", "b.png", "z.png")], table_labels(csv), csv)
    with pytest.raises(InputError, match=r"missing\.csv"):
        table_labels(three / "missing.csv")
