"""Archives: which members are found, under which paths, and what is said of those that nobody should read."""

from __future__ import annotations

import io
import os
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_files import named, picture, tar, zipped
from conftest import deny

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images import archive_members, archives, tar_archives, zip_archives
from clipsearch.images.files import MemberError, Rules
from clipsearch.images.finding import find_images
from clipsearch.images.named_files import named_file
from clipsearch.images.reading import VanishedError, first_bytes, read_file
from clipsearch.system.members import on_disk, opened, within

RED, BLUE = picture("red"), picture("blue")


def found(place: Path | bytes, rules: Rules = Rules(), **options: object) -> list[bytes]:  # noqa: B008  (immutable)
    """The paths of the images, relative to the folder of `place`."""
    path = os.fsencode(place)
    start = os.path.dirname(path) + b"/"
    return [file.path.removeprefix(start) for file in find_images(path, rules, **options)]  # type: ignore[arg-type]


def reasons(place: Path) -> dict[str, str]:
    """What is said of each member, or of the archive, that cannot be read; by its name."""
    said = {}
    for file in find_images(os.fsencode(place), unreadable=lambda path, why: said.update({os.fsdecode(path): why})):
        try:
            read_file(file.path)
        except UnreadableImageError as error:
            said[os.fsdecode(file.path)] = str(error)
    begin = os.fsdecode(place)
    return {name.removeprefix(begin).removeprefix("!/"): why for name, why in said.items()}


# -- paths ----------------------------------------------------------------------------------------------------


def test_a_path_means_a_member_only_if_nothing_on_the_disk_has_it(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", {"x.png": RED})
    path = os.fsencode(archive)
    assert within(path + b"!/x.png") == (path, b"x.png")
    assert within(path + b"!") == (path, b"")
    assert within(path) is None
    assert within(path + b"!x.png") is None
    assert opened(path) == path + b"!"
    (tmp_path / "b.zip!").mkdir()
    (tmp_path / "b.zip!" / "x.png").write_bytes(BLUE)
    real = os.fsencode(tmp_path / "b.zip!" / "x.png")
    assert within(real) is None
    assert read_file(real).data == BLUE
    assert on_disk(path + b"!/x.png") == path
    assert on_disk(real) == real
    archive.unlink()
    assert on_disk(path + b"!/x.png") == path


def test_an_archive_beside_a_folder_with_its_paths_is_not_read(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "b.zip", {"x.png": RED})
    (tmp_path / "b.zip!").mkdir()
    (tmp_path / "b.zip!" / "x.png").write_bytes(BLUE)
    said: list[tuple[bytes, str]] = []
    paths = found(tmp_path, Rules(archives=True), unreadable=lambda *one: said.append(one))
    assert paths == [os.fsencode(tmp_path.name) + b"/b.zip!/x.png"]
    assert [path for path, _ in said] == [os.fsencode(archive)]
    assert "rename one of them" in said[0][1]
    with pytest.raises(InputError, match="rename one of them"):
        found(archive)


def test_names_are_bytes_and_come_in_their_order(tmp_path: Path) -> None:
    names = [b"b/\xff\xfe.png", b"a b.png", b"!.png", "ü.png".encode(), b"x.tar!/y.png", b"./c//d.png", b"A.PNG"]
    archive = tar(tmp_path / "odd.tar", dict.fromkeys(names, RED))
    paths = found(archive)
    assert paths == sorted(b"odd.tar!/" + name.replace(b"./", b"").replace(b"//", b"/") for name in names)
    for path in paths:
        assert read_file(os.fsencode(tmp_path) + b"/" + path).data == RED


def test_the_whole_search_stays_in_order(tmp_path: Path) -> None:
    for name in ("a.tar b.png", "a.png", "a.tar0.png", "a.tarx/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(RED)
    tar(tmp_path / "a.tar", {"z.png": RED, "a.png": RED})
    paths = found(tmp_path, Rules(archives=True))
    assert len(paths) == 6
    assert paths == sorted(paths)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_of_a_zip_file_are_read_with_their_times(tmp_path: Path, compression: int) -> None:
    archive = zipped(tmp_path / "A.CBZ", {"one/1.png": RED, "2.png": BLUE}, compression=compression)
    assert found(archive) == [b"A.CBZ!/2.png", b"A.CBZ!/one/1.png"]
    content = read_file(os.fsencode(archive) + b"!/one/1.png")
    assert content.data == RED
    assert content.mtime_ns % 2_000_000_000 == 0
    file = named_file(os.fsencode(archive) + b"!/one/1.png")
    assert (file.problem, file.size, file.mtime_ns) == (None, len(RED), content.mtime_ns)


def test_names_in_zip_files_keep_the_bytes_that_are_stored(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "n.zip", {"ü.png": RED, "~.png": BLUE})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"~.png", b"\xe9.png"))  # not marked as UTF-8, as old programs wrote it
    assert found(archive) == ["n.zip!/ü.png".encode(), b"n.zip!/\xe9.png"]
    assert read_file(os.fsencode(archive) + b"!/\xe9.png").data == BLUE


