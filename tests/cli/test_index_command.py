"""`clipsearch index`, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from conftest import PICTUREBOOK, REPOSITORY, Run, index, paint
from PIL import Image
from terminal import shown_on_a_terminal
from warm import Begun, Warm

from clipsearch.errors import ModelError
from clipsearch.images.codecs.decoding import decode
from clipsearch.index.format import FOLDER, ModelRecord
from clipsearch.index.reading import Store
from clipsearch.index.writing import Writer
from clipsearch.models.disk.catalog import PICTUREBOOK_NOTE
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_torch.encoder import Encoder

INDEX = ("-m", "clipsearch", "index")
PB = ("--model", "picturebook")
TORCH = ("--engine", "torch")


def rows_of(folder: Path) -> dict[str, np.ndarray]:
    """The vector of each file of an index, by file name."""
    with closing(Store.open(folder / FOLDER)) as store:
        matrix, _ = store.matrix()
        return {
            os.path.basename(os.fsdecode(r.path)): np.array(matrix[r.row]) for r in store.records() if r.row is not None
        }


def test_an_index_holds_a_unit_row_for_each_image(pictures: Path, run: Run) -> None:
    summary = index(run, "pictures", *PB, cwd=pictures.parent)
    assert (summary["images"], summary["embedded"], summary["unreadable"]) == (10, 10, [])
    assert (summary["device"], summary["precision"]) == ("cpu", "fp32")
    with closing(Store.open(pictures.parent / FOLDER)) as store:
        assert (store.last_run() or {})["seconds"] == summary["seconds"] > 0
    matrix = np.load(pictures.parent / FOLDER / "embeddings.npy")
    assert (matrix.shape, matrix.dtype) == ((10, 512), np.float16)
    np.testing.assert_allclose(np.linalg.norm(matrix.astype(np.float32), axis=1), 1, atol=1e-3)


def test_a_second_run_embeds_nothing(pictures: Path, run: Run) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    for arguments in (["pictures"], []):
        summary = index(run, *arguments, cwd=pictures.parent)
        assert (summary["embedded"], summary["reused"], summary["device"]) == (0, 10, None)


def test_one_folder_under_two_names_is_one_folder(pictures: Path, run: Run) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    summary = index(run, "pictures/cold/..", pictures, cwd=pictures.parent)
    assert (summary["images"], summary["embedded"]) == (10, 0)
    assert json.loads(run("status", "--json", cwd=pictures.parent).stdout)["roots"] == [
        {"path": "pictures", "images": 10}
    ]


def test_only_new_and_changed_images_are_embedded(pictures: Path, run: Run) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    paint(pictures / "new.png", "cyan")
    paint(pictures / "cold" / "red.png", "magenta", (80, 80))
    summary = index(run, "pictures", cwd=pictures.parent)
    assert (summary["embedded"], summary["reused"], summary["images"]) == (2, 9, 11)


def test_touched_moved_and_copied_images_keep_their_vector_without_the_model(pictures: Path, run: Run) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    before = rows_of(pictures.parent)
    os.utime(pictures / "cold" / "red.png", (1, 1))
    (pictures / "cold" / "blue.png").rename(pictures / "moved.png")
    shutil.copy(pictures / "warm" / "green.png", pictures / "copy.png")
    summary = index(run, cwd=pictures.parent)
    assert summary["device"] is None
    counted = ("embedded", "moved", "removed", "reused", "unchanged", "touched", "copied", "images")
    assert {key: summary[key] for key in counted} == {
        "embedded": 0,
        "moved": 1,
        "removed": 0,
        "reused": 10,
        "unchanged": 8,
        "touched": 1,
        "copied": 1,
        "images": 11,
    }
    after = rows_of(pictures.parent)
    np.testing.assert_array_equal(after["red.png"], before["red.png"])
    np.testing.assert_array_equal(after["moved.png"], before["blue.png"])
    np.testing.assert_array_equal(after["copy.png"], before["green.png"])


def test_deleted_images_disappear_from_results(pictures: Path, run: Run) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    (pictures / "cold" / "red.png").unlink()
    summary = index(run, "pictures", cwd=pictures.parent)
    assert (summary["removed"], summary["images"]) == (1, 9)
    found = run("query", "red", "-k", "50", cwd=pictures.parent).stdout
    assert found.count(b"\n") == 9
    assert b"red.png" not in found


def test_one_folder_of_several_can_be_refreshed_alone(pictures: Path, run: Run) -> None:
    index(run, "pictures/cold", "pictures/warm", *PB, cwd=pictures.parent)
    (pictures / "cold" / "red.png").unlink()
    (pictures / "warm" / "green.png").unlink()
    summary = index(run, "pictures/cold", cwd=pictures.parent)
    assert (summary["removed"], summary["images"]) == (1, 9)


def test_unreadable_images_are_skipped_named_and_counted(pictures: Path, run: Run) -> None:
    whole = (pictures / "cold" / "red.png").read_bytes()
    (pictures / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "text.jpg").write_text("no picture")
    done = run("index", "pictures", *PB, "--json", cwd=pictures.parent)
    assert done.returncode == 0
    summary = json.loads(done.stdout)
    assert [(u["path"], u["reason"].split(":")[0]) for u in summary["unreadable"]] == [
        ("pictures/text.jpg", "not an image of a known format"),
        ("pictures/truncated.png", "truncated"),
    ]
    assert (summary["images"], summary["embedded"]) == (10, 10)
    assert "pictures/text.jpg: " in done.stderr.decode()
    assert "2 unreadable" in done.stderr.decode()
    # They are not read again while they stay as they are, but still named; --strict makes them an error.
    again = run("index", "pictures", "--strict", "--json", cwd=pictures.parent)
    assert again.returncode == 2
    assert len(json.loads(again.stdout)["unreadable"]) == 2
    # Mended, it is indexed.
    (pictures / "truncated.png").write_bytes(whole + b"\0")
    assert index(run, "pictures", cwd=pictures.parent)["images"] == 11


def test_batch_size_does_not_change_results(pictures: Path, run: Run) -> None:
    vectors = []
    for size in ("1", "3", "64"):
        where = pictures.parent / size
        index(run, "pictures", *PB, "--batch-size", size, "--index", where, cwd=pictures.parent)
        with closing(Store.open(where)) as store:
            matrix, _ = store.matrix()
            vectors.append({r.path: np.array(matrix[r.row], np.float32) for r in store.records()})
    for other in vectors[1:]:
        for path, vector in vectors[0].items():
            np.testing.assert_allclose(other[path], vector, atol=5e-4)  # one unit in the last place of float16


def test_the_precision_is_chosen_or_asked_for_and_reported(pictures: Path, run: Run) -> None:
    small = run("index", "pictures", *PB, "--json", *TORCH, cwd=pictures.parent)
    assert (reason := json.loads(small.stdout)["precision_reason"]) == "the model is small"
    assert f"fp32 ({reason})" in small.stderr.decode()
    plain = rows_of(pictures.parent)
    paint(pictures / "new.png", "teal")
    asked = run("index", *PB, "--json", "--precision", "bf16", "--index", "bf16", "pictures", cwd=pictures.parent)
    assert (json.loads(asked.stdout)["precision"], b"in bf16 (as asked for" in asked.stderr) == ("bf16", True)
    with closing(Store.open(pictures.parent / "bf16")) as store:
        matrix, _ = store.matrix()
        rough = {os.path.basename(os.fsdecode(r.path)): np.array(matrix[r.row]) for r in store.records()}
    cosines = [float(rough[name].astype(np.float32) @ row.astype(np.float32)) for name, row in plain.items()]
    assert min(cosines) > 0.998
    assert any((rough[name] != row).any() for name, row in plain.items())
    idle = run("index", "--json", "--precision", "bf16", "--index", "bf16", cwd=pictures.parent)
    keys = ("device", "device_reason", "precision", "precision_reason")
    assert [json.loads(idle.stdout)[key] for key in keys] == [None] * 4
    assert b"Computed" not in idle.stderr


def test_exact_vectors_are_those_of_images_in_full(tmp_path: Path, run: Run) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
    (tmp_path / "large").mkdir()
    coarse.resize((1601, 1203), Image.Resampling.BICUBIC).save(tmp_path / "large" / "a.jpg", quality=90)
    rows = {}
    for options in ([], ["--exact"]):
        index(run, "large", *PB, *options, "--index", tmp_path / "".join(["i", *options]), cwd=tmp_path)
        with closing(Store.open(tmp_path / "".join(["i", *options]))) as store:
            rows["".join(options)] = np.array(store.matrix()[0][0], np.float32)
            assert [(r.width, r.height) for r in store.records()] == [(1601, 1203)]
    encoder = Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu", "fp32", exact=True)
    picture = decode((tmp_path / "large" / "a.jpg").read_bytes())
    (full,) = encoder.encode_images(encoder.preprocessing(picture.image)[np.newaxis])
    np.testing.assert_allclose(rows["--exact"], full, atol=2e-4)  # float16
    assert rows[""] @ full > 0.9999 - 1e-3
    assert np.abs(rows[""] - full).max() > np.abs(rows["--exact"] - full).max()


def test_exact_and_fewer_bits_exclude_each_other(pictures: Path, run: Run) -> None:
    done = run("index", "pictures", *PB, "--exact", "--precision", "bf16", cwd=pictures.parent)
    assert done.returncode == 2
    assert b"bf16" in done.stderr
    assert not (pictures.parent / FOLDER).exists()


def many_pictures(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(folder / f"{i:04}.bmp")
    return folder


def committed(folder: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{folder / FOLDER / 'index.db'}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM images").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_index_resumes(tmp_path: Path, run: Run, with_torch: Warm, how: signal.Signals) -> None:
    total = 200
    many_pictures(tmp_path / "many", total)
    with with_torch.begin([*INDEX, "many", *PB, "--batch-size", "4"], cwd=tmp_path) as process:
        os.setpriority(os.PRIO_PROCESS, process.pid, 5)  # this test has to be in time on a busy machine
        while process.poll() is None and not committed(tmp_path):
            time.sleep(0.01)
        process.send_signal(how)
        talk = process.communicate(timeout=60)[1].decode()
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how)
    done = committed(tmp_path)
    assert 0 < done < total
    if how != signal.SIGKILL:
        last = talk.strip().splitlines()[-1]
        assert last == ("Interrupted." if how == signal.SIGINT else f"Ended by {how.name}.")
        assert "Traceback" not in talk
        assert json.loads(run("status", "--json", cwd=tmp_path).stdout)["last_run"]["outcome"] == "interrupted"
    assert run("query", "a dog", cwd=tmp_path).returncode == 0
    summary = index(run, "many", cwd=tmp_path)
    assert (summary["embedded"], summary["reused"], summary["images"]) == (total - done, done, total)
    assert len(np.load(tmp_path / FOLDER / "embeddings.npy")) == total


def test_a_model_folder_beside_the_images_is_used_through_the_settings(
    pictures: Path, run: Run, small_clip: Path
) -> None:
    shutil.copytree(small_clip, pictures.parent / "my-clip")
    (pictures / "clipsearch.toml").write_text('model = "../my-clip"\n')
    assert index(run, "pictures", cwd=pictures.parent)["embedded"] == 10
    status = json.loads(run("status", "--json", cwd=pictures.parent).stdout)
    assert (status["model"], status["dim"]) == (str(pictures.parent / "my-clip"), 32)
    assert run("query", "a dog", cwd=pictures.parent).stdout.count(b"\n") == 10


def test_picturebook_says_what_it_is(pictures: Path, run: Run) -> None:
    done = run("index", "pictures", *PB, cwd=pictures.parent)
    assert f"Note: {PICTUREBOOK_NOTE}" in done.stderr.decode()
    assert done.stdout == b""


def test_the_progress_bar_shows_on_a_terminal_only(pictures: Path, with_torch: Warm, run: Run) -> None:
    shown = shown_on_a_terminal([*INDEX, "pictures", *PB], pictures.parent, with_torch)
    assert b"10/10" in shown
    assert b"images" in shown
    quiet = run("index", "pictures", *PB, "--index", "other", cwd=pictures.parent)
    assert quiet.returncode == 0
    assert b"10/10" not in quiet.stderr


def test_the_progress_bar_is_back_after_the_model_and_has_no_rate_for_what_is_known(
    pictures: Path, with_torch: Warm, run: Run
) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    for i in range(300):
        shutil.copy(pictures / "cold" / "red.png", pictures / f"{i}.png")
    shown = shown_on_a_terminal([*INDEX, "pictures", *PB], pictures.parent, with_torch)
    assert b"300/300" in shown
    assert b"/s" not in shown
    paint(pictures / "new.png", "cyan")
    assert b"1/1" in shown_on_a_terminal([*INDEX, "pictures", *PB], pictures.parent, with_torch)


def test_several_folders_are_refreshed_by_one_word(pictures: Path, run: Run) -> None:
    index(run, "pictures/cold", *PB, cwd=pictures.parent)
    index(run, "pictures/warm", cwd=pictures.parent)
    paint(pictures / "cold" / "new.png", "cyan")
    (pictures / "warm" / "green.png").unlink()
    summary = index(run, cwd=pictures.parent)
    assert (summary["embedded"], summary["removed"], summary["images"]) == (1, 1, 10)


def test_flags_that_choose_files_are_remembered(pictures: Path, run: Run) -> None:
    paint(pictures / ".hidden" / "a.png", "cyan")
    elsewhere = paint(pictures.parent / "elsewhere" / "b.png", "magenta").parent
    (pictures / "link").symlink_to(elsewhere)
    choice = ("--include-hidden", "--follow-symlinks", "--exclude", "cold/", "--exclude", "gr*.png")
    expected = {"a.png", "b.png", "black.png", "orange.png", "yellow.png"}
    index(run, "pictures", *PB, *choice, cwd=pictures.parent)
    for again in ([], ["pictures"]):
        assert index(run, *again, cwd=pictures.parent)["embedded"] == 0
        assert set(rows_of(pictures.parent)) == expected
    assert index(run, "--no-include-hidden", cwd=pictures.parent)["images"] == 10
    assert set(rows_of(pictures.parent)) & {"a.png", "b.png"} == set()


def test_quiet_says_nothing(pictures: Path, run: Run) -> None:
    (pictures / "bad.png").write_bytes(b"no picture")
    done = run("index", "pictures", *PB, "--quiet", cwd=pictures.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    # An error is said even so, and with --strict an unreadable file is one.
    strict = run("index", "-q", "--strict", cwd=pictures.parent)
    assert strict.returncode == 2
    (said,) = strict.stderr.decode().splitlines()
    assert "pictures/bad.png: " in said


def test_in_a_pipe_there_is_one_line_for_the_run(pictures: Path, run: Run) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    done = run("index", cwd=pictures.parent)
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("10 images in the index (10 unchanged) in ")


def wait_until_begun(process: subprocess.Popen[bytes] | Begun, folder: Path) -> None:
    """Until a run has said in its index that it is at work; what comes next is the model, which takes a while."""
    while process.poll() is None:
        if Store.exists(folder):
            with closing(Store.open(folder)) as store:
                if store.last_run():
                    return
        time.sleep(0.01)


def without_torch(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """An environment in which nobody can load a model."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text("raise RuntimeError('a model was loaded')")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "broken"), environment.get("PYTHONPATH", "")])}


