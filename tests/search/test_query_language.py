"""What a query may be made of: terms that add up, pictures, many queries at once; and what is refused, and how."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import REPOSITORY, Run, index, paint
from fresh import COMMAND, loaded_by
from PIL import Image
from warm import Warm

import clipsearch
from clipsearch.errors import ClipsearchError, InputError
from clipsearch.index import filters
from clipsearch.models.disk.files import fingerprint
from clipsearch.models.in_numpy import tower_cache
from clipsearch.models.in_numpy.image_cache import image_tower_folder
from clipsearch.search import query_terms
from clipsearch.search.hit import Hit
from clipsearch.search.index import Index
from clipsearch.search.query_terms import (
    ImageTerm,
    Term,
    TextTerm,
    combined,
    in_words,
    negated,
    parse_image,
    parse_text,
)

DOG = "sample-images/dogs/dog_0.webp"
Json = list[dict[str, Any]]


@pytest.fixture
def opened(sample_index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The index of the sample pictures, from within its folder."""
    monkeypatch.chdir(sample_index)
    with clipsearch.open_index() as found:
        yield found


def hits_of(run: Run, *arguments: str | Path, cwd: Path) -> Json:
    done = run("query", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def paths(hits: list[Hit]) -> list[str]:
    return [os.path.relpath(hit.path) for hit in hits]


def same(hits: list[Hit], others: list[Hit]) -> bool:
    """Whether these are the same images with the same scores."""
    return paths(hits) == paths(others) and np.allclose([h.score for h in hits], [o.score for o in others], atol=1e-5)


def unit(vector: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector), np.float64)


# -- how terms are written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("snow", TextTerm("snow")),
        ("0.5:snow", TextTerm("snow", 0.5)),
        (".5:snow", TextTerm("snow", 0.5)),
        ("2.:snow", TextTerm("snow", 2)),
        ("2:snow", TextTerm("snow", 2)),
        ("+2:snow", TextTerm("snow", 2)),
        ("-2:snow", TextTerm("snow", -2)),
        ("2: snow ", TextTerm(" snow ", 2)),
        (r"\3:10 to Yuma", TextTerm("3:10 to Yuma")),
        ("1:3:10 to Yuma", TextTerm("3:10 to Yuma")),
        (r"2:\3:10 to Yuma", TextTerm("3:10 to Yuma", 2)),
        ("3:10 to Yuma", TextTerm("10 to Yuma", 3)),
        (r"\o/", TextTerm(r"\o/")),
        (r"\\3:10", TextTerm(r"\\3:10")),
        ("a dog: 2", TextTerm("a dog: 2")),
        ("1e3:snow", TextTerm("1e3:snow")),
        ("2 :snow", TextTerm("2 :snow")),
        ("1.2.3:snow", TextTerm("1.2.3:snow")),
        ("2:two\nlines", TextTerm("two\nlines", 2)),
        (":snow", TextTerm(":snow")),
    ],
)
def test_how_a_text_is_read(given: str, wanted: TextTerm) -> None:
    assert parse_text(given) == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("cat.jpg", ImageTerm("cat.jpg")),
        ("2:./cat.jpg", ImageTerm("./cat.jpg", 2)),
        ("./2:cat.jpg", ImageTerm("./2:cat.jpg")),
        ("/2:cat.jpg", ImageTerm("/2:cat.jpg")),
        ("-", ImageTerm("-")),
        ("0.5:-", ImageTerm("-", 0.5)),
        (r"C:\cat.jpg", ImageTerm(r"C:\cat.jpg")),
    ],
)
def test_how_an_image_is_read(given: str, wanted: ImageTerm) -> None:
    assert parse_image(given) == wanted


@pytest.mark.parametrize("given", ["", " ", "\t\n", "2:", "2: ", "0:snow", "0.0:snow", "-0:snow", f"{'9' * 400}:snow"])
def test_a_text_that_says_nothing_is_refused(given: str) -> None:
    with pytest.raises(InputError):
        parse_text(given)


