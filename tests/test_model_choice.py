"""Which model is meant, and that an index is opened once to decide on it."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
from conftest import PICTUREBOOK, Run, paint

from clipsearch import cli
from clipsearch.errors import InputError
from clipsearch.index.format import ModelRecord
from clipsearch.model_choice import ModelChoice
from clipsearch.models.disk import files
from clipsearch.models.disk.catalog import DEFAULT
from clipsearch.search.messages import BY_DEFAULT, OF_THE_INDEX

OPENAI = ModelRecord("openai", "0123abcd", "f" * 32, 512)


def test_who_asks_beats_settings_which_beat_the_index_which_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(given: str | None = None, known: ModelRecord | None = None) -> tuple[str, str, str | None, bool]:
        choice = ModelChoice(given, [tmp_path], known)
        return choice.name, choice.why, choice.revision, choice.is_asked_for

    assert chosen() == (DEFAULT, BY_DEFAULT, None, False)
    assert chosen(known=OPENAI) == ("openai", OF_THE_INDEX, OPENAI.revision, False)
    (tmp_path / "clipsearch.toml").write_text('model = "picturebook"')
    assert chosen(known=OPENAI) == ("picturebook", f"from {tmp_path / 'clipsearch.toml'}", None, True)
    monkeypatch.setenv("CLIPSEARCH_MODEL", "openai")
    assert chosen(known=OPENAI) == ("openai", "from CLIPSEARCH_MODEL", OPENAI.revision, True)
    assert chosen("siglip2", known=OPENAI) == ("siglip2", "as asked for", None, True)


def test_vectors_that_say_nothing_of_their_model_have_none(tmp_path: Path) -> None:
    said = ("picturebook", "from v.json")
    assert ModelChoice(None, [tmp_path], otherwise=said).why == "from v.json"
    assert ModelChoice(None, [tmp_path], OPENAI, otherwise=said).name == "openai"
    with pytest.raises(InputError):
        ModelChoice(None, [tmp_path], otherwise=None)


def test_a_model_under_another_name_is_recognised_without_hashing_its_weights_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = files.fingerprint

    def fingerprint(folder: Path) -> str:
        hashed.append(folder)
        return real(folder)

    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "fingerprint", fingerprint)
    index = ModelRecord("picturebook", None, real(PICTUREBOOK), 64)
    shutil.copytree(PICTUREBOOK, tmp_path / "copy")
    copy = str(tmp_path / "copy")
    assert all(ModelChoice(copy, [tmp_path]).made(index) for _ in range(2))
    assert len(hashed) == 1
    with (tmp_path / "copy" / "config.json").open("a") as config:
        config.write("\n")
    assert not ModelChoice(copy, [tmp_path]).made(index)
    assert len(hashed) == 2


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The indexes whose database is opened in this process, each time that it is."""
    found: list[str] = []
    connect = sqlite3.connect

    def counted(database: str, *arguments: object, **options: object) -> sqlite3.Connection:
        if "index.db?" in database:
            found.append(database)
        return connect(database, *arguments, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(sqlite3, "connect", counted)
    return found


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["clipsearch", *map(str, arguments)])
    assert cli._run() == 0


def test_index_and_import_open_their_index_once(
    tmp_path: Path, sample_index: Path, run: Run, monkeypatch: pytest.MonkeyPatch, opens: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "p" / "a.png", "red")
    command(monkeypatch, "index", "p", "--model", "picturebook")
    opens.clear()
    paint(tmp_path / "p" / "b.png", "blue")
    command(monkeypatch, "index")
    assert len(opens) == 1
    command(monkeypatch, "query", "a dog")
    assert len(opens) == 2
    assert run("embed", sample_index / "sample-images" / "dogs", "-o", "v.npy", cwd=tmp_path).returncode == 0
    opens.clear()
    command(monkeypatch, "import", "v.npy", "v.csv", "--root", sample_index)
    assert len(opens) == 1