def test_a_second_run_on_a_new_folder_is_refused_before_it_loads_a_model(
    pictures: Path, run: Run, environment: dict[str, str]
) -> None:
    home = pictures.parent
    env = without_torch(home, environment)
    with Writer.locked(home / FOLDER):
        refused = run("index", "pictures", *PB, cwd=home, env=env)
        imported = run("import", "vectors.npy", "names.csv", *PB, cwd=home, env=env)
    for done in (refused, imported):
        assert done.returncode == 2
        assert b"--wait SECONDS" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert b"a model was loaded" in run("index", "pictures", *PB, *TORCH, cwd=home, env=env).stderr


def test_a_first_run_can_be_watched_and_a_killed_one_is_told_from_one_at_work(
    tmp_path: Path, run: Run, environment: dict[str, str]
) -> None:
    many_pictures(tmp_path / "many", 30)
    command = [sys.executable, *INDEX, "many", *PB, *TORCH]  # which imports PyTorch before the first image
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_until_begun(process, tmp_path / FOLDER)
        process.send_signal(signal.SIGSTOP)
        assert process.poll() is None, "the run was over too soon for this test"
        query = run("query", "a dog", cwd=tmp_path)
        text, status = run("status", cwd=tmp_path), json.loads(run("status", "--json", cwd=tmp_path).stdout)
        process.kill()
        process.send_signal(signal.SIGCONT)
    # Nothing was searched, so "nothing found" would be wrong.
    assert query.returncode == 2
    assert os.fsencode(tmp_path / FOLDER) in query.stderr
    assert b"clipsearch index" not in query.stderr
    assert status["roots"] == [{"path": "many", "images": 0}]
    assert (status["at_work"], status["whole"], status["images"]) == (True, False, 0)
    assert "0 images" in text.stdout.decode()
    assert "killed" not in text.stdout.decode()

    query = run("query", "a dog", cwd=tmp_path)
    assert query.returncode == 2
    assert b"clipsearch index" in query.stderr
    text, status = run("status", cwd=tmp_path), json.loads(run("status", "--json", cwd=tmp_path).stdout)
    assert (status["at_work"], status["whole"]) == (False, False)
    assert "killed" in text.stdout.decode()

    assert index(run, *PB, cwd=tmp_path)["embedded"] == 30
    done = run("query", "a dog", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    status = json.loads(run("status", "--json", cwd=tmp_path).stdout)
    assert (status["at_work"], status["whole"]) == (False, True)


def test_a_query_of_a_part_says_that_it_is_one(pictures: Path, run: Run) -> None:
    home = pictures.parent
    index(run, "pictures", *PB, cwd=home)
    with closing(sqlite3.connect(home / FOLDER / "index.db")) as database, database:  # as a first run has it half way
        database.execute("UPDATE roots SET options = json_set(options, '$.readers', null)")
        database.execute("UPDATE meta SET value = json_set(value, '$.outcome', 'unfinished') WHERE key = 'last_run'")
    with Writer.locked(home / FOLDER):
        done = run("query", "a dog", cwd=home)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 10)
    assert "10 images" in done.stderr.decode()
    assert "clipsearch index" not in done.stderr.decode()
    done = run("query", "a dog", cwd=home)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 10)
    assert re.search(r"\b10 images\b.* clipsearch index", done.stderr.decode())
    index(run, cwd=home)
    assert run("query", "a dog", cwd=home).stderr == b""