def test_a_query_in_words() -> None:
    terms: list[Term] = [TextTerm("a dog"), TextTerm("snow", 0.5), ImageTerm("cat.jpg", 2), negated(TextTerm("people"))]
    assert in_words(terms) == "a dog + 0.5 snow + 2 (cat.jpg) - people"
    assert in_words([negated(ImageTerm(b"content", 3))]) == "- 3 (an image)"


def test_parts_are_unit_vectors_before_they_are_weighted_and_so_is_their_sum() -> None:
    vectors = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    assert combined(vectors, [TextTerm("a", 3), TextTerm("b", -4)]).tolist() == pytest.approx([0.6, -0.8, 0])


def test_terms_that_nearly_cancel_are_refused_and_those_that_do_not_are_not() -> None:
    vectors = np.array([[1, 0], [np.cos(1e-6), np.sin(1e-6)]], np.float32)
    with pytest.raises(InputError, match="'a - b'"):
        combined(vectors, [TextTerm("a"), TextTerm("b", -1)])
    assert np.linalg.norm(combined(vectors, [TextTerm("a"), TextTerm("b", -0.9)])) == pytest.approx(1)


# -- terms add up ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "weights"),
    [
        (["a dog"], {"a dog": 1}),
        (["a dog", "snow"], {"a dog": 1, "snow": 1}),
        (["a dog", "0.5:snow"], {"a dog": 1, "snow": 0.5}),
        (["0.5:snow", "a dog", "--not", "2:a house"], {"a dog": 1, "snow": 0.5, "a house": -2}),
        (["--not", "a dog"], {"a dog": -1}),
        (["3:a dog"], {"a dog": 1}),  # one weight alone changes nothing
        (["a dog", "a dog", "night"], {"a dog": 2, "night": 1}),
    ],
)
def test_scores_are_cosines_with_the_weighted_sum(
    sample_index: Path, run: Run, arguments: list[str], weights: dict[str, float]
) -> None:
    picturebook = REPOSITORY / "clipsearch" / "data" / "picturebook"
    found = hits_of(run, *arguments, "-k", "all", cwd=sample_index)
    tower = tower_cache.load(fingerprint(picturebook))
    assert tower is not None
    query = unit(np.sum([weight * unit(tower.encode_texts([text])[0]) for text, weight in weights.items()], axis=0))
    images = np.load(sample_index / ".clipsearch" / "embeddings.npy").astype(np.float64)
    cosines = images @ query
    assert len(found) == len(images)
    np.testing.assert_allclose([hit["score"] for hit in found], np.sort(cosines)[::-1], atol=1e-4)
    assert all(-1 <= hit["score"] <= 1 for hit in found)


def test_the_order_of_terms_does_not_matter(opened: Index) -> None:
    terms: list[Term] = [TextTerm("a dog"), TextTerm("snow", 0.5), ImageTerm(DOG, 0.7), TextTerm("a house", -0.3)]
    assert same(opened.search(terms, None), opened.search(terms[::-1], None))


def test_what_is_not_wanted_comes_later(opened: Index) -> None:
    def mean_rank(hits: list[Hit]) -> float:
        return float(np.mean([hit.rank for hit in hits if hit.path.parent.name == "dogs"]))

    plain = opened.search("an animal", None)
    without = opened.search(["an animal", TextTerm("a dog", -1)], None)
    assert mean_rank(without) > mean_rank(plain) + 20


def test_a_backslash_or_a_weight_of_one_makes_a_time_a_text(sample_index: Path, run: Run) -> None:
    found = [hits_of(run, text, cwd=sample_index) for text in (r"\3:10 to Yuma", "1:3:10 to Yuma", "10 to Yuma")]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_text_that_is_too_long_is_cut_and_stderr_says_where_once(sample_index: Path, run: Run) -> None:
    words = " ".join(f"dog {chr(97 + i)}" for i in range(26))
    for arguments in ([words], ["a cat", "--not", words], [words, "--min-score", "1"]):
        said = run("query", *arguments, "-k", "1", cwd=sample_index).stderr.decode()
        notes = re.findall("reads as far as '(.*)' and not '(.*)'", said)
        assert len(notes) == 1, said
        kept, lost = notes[0]
        # What is named is the end of what was read and the beginning of what was not.
        first, second = words.split(lost, 1)
        assert first.rstrip().endswith(kept.strip())
        assert lost + second == words[len(first) :]
        assert first


