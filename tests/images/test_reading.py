"""Reading files of images."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.codecs import limits
from clipsearch.images.reading import read_file, read_image
from clipsearch.system import bounded


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on which pictures have 100 pixels at most."""
    monkeypatch.setattr(limits, "default_max_pixels", lambda: 100)
    monkeypatch.setattr(limits, "_BYTES_BESIDE", 1000)


@pytest.mark.usefixtures("small_machine")
def test_a_file_that_no_image_needs_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(2600))
    assert len(read_file(os.fsencode(path)).data) == 2600
    os.truncate(path, 8 * 2**40)  # sparse: no memory of any machine holds it
    for read in (read_file, read_image):
        with pytest.raises(UnreadableImageError, match=r"^too large: 8,796,093 MB or more, .* more than [0-9,]+$"):
            read(os.fsencode(path))
    os.truncate(path, 2601)
    with pytest.raises(UnreadableImageError, match="too large"):
        read_file(os.fsencode(path))
    assert len(read_file(os.fsencode(path), max_pixels=101).data) == 2601


def test_what_took_the_place_of_a_file_is_refused_and_nothing_stays_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.zip").mkdir()
    names = ("fifo.jpg", "folder.jpg", "folder.zip/!/a.jpg")
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files cannot be counted")
    before = len(os.listdir("/proc/self/fd"))
    for name in names:
        with pytest.raises(UnreadableImageError):
            read_file(os.fsencode(tmp_path / name))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("small_machine")
def test_a_pipe_or_device_is_read_to_its_end_or_to_the_limit(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"x" * 2600,))
    writer.start()
    assert read_image(os.fsencode(pipe)) == b"x" * 2600
    writer.join()
    with pytest.raises(UnreadableImageError, match="too large"):
        read_image(b"/dev/zero")
    with pytest.raises(UnreadableImageError, match="Is a directory"):
        read_image(os.fsencode(tmp_path))


def test_a_list_is_read_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_LONGEST", 1000)
    (tmp_path / "list").write_bytes(bytes(1000))
    assert bounded.read_list_in(tmp_path / "list") == bytes(1000)
    with pytest.raises(InputError, match=r"/dev/zero is longer than "):
        bounded.read_list_in("/dev/zero")
