"""Commands on pictures in an object store: what they do, what they survive, and what they never say."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import SAMPLES, Run
from fresh import COMMAND, loaded_by
from s3_server import SECRET, Store, moto, proxied
from serving import Client, Reply, serving
from terminal import on_a_terminal
from warm import Warm

from clipsearch.errors import InputError
from clipsearch.images import object_store, requesting
from clipsearch.images.files import GoneError
from clipsearch.index.format import ADDRESS_FORMAT, FOLDER, FORMAT
from clipsearch.index.reading import Store as Index
from clipsearch.output.sorting import plan
from clipsearch.server.indexes import Indexes
from clipsearch.server.mcp import Tools

DOGS = [SAMPLES / "dogs" / f"dog_{n}.jpg" for n in (3, 4, 6)]
FARM = sorted((SAMPLES / "farm").glob("*.jpg"))[:2]
PHOTOS = {f"a/{path.name}": path.read_bytes() for path in DOGS} | {f"b/{path.name}": path.read_bytes() for path in FARM}
ROOT = "s3://pictures/photos"
MODEL = ("--model", "picturebook")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """A store with some pictures."""
    with moto() as port, proxied(port) as store:
        store.begin("pictures")
        for key, content in PHOTOS.items():
            store.put(f"photos/{key}", content)
        yield store


@pytest.fixture(scope="module")
def home(store: Store, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of the store."""
    home = tmp_path_factory.mktemp("home")
    out, _ = said(run, store, "index", ROOT, *MODEL, "--json", cwd=home)
    assert json.loads(out)["embedded"] == 5
    return home


def said(run: Run, store: Store, *arguments: str | Path, cwd: Path, code: int = 0, **more: str) -> tuple[str, str]:
    done = run(*arguments, cwd=cwd, env=store.environment(**more), torch=True)  # where s3fs is imported, too
    assert done.returncode == code, done.stderr
    assert SECRET.encode() not in done.stdout + done.stderr
    return done.stdout.decode(), done.stderr.decode()


def test_objects_are_found_copied_and_shown(store: Store, home: Path, run: Run, tmp_path: Path) -> None:
    words: list[str | Path] = [
        "query",
        "dog",
        "-k",
        "5",
        "--json",
        "--copy-to",
        tmp_path / "out",
        "--html",
        tmp_path / "page.html",
    ]
    hits = json.loads(said(run, store, *words, cwd=home)[0])
    assert sorted(hit["path"] for hit in hits) == sorted(f"{ROOT}/{key}" for key in PHOTOS)
    for path in (*DOGS, *FARM):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:image/webp') == 5
    assert f'data-href="{ROOT}/a/dog_3.jpg"' in page
    _, wrong = said(run, store, "query", "dog", "--link-to", tmp_path, cwd=home, code=2)
    assert "lies at an address, and no link can lead there" in wrong


def test_what_the_index_knows_needs_no_store(store: Store, home: Path, run: Run) -> None:
    store.asked.clear()
    first = said(run, store, "similar", f"{ROOT}/a/dog_3.jpg", "-k", "1", "--format", "paths", cwd=home)[0]
    assert first.startswith(f"{ROOT}/")
    words = ["query", "cow", "--under", f"{ROOT}/b", "-k", "9", "--format", "paths"]
    assert sorted(said(run, store, *words, cwd=home)[0].splitlines()) == [f"{ROOT}/b/{path.name}" for path in FARM]
    assert json.loads(said(run, store, "status", "--json", cwd=home)[0])["roots"] == [{"path": ROOT, "images": 5}]
    assert store.asked == ["GET /pictures/photos/a/dog_3.jpg"]  # to see that it is what the index knows