def test_of_two_members_with_a_name_the_last_counts(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", {"x.png": RED, "./x.png": BLUE})
    assert found(archive) == [b"a.tar!/x.png"]
    assert read_file(os.fsencode(archive) + b"!/x.png").data == BLUE


def test_a_folder_or_file_of_an_archive_can_be_named(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", {"in/x.png": RED, "in/y": BLUE, "out.png": RED, "in.png": RED})
    path = os.fsencode(archive)
    assert [os.path.basename(one.path) for one in find_images(path + b"!/in")] == [b"x.png", b"y"]
    assert [os.path.basename(one.path) for one in find_images(path + b"!/out.png")] == [b"out.png"]
    with pytest.raises(InputError, match="No such file"):
        list(find_images(path + b"!/nothing"))


# -- rules ----------------------------------------------------------------------------------------------------


def test_the_rules_of_folders_hold_within(tmp_path: Path) -> None:
    members = ["a.png", ".hidden.png", "__MACOSX/._a.png", ".cache/b.png", "@eaDir/c.png", "old/d.png", "e.txt"]
    members += ["000001.json", "nested.zip", "deep/more.tar", "f.mp4", "g", "empty"]
    content = dict.fromkeys(members, RED) | {"empty": b""}
    archive = tar(tmp_path / "a.tar", content)
    passed: list[str] = []
    assert found(archive, passed_over=passed.append) == [b"a.tar!/a.png", b"a.tar!/g", b"a.tar!/old/d.png"]
    assert sorted(passed) == [".mp4", ".tar in an archive", ".zip in an archive", "@eaDir/"]
    everything = Rules(include_hidden=True, include_system=True, by_name_only=True)
    assert len(found(archive, everything)) == 6
    (tmp_path / ".clipsearchignore").write_text("old/\n")
    assert found(tmp_path, Rules(archives=True, exclude=("g",))) == [os.fsencode(tmp_path.name) + b"/a.tar!/a.png"]
    assert found(tmp_path) == []


# -- what nobody should make ----------------------------------------------------------------------------------


def test_members_that_lead_elsewhere_are_named_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("/etc/a.png", "../b.png", "c/../../d.png"):
            archive.addfile(named(name, size=len(RED)), io.BytesIO(RED))
        archive.addfile(named("link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
        archive.addfile(named("hard.png", type=tarfile.LNKTYPE, linkname="ok.png"))
        archive.addfile(named("fifo.png", type=tarfile.FIFOTYPE))
        archive.addfile(named("device.png", type=tarfile.CHRTYPE))
        archive.addfile(named("ok.png", size=len(RED)), io.BytesIO(RED))
        archive.addfile(named("n" * 5000 + ".png", size=len(RED)), io.BytesIO(RED))
    said = reasons(path)
    assert {name[:20]: why for name, why in said.items()} == {
        "/etc/a.png": "its name is an absolute path",
        "../b.png": "its name leads out of the archive",
        "c/../../d.png": "its name leads out of the archive",
        "link.png": archive_members.LINK,
        "hard.png": archive_members.LINK,
        "fifo.png": "a device or FIFO, not a file",
        "device.png": "a device or FIFO, not a file",
    }


def _encrypted(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)


def _other_content(archive: Path) -> None:
    content = archive.read_bytes()
    at = content.index(b"x.png") + len(b"x.png") + 20
    archive.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def _other_size(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    at = content.index(b"PK\1\2") + 24
    content[at : at + 4] = struct.pack("<I", len(RED) - 1)
    archive.write_bytes(content)


def _without_header(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes().replace(b"PK\3\4", b"PK\3\5", 1))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_encrypted, "encrypted"),
        (_other_content, "broken in the archive"),
        (_other_size, "broken in the archive: it does not have the size that its header says"),
        (_without_header, "broken in the archive: it has no header"),
    ],
)
def test_a_broken_member_of_a_zip_file_is_named(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    archive = zipped(tmp_path / "bad.zip", {"x.png": RED, "y.png": BLUE})
    damage(archive)
    found = reasons(archive)
    assert list(found) == ["x.png"]
    assert found["x.png"].startswith(said)
    with pytest.raises(MemberError):
        read_file(os.fsencode(archive) + b"!/x.png")


def test_links_and_other_compressions_in_zip_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bzip2.png", RED, zipfile.ZIP_BZIP2)
        archive.writestr("lzma.png", RED, zipfile.ZIP_LZMA)
        archive.writestr("../up.png", RED)
        archive.writestr("/top.png", RED)
    assert reasons(path) == {
        "link.png": archive_members.LINK,
        "bzip2.png": "compressed in a way that is not read (bzip2)",
        "lzma.png": "compressed in a way that is not read (lzma)",
        "../up.png": "its name leads out of the archive",
        "/top.png": "its name is an absolute path",
    }


def test_zip_bombs_are_named_and_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archives, "_BOMB_SIZE", 9_000_000)
    flat = zipped(tmp_path / "flat.zip", {"x.bmp": bytes(10_000_000)})
    assert reasons(flat) == {"x.bmp": "10 MB out of 0.0, as in a zip bomb"}
    # One content under many names: the headers of all of them lead to the same bytes.
    many = zipped(tmp_path / "many.zip", {f"{n}.png": RED for n in range(9)})
    content = bytearray(many.read_bytes())
    at = content.index(b"PK\1\2")
    while at >= 0:
        content[at + 42 : at + 46] = bytes(4)
        at = content.find(b"PK\1\2", at + 1)
    many.write_bytes(content)
    said = reasons(many)
    assert len(said) == 8
    assert set(said.values()) == {"it overlaps another member, as in a zip bomb"}


@pytest.mark.parametrize("cut", [600, 1024, 2048, 2600])
def test_a_truncated_tar_archive_is_said_to_be_so(tmp_path: Path, cut: int) -> None:
    archive = tar(tmp_path / "cut.tar", {f"{n}.png": RED for n in range(4)})
    whole = archive.read_bytes()
    archive.write_bytes(whole[:cut])
    said = reasons(archive)
    assert "truncated" in said[""]
    read = [path for path in found(archive) if path.removeprefix(b"cut.tar!/").decode() not in said]
    assert len(read) == cut // 1024  # a header and a picture are two blocks of 512 bytes


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no.tar", b"no archive at all" * 100, "it is no tar archive"),
        ("gzip.tar", b"\x1f\x8b\x08" + bytes(600), "it is compressed"),
        ("empty.tar", b"", "it is no tar archive"),
        ("no.zip", b"no archive at all" * 100, "it is no zip archive"),
        ("empty.cbz", b"", "it is no zip archive"),
    ],
)
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert reasons(tmp_path / name)[""].startswith(said)