# -- pictures ----------------------------------------------------------------------------------------------------


def test_an_image_that_is_in_the_index_needs_no_model(sample_index: Path, environment: dict[str, str]) -> None:
    for command in (["query", "a dog", "--image", DOG], ["similar", DOG]):
        loaded = loaded_by(COMMAND.format(arguments=["clipsearch", *command]), environment, sample_index)
        assert "numpy" in loaded  # it really answered
        assert not loaded & {"torch", "transformers", "PIL", "pydantic", "huggingface_hub"}


def test_several_images_add_up(opened: Index) -> None:
    first, second = opened.search("a dog", 1)[0], opened.search("a house", 1)[0]
    both = opened.search([ImageTerm(first.path), ImageTerm(second.path)], 5)
    assert {first.path, second.path} <= {hit.path for hit in both[:3]}
    apart = opened.search([ImageTerm(first.path), ImageTerm(second.path, -0.5)], None)
    assert apart[0].path == first.path
    assert apart[-1].score < 0
    assert opened.search(ImageTerm(first.path), 1)[0].score > 0.999


def test_repeated_images_and_weights_on_the_command_line(sample_index: Path, run: Run, opened: Index) -> None:
    cat = "sample-images/cats/" + min(os.listdir(sample_index / "sample-images" / "cats"))
    found = hits_of(run, "night", "--image", f"2:./{DOG}", "--image", cat, cwd=sample_index)
    wanted = opened.search([TextTerm("night"), ImageTerm(DOG, 2), ImageTerm(cat)])
    assert [hit["path"] for hit in found] == paths(wanted)
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in wanted], abs=1e-5)
    assert all(hit["confidence"] is None for hit in found)


