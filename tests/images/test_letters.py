"""Names with the same letters in another form: Macs store them decomposed, keyboards type them composed."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from pathlib import Path

import pytest
from conftest import COLOURS, Run, index, paint

from clipsearch.system.paths import absolute, same_letters

PB = ("--model", "picturebook")
WORDS = ("Müller", "강아지", "Ångström")

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take both forms for one name")


def stored(word: str) -> str:
    return unicodedata.normalize("NFD", word)


def typed(word: str) -> str:
    return unicodedata.normalize("NFC", word)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Pictures with decomposed names, and one name in both forms. Tests read it only."""
    folder = tmp_path_factory.mktemp("letters")
    for word, colour in zip(WORDS, COLOURS, strict=False):
        paint(folder / "p" / f"{stored(word)}.png", colour)
        paint(folder / "p" / stored("Fotos für Opa") / f"{stored(word)}-2.png", colour, (60, 40))
    for name, colour in ((typed("über"), "pink"), (stored("über"), "brown")):
        paint(folder / "p" / f"{name}.png", colour)
    index(run, "p", *PB, cwd=folder)
    return folder


def found(run: Run, *arguments: str, cwd: Path) -> set[str]:
    done = run("query", "red", "--format", "paths", "-k", "all", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return set(done.stdout.decode().splitlines())


@pytest.mark.parametrize("word", WORDS)
def test_what_is_typed_finds_what_is_stored_and_prints_it_as_it_is(folder: Path, run: Run, word: str) -> None:
    both = {f"p/{stored(word)}.png", f"p/{stored('Fotos für Opa')}/{stored(word)}-2.png"}
    assert found(run, "--glob", f"{typed(word)}*", cwd=folder) == both
    assert found(run, "--under", f"p/{typed(word)}.png", cwd=folder) == {f"p/{stored(word)}.png"}
    assert found(run, "--glob", f"!{typed(word)}*", cwd=folder).isdisjoint(both)
    (folder / "list").write_text(f"p/{typed(word)}.png\nnowhere/{typed(word)}.png\n")
    assert found(run, "--files-from", "list", cwd=folder) == {f"p/{stored(word)}.png"}


def test_a_folder_is_found_by_its_letters_also_when_it_is_gone(folder: Path, run: Run, tmp_path: Path) -> None:
    inside = {f"p/{stored('Fotos für Opa')}/{stored(word)}-2.png" for word in WORDS}
    assert found(run, "--under", typed("p/Fotos für Opa"), cwd=folder) == inside
    paint(tmp_path / "p" / stored("weg für immer") / "a.png", "red")
    index(run, "p", *PB, cwd=tmp_path)
    os.rename(tmp_path / "p", tmp_path / "elsewhere")
    assert found(run, "--under", typed("p/weg für immer"), cwd=tmp_path) == {f"p/{stored('weg für immer')}/a.png"}


@pytest.mark.parametrize("name", [typed("über"), stored("über")], ids=["composed", "decomposed"])
def test_two_files_that_differ_only_in_form_stay_two(folder: Path, run: Run, name: str) -> None:
    assert found(run, "--glob", f"{name}.png", cwd=folder) == {f"p/{name}.png"}
    assert found(run, "--under", f"p/{name}.png", cwd=folder) == {f"p/{name}.png"}
    (folder / "two").write_text(f"p/{name}.png\n")
    assert found(run, "--files-from", "two", cwd=folder) == {f"p/{name}.png"}
    assert f"p/{name}.png" not in found(run, "--glob", f"!{name}.png", cwd=folder)


def test_images_and_captions_are_named_by_their_letters(folder: Path, run: Run, tmp_path: Path) -> None:
    name = typed(f"p/{WORDS[0]}.png")
    done = run("similar", name, "--format", "json", "-k", "1", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert not json.loads(done.stdout)[0]["path"].endswith(f"{stored(WORDS[0])}.png")  # it does not find itself
    assert run("query", "--image", name, cwd=folder).returncode == 0
    scored = run("score", name, "--text", "a dog", "--format", "tsv", *PB, cwd=folder)
    assert scored.stdout.decode().split("\t")[0] == f"p/{stored(WORDS[0])}.png"
    lines = [f"{typed(word)}.png,a picture" for word in WORDS]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "\n".join(lines) + "\n")
    done = run("eval", tmp_path / "captions.csv", "--images", "p", "--format", "json", *PB, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()


def test_the_form_is_that_of_the_disk_and_else_as_typed(tmp_path: Path) -> None:
    paint(tmp_path / stored("ä") / f"{stored('ö')}.png", "red")
    there = os.fsencode(tmp_path / stored("ä") / f"{stored('ö')}.png")
    assert absolute(tmp_path / "ä" / "ö.png") == there
    assert absolute(tmp_path / stored("ä") / "ö.png") == there
    assert absolute(tmp_path / "ä" / "new.png") == os.fsencode(tmp_path / stored("ä") / "new.png")
    assert absolute(tmp_path / "é.png") == os.fsencode(tmp_path / "é.png")
    odd = os.fsencode(tmp_path) + b"/\xe9.png"  # no UTF-8
    assert same_letters(odd) == odd
    assert absolute(os.fsdecode(odd)) == odd
    paint(tmp_path / stored("ä") / "ü.png", "red")
    assert absolute(tmp_path / "ä" / stored("ü.png")).endswith(os.fsencode("ü.png"))  # also the other way round