def test_a_broken_header_ends_the_list_with_a_word(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", {f"{n}.png": RED for n in range(3)})
    content = bytearray(archive.read_bytes())
    content[1024 + 10] ^= 0xFF
    archive.write_bytes(content)
    assert found(archive) == [b"a.tar!/0.png"]
    assert reasons(archive) == {"": "its header at byte 1,024 is broken, and what follows is not read"}


def test_headers_of_any_length_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_archives, "_LONGEST_HEADER", 2000)
    path = tmp_path / "long.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(named("a.png", size=len(RED)), io.BytesIO(RED))
        archive.addfile(named("n" * 3000 + ".png", size=len(RED)), io.BytesIO(RED))
    assert reasons(path) == {"": "a header in it is longer than any real one"}
    monkeypatch.setattr(zip_archives, "_LONGEST_LIST", 200)
    many = zipped(tmp_path / "many.zip", {f"{n}.png": RED for n in range(9)})
    assert reasons(many) == {"": "its list of members is longer than any real one"}


def test_sizes_that_lead_back_or_beyond_end_the_list(tmp_path: Path) -> None:
    for size in (-512, 2**70):
        path = tmp_path / f"{size}.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(named("a.png", size=len(RED)), io.BytesIO(RED))
            header = named("b.png", size=size).tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
            archive.fileobj.write(header)
        assert b"-512.tar!/a.png" in found(path) or size > 0
        assert reasons(path)[""]