def test_objects_are_examples_copies_and_previews(store: Store, home: Path, run: Run, without_torch: Warm) -> None:
    dog = f"{ROOT}/a/dog_3.jpg"
    part = json.loads(said(run, store, "similar", dog, "--box", "0%,0%,50%,50%", "--json", cwd=home)[0])
    whole = json.loads(said(run, store, "similar", dog, "--json", cwd=home)[0])
    assert [len(hits) for hits in (part, whole)] == [4, 4]
    assert part[0]["score"] != whole[0]["score"]
    named = ["query", "--image", dog, "-k", "1", "--print0"]
    assert said(run, store, *named, cwd=home)[0] == f"{dog}\0"
    marks = [
        line.split("\t")[:2] for line in said(run, store, "duplicates", "--threshold", "0.4", cwd=home)[0].splitlines()
    ]
    assert ["1", "keep"] in marks
    arguments = ("query", "dog", "-k", "2", "--preview")
    done = on_a_terminal(*arguments, cwd=home, warm=without_torch, env=store.environment())
    assert done.stdout.count("\N{UPPER HALF BLOCK}".encode()) > 100, done.stderr
    assert b"dog_3.jpg" in done.stdout


def test_tables_and_vectors_name_objects(store: Store, home: Path, run: Run, tmp_path: Path) -> None:
    said(run, store, "export", "-o", tmp_path / "v.npy", cwd=home)
    said(run, store, "import", "v.npy", "v.csv", *MODEL, cwd=tmp_path)
    assert json.loads(said(run, store, "status", "--json", cwd=tmp_path)[0])["roots"] == [{"path": ROOT, "images": 5}]
    assert json.loads(said(run, store, "index", "--json", cwd=tmp_path)[0])["unchanged"] == 5
    (tmp_path / "captions.csv").write_text(f"image,caption\n{ROOT}/a/dog_3.jpg,a dog\nb/{FARM[0].name},a farm\n")
    words = ["eval", "captions.csv", "--images", ROOT, *MODEL]
    assert "text->image\t2\t2" in said(run, store, *words, cwd=tmp_path)[0]
    (tmp_path / "captions.csv").write_text(f"image,caption\n{ROOT}/a/dog_3.jpg,a dog\nno.jpg,a farm\n")
    assert f"1 of 2 images are not in {ROOT}: no.jpg." in said(run, store, *words, cwd=tmp_path, code=2)[1]
    (tmp_path / "labels.csv").write_text(f"image,label\n{ROOT}/a/dog_3.jpg,dog\n")
    words = ["classify", f"{ROOT}/a/dog_3.jpg", *MODEL, "--label", "dog", "--label", "cow"]
    words += ["--truth", "labels.csv", "--json", "--copy-into", "out"]
    (line,) = json.loads(said(run, store, *words, cwd=tmp_path)[0])
    assert (tmp_path / line["target"]).read_bytes() == DOGS[0].read_bytes()