@pytest.fixture(scope="module")
def elsewhere(sample_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the pictures as a JPEG elsewhere."""
    path = tmp_path_factory.mktemp("elsewhere") / "copy.jpg"
    with Image.open(sample_index / DOG) as image:
        image.convert("RGB").save(path, quality=95)
    return path


def test_an_image_from_elsewhere_finds_its_original_first(opened: Index, elsewhere: Path) -> None:
    for hits in (
        opened.similar(elsewhere, 3),
        opened.search(ImageTerm(elsewhere), 3),
        opened.search(ImageTerm(elsewhere.read_bytes()), 3),
    ):
        assert paths(hits)[0] == DOG
        assert 0.98 < hits[0].score < 0.9999  # it is not the very same


def test_an_image_on_standard_input(sample_index: Path, run: Run, elsewhere: Path, opened: Index) -> None:
    def piped(picture: Path, *arguments: str) -> Json:
        done = run(*arguments, "--json", cwd=sample_index, stdin=picture.read_bytes())
        assert (done.returncode, done.stderr) == (0, b"")
        return list(json.loads(done.stdout))

    known = sample_index / DOG
    assert piped(known, "query", "--image", "-", "-k", "1")[0]["path"] == DOG
    weighted = piped(known, "query", "night", "--image", "2:-")
    assert [hit["path"] for hit in weighted] == paths(opened.search(["night", ImageTerm(known, 2)]))
    assert piped(known, "similar", "-", "-k", "1")[0]["path"] == DOG  # nobody knows that it is the picture itself
    assert piped(elsewhere, "similar", "-", "-k", "1")[0]["path"] == DOG


def test_similar_leaves_out_the_image_itself_but_no_copy(tmp_path: Path, run: Run) -> None:
    paint(tmp_path / "p" / "a.png", "red")
    shutil.copy(tmp_path / "p" / "a.png", tmp_path / "p" / "copy.png")
    paint(tmp_path / "p" / "b.png", "green", (48, 64))
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    (tmp_path / "link.png").symlink_to("p/a.png")

    def similar(*arguments: str) -> list[bytes]:
        done = run("similar", *arguments, "-0", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.split(b"\0")[:-1]

    assert similar("p/a.png") == [b"p/copy.png", b"p/b.png"]
    assert similar("p/copy.png") == [b"p/a.png", b"p/b.png"]
    assert similar("link.png") == [b"p/copy.png", b"p/b.png"]
    assert similar("p/a.png", "--include-self") == [b"p/a.png", b"p/copy.png", b"p/b.png"]
    assert similar("p/a.png", "-k", "1") == [b"p/copy.png"]
    assert similar("p/a.png", "--orientation", "portrait") == [b"p/b.png"]
    done = run("similar", "p/a.png", "--orientation", "landscape", "--min-score", "0.999", "--json", cwd=tmp_path)
    (hit,) = json.loads(done.stdout)
    assert (hit["path"], hit["confidence"]) == ("p/copy.png", None)
    assert hit["score"] > 0.999
    # The picture itself is all that is there.
    alone = run("similar", "p/b.png", "--under", "p/b.png", cwd=tmp_path)
    assert (alone.returncode, alone.stdout) == (1, b"")
    (tmp_path / "p" / "a.png").unlink()
    (tmp_path / "p" / "copy.png").unlink()
    index(run, cwd=tmp_path)
    alone = run("similar", "p/b.png", cwd=tmp_path)
    assert (alone.returncode, alone.stdout) == (1, b"")
    assert b"other image" in alone.stderr  # it does hold one
    assert run("similar", "p/b.png", "--include-self", "-0", cwd=tmp_path).stdout == b"p/b.png\0"


def test_formats_and_filters_of_similar_are_those_of_query(sample_index: Path, run: Run) -> None:
    lines = (
        run("similar", DOG, "-k", "3", "--under", "sample-images/cats", cwd=sample_index).stdout.decode().splitlines()
    )
    assert len(lines) == 3
    assert all(re.fullmatch(r"\d\t-?\d\.\d{4}\t\tsample-images/cats/\S+", line) for line in lines)


# -- many queries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"a dog\na cat\n2:a dog\na dog\n",
        b"a dog\na cat\n2:a dog\na dog",
        b"\xef\xbb\xbfa dog\r\n\r\na cat\r\n2:a dog\r\n \r\na dog\r\n",
        b"\n\na dog\n\t\na cat\n2:a dog\n\n\na dog\n\n",
    ],
    ids=["plain", "no last line end", "BOM and CR LF", "blank lines"],
)
def test_lines_are_queries_in_their_order(sample_index: Path, run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "queries.txt").write_bytes(content)
    found = hits_of(run, "--from", tmp_path / "queries.txt", "-k", "2", cwd=sample_index)
    assert [hit["query"] for hit in found[::2]] == ["a dog", "a cat", "2:a dog", "a dog"]
    assert [hit["rank"] for hit in found] == [1, 2] * 4
    assert found[:2] == found[6:]
    assert [hit["path"] for hit in found[:2]] == [hit["path"] for hit in found[4:6]]


def test_only_line_ends_part_queries(sample_index: Path, run: Run, tmp_path: Path) -> None:
    lines = ["a\N{LINE SEPARATOR}dog", "a\x0ccat", "a\x85house", "a\x1cbird"]
    (tmp_path / "queries.txt").write_text("\n".join(lines), "utf-8")
    found = hits_of(run, "--from", tmp_path / "queries.txt", "-k", "1", cwd=sample_index)
    assert [hit["query"] for hit in found] == lines


def test_many_queries_give_what_each_gives_alone(sample_index: Path, run: Run, opened: Index) -> None:
    lines = ["a dog", "0.5:a house", r"\3:10 to Yuma"]
    added = ["night", "--not", "0.5:snow", "--image", f"0.5:{DOG}"]
    done = run("query", *added, "--from", "-", "--json", cwd=sample_index, stdin="\n".join(lines).encode())
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    common: list[Term] = [TextTerm("night"), TextTerm("snow", -0.5), ImageTerm(DOG, 0.5)]
    for i, line in enumerate(lines):
        of_line = found[10 * i : 10 * i + 10]
        alone = opened.search([parse_text(line), *common])
        assert {hit["query"] for hit in of_line} == {line}
        assert [hit["path"] for hit in of_line] == paths(alone)
        assert [hit["score"] for hit in of_line] == pytest.approx([hit.score for hit in alone], abs=1e-5)
    # And the command says the same of one.
    one = hits_of(run, lines[0], *added, cwd=sample_index)
    assert [{"query": lines[0], **hit} for hit in one] == found[:10]


# -- from Python -------------------------------------------------------------------------------------------------


def test_the_library_searches_as_the_readme_shows(sample_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample_index)
    with clipsearch.open_index(sample_index) as opened:
        hits = opened.search("a dog is sleeping", k=3, under="sample-images/dogs", min_confidence=0.1)
        assert 0 < len(hits) <= 3
        for rank, hit in enumerate(hits, 1):
            assert isinstance(hit, clipsearch.Hit)
            assert hit.rank == rank
            assert hit.path.is_absolute()
            assert hit.path_bytes == os.fsencode(hit.path)
            assert hit.path.parent == sample_index / "sample-images" / "dogs"
            assert hit.confidence is not None
            assert 0.1 <= hit.confidence <= 1
            with Image.open(hit.path) as image:
                assert (hit.width, hit.height) == image.size
            assert hit.size == hit.path.stat().st_size
            assert hit.mtime_ns == hit.path.stat().st_mtime_ns
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_many_queries_from_python(opened: Index) -> None:
    both: list[str | Term] = ["a cat", TextTerm("night", -1)]
    many = opened.search_many(["a dog", both, TextTerm("snow", 2)], 4)
    assert [len(hits) for hits in many] == [4, 4, 4]
    alone = [opened.search(query, 4) for query in ("a dog", both, "snow")]
    assert all(same(ours, theirs) for ours, theirs in zip(many, alone, strict=True))
    assert opened.search_many([]) == []


def test_many_queries_ask_the_database_no_more_often_than_one(opened: Index) -> None:
    def statements(queries: list[str]) -> int:
        asked: list[str] = []
        opened.store._database.set_trace_callback(asked.append)
        found = opened.search_many(queries, 3, glob="*.webp")
        opened.store._database.set_trace_callback(None)
        assert all(found)
        return len([sql for sql in asked if "max(row)" in sql])

    # Whether there is anything to search, before a model is loaded; and once within the snapshot that is searched.
    assert statements(["a dog"]) == statements([f"a dog and {n} cats" for n in range(60)]) == 2


def test_what_is_asked_for_is_checked_once(opened: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setattr(query_terms, "check_utf8", lambda text, _: checked.append(text))
    filters.patterns.cache_clear()
    assert opened.search([parse_text("a dog"), parse_text("0.5:snow")], 3, glob=["*.webp", "!cat_*"])
    assert checked == ["a dog", "snow"]
    assert filters.patterns.cache_info().misses == 1


def test_similar_from_python(opened: Index) -> None:
    assert DOG not in paths(opened.similar(DOG))
    assert paths(opened.similar(DOG, 1, include_self=True)) == [DOG]
    assert paths(opened.similar(Path(DOG).read_bytes(), 1)) == [DOG]
    assert len(opened.similar(DOG, None)) == len(opened.similar(DOG, None, include_self=True)) - 1


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.search(""),
        lambda index: index.search([]),
        lambda index: index.search(TextTerm("a", 0)),
        lambda index: index.search(TextTerm("a", float("nan"))),
        lambda index: index.search("a", k=0),
        lambda index: index.search("a", k=-1),
        lambda index: index.search("a", min_score=2),
        lambda index: index.search("a", min_confidence=1.5),
        lambda index: index.search("a", under="/nowhere"),
        lambda index: index.search("a", glob="["),
        lambda index: index.search("a", after="soon"),
        lambda index: index.search("a", orientation="round"),
        lambda index: index.search("a", min_width=-1),
        lambda index: index.search(ImageTerm("nowhere.jpg")),
        lambda index: index.search(ImageTerm(b"no picture")),
        lambda index: index.similar("nowhere.jpg"),
        lambda index: index.similar("a\0b.jpg"),
    ],
)
def test_mistakes_are_errors_of_ours(opened: Index, call: Any) -> None:  # noqa: ANN401  (a lambda)
    with pytest.raises(InputError):
        call(opened)
    assert issubclass(InputError, ClipsearchError)
    with pytest.raises(ClipsearchError):
        clipsearch.open_index("nowhere")


# -- what is refused ---------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[str], str]] = {
    # what is wrong: arguments, what is said of it
    "nothing to look for": (["query"], "clipsearch query"),
    "blank text": (["query", " "], "clipsearch query"),
    "blank text to stay away from": (["query", "dog", "--not", " "], "clipsearch query"),
    "weight without text": (["query", "2:"], "clipsearch query"),
    "zero weight": (["query", "0:dog"], "weight of 0"),
    "terms that cancel": (["query", "dog", "--not", "dog"], "'dog - dog'"),
    "picture without a name": (["query", "--image", "2:"], "--image FILE"),
    "picture that is a text": (["query", "--image", "text.jpg"], "text.jpg: "),
    "picture that is a folder": (["query", "--image", "folder"], "folder: Is a directory"),
    "picture that is missing": (["query", "--image", "none.jpg"], "none.jpg: No such file"),
    "similar to a text": (["similar", "text.jpg"], "text.jpg: "),
    "similar to nothing there": (["similar", "none.jpg"], "none.jpg: No such file"),
    "standard input twice": (["query", "--image", "-", "--from", "-"], "standard input"),
    "weighted standard input twice": (["query", "--image", "2:-", "--files-from", "-"], "standard input"),
    "standard input twice in similar": (["similar", "-", "--files-from", "-"], "standard input"),
    "empty file of queries": (["query", "--from", "empty"], "query in empty"),
    "blank file of queries": (["query", "--from", "blank"], "query in blank"),
    "queries that are not UTF-8": (["query", "--from", "latin1"], "latin1, line 1,"),
    "missing file of queries": (["query", "--from", "nowhere"], "nowhere: No such file"),
    "folder of queries": (["query", "--from", "folder"], "folder: Is a directory"),
    "missing list of files": (["query", "dog", "--files-from", "nowhere"], "nowhere: No such file"),
    "k of zero": (["query", "dog", "-k", "0"], "'-k': 0 "),
    "k below zero": (["query", "dog", "-k", "-1"], "'-k': -1 "),
    "k that is a word": (["query", "dog", "-k", "many"], "'-k': many "),
    "k with a fraction": (["query", "dog", "-k", "1.5"], "'-k': 1.5 "),
    "bad date": (["query", "dog", "--after", "soon"], "after: 'soon' "),
    "impossible day": (["query", "dog", "--before", "2023-02-30"], "before: '2023-02-30' "),
    "after is before": (
        ["query", "dog", "--after", "2024", "--before", "2023"],
        "before 2023-01-01",
    ),
    "after equals before": (
        ["query", "dog", "--after", "2024", "--before", "2024-01"],
        "before 2024-01-01",
    ),
    "unknown folder": (["query", "dog", "--under", "nowhere"], "nowhere"),
    "glob that is none": (["query", "dog", "--glob", "!"], "glob: '!'"),
    "glob that matches nothing": (["query", "dog", "--glob", "#x"], "glob: '#x'"),
    "empty glob": (["query", "dog", "--glob", ""], "--glob"),
    "no width": (["query", "dog", "--min-width", "0"], "'--min-width'"),
    "no height": (["query", "dog", "--min-height", "-5"], "'--min-height'"),
    "bad orientation": (["query", "dog", "--orientation", "round"], "'--orientation'"),
    "score above 1": (["query", "dog", "--min-score", "1.5"], "1.5"),
    "score that is no number": (["query", "dog", "--min-score", "nan"], "nan"),
    "confidence above 1": (["query", "dog", "--min-confidence", "1.5"], "1.5"),
    "confidence below 0": (["query", "dog", "--min-confidence", "-2"], "-2"),
    "confidence that is no number": (["query", "dog", "--min-confidence", "nan"], "nan"),
    "confidence of a picture": (["query", "--image", DOG, "--min-confidence", "0.5"], "--min-score"),
    "confidence of nothing wanted": (["query", "--not", "dog", "--min-confidence", "0.5"], "--min-score"),
    "two formats": (["query", "dog", "--json", "-0"], "json and paths"),
    "two other formats": (["query", "dog", "--format", "csv", "--json"], "csv and json"),
    "unknown format": (["query", "dog", "--format", "xml"], "'--format'"),
    "preview for programs": (["query", "dog", "--preview", "--json"], "--preview"),
    "unknown option": (["query", "dog", "--colour"], "--colour"),
    "unknown command": (["serch", "dog"], "serch"),
    "no index": (["query", "dog", "--index", "folder"], "clipsearch index PATH"),
    "text that is not UTF-8": (["query", "caf\udce9"], "UTF-8"),
}


@pytest.fixture(scope="module")
def mistakes(sample_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index and with files that are not what they should be."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name in (".clipsearch", "sample-images"):
        (folder / name).symlink_to(sample_index / name)
    (folder / "folder").mkdir()
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty").write_bytes(b"")
    (folder / "blank").write_bytes(b"\xef\xbb\xbf \r\n\t\n")
    (folder / "latin1").write_bytes(b"caf\xe9\n")
    return folder


@pytest.mark.parametrize("wrong", list(REFUSED))
def test_a_mistake_is_said_in_one_line(mistakes: Path, run: Run, wrong: str) -> None:
    arguments, wanted = REFUSED[wrong]
    done = run(*arguments, cwd=mistakes)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b""), said
    assert said.startswith("clipsearch: ")
    assert said.count("\n") == 1
    assert said.endswith("\n")
    assert wanted in said


def test_without_an_index_the_message_says_where_it_looked_and_what_to_type(tmp_path: Path, run: Run) -> None:
    done = run("query", "dog", cwd=tmp_path)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout, said.count("\n")) == (2, b"", 1)
    assert re.search(rf"{tmp_path}\b.* clipsearch index {tmp_path}\b", said)


@pytest.mark.parametrize("wrong", ["zero weight", "no index", "k of zero"])
def test_a_traceback_is_there_for_those_who_ask_for_it(mistakes: Path, run: Run, wrong: str) -> None:
    arguments, wanted = REFUSED[wrong]
    done = run(*arguments, cwd=mistakes, env={"CLIPSEARCH_DEBUG": "1"})
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("clipsearch: ")
    assert wanted in said.splitlines()[-1]


def test_a_model_that_changed_is_not_asked_about_images(tmp_path: Path, run: Run, small_clip: Path) -> None:
    paint(tmp_path / "p" / "a.png", "red")
    model = shutil.copytree(small_clip, tmp_path / "clip")
    index(run, "p", "--model", "./clip", cwd=tmp_path)
    paint(tmp_path / "query.png", "green")
    before = run("query", "--image", "query.png", "--json", cwd=tmp_path).stdout
    config = json.loads((model / "preprocessor_config.json").read_text())
    (model / "preprocessor_config.json").write_text(json.dumps(config | {"image_mean": [0.5, 0.5, 0.5]}))
    # The image tower that was kept, with its own preprocessing, answers as before.
    assert run("query", "--image", "query.png", "--json", cwd=tmp_path).stdout == before != b""
    with clipsearch.open_index(tmp_path) as opened:
        kept = opened.store.model()
    assert kept is not None
    shutil.rmtree(image_tower_folder(kept.fingerprint))
    done = run("query", "--image", "query.png", cwd=tmp_path, torch=True)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout, said.count("\n")) == (2, b"", 1)
    assert said.startswith("clipsearch: ")
    assert "--index DIR" in said
    # What needs no model still works.
    assert run("similar", "p/a.png", "--include-self", "-0", cwd=tmp_path).stdout == b"p/a.png\0"
    # And without its folder there is none to ask.
    shutil.rmtree(model)
    done = run("query", "--image", "query.png", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)


BROKEN = """
import sys
from clipsearch.search.index import Index
def search_many(*_, **__):
    raise {error}
Index.search_many = search_many
from clipsearch.cli import main
sys.argv = ["clipsearch", "query", "a dog"]
main()
"""


@pytest.mark.parametrize("error", ["RuntimeError('a bug')", "LookupError()"])
def test_a_bug_exits_with_2_since_1_means_that_nothing_was_found(
    sample_index: Path, without_torch: Warm, error: str
) -> None:
    done = without_torch.run(["-c", BROKEN.format(error=error)], cwd=sample_index)
    assert (done.returncode, done.stdout) == (2, b"")
    assert error.partition("(")[0] in done.stderr.decode()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("form", ["tsv", "json"])
@pytest.mark.parametrize("unbuffered", ["", "1"])  # at the first write, or when all is written out
def test_output_that_cannot_be_written_is_one_line_and_exit_code_2(
    sample_index: Path, environment: dict[str, str], form: str, unbuffered: str
) -> None:
    command = [sys.executable, "-m", "clipsearch", "query", "a dog", "--format", form]
    env = environment | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=sample_index, env=env, stdout=full, stderr=subprocess.PIPE, check=False)
    said = done.stderr.decode()
    assert done.returncode == 2
    assert said.startswith("clipsearch: ")
    assert "No space left on device" in said
    assert said.count("\n") == 1


def test_closed_standard_output_is_no_crash(sample_index: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "clipsearch", "query", "a dog"]
    shell = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(shell, cwd=sample_index, env=environment, stderr=subprocess.PIPE, check=False)
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr


# -- the desktop -------------------------------------------------------------------------------------------------


@pytest.fixture
def viewer(tmp_path: Path) -> Path:
    """A folder with an `xdg-open` that notes what it is asked to open."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "xdg-open"
    script.write_text(f'#!/bin/sh\nprintf "%s" "$1" > "{tmp_path}/part" && mv "{tmp_path}/part" "{tmp_path}/opened"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder


def what_was_opened(tmp_path: Path) -> str:
    import time

    for _ in range(500):
        if (tmp_path / "opened").exists():
            break
        time.sleep(0.02)
    return (tmp_path / "opened").read_text()


linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the desktop opens files with other commands")


@linux
def test_open_shows_the_first_image(sample_index: Path, run: Run, viewer: Path, tmp_path: Path) -> None:
    env = {"PATH": f"{viewer}{os.pathsep}{os.environ['PATH']}", "PYTHONWARNINGS": ""}  # the viewer is not waited for
    done = run("query", "a dog is sleeping", "-k", "2", "-0", "--open", cwd=sample_index, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert what_was_opened(tmp_path) == str(sample_index / os.fsdecode(done.stdout.split(b"\0")[0]))


@linux
def test_open_shows_the_page_if_there_is_one(sample_index: Path, run: Run, viewer: Path, tmp_path: Path) -> None:
    env = {"PATH": f"{viewer}{os.pathsep}{os.environ['PATH']}"}
    page = tmp_path / "page.html"
    done = run("query", "a dog", "-k", "2", "--open", "--html", page, cwd=sample_index, env=env)
    assert done.returncode == 0, done.stderr.decode()
    assert what_was_opened(tmp_path) == str(page)


@linux
def test_open_without_a_viewer_is_said(sample_index: Path, run: Run, tmp_path: Path) -> None:
    done = run("query", "a dog", "-k", "1", "--open", cwd=sample_index, env={"PATH": str(tmp_path)})
    said = done.stderr.decode()
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1  # the hits are there all the same
    assert said.count("\n") == 1
    assert said.startswith("clipsearch: ")
    assert "xdg-open" in said


@linux
def test_nothing_found_opens_nothing(sample_index: Path, run: Run, viewer: Path, tmp_path: Path) -> None:
    env = {"PATH": f"{viewer}{os.pathsep}{os.environ['PATH']}"}
    assert run("query", "a dog", "--min-score", "1", "--open", cwd=sample_index, env=env).returncode == 1
    assert not (tmp_path / "opened").exists()