def test_a_later_run_that_is_killed_does_not_make_queries_talk(pictures: Path, run: Run) -> None:
    home = pictures.parent
    index(run, "pictures", *PB, cwd=home)
    with closing(sqlite3.connect(home / FOLDER / "index.db")) as database, database:
        database.execute("UPDATE meta SET value = json_set(value, '$.outcome', 'unfinished') WHERE key = 'last_run'")
    assert run("query", "a dog", cwd=home).stderr == b""
    assert b"killed" in run("status", cwd=home).stdout


@pytest.mark.parametrize("named", [[], ["--index", "new/index"]], ids=["here", "elsewhere"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere", *PB],
        ["empty", *PB],
        ["pictures", "--model", "./no-model"],
        ["pictures", *PB, "--exclude", "!"],
        ["pictures", *PB, "--device", "cuda:7"],
    ],
    ids=" ".join,
)
def test_a_first_run_that_fails_at_once_leaves_nothing(
    pictures: Path, run: Run, arguments: list[str], named: list[str]
) -> None:
    home = pictures.parent
    (home / "empty").mkdir()
    (home / "no-model").mkdir()
    (pictures / "a first one that cannot be read.png").write_bytes(b"no picture")
    before = sorted(home.iterdir())
    done = run("index", *arguments, *named, cwd=home)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert sorted(home.iterdir()) == before


