"""A folder with two names is one folder: no picture is in an index twice because of how it was named."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from conftest import COLOURS, Run, index, paint
from tiny import TinyEncoder, update

from clipsearch.errors import InputError
from clipsearch.images.files import Rules
from clipsearch.index.format import FOLDER
from clipsearch.index.reading import Store
from clipsearch.index.summary import Merged, Summary
from clipsearch.index.verifying import verify
from clipsearch.index.writing import Writer
from clipsearch.system.paths import second_names


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Ten pictures in photos/, five of them in photos/old/, and links that lead there."""
    for i, colour in enumerate(COLOURS):
        paint(tmp_path / "photos" / ("old" if i % 2 else ".") / f"{colour}.png", colour)
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "link to old").symlink_to("photos/old")
    return tmp_path


def refreshed(home: Path, *names: str, encoder: TinyEncoder | None = None, rules: Rules | None = None) -> Summary:
    return update(home / FOLDER, *(home / name for name in names), encoder=encoder, rules=rules)


def roots(home: Path) -> list[str]:
    with closing(Store.open(home / FOLDER)) as store:
        assert verify(store) == []
        return [os.path.relpath(os.fsdecode(root.path), home) for root in store.roots()]


def images(home: Path) -> list[str]:
    with closing(Store.open(home / FOLDER)) as store:
        return [os.path.relpath(os.fsdecode(record.path), home) for record in store.records() if record.row is not None]


def merged(home: Path, path: str, name: str) -> list[Merged]:
    return [Merged(os.fsencode(home / path), os.fsencode(home / name))]


@pytest.mark.parametrize(("first", "second"), [("photos", "link"), ("link", "photos")])
def test_a_root_keeps_the_name_that_it_had_first(home: Path, first: str, second: str) -> None:
    refreshed(home, first)
    encoder = TinyEncoder()
    summary = refreshed(home, second, encoder=encoder)
    assert (summary.images, summary.unchanged, encoder.embedded) == (10, 10, 0)
    assert summary.merged == merged(home, second, first)
    assert roots(home) == [first]
    assert all(name.startswith(f"{first}/") for name in images(home))


def test_of_two_names_at_once_the_one_without_links_counts(home: Path) -> None:
    summary = refreshed(home, "link", "photos", "link to old")
    assert (summary.images, summary.embedded) == (10, 10)
    assert roots(home) == ["photos"]


def test_a_folder_in_a_root_is_a_part_of_it_whatever_leads_there(home: Path) -> None:
    refreshed(home, "photos")
    paint(home / "photos" / "old" / "new.png", "olive")
    paint(home / "photos" / "new too.png", "navy")
    for name in ("link to old", "link/old"):
        summary = refreshed(home, name)
        assert summary.merged == merged(home, name, "photos/old")
        assert summary.images == 11  # the part alone was searched
    assert roots(home) == ["photos"]


def test_a_root_that_holds_another_one_under_a_second_name_takes_it_in(home: Path) -> None:
    refreshed(home, "link to old")
    encoder = TinyEncoder()
    summary = refreshed(home, "photos", encoder=encoder)
    assert (summary.images, summary.unchanged, summary.removed, encoder.embedded) == (10, 5, 0, 5)
    assert summary.merged == merged(home, "link to old", "photos/old")
    assert roots(home) == ["photos"]
    assert all(name.startswith("photos/") for name in images(home))


def test_an_index_that_has_both_already_is_put_right(home: Path) -> None:
    refreshed(home, "photos")
    with Writer.locked(home / FOLDER) as writer:  # as it was done before names were compared
        for record in list(writer.records()):
            path = record.path.replace(os.fsencode(home / "photos"), os.fsencode(home / "link"))
            writer.add_copy(record._replace(path=path))
        writer.set_root(os.fsencode(home / "link"), {})
        writer.commit()
    assert len(images(home)) == 20
    encoder = TinyEncoder()
    summary = refreshed(home, "photos", "link", encoder=encoder)
    assert (summary.images, summary.removed, encoder.embedded) == (10, 0, 0)
    assert roots(home) == ["photos"]
    assert all(name.startswith("photos/") for name in images(home))


def test_a_merged_root_whose_images_are_away_keeps_them(home: Path) -> None:
    refreshed(home, "link to old")
    for path in (home / "photos" / "old").iterdir():
        path.rename(home / path.name)  # as if a drive were not mounted
    summary = refreshed(home, "photos")
    assert [(kept.folder, kept.images) for kept in summary.kept] == [(os.fsencode(home / "photos" / "old"), 5)]
    assert summary.images == 10


def test_a_run_that_fails_merges_nothing(home: Path) -> None:
    refreshed(home, "link to old")
    before = images(home)
    with pytest.raises(InputError):
        refreshed(home, "photos", "nowhere")
    assert (images(home), roots(home)) == (before, ["link to old"])


@pytest.mark.parametrize("leads_to", ["../photos", "../photos/old", ".."])
@pytest.mark.parametrize("order", [("photos", "other"), ("other", "photos")])
def test_links_that_are_followed_find_nothing_that_another_root_has(
    home: Path, leads_to: str, order: tuple[str, str]
) -> None:
    paint(home / "other" / "a.png", "olive")
    (home / "other" / "inner link").symlink_to(leads_to)
    refreshed(home, *order, rules=Rules(follow_symlinks=True))
    assert sorted(images(home)) == sorted(
        ["other/a.png", *(f"photos/{'old/' if i % 2 else ''}{colour}.png" for i, colour in enumerate(COLOURS))]
    )
    # One after the other as well: what a link found goes when its folder becomes a root.
    shutil.rmtree(home / FOLDER)
    refreshed(home, "other", rules=Rules(follow_symlinks=True))
    refreshed(home, "photos")
    refreshed(home, "photos", "other")
    assert len(images(home)) == 11


def test_the_command_says_which_name_counts(pictures: Path, run: Run) -> None:
    home = pictures.parent
    (home / "a link").symlink_to("pictures")
    index(run, "pictures", "--model", "picturebook", cwd=home)
    done = run("index", "a link", "--json", cwd=home)
    assert json.loads(done.stdout)["merged"] == [{"path": "a link", "into": {"path": "pictures"}}]
    assert re.search("a link .*pictures", done.stderr.decode())
    status = json.loads(run("status", "--json", "--verify", cwd=home).stdout)
    assert (status["roots"], status["problems"]) == ([{"path": "pictures", "images": 10}], [])


def test_a_folder_mounted_twice_is_one_place(home: Path, environment: dict[str, str]) -> None:
    (home / "mount").mkdir()
    arguments = "index photos mount --model picturebook --json"
    script = f"mount --bind photos mount && exec {sys.executable} -m clipsearch {arguments}"
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, check=False)
    if b"unshare" in done.stderr or b"mount:" in done.stderr:
        pytest.skip("needs the right to mount (root on Linux)")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 10
    assert len(roots(home)) == 1


def test_second_names(home: Path) -> None:
    photos, link, old = (os.fsencode(home / name) for name in ("photos", "link", "link to old"))
    assert second_names([photos]) == {}
    assert second_names([photos, link, old]) == {link: photos, old: photos + b"/old"}
    assert second_names([link, photos]) == {photos: link}
    assert second_names([photos, photos + b"/old", os.fsencode(home / "nowhere")]) == {}
    assert second_names([old, photos + b"/old/red.png"]) == {photos + b"/old/red.png": old + b"/red.png"}