def test_the_page_and_agents_see_objects(
    store: Store, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(requesting, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(object_store, "_connections", {})
    with serving([home / FOLDER], tmp_path) as (_, client), Indexes([home / FOLDER]) as indexes:
        hits = client.ask(f"/api/search?q=dog&under={ROOT}/a").json["hits"]
        assert {hit["path"] for hit in hits} == {f"{ROOT}/a/{path.name}" for path in DOGS}
        row, name = hits[0]["row"], hits[0]["path"]
        content = PHOTOS[name.removeprefix(f"{ROOT}/")]
        assert client.ask(f"/api/image/{row}").body == content
        assert client.ask(f"/api/thumbnail/{row}").body.startswith(b"RIFF")
        part = client.ask(f"/api/search?like={hits[0]['id']}@0%25,0%25,50%25,50%25").json["hits"]
        assert part[0]["score"] < 0.9
        with zipfile.ZipFile(io.BytesIO(zipped(client, row).body)) as archive:
            assert archive.read(os.path.basename(name)) == content
        tools = Tools(indexes)
        about, _ = tools.show(picture=name)
        assert name in str(about)
        assert len(tools.similar(picture=name, k=2).pictures) == 2
        store.faults = {"GET": ["500"] * 100}
        try:
            statuses = [client.ask(f"/api/image/{row}") for _ in range(9)]  # and not the store any more after eight
            with zipfile.ZipFile(io.BytesIO(zipped(client, row).body)) as archive:
                assert b"s3://pictures does not answer any more" in archive.read("not read.txt")
            with pytest.raises(InputError, match=f"{name}: s3://pictures does not answer any more"):
                plan([(name.encode(), "dog")], tmp_path, move=False)
            with pytest.raises(GoneError, match="does not answer any more"):
                tools.show(picture=name)
        finally:
            store.faults = {}
        assert {reply.status for reply in statuses} == {503}
        assert "could not be had now" in statuses[0].json["error"]


def zipped(client: Client, row: int) -> Reply:
    origin = {"Origin": f"http://127.0.0.1:{client.port}"}
    return client.ask("/api/zip", method="POST", body=str(row).encode(), headers=origin)


@pytest.mark.parametrize(
    ("address", "more", "why"),
    [
        ("s3://no-such-bucket-here/x", {}, "There is no bucket no-such-bucket-here"),
        ("s3://AKIA:secret@bucket/x", {}, "must contain no credentials"),
        ("s3://b", {}, "names no bucket"),
        ("https://user:secret@host/list.txt", {}, "must contain no credentials"),
        ("https://host/list.txt?X-Amz-Signature=secret", {}, "https://host/list.txt is followed by ? or #"),
        ("ftp://host/pictures", {}, "gs://, http://, https://, s3://"),
        ("s3://bucket/x", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "No credentials for s3://"),
        ("s3://bucket/x", {"CLIPSEARCH_STORE_TRIES": "many"}, "CLIPSEARCH_STORE_TRIES must be a number"),
        ("s3://bucket/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "CLIPSEARCH_STORE_TRIES": "1"}, "no connection"),
    ],
)
def test_wrong_addresses_are_explained(  # noqa: PLR0917
    store: Store, run: Run, tmp_path: Path, address: str, more: dict[str, str], why: str
) -> None:
    _, wrong = said(run, store, "index", address, *MODEL, cwd=tmp_path, code=2, **more)
    assert why in wrong
    assert "secret" not in wrong
    assert "Traceback" not in wrong
    assert not (tmp_path / FOLDER).exists()


def test_folders_need_no_package_for_stores(home: Path, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_bytes(DOGS[0].read_bytes())
    for arguments in (["index", ".", *MODEL], ["query", "dog"]):
        loaded = loaded_by(COMMAND.format(arguments=["clipsearch", *arguments]), environment, tmp_path)
        assert not loaded & {"fsspec", "s3fs", "aiohttp", "botocore", "asyncio"}
    asked = COMMAND.format(arguments=["clipsearch", "query", "dog", "--index", str(home), "--under", ROOT])
    assert not loaded_by(asked, environment, tmp_path) & {"fsspec", "s3fs", "aiohttp", "botocore", "asyncio"}


def test_without_the_packages_it_is_said_what_to_install(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s3fs.py").write_text("raise ImportError")
    (tmp_path / "fsspec.py").write_text("raise ImportError")
    done = run("index", ROOT, *MODEL, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, fresh=True)
    assert done.returncode == 2
    assert b"Install them: pip install 'clipsearch[remote]'" in done.stderr


def test_addresses_are_not_watched(store: Store, run: Run, tmp_path: Path) -> None:
    _, wrong = said(run, store, "index", ROOT, "--watch", *MODEL, cwd=tmp_path, code=2)
    assert f"Nothing says when something changes at {ROOT}." in wrong


def test_credentials_are_in_no_file_of_the_index(store: Store, home: Path, run: Run) -> None:
    for path in (home / FOLDER).iterdir():
        content = path.read_bytes()
        assert SECRET.encode() not in content
        assert b"AKIATEST" not in content
    with closing(Index.open(home / FOLDER)) as known:
        assert known.format() == ADDRESS_FORMAT
    said_so = said(run, store, "forget", ROOT, cwd=home)[1]
    assert said_so == f"Forgot {ROOT}: 5 images. The files are untouched.\n"
    with closing(Index.open(home / FOLDER)) as known:
        assert known.format() == FORMAT