def test_a_first_run_interrupted_before_its_first_image_leaves_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    many_pictures(tmp_path / "many", 30)
    command = [sys.executable, *INDEX, "many", *PB, *TORCH]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
        wait_until_begun(process, tmp_path / FOLDER)
        process.send_signal(signal.SIGINT)
        talk = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert talk == b"Interrupted.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["many"]


def test_ctrl_c_within_generated_code_of_a_library_has_its_exit_code(
    pictures: Path, run: Run, environment: dict[str, str]
) -> None:
    broken = pictures.parent / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("exec('raise KeyboardInterrupt')")  # as within a dataclass that is being made
    path = os.pathsep.join([str(broken), environment.get("PYTHONPATH", "")])
    done = run("index", "pictures", *PB, *TORCH, cwd=pictures.parent, env={"PYTHONPATH": path})
    assert (done.returncode, done.stderr) == (130, b"Interrupted.\n")


def test_a_run_that_waited_for_one_that_failed_begins_anew(pictures: Path, run: Run, with_torch: Warm) -> None:
    home = pictures.parent
    command = [*INDEX, "pictures", *PB, "--wait", "100"]
    first = ExitStack()
    first.enter_context(Writer.locked(home / FOLDER))
    with with_torch.begin(command, cwd=home) as second:
        assert b"is writing" in second.stderr.readline()
        first.__exit__(ModelError, ModelError(), None)
        second.communicate(timeout=100)
    assert second.returncode == 0
    assert json.loads(run("status", "--json", "--verify", cwd=home).stdout)["problems"] == []


