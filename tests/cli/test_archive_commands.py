"""Commands on members of archives: what they show, copy and compare, and what they refuse."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from archive_files import tar, zipped
from conftest import REPOSITORY, Run, index
from PIL import Image
from serving import serving

from clipsearch.index.format import FOLDER

SAMPLES = REPOSITORY / "sample-images"
DOGS = [SAMPLES / "dogs" / f"dog_{n}.jpg" for n in (3, 4, 6)]
FARM = sorted((SAMPLES / "farm").glob("*.jpg"))[:3]
MEMBER = "shards/0.tar!/dog_3.jpg"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """An index of two archives, with a copy of one of their pictures beside them."""
    home = tmp_path_factory.mktemp("home")
    tar(home / "shards" / "0.tar", {path.name: path.read_bytes() for path in DOGS})
    zipped(home / "shards" / "1.cbz", {f"farm/{path.name}": path.read_bytes() for path in FARM})
    (home / "shards" / "copy.jpg").write_bytes(DOGS[1].read_bytes())
    assert index(run, "shards", "--archives", "--model", "picturebook", cwd=home)["images"] == 7
    return home


def said(run: Run, *arguments: str | Path, cwd: Path, code: int = 0) -> tuple[str, str]:
    done = run(*arguments, cwd=cwd)
    assert done.returncode == code, done.stderr
    return done.stdout.decode(), done.stderr.decode()


def test_query_names_members_and_copies_them_out(shards: Path, run: Run, tmp_path: Path) -> None:
    words = ["query", "a dog", "-k", "7", "--json"]
    found = json.loads(said(run, *words, "--copy-to", tmp_path, "--html", tmp_path / "page.html", cwd=shards)[0])
    paths = [hit["path"] for hit in found]
    assert MEMBER in paths
    assert f"shards/1.cbz!/farm/{FARM[0].name}" in paths
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == sorted(os.path.basename(path) for path in paths)
    for original in (*DOGS, *FARM):
        assert (tmp_path / original.name).read_bytes() == original.read_bytes()
    assert (tmp_path / "dog_3.jpg").stat().st_mtime == 1_000_000_000
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:image/webp') == 7
    assert (shards / "shards" / "0.tar").as_uri() + '"' in page
    again = said(run, *words, "--copy-to", tmp_path, cwd=shards)[1]
    assert again == f"Copied 0 images to {tmp_path}; 7 were there already.\n"
    _, wrong = said(run, *words, "--link-to", tmp_path / "links", cwd=shards, code=2)
    assert "lies in an archive, and no link can lead there. Copy the pictures instead: --copy-to DIR" in wrong
    assert not (tmp_path / "links").exists()


def test_a_member_is_a_query_and_an_archive_is_a_folder(shards: Path, run: Run) -> None:
    assert said(run, "similar", MEMBER, "-k", "1", "--format", "paths", cwd=shards)[0].startswith("shards/")
    out, _ = said(run, "query", "--image", MEMBER, "--under", "shards/0.tar", "--format", "paths", cwd=shards)
    assert out.splitlines()[0] == MEMBER
    assert all(line.startswith("shards/0.tar!/") for line in out.splitlines())
    out, _ = said(run, "query", "cow", "--under", "shards/1.cbz!/farm", "-k", "9", "--format", "paths", cwd=shards)
    assert len(out.splitlines()) == 3
    assert "exists neither" in said(run, "query", "cow", "--under", "shards/2.zip", cwd=shards, code=2)[1]
    assert "it is gone" in said(run, "similar", "shards/0.tar!/nothing.jpg", cwd=shards, code=2)[1]


def test_the_server_shows_members_and_hands_them_out(shards: Path, tmp_path: Path) -> None:
    with serving([shards / FOLDER], tmp_path / "thumbnails") as (_, client):
        found = client.ask("/api/search?q=a+cow&k=9").json["hits"]
        assert len(found) == 7
        hit = next(hit for hit in found if hit["path"].endswith(f"1.cbz!/farm/{FARM[0].name}"))
        whole = client.ask(f"/api/image/{hit['row']}")
        assert (whole.body, whole.headers["Content-Type"]) == (FARM[0].read_bytes(), "image/jpeg")
        assert quote(FARM[0].name) in whole.headers["Content-Disposition"]
        small = client.ask(f"/api/thumbnail/{hit['row']}?side=320&id={hit['id']}")
        assert max(Image.open(io.BytesIO(small.body)).size) == 320
        like = client.ask(f"/api/search?like={hit['id']}&under={quote(str(shards / 'shards' / '1.cbz'))}").json
        assert (like["hits"][0]["path"], len(like["hits"])) == (hit["path"], 3)


def test_classify_score_and_embed_take_archives_and_members(shards: Path, run: Run, tmp_path: Path) -> None:
    labels = ["--label", "dog", "--label", "cow"]
    into = tmp_path / "sorted"
    out, _ = said(run, "classify", "shards/0.tar", *labels, "--copy-into", into, "--format", "json", cwd=shards)
    assert [one["path"] for one in json.loads(out)] == [f"shards/0.tar!/{path.name}" for path in DOGS]
    copied = {path.name: path.read_bytes() for path in into.rglob("*.jpg")}
    assert copied == {path.name: path.read_bytes() for path in DOGS}
    _, wrong = said(run, "classify", "shards/0.tar", *labels, "--move-into", into, cwd=shards, code=2)
    assert "lies in an archive, and nothing is ever changed there. Copy the pictures instead: --copy-into DIR" in wrong
    assert said(run, "score", MEMBER, "--text", "a dog", cwd=shards)[0].startswith(f"{MEMBER}\ta dog\t")
    assert said(run, "embed", "shards/1.cbz", "--out", tmp_path / "v.npy", cwd=shards)[1].startswith("Wrote 3 x 512")


def test_archives_are_never_changed_because_of_duplicates(shards: Path, run: Run) -> None:
    before = (shards / "shards" / "0.tar").read_bytes()
    out, wrong = said(run, "duplicates", "--exact", "--delete", "--yes", cwd=shards, code=2)
    assert [line.split("\t")[1::2][:2] for line in out.splitlines()] == [
        ["keep", "shards/copy.jpg"],
        ["copy", "shards/0.tar!/dog_4.jpg"],
    ]
    assert "shards/0.tar!/dog_4.jpg stays: it lies in an archive, and nothing is ever changed there.\n" in wrong
    assert (shards / "shards" / "0.tar").read_bytes() == before
    assert (shards / "shards" / "copy.jpg").exists()
    assert said(run, "duplicates", "--exact", "-0", cwd=shards)[0] == ""


def test_status_and_forget_name_archives_as_files(run: Run, tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {path.name: path.read_bytes() for path in DOGS} | {"../x.jpg": b"?"})
    found = index(run, "a.tar", "--model", "picturebook", cwd=tmp_path)
    assert found["unreadable"] == [{"path": "a.tar!/../x.jpg", "reason": "its name leads out of the archive"}]
    status = json.loads(said(run, "status", "--json", cwd=tmp_path)[0])
    assert (status["roots"], status["unreadable"]) == ([{"path": "a.tar", "images": 3}], found["unreadable"])
    os.truncate(tmp_path / "a.tar", 30_000)
    words = said(run, "index", "--strict", cwd=tmp_path, code=2)[1]
    assert "Cannot read a.tar: it ends in the middle: it is truncated\n" in words
    (tmp_path / "a.tar").unlink()
    wrong = said(run, "index", cwd=tmp_path, code=2)[1]
    assert "If they are gone for good: clipsearch forget" in wrong
    assert said(run, "forget", "a.tar", cwd=tmp_path)[1] == "Forgot a.tar: 2 images. The files are untouched.\n"
    (tmp_path / "b.zip").write_bytes(b"no archive")
    wrong = said(run, "index", "b.zip", "--index", "other", "--model", "picturebook", cwd=tmp_path, code=2)[1]
    assert "b.zip, it is no zip archive, or its end is missing" in wrong