def test_too_many_members_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_archives, "MOST_MEMBERS", 3)
    monkeypatch.setattr(zip_archives, "MOST_MEMBERS", 3)
    members = {f"{n}.png": RED for n in range(5)}
    assert "more than 3 members" in reasons(tar(tmp_path / "a.tar", members))[""]
    assert "more than 3 members" in reasons(zipped(tmp_path / "a.zip", members))[""]
    assert len(found(tmp_path / "a.tar")) == 3


def test_a_member_is_no_larger_than_a_file_may_be(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(named("x.png", size=257 << 20).tobuf())
    os.truncate(archive, 258 << 20)
    with pytest.raises(UnreadableImageError, match="too large"):
        read_file(os.fsencode(archive) + b"!/x.png", max_pixels=1)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_whatever_bytes_an_archive_has_it_ends_with_a_word(tmp_path: Path, kind: str) -> None:
    """No error but those that are meant for users, and none that takes long, for archives with random damage."""
    chance = random.Random(7)
    members = {f"{n}.png": RED for n in range(3)}
    archive = tar(tmp_path / "a.tar", members) if kind == "tar" else zipped(tmp_path / "a.zip", members)
    whole = archive.read_bytes()
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        archive.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        reasons(archive)


# -- reading --------------------------------------------------------------------------------------------------


def test_what_is_gone_or_forbidden_is_said(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", {"x.png": RED})
    path = os.fsencode(archive)
    with pytest.raises(VanishedError):
        read_file(path + b"!/y.png")
    assert named_file(path + b"!/y.png").problem == "it is missing in its archive"
    with deny(archive), pytest.raises(UnreadableImageError, match="denied"):
        read_file(path + b"!/x.png")
    archive.unlink()
    with pytest.raises(VanishedError):
        read_file(path + b"!/x.png")


def test_a_changed_archive_is_listed_again(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    path = os.fsencode(archive) + b"!/x.png"
    tar(archive, {"x.png": RED})
    assert read_file(path).data == RED
    tar(archive, {"y.png": RED, "x.png": BLUE})
    assert read_file(path).data == BLUE


def test_the_first_bytes_of_members_are_those_of_their_content(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(50_000)
    for archive in (
        tar(tmp_path / "a.tar", {"x": noise, "y": b"abc"}),
        zipped(tmp_path / "a.zip", {"x": noise, "y": b"abc"}),
    ):
        path = os.fsencode(archive)
        assert first_bytes(path + b"!/x", 1000) == noise[:1000]
        assert first_bytes(path + b"!/y", 1000) == b"abc"


def test_members_are_read_in_the_order_of_the_archive(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"3.png": RED, "1.png": BLUE, "2.png": RED})
    (tmp_path / "a.png").write_bytes(RED)
    (tmp_path / "b.png").write_bytes(RED)
    files = list(find_images(os.fsencode(tmp_path), Rules(archives=True)))
    ordered = [os.path.basename(file.path) for file in archives.in_order(files)]
    assert ordered == [b"a.png", b"3.png", b"1.png", b"2.png", b"b.png"]
