"""Commands on pictures in an object store: what they do, what they survive, and what they never say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import SAMPLES, Run
from fresh import COMMAND, loaded_by
from s3_server import SECRET, Store, moto, proxied

from clipsearch.index.format import ADDRESS_FORMAT, FOLDER, FORMAT
from clipsearch.index.reading import Store as Index

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
    done = run(*arguments, cwd=cwd, env=store.environment(**more))
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
