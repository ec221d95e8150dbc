"""`clipsearch classify` as users run it: labels, reports, sorting, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from cifar_files import cifar_10, python_2_pickle, rows
from conftest import SAMPLES, Run, deny, paint
from fresh import COMMAND, HEAVY, loaded_by
from PIL import Image

from clipsearch.api import load_model
from clipsearch.cli import make_app
from clipsearch.errors import InputError, ModelMismatchError
from clipsearch.index.reading import Store
from clipsearch.output import sorting
from clipsearch.output.sorting import Step, carry_out, folder_names, plan
from clipsearch.tasks.classification import Classifier, selected

PETS = ("-l", "a dog", "-l", "a cat", "-l", "a pizza")
Classify = Callable[..., list[dict[str, Any]]]
Answer = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def classify(run: Run, sample_index: Path) -> Classify:
    """Run it on the index of the samples, and read what it prints."""

    def classify(*arguments: str | Path, cwd: Path = sample_index) -> list[dict[str, Any]]:
        done = run("classify", *arguments, "--json", cwd=cwd)
        assert done.returncode == 0, done.stderr.decode()
        return list(json.loads(done.stdout))

    return classify


@pytest.fixture
def copy(sample_index: Path, tmp_path: Path) -> Path:
    """The samples and their index, to be changed."""
    return Path(shutil.copytree(sample_index, tmp_path / "copy"))


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for the index."""
    return {
        os.path.relpath(path, folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".clipsearch" not in path.parts
    }


@pytest.fixture
def answer(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Run it within this process, where what a subprocess takes long to load is there: exit code, stdout, stderr."""

    def answer(*arguments: str | Path, cwd: Path) -> tuple[int, bytes, str]:
        monkeypatch.chdir(cwd)
        capfdbinary.readouterr()
        code = typer.main.get_command(make_app()).main(["classify", *map(str, arguments)], standalone_mode=False)
        out, said = capfdbinary.readouterr()
        return code, out, said.decode()

    return answer


def refused(run: Run, *arguments: str | bytes | Path, cwd: Path) -> str:
    """What is said in one line before a command ends with 2 and nothing on stdout."""
    done = run("classify", *arguments, cwd=cwd)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout, said.count("\n")) == (2, b"", 1), said
    return said


# -- labels for pictures -----------------------------------------------------------------------------------------


def test_indexed_images_get_the_labels_that_python_computes(classify: Classify, sample_index: Path) -> None:
    found = classify("--indexed", *PETS, "--top", "2", "--template", "a {}", "--template", "there is {}.")
    with load_model(index=sample_index) as embedder, closing(Store.open(sample_index / ".clipsearch")) as store:
        classifier = Classifier.of(["a dog", "a cat", "a pizza"], embedder, ["a {}", "there is {}."])
        texts = embedder.embed_texts(
            [f"{start} {what}{end}" for what in ("a dog", "a cat", "a pizza") for start, end in TWO]
        )
        pictures = selected(store)
        wanted = classifier.predict_rows(pictures.matrix, pictures.rows, 2)
        vectors = np.asarray(pictures.matrix[pictures.rows], np.float64)
        scale = embedder.logits.scale
    # The same by other means.
    classes = texts.astype(np.float64).reshape(3, 2, -1).sum(axis=1)
    cosines = vectors @ classes.T / np.linalg.norm(vectors, axis=1)[:, None] / np.linalg.norm(classes, axis=1)
    powers = np.exp(scale * cosines)
    assert len(found) == 2 * len(pictures.paths) == 2 * 253
    for i, path in enumerate(pictures.paths):
        for rank in (1, 2):
            row = found[2 * i + rank - 1]
            label = int(np.argsort(-cosines[i])[rank - 1])
            assert (row["path"], row["rank"]) == (os.path.relpath(os.fsdecode(path), sample_index), rank)
            assert row["label"] == ["a dog", "a cat", "a pizza"][label]
            assert row["score"] == pytest.approx(cosines[i, label], abs=1e-5)
            assert row["probability"] == pytest.approx(powers[i, label] / powers[i].sum(), abs=1e-4)
            assert row["score"] == pytest.approx(float(wanted.scores[i, rank - 1]), abs=1e-6)


TWO = (("a", ""), ("there is", "."))


def test_dogs_are_dogs(classify: Classify) -> None:
    found = classify("--indexed", "--under", "sample-images/dogs", *PETS)
    assert len(found) == 9
    assert sum(row["label"] == "a dog" for row in found) >= 7
    assert {row["rank"] for row in found} == {1}


def test_indexed_images_and_those_that_the_index_knows_need_no_model(
    sample_index: Path, environment: dict[str, str]
) -> None:
    for pictures, not_needed in ((["--indexed"], HEAVY), (["sample-images/dogs"], {"torch", "transformers"})):
        code = COMMAND.format(arguments=["clipsearch", "classify", *pictures, *PETS])
        loaded = loaded_by(code, environment, sample_index)
        assert "tokenizers" in loaded  # it really answered
        assert not loaded & not_needed


def test_help_loads_no_library_of_ours(environment: dict[str, str], tmp_path: Path) -> None:
    loaded = loaded_by(COMMAND.format(arguments=["clipsearch", "classify", "--help"]), environment, tmp_path)
    assert not loaded & (HEAVY | {"numpy", "tokenizers"})


def test_an_index_is_not_classified_by_another_model(answer: Answer, sample_index: Path) -> None:
    with pytest.raises(ModelMismatchError, match="not openai"):
        answer("--indexed", *PETS, "--model", "openai", cwd=sample_index)


def test_named_images_get_the_same_labels_as_indexed_ones(classify: Classify) -> None:
    named, indexed = classify("sample-images/dogs", *PETS), classify("--indexed", "-g", "dogs/", *PETS)
    # The last digit of a cosine depends on what else is computed with it, and on the processor.
    for one, other in zip(named, indexed, strict=True):
        assert one == {
            name: pytest.approx(value, abs=2e-6) if name in ("score", "probability") else value
            for name, value in other.items()
        }


def test_every_format_says_the_same(answer: Answer, sample_index: Path) -> None:
    def printed(form: str) -> str:
        picture = "sample-images/dogs/dog_0.webp"
        code, out, _ = answer(picture, *PETS, "--format", form, "--top", "3", cwd=sample_index)
        assert code == 0
        return out.decode()

    found = json.loads(printed("json"))
    assert [list(row) for row in found] == [["path", "rank", "label", "probability", "score"]] * 3
    assert sum(row["probability"] for row in found) == pytest.approx(1, abs=1e-5)
    assert [json.loads(line) for line in printed("jsonl").splitlines()] == found
    table = printed("table").splitlines()
    assert table[0].split() == ["path", "rank", "label", "probability", "score"]
    lines = [line.split("\t") for line in printed("tsv").splitlines()]
    header, *records = csv.reader(io.StringIO(printed("csv")))
    assert header == list(found[0])
    for row, line, record in zip(found, lines, records, strict=True):
        assert line[:3] == record[:3] == [row["path"], str(row["rank"]), row["label"]]
        assert float(line[3]) == pytest.approx(row["probability"], abs=6e-5)
        assert float(record[4]) == row["score"]


def test_labels_and_templates_come_from_files_too(classify: Classify, run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes("\ufeffn1\ta dog\r\n\r\na_cat\n".encode())
    (tmp_path / "templates").write_text("a drawing of {}\nthere is {}\n")
    files = ("--labels-from", tmp_path / "labels", "--templates-from", tmp_path / "templates")
    found = classify("--indexed", *files, "-l", "a pizza")
    typed = classify("--indexed", *PETS, "--template", "a drawing of {}", "--template", "there is {}")
    names = {"a dog": "n1", "a cat": "a_cat", "a pizza": "a pizza"}
    assert {row["path"]: row["label"] for row in found} == {row["path"]: names[row["label"]] for row in typed}
    both = ("--labels-from", "-", "--templates-from", "-")
    assert "standard input" in refused(run, "--indexed", *both, cwd=tmp_path)


def test_unsure_labels_are_left_out(classify: Classify, run: Run, sample_index: Path) -> None:
    every = classify("--indexed", *PETS, "--top", "3")
    sure = classify("--indexed", *PETS, "--top", "3", "--min-probability", "0.3")
    assert sure == [row for row in every if row["probability"] >= 0.3]
    assert 0 < len(sure) < len(every)
    best = max(row["probability"] for row in every if row["path"].startswith("sample-images/dogs/"))
    assert best < 1
    done = run("classify", "sample-images/dogs", *PETS, "--min-probability", str((best + 1) / 2), cwd=sample_index)
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"{best:.4f}" in done.stderr.decode()


def test_no_image_in_the_index_is_nothing_found(run: Run, sample_index: Path) -> None:
    for arguments in (PETS, ("--truth", "folders", "--report")):
        done = run("classify", "--indexed", "-g", "*.xyz", *arguments, cwd=sample_index)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"*.xyz" in done.stderr


def test_images_that_cannot_be_read_are_named(run: Run, sample_index: Path, tmp_path: Path) -> None:
    shutil.copy(sample_index / "sample-images" / "dogs" / "dog_0.webp", tmp_path / "b.webp")
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "c.png").write_bytes(b"")
    arguments = (tmp_path, *PETS, "--index", sample_index, "--format", "tsv")
    done = run("classify", *arguments, cwd=tmp_path)
    said = done.stderr.decode().splitlines()
    assert done.returncode == 0
    assert [line.split("\t")[0] for line in done.stdout.decode().splitlines()] == ["b.webp"]
    assert len(said) == 2
    assert "a.png: " in said[0]
    assert "c.png: " in said[1]
    strict = run("classify", *arguments, "--strict", cwd=tmp_path)
    assert (strict.returncode, strict.stdout) == (2, done.stdout)
    os.unlink(tmp_path / "b.webp")
    nothing = run("classify", *arguments, cwd=tmp_path)
    assert (nothing.returncode, nothing.stdout) == (2, b"")
    assert [line for line in nothing.stderr.decode().splitlines()[:-1] if line not in said] == []


# -- known labels and reports ------------------------------------------------------------------------------------


def test_a_report_counts_what_the_labels_say(run: Run, classify: Classify, sample_index: Path) -> None:
    labels = classify("--indexed", "--truth", "folders", "--top", "5")
    done = run("classify", "--indexed", "--truth", "folders", "--report", "--json", cwd=sample_index)
    found = json.loads(done.stdout)
    names = [one["label"] for one in found["classes"]]
    assert names == sorted(path.name for path in SAMPLES.iterdir() if path.is_dir())
    taken = {row["path"]: row for row in labels if row["rank"] == 1}
    assert all(row["truth"] == row["path"].split("/")[-2] for row in labels)
    assert found["images"] == len(taken) == 253
    assert found["top1"] == pytest.approx(sum(row["label"] == row["truth"] for row in taken.values()) / 253, abs=1e-6)
    assert found["top5"] == pytest.approx(sum(row["label"] == row["truth"] for row in labels) / 253, abs=1e-6)
    for i, truth in enumerate(names):
        for j, label in enumerate(names):
            count = sum((row["truth"], row["label"]) == (truth, label) for row in taken.values())
            assert found["confusion"][i][j] == count
        one = found["classes"][i]
        assert (one["images"], one["correct"]) == (sum(found["confusion"][i]), found["confusion"][i][i])
        assert one["predicted"] == sum(line[i] for line in found["confusion"])


def test_a_report_in_other_formats(answer: Answer, sample_index: Path) -> None:
    def printed(form: str) -> tuple[str, str]:
        code, out, said = answer("--indexed", "--truth", "folders", "--report", "--format", form, cwd=sample_index)
        assert code == 0
        return out.decode(), said

    found = json.loads(printed("jsonl")[0])
    lines = [line.split("\t") for line in printed("tsv")[0].splitlines()]
    assert [line[:4] for line in lines] == [
        [one["label"], *(str(one[name]) for name in ("images", "predicted", "correct"))] for one in found["classes"]
    ]
    assert f"top-1 {found['top1']:.4f}, top-5 {found['top5']:.4f}, of 253 images\n" == printed("tsv")[1]
    assert next(csv.reader(io.StringIO(printed("csv")[0])))[-2:] == ["precision", "recall"]
    table = printed("table")[0].splitlines()
    assert table[0] + "\n" == printed("tsv")[1]
    # The matrix: a line for each label, whose numbers add up to all images.
    counts = [[int(part) for part in line.split()[2:]] for line in table[-len(found["classes"]) :]]
    assert [sum(line) for line in counts] == [one["images"] for one in found["classes"]]


def test_more_labels_than_a_matrix_has_room_for_show_the_commonest_mistakes(answer: Answer, sample_index: Path) -> None:
    more = [part for number in range(10) for part in ("-l", f"thing {number}")]
    folders = [part for path in SAMPLES.iterdir() if path.is_dir() for part in ("-l", path.name)]
    arguments = ("--indexed", "--truth", "folders", "--report", *folders, *more)
    table = answer(*arguments, "--format", "table", cwd=sample_index)[1].decode()
    found = json.loads(answer(*arguments, "--json", cwd=sample_index)[1])
    mistakes = np.array(found["confusion"])
    np.fill_diagonal(mistakes, 0)
    lines = table.split("The commonest mistakes:")[1].split("\n")[3:-1]
    assert [int(line.split()[-1]) for line in lines] == sorted(mistakes.ravel().tolist(), reverse=True)[:20]


def test_a_csv_knows_what_images_show(run: Run, classify: Classify, sample_index: Path, tmp_path: Path) -> None:
    folder = sample_index / "sample-images" / "dogs"
    names = sorted(path.name for path in folder.iterdir())
    known = {name: "cat" if i < 3 else "dog" for i, name in enumerate(names)}
    (tmp_path / "truth.csv").write_text(
        "image,label\n" + "".join(f"{folder / name},{label}\n" for name, label in known.items())
    )
    found = classify(folder, "--truth", tmp_path / "truth.csv", "--top", "2")
    assert {os.path.basename(row["path"]): row["truth"] for row in found} == known
    assert {row["label"] for row in found} == {"cat", "dog"}
    (tmp_path / "truth.csv").write_text(f"image,label\n{folder / names[0]},dog\n")
    said = refused(run, folder, *PETS, "--truth", tmp_path / "truth.csv", cwd=sample_index)
    assert re.search(r"\btruth\.csv\b.* 7 more", said)


def test_unreadable_images_are_left_out_of_a_report(run: Run, sample_index: Path, tmp_path: Path) -> None:
    for name in ("dogs", "cats"):
        shutil.copytree(sample_index / "sample-images" / name, tmp_path / "p" / name)
    (tmp_path / "p" / "cats" / "a.png").write_text("no picture")
    arguments = ("p", "--index", sample_index, "--truth", "folders", "--report", "--json")
    done = run("classify", *arguments, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert b"cats/a.png" in done.stderr
    assert [one["images"] for one in found["classes"]] == [17, 9]
    assert found["top5"] is None


# -- CIFAR -------------------------------------------------------------------------------------------------------


def test_cifar_is_classified_like_the_same_images_in_files(answer: Answer, tmp_path: Path) -> None:
    names = ["dog", "food", "red_car", "cat", "boat", "bird"]
    sources = [*sorted(SAMPLES.glob("dogs/*"))[:2], *sorted(SAMPLES.glob("food/*"))[:3]]
    numbers = [0, 0, 1, 1, 1]
    pixels = [np.asarray(Image.open(path).convert("RGB").resize((32, 32))) for path in sources]
    (tmp_path / "files").mkdir()
    for number, pixel in enumerate(pixels):
        Image.fromarray(pixel).save(tmp_path / "files" / f"{number}.png")
    data = np.stack([pixel.transpose(2, 0, 1).reshape(-1) for pixel in pixels])
    cifar_10(tmp_path / "cifar", data[:2], numbers[:2], names).rename(tmp_path / "cifar" / "data_batch_1")
    cifar_10(tmp_path / "cifar", data, numbers, names)

    def printed(*arguments: str) -> Any:  # noqa: ANN401  (JSON)
        code, out, said = answer(*arguments, "--model", "picturebook", "--top", "6", "--json", cwd=tmp_path)
        assert code == 0, said
        return json.loads(out)

    # 1. Labels.
    found = printed("cifar/test_batch", "cifar/data_batch_1")
    wanted = printed("files", *(part for name in names for part in ("-l", name)))
    assert [(row["path"], row["number"]) for row in found[::6]] == [
        *(("cifar/test_batch", number) for number in range(5)),
        *(("cifar/data_batch_1", number) for number in range(2)),
    ]
    assert [row["truth"] for row in found[::6]] == ["dog", "dog", "food", "food", "food", "dog", "dog"]
    for row, other in zip(found, wanted + wanted[:12], strict=True):
        assert (row["rank"], row["label"]) == (other["rank"], other["label"])
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-4)
    # 2. The report.
    report = printed("cifar/test_batch", "--report")
    assert [one["images"] for one in report["classes"]] == [2, 3, 0, 0, 0, 0]
    assert report["top1"] == pytest.approx(sum(row["label"] == row["truth"] for row in found[:30:6]) / 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cifar/test_batch", "picture.png"], "CIFAR"),
        (["cifar/test_batch", "cifar/other"], "cifar/test_batch"),
        (["cifar/test_batch", "--coarse"], "CIFAR-100"),
        (["picture.png", "--coarse", *PETS], "--coarse"),
        (["cifar/test_batch", "--truth", "folders"], "--truth"),
        (["cifar/test_batch", "--move-into", "out"], "moved"),
        (["cifar/test_batch", "--report", "-l", "cat", "-l", "dog"], "'airplane'"),
    ],
)
def test_what_cannot_be_done_with_cifar_is_said(
    arguments: list[str], said: str, answer: Answer, tmp_path: Path
) -> None:
    cifar_10(tmp_path / "cifar", rows(2), [0, 1])
    other = {b"fine_labels": [0], b"data": rows(1)}
    (tmp_path / "cifar" / "other").write_bytes(python_2_pickle(other))
    (tmp_path / "cifar" / "meta").write_bytes(python_2_pickle({b"fine_label_names": [b"apple"]}))
    paint(tmp_path / "picture.png", "red")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=re.escape(said)):
        answer(*arguments, "--model", "picturebook", cwd=tmp_path)
    assert tree(tmp_path) == before


# -- sorting -----------------------------------------------------------------------------------------------------


def test_images_are_moved_into_folders_of_their_labels(run: Run, copy: Path) -> None:
    before = tree(copy)
    arguments = ("classify", "sample-images/dogs", "sample-images/food", *PETS, "--move-into", "sorted", "--json")
    planned = run(*arguments, "--dry-run", cwd=copy)
    assert tree(copy) == before
    assert re.search(r"\b32 images\b.* sorted\b", planned.stderr.decode())
    done = run(*arguments, cwd=copy)
    assert done.stdout == planned.stdout
    moved_to, hint = done.stderr.decode().splitlines()
    assert re.search(r"\b32 images\b.* sorted\b", moved_to)
    assert "clipsearch index" in hint
    found = json.loads(done.stdout)
    after = tree(copy)
    assert len(found) == 32
    assert sorted(after.values()) == sorted(before.values())  # nothing is lost
    for row in found:
        assert row["target"] == f"sorted/{row['label']}/{os.path.basename(row['path'])}"
        assert row["path"] not in after
        assert after[row["target"]] == before[row["path"]]
    # Once more from where they are now: all are in place.
    again = run("classify", "sorted", *PETS, "--move-into", "sorted", "--json", cwd=copy)
    assert tree(copy) == after
    assert re.search(r"\b0 images\b.* sorted\b.* 32 ", again.stderr.decode())


def test_copies_leave_everything_in_place_and_are_made_once(run: Run, copy: Path) -> None:
    before = tree(copy)
    arguments = ("classify", "sample-images/dogs", *PETS, "--copy-into", copy / "sorted", "--top", "2", "--json")
    done = run(*arguments, cwd=copy)
    assert re.search(r"^Copied 9 images\b.* sorted\b", done.stderr.decode())
    found = json.loads(done.stdout)
    after = tree(copy)
    assert {name: content for name, content in after.items() if not name.startswith("sorted")} == before
    assert len(after) == len(before) + 9
    assert all((row["target"] is None) == (row["rank"] == 2) for row in found)
    again = run(*arguments, cwd=copy)
    assert again.stdout == done.stdout
    assert b"Copied 0 images" in again.stderr
    assert tree(copy) == after


def test_unsure_images_stay_where_they_are(run: Run, classify: Classify, copy: Path) -> None:
    every = classify("--indexed", *PETS, cwd=copy)
    least = sum(sorted(row["probability"] for row in every)[200:202]) / 2
    arguments = ("--move-into", "sorted", "--min-probability", str(least))
    found = classify("--indexed", *PETS, *arguments, cwd=copy)
    assert {row["path"] for row in found} == {row["path"] for row in every if row["probability"] >= least}
    assert {row["path"] for row in every if (copy / row["path"]).exists()} == {
        row["path"] for row in every if row["probability"] < least
    }
    assert run("index", cwd=copy).returncode == 0


def test_an_indexed_image_that_is_gone_stops_all_moves(run: Run, copy: Path) -> None:
    os.unlink(copy / "sample-images" / "dogs" / "dog_0.webp")
    before = tree(copy)
    said = refused(run, "--indexed", *PETS, "--move-into", "sorted", cwd=copy)
    assert "dog_0.webp" in said
    assert "clipsearch index" in said
    assert tree(copy) == before


def picture(path: Path, content: str) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return os.fsencode(path)


def moved(pictures: list[tuple[bytes, str]], folder: Path) -> list[Step]:
    return list(carry_out(plan(pictures, folder, move=True), move=True))


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "one" / "x.png", "first"), picture(tmp_path / "two" / "x.png", "second")
    picture(tmp_path / "out" / "cat" / "x.png", "there before")
    (tmp_path / "out" / "cat" / "x-2.png").symlink_to("nowhere")
    (tmp_path / "out" / "cat" / "x-3.png").mkdir()
    moved([(first, "cat"), (second, "cat")], tmp_path / "out")
    found = tree(tmp_path)
    assert found == {"out/cat/x.png": b"there before", "out/cat/x-4.png": b"first", "out/cat/x-5.png": b"second"}
    assert os.readlink(tmp_path / "out" / "cat" / "x-2.png") == "nowhere"


def test_images_that_change_places_keep_their_names(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "cat" / "x.png", "a dog"), picture(tmp_path / "dog" / "x.png", "a cat")
    moved([(one, "dog"), (two, "cat")], tmp_path)
    assert tree(tmp_path) == {"dog/x-2.png": b"a dog", "cat/x.png": b"a cat"}


def test_equal_images_are_copied_once_and_moved_each(tmp_path: Path) -> None:
    pictures = [(picture(tmp_path / name / "x.png", "same"), "cat") for name in ("one", "two")]
    steps = list(carry_out(plan(pictures, tmp_path / "copies", move=False), move=False))
    assert [step.there for step in steps] == [False, True]
    assert tree(tmp_path / "copies") == {"cat/x.png": b"same"}
    moved(pictures, tmp_path / "moves")
    assert tree(tmp_path / "moves") == {"cat/x.png": b"same", "cat/x-2.png": b"same"}


def test_a_name_that_is_taken_after_the_plan_is_not_overwritten(tmp_path: Path) -> None:
    source = picture(tmp_path / "x.png", "mine")
    for move in (True, False):
        steps = plan([(source, "cat")], tmp_path / "out", move=move)
        picture(tmp_path / "out" / "cat" / "x.png", "another's")
        with pytest.raises(InputError, match=r"cat/x\.png"):
            list(carry_out(steps, move=move))
        assert tree(tmp_path) == {"x.png": b"mine", "out/cat/x.png": b"another's"}
        shutil.rmtree(tmp_path / "out")


def test_moving_to_another_file_system_copies_first(tmp_path: Path, another_file_system: Path) -> None:
    source = picture(tmp_path / "in" / "x.png", "picture")
    os.utime(source, (1_500_000_000, 1_500_000_000))
    moved([(source, "cat")], another_file_system / "out")
    assert tree(another_file_system) == {"out/cat/x.png": b"picture"}
    assert tree(tmp_path) == {}
    assert (another_file_system / "out" / "cat" / "x.png").stat().st_mtime == 1_500_000_000


def test_a_link_is_moved_as_a_link_to_the_same_file(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "real.png", "picture")
    (tmp_path / "in" / "link.png").symlink_to("real.png")
    moved([(os.fsencode(tmp_path / "in" / "link.png"), "cat")], tmp_path / "out")
    assert (tmp_path / "out" / "cat" / "link.png").read_text() == "picture"
    assert (tmp_path / "out" / "cat" / "link.png").is_symlink()
    assert sorted(os.listdir(tmp_path / "in")) == ["real.png"]


@pytest.mark.parametrize("first", ["file", "link"])
def test_a_link_and_its_target_that_are_both_moved_stay_together(tmp_path: Path, first: str) -> None:
    real = picture(tmp_path / "in" / "real.png", "picture")
    (tmp_path / "in" / "link.png").symlink_to("real.png")
    (tmp_path / "in" / "chain.png").symlink_to("link.png")
    links = [(os.fsencode(tmp_path / "in" / f"{name}.png"), "cat") for name in ("link", "chain")]
    pictures = [(real, "dog"), *links] if first == "file" else [*links, (real, "dog")]
    steps = moved(pictures, tmp_path / "out")
    assert [step.source for step in steps] == [source for source, _ in pictures]
    assert os.listdir(tmp_path / "in") == []
    for link in (tmp_path / "out" / "cat").iterdir():
        assert link.is_symlink()
        assert link.resolve() == (tmp_path / "out" / "dog" / "real.png").resolve()
    assert len(tree(tmp_path / "out")) == 3


def test_a_link_that_is_in_place_follows_its_target(tmp_path: Path) -> None:
    real = picture(tmp_path / "in" / "real.png", "picture")
    link = tmp_path / "out" / "cat" / "link.png"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "in" / "real.png")
    moved([(os.fsencode(link), "cat"), (real, "dog")], tmp_path / "out")
    assert link.read_text() == "picture"


def test_a_folder_that_is_reached_through_a_link_is_the_same_folder(tmp_path: Path) -> None:
    sources = [picture(tmp_path / "real" / "cat" / f"{name}.png", name) for name in ("a", "b")]
    (tmp_path / "link").symlink_to("real")
    before = tree(tmp_path / "real")
    for _ in range(2):
        steps = moved([(source, "cat") for source in sources], tmp_path / "link")
        assert all(step.there for step in steps)
        assert tree(tmp_path / "real") == before
    # And a picture that comes there meets the names that are there.
    moved([(picture(tmp_path / "in" / "a.png", "other"), "cat"), (sources[0], "dog")], tmp_path / "link")
    assert tree(tmp_path / "real") == {"cat/a-2.png": b"other", "cat/b.png": b"b", "dog/a.png": b"a"}


@pytest.mark.parametrize("name", ["link", "real"])
def test_a_folder_that_does_not_exist_yet_has_one_name_too(tmp_path: Path, name: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    sources = [picture(tmp_path / folder / "x.png", folder) for folder in ("one", "two")]
    moved([(source, "cat") for source in sources], tmp_path / name / "new")
    assert tree(tmp_path / "real") == {"new/cat/x.png": b"one", "new/cat/x-2.png": b"two"}


def test_an_image_that_cannot_leave_its_folder_is_not_moved(tmp_path: Path) -> None:
    sources = [picture(tmp_path / name / "x.png", name) for name in ("one", "two")]
    steps = plan([(source, "cat") for source in sources], tmp_path / "out", move=True)
    with deny(tmp_path / "two", stat.S_IRUSR | stat.S_IXUSR), pytest.raises(InputError, match=r"two/x\.png"):
        list(carry_out(steps, move=True))
    assert tree(tmp_path) == {"out/cat/x.png": b"one", "two/x.png": b"two"}


def test_names_that_are_not_utf8_stay_as_they_are(tmp_path: Path) -> None:
    source = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n.png")
    with open(source, "wb") as file:
        file.write(b"picture")
    (step,) = moved([(source, "cat")], tmp_path / "out")
    assert step.target == os.path.join(os.fsencode(tmp_path), b"out", b"cat", b"caf\xe9\n.png")
    assert os.path.exists(step.target)


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("a dog", "a dog"),
        ("and/or", "and_or"),
        ("..", "_"),
        (".", "_"),
        ("../../etc", "__.._etc"),
        (".hidden", "_hidden"),
        ("ends.", "ends"),
        ('C:\\x?*|"<>', "C__x______"),
        ("two\nlines\x00", "two_lines_"),
        ("\u96ea \U0001f415", "\u96ea \U0001f415"),
    ],
)
def test_labels_are_safe_names_of_folders(label: str, wanted: str) -> None:
    assert folder_names([label]) == [wanted]


def test_labels_that_would_share_a_folder_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'a/b'.* 'a:b'.* a_b\b"):
        folder_names(["a/b", "a:b"])
    with pytest.raises(InputError, match=r"'Dog'.*'dog'"):
        folder_names(["Dog", "dog"])
    with pytest.raises(InputError, match="\u96ea"):
        folder_names(["\u96ea" * 86])
    picture(tmp_path / "out" / "cat", "no folder")
    source = picture(tmp_path / "x.png", "picture")
    with pytest.raises(InputError, match="out/cat"):
        plan([(source, "cat")], tmp_path / "out", move=True)
    with pytest.raises(InputError, match="out/cat"):
        plan([(source, "x")], tmp_path / "out" / "cat", move=True)
    assert sorting.in_words([], tmp_path, move=True, dry_run=False).startswith("Moved 0 images")


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*PETS], "--indexed"),
        (["--indexed", "sample-images", *PETS], "--indexed"),
        (["--indexed"], "--label"),
        (["--indexed", "-l", "cat"], "'cat'"),
        (["--indexed", *PETS, "-l", "A Dog"], "'A Dog'"),
        (["--indexed", *PETS, "--template", "a photo"], "'a photo'"),
        (["--indexed", *PETS, "--report"], "--truth folders"),
        (["--indexed", *PETS, "--truth", "folders", "--report"], "no label"),
        (["--indexed", *PETS, "--truth", "missing.csv"], "missing.csv"),
        (["--indexed", *PETS, "--truth", "sample-images/captions.csv"], "captions.csv"),
        (["--indexed", *PETS, "--labels-from", "missing"], "missing"),
        (["--indexed", *PETS, "--labels-from", "empty"], "empty"),
        (["--indexed", *PETS, "--dry-run"], "--dry-run"),
        (["--indexed", *PETS, "--move-into", "a", "--copy-into", "b"], "--copy-into"),
        (["--indexed", "--truth", "folders", "--report", "--copy-into", "b"], "report"),
        (["--indexed", "--truth", "folders", "--report", "--min-probability", "0.5"], "--min-probability"),
        (["sample-images", *PETS, "-g", "*.png"], "Filters"),
        (["missing", *PETS], "missing"),
        (["--indexed", *PETS, "--json", "--format", "csv"], "format"),
    ],
)
def test_what_means_nothing_is_refused(
    arguments: list[str], said: str, answer: Answer, samples_and_an_empty_file: Path
) -> None:
    before = tree(samples_and_an_empty_file)
    with pytest.raises(InputError, match=re.escape(said)):
        answer(*arguments, cwd=samples_and_an_empty_file)
    assert tree(samples_and_an_empty_file) == before


def test_a_refusal_is_one_line_and_exit_code_2(run: Run, sample_index: Path) -> None:
    assert "'A Dog'" in refused(run, "--indexed", *PETS, "-l", "A Dog", "--move-into", "out", cwd=sample_index)
    assert "--min-probability" in refused(run, "--indexed", *PETS, "--min-probability", "1.5", cwd=sample_index)
    assert "not UTF-8" in refused(run, "--indexed", *PETS, "-l", b"\xff", cwd=sample_index)
    assert not (sample_index / "out").exists()


@pytest.fixture(scope="module")
def samples_and_an_empty_file(sample_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples and their index, beside an empty file; nothing may change them."""
    folder = Path(shutil.copytree(sample_index, tmp_path_factory.mktemp("refused") / "samples"))
    (folder / "empty").write_bytes(b"\n \n")
    return folder


def test_without_an_index_that_is_said(run: Run, tmp_path: Path) -> None:
    assert "No index" in refused(run, "--indexed", *PETS, cwd=tmp_path)


def test_the_index_says_which_model_is_used(run: Run, sample_index: Path) -> None:
    done = run("classify", "--indexed", "-g", "dog_0.webp", *PETS, cwd=sample_index, env={"CLIPSEARCH_MODEL": "openai"})
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"sample-images/dogs/dog_0.webp\t1\ta dog\t")