def test_an_index_without_images_may_have_another_model(pictures: Path, run: Run, small_clip: Path) -> None:
    home = pictures.parent
    with Writer.locked(home / FOLDER) as writer:  # as a run leaves it that is killed once its model is loaded
        writer.set_model(ModelRecord("laion", None, "7" * 32, 512))
        writer.commit()
    assert index(run, "pictures", "--model", small_clip, cwd=home)["embedded"] == 10
    status = json.loads(run("status", "--json", "--verify", cwd=home).stdout)
    assert (status["dim"], status["problems"]) == (32, [])
    done = run("index", "pictures", *PB, cwd=home)
    assert (done.returncode, b"--index DIR" in done.stderr) == (2, True)


def test_a_second_run_at_once_says_so_or_waits(tmp_path: Path, run: Run, with_torch: Warm) -> None:
    total = 200
    many_pictures(tmp_path / "many", total)
    with with_torch.begin([*INDEX, "many", *PB, *TORCH], cwd=tmp_path) as first:
        os.setpriority(os.PRIO_PROCESS, first.pid, 5)  # this test has to be in time on a busy machine
        wait_until_begun(first, tmp_path / FOLDER)
        first.send_signal(signal.SIGSTOP)  # it holds the lock for as long as this test needs
        assert first.poll() is None, "the first run was over too soon for this test"
        refused = run("index", "many", cwd=tmp_path)
        with with_torch.begin([*INDEX, "many", "--wait", "100", "--json"], cwd=tmp_path) as second:
            waiting = second.stderr.readline()
            first.send_signal(signal.SIGCONT)
            assert run("query", "a dog", cwd=tmp_path).returncode in (0, 2)  # 2 before the first checkpoint
            out, _ = second.communicate(timeout=120)
    assert (first.returncode, refused.returncode, second.returncode) == (0, 2, 0)
    assert b"--wait SECONDS" in refused.stderr
    assert waiting.startswith(b"Waiting")
    assert json.loads(out)["reused"] == total


def test_a_folder_of_hostile_names_and_things(pictures: Path, run: Run) -> None:
    odd = os.fsencode(pictures / "odd")
    os.mkdir(odd)
    good = (pictures / "cold" / "red.png").read_bytes()
    names = [b"a b.png", b"new\nline.png", b"quote'\".png", "\U0001f431.png".encode(), b"\x1b[31m.png", b"\xff\xfe.png"]
    for i, name in enumerate(names):
        with open(os.path.join(odd, name), "wb") as file:
            file.write(good + bytes([i]))
    os.mkfifo(os.path.join(odd, b"pipe.png"))
    os.symlink(b"circle.png", os.path.join(odd, b"circle.png"))
    os.symlink(b"..", os.path.join(odd, b"up"))
    for name, content in (
        (b"empty.jpg", b""),
        (b"text.jpg", b"hello"),
        (b"postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    ):
        with open(os.path.join(odd, name), "wb") as file:
            file.write(content)
    done = run("index", "pictures", *PB, "--json", "--follow-symlinks", cwd=pictures.parent, timeout=60)
    assert done.returncode == 0
    summary = json.loads(done.stdout)
    assert summary["images"] == 10 + len(names)
    assert {os.path.basename(u["path"]): u["reason"] for u in summary["unreadable"]} == {
        "pipe.png": "a FIFO, not a file",
        "circle.png": "Too many levels of symbolic links",
        "empty.jpg": "empty file",
        "text.jpg": "not an image of a known format",
        "postscript.jpg": "not an image of a known format",
    }
    assert b"\x1b" not in done.stderr
    found = run("query", "red", "-k", "99", "-0", cwd=pictures.parent).stdout.split(b"\0")
    assert {os.path.basename(path) for path in found} >= set(names)


def test_a_flood_of_unreadable_files_does_not_flood_the_terminal(pictures: Path, run: Run) -> None:
    for i in range(200):
        (pictures / f"bad{i:03}.tif").write_bytes(b"II*\0\x08\0\0\0" + bytes([i]) * 40)
    done = run("index", "pictures", *PB, "--json", cwd=pictures.parent)
    assert len(json.loads(done.stdout)["unreadable"]) == 200
    lines = done.stderr.decode().splitlines()
    assert len(lines) < 30
    assert "... and 180 more; --json names them all." in lines


def test_an_index_folder_without_write_permission(pictures: Path, run: Run) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    paint(pictures / "new.png", "cyan")
    folder = pictures.parent / FOLDER
    for path in (folder / "lock", folder / "index.db", folder / "embeddings.npy"):
        path.chmod(0o400)
    folder.chmod(0o500)
    try:
        done = run("index", cwd=pictures.parent, unprivileged=True)
        found = run("query", "red", cwd=pictures.parent, unprivileged=True)
    finally:
        folder.chmod(0o700)
    assert done.returncode == 2
    assert os.fsencode(folder) in done.stderr
    assert b"Traceback" not in done.stderr
    assert (found.returncode, found.stdout.count(b"\n")) == (0, 10)


def test_a_photo_has_one_vector_in_all_eight_orientations(tmp_path: Path, run: Run) -> None:
    photos = REPOSITORY.parent / "shared" / "photos" / "exif-orientation"
    if not photos.is_dir():
        pytest.skip("needs the reference material beside the project (shared/photos)")
    index(run, photos, *PB, cwd=tmp_path)
    vectors = {name: row.astype(np.float32) for name, row in rows_of(tmp_path).items() if name.endswith(".jpg")}
    kinds = [
        np.stack([vectors[name] for name in sorted(vectors) if kind in name]) for kind in ("Landscape", "Portrait")
    ]
    assert [len(kind) for kind in kinds] == [9, 9]
    for kind in kinds:
        assert (kind @ kind.T).min() > 0.99
    assert (kinds[0] @ kinds[1].T).max() < 0.9
