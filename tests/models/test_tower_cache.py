"""The user's cache: what is damaged there is found out and made anew, and never gives an answer."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PICTUREBOOK, Run, deny, make_clip, paint
from faulty import Faults, Kind, read_log
from hub_server import serving
from warm import Warm

from clipsearch.models.disk.files import ModelFiles, fingerprint
from clipsearch.models.in_numpy import sealed, tower_cache
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.search.confidence import NEUTRAL
from clipsearch.system.checksums import Compared, checksum, identity

WEIGHTS, TABLES, TOKENIZER = "text_tower.safetensors", "tokens.safetensors", "tokenizer.json"
FILES = (WEIGHTS, TABLES, TOKENIZER, "text_tower.json", "tokens.json", "checksums.json")


@pytest.fixture(scope="module")
def made_cache(tmp_path_factory: pytest.TempPathFactory, run: Run, sample_index: Path) -> Path:
    """A cache with picturebook's text tower and the neutral prompts. Tests copy it."""
    cache = tmp_path_factory.mktemp("made") / "cache"
    assert run("query", "a dog", cwd=sample_index, env={"CLIPSEARCH_CACHE": str(cache)}).returncode == 0
    return cache


@pytest.fixture
def cache(tmp_path: Path, run: Run, sample_index: Path, made_cache: Path) -> tuple[dict[str, str], Path]:
    """A cache of its own with picturebook's text tower, compared: variables that name it, and the tower's folder."""
    env = {"CLIPSEARCH_CACHE": str(shutil.copytree(made_cache, tmp_path / "cache"))}
    assert run("query", "a dog", cwd=sample_index, env=env).returncode == 0
    return env, tower_in(tmp_path / "cache", PICTUREBOOK)


def tower_in(cache: Path, model: Path) -> Path:
    (folder,) = cache.glob(f"text-towers-*/{fingerprint(model)}")
    return folder


def zeros(path: Path) -> None:
    """4,000 zero bytes in the middle, as a file system leaves them that had no time to write."""
    with path.open("r+b") as file:
        file.seek(max(0, path.stat().st_size // 2 - 2000))
        file.write(bytes(min(4000, path.stat().st_size // 2)))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def answers(run: Run, folder: Path, env: dict[str, str], *texts: str) -> list[Any]:
    done = run("query", *(texts or ("a dog",)), "--json", cwd=folder, env=env)
    assert done.returncode == 0, done.stderr.decode()
    return [*json.loads(done.stdout), done.stderr.decode()]


# -- towers ------------------------------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((WEIGHTS, damage) for damage in (zeros, cut, one_bit, Path.unlink)),
        *((TABLES, zeros), (TOKENIZER, one_bit), ("tokens.json", Path.unlink), ("text_tower.json", empty)),
        *(("checksums.json", damage) for damage in (zeros, empty, Path.unlink)),
    ],
)
def test_a_damaged_tower_is_made_anew_with_one_line(
    run: Run, sample_index: Path, cache: tuple[dict[str, str], Path], file: str, damage: Callable[[Path], object]
) -> None:
    env, tower = cache
    *right, _ = answers(run, sample_index, env)
    damage(tower / file)
    *found, said = answers(run, sample_index, env)
    assert found == right
    assert len(said.splitlines()) == 1
    assert "'picturebook'" in said
    assert file in said
    assert answers(run, sample_index, env) == [*right, ""]
    assert sorted(path.name for path in tower.parent.iterdir()) == [tower.name]  # nothing is left behind


def test_damage_is_seen_even_if_size_and_time_stay(
    run: Run, sample_index: Path, cache: tuple[dict[str, str], Path]
) -> None:
    env, tower = cache
    before = (tower / TABLES).stat()
    zeros(tower / TABLES)
    os.utime(tower / TABLES, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "is damaged" in answers(run, sample_index, env)[-1]


def test_a_folder_that_became_a_file_is_made_anew(
    run: Run, sample_index: Path, cache: tuple[dict[str, str], Path]
) -> None:
    env, tower = cache
    shutil.rmtree(tower)
    tower.write_text("")
    assert "is damaged" in answers(run, sample_index, env)[-1]
    assert answers(run, sample_index, env)[-1] == ""


def test_a_tower_is_read_once_and_then_only_looked_at(
    sample_index: Path, cache: tuple[dict[str, str], Path], without_torch: Warm
) -> None:
    env, tower = cache
    count = (
        "import sys, clipsearch.models.in_numpy.sealed as t\n"
        "real, read = t.checksum, []\n"
        "t.checksum = lambda path: (read.append(path.name), real(path))[1]\n"
        "from clipsearch.cli import main\n"
        "sys.argv = ['clipsearch', 'query', 'a dog']\n"
        "try:\n    main()\nexcept SystemExit:\n    print(len(read), file=sys.stderr)\n"
    )

    def read() -> int:
        return int(without_torch.run(["-c", count], cwd=sample_index, env=env).stderr)

    assert read() == 0
    os.utime(tower / WEIGHTS)
    assert read() == len(FILES) - 1
    assert read() == 0
    for content in (b"[1]", b'{"tokenizer.json": 7}', b"[" * 10**5, bytes(500)):
        (tower / "compared.json").write_bytes(content)
        assert read() == len(FILES) - 1, content
        assert read() == 0


def test_a_damaged_tower_without_its_model_is_one_error_with_the_command(
    run: Run, tmp_path: Path, small_clip: Path
) -> None:
    paint(tmp_path / "p" / "a.png", "red")
    with serving() as hub:
        hub.add("somebody/small-clip", small_clip)
        env = hub.environment(tmp_path / "hf") | {"CLIPSEARCH_CACHE": str(tmp_path / "cache")}
        done = run("index", "p", "--model", "somebody/small-clip", cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "hf")
        zeros(tower_in(tmp_path / "cache", small_clip) / WEIGHTS)
        done = run("query", "a dog", cwd=tmp_path, env=env)
        (said,) = done.stderr.decode().splitlines()
        assert done.returncode == 2
        assert done.stdout == b""
        assert "damaged" in said
        assert "clipsearch models pull somebody/small-clip@" in said
        assert not (tmp_path / "hf").exists()  # nobody asked for a download
        done = run("models", "pull", said.rpartition(" ")[2], cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
    assert run("query", "a dog", cwd=tmp_path, env=env | {"HF_HUB_OFFLINE": "1"}).stderr == b""


def test_a_damaged_tower_of_a_folder_that_is_gone(run: Run, tmp_path: Path) -> None:
    model, env = make_clip(tmp_path / "model"), {"CLIPSEARCH_CACHE": str(tmp_path / "cache")}
    paint(tmp_path / "p" / "a.png", "red")
    assert run("index", "p", "--model", "./model", cwd=tmp_path, env=env).returncode == 0
    cut(tower_in(tmp_path / "cache", model) / WEIGHTS)
    shutil.rmtree(model)
    done = run("query", "a dog", cwd=tmp_path, env=env)
    (said,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (2, b"")
    assert "damaged" in said
    assert str(model) in said


def test_a_cache_that_cannot_be_written_is_compared_each_time(
    run: Run, sample_index: Path, cache: tuple[dict[str, str], Path]
) -> None:
    env, tower = cache
    *right, _ = answers(run, sample_index, env)
    (tower / "compared.json").unlink()
    with deny(tower, 0o555), deny(tower.parent, 0o555):
        for _ in range(2):
            done = run("query", "a dog", "--json", cwd=sample_index, env=env, unprivileged=True)
            assert (done.returncode, done.stderr) == (0, b"")
            assert json.loads(done.stdout) == right
    zeros(tower / TABLES)
    with deny(tower, 0o555), deny(tower.parent, 0o555):
        done = run("query", "a dog", cwd=sample_index, env=env, unprivileged=True)
    assert (done.returncode, done.stdout) == (2, b"")
    said = done.stderr.decode().splitlines()
    assert "is damaged" in said[0]
    assert "CLIPSEARCH_CACHE" in said[-1]
    assert len(said) == 2


def test_two_queries_that_find_the_same_damage_both_answer(
    sample_index: Path, cache: tuple[dict[str, str], Path], without_torch: Warm, run: Run
) -> None:
    env, tower = cache
    *right, _ = answers(run, sample_index, env)
    zeros(tower / WEIGHTS)
    program = ["-m", "clipsearch", "query", "a dog", "--json"]
    both = [without_torch.begin(program, cwd=sample_index, env=env) for _ in range(2)]
    for process in both:
        with process:
            out, said = process.communicate(120)
        assert process.returncode == 0, said
        assert json.loads(out) == right
    assert answers(run, sample_index, env) == [*right, ""]
    assert sorted(path.name for path in tower.parent.iterdir()) == [tower.name]


def test_index_and_pull_make_a_damaged_tower_anew(run: Run, tmp_path: Path) -> None:
    model, env = make_clip(tmp_path / "model"), {"CLIPSEARCH_CACHE": str(tmp_path / "cache")}
    paint(tmp_path / "p" / "a.png", "red")
    assert run("index", "p", "--model", "./model", cwd=tmp_path, env=env).returncode == 0
    tower = tower_in(tmp_path / "cache", model)
    zeros(tower / WEIGHTS)
    paint(tmp_path / "p" / "b.png", "blue")
    done = run("index", "p", cwd=tmp_path, env=env)
    assert done.returncode == 0
    assert done.stderr.decode().count("in the cache is damaged") == 1
    assert run("query", "a dog", cwd=tmp_path, env=env).stderr == b""
    zeros(tower / TOKENIZER)
    done = run("models", "pull", "./model", cwd=tmp_path, env=env)
    assert done.returncode == 0
    assert done.stderr.decode().count("in the cache is damaged") == 1
    assert run("query", "a dog", cwd=tmp_path, env=env).stderr == b""


def test_status_and_check_compare_everything_whatever_was_noted(
    run: Run, sample_index: Path, cache: tuple[dict[str, str], Path]
) -> None:
    env, tower = cache
    assert run("status", "--verify", cwd=sample_index, env=env).returncode == 0

    def rot() -> None:
        """Bits change on the disk, and the file system knows nothing of it."""
        one_bit(tower / WEIGHTS)
        known = {path.name: identity(path) for path in tower.iterdir() if path.name in FILES}
        (tower / "compared.json").write_text(json.dumps(known))
        assert tower / WEIGHTS in Compared(tower / "compared.json")

    rot()
    done = run("status", "--verify", cwd=sample_index, env=env)
    assert done.returncode == 2
    assert re.search(f"^DAMAGED: .* picturebook .*{WEIGHTS}", done.stdout.decode(), re.MULTILINE)
    assert "clipsearch models pull picturebook" in done.stdout.decode()
    (problem,) = json.loads(run("status", "--verify", "--json", cwd=sample_index, env=env).stdout)["problems"]
    assert WEIGHTS in problem["what"]
    assert "is damaged" in answers(run, sample_index, env)[-1]  # what was found is not forgotten
    rot()
    done = run("models", "check", "picturebook", "--json", cwd=sample_index, env=env)
    assert done.returncode == 1
    (row,) = [row for row in json.loads(done.stdout) if row["result"] == "differs"]
    assert (row["check"], row["got"]) == ("text tower in the cache", f"damaged: {WEIGHTS} is not what was written")
    assert run("models", "check", "picturebook", cwd=sample_index, env=env).returncode == 0


def test_a_tower_of_an_earlier_layout_is_made_once_more_and_then_gone(
    run: Run, sample_index: Path, cache: tuple[dict[str, str], Path]
) -> None:
    env, tower = cache
    earlier = tower.parent.with_name("text-towers-3") / tower.name
    shutil.copytree(tower, earlier)
    zeros(earlier / WEIGHTS)
    other = earlier.with_name("0" * 32)
    other.mkdir()
    shutil.rmtree(tower)
    assert "Preparing the text tower" in answers(run, sample_index, env)[-1]
    assert not earlier.exists()
    assert other.exists()  # it may be of a model that is no more


def test_a_tower_is_on_the_disk_before_it_has_its_name(
    run: Run, sample_index: Path, tmp_path: Path, faults: Faults
) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    env = {"CLIPSEARCH_CACHE": str(cache)} | faults.environment(cache, log=log)
    assert run("query", "a dog", cwd=sample_index, env=env).returncode == 0
    calls = read_log(log)
    named = next(i for i, call in enumerate(calls) if call.name == "rename" and call.path.count("/") == 1)
    flushed = {
        os.path.basename(call.path).lstrip(".").split(".json.")[0] for call in calls[:named] if call.name == "fsync"
    }
    assert {WEIGHTS, TABLES, TOKENIZER, "text_tower.json", "tokens.json", "checksums", "tower"} <= flushed
    assert any(call.name == "fsync" and call.path.startswith("text-towers-") for call in calls[named:])
    # The neutral prompts too.
    named = next(i for i, call in enumerate(calls) if call.name == "rename" and "texts-" in call.path)
    assert any(call.name == "fsync" and ".texts-" in call.path for call in calls[:named])


@pytest.mark.parametrize("kind", ["kill", "enospc"])
def test_whatever_ends_the_writing_of_a_tower_later_queries_answer(
    run: Run, sample_index: Path, tmp_path: Path, faults: Faults, kind: Kind
) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    env = {"CLIPSEARCH_CACHE": str(cache)}
    *right, _ = answers(run, sample_index, env | faults.environment(cache, log=log))
    steps = len(read_log(log))
    shutil.rmtree(cache)
    at = steps // 2 if kind == "kill" else 3 * steps // 4
    done = run("query", "a dog", cwd=sample_index, env=env | faults.environment(cache, at, kind))
    assert b"Traceback" not in done.stderr
    assert answers(run, sample_index, env)[:-1] == right


# -- the neutral prompts -----------------------------------------------------------------------------------------


def _saved(values: np.ndarray[Any, Any]) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        np.save(path, values)

    return save


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        zeros,
        cut,
        one_bit,
        _saved(np.zeros((len(NEUTRAL), 512), np.float32)),
        _saved(np.full((len(NEUTRAL), 512), np.nan, np.float32)),
        _saved(np.ones((3, 7), np.float32)),
        _saved(np.ones((len(NEUTRAL), 512), np.float64)),
        _saved(np.array([{"a": 1}], object)),
        _saved(np.empty((0, 512), np.float32)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_damaged_neutral_prompts_are_computed_anew(
    run: Run, sample_index: Path, cache: tuple[dict[str, str], Path], damage: Callable[[Path], object]
) -> None:
    env, tower = cache
    *right, _ = answers(run, sample_index, env)
    assert all(0 < hit["confidence"] < 1 for hit in right)
    (path,) = tower.glob("texts-*.npy")
    damage(path)
    *found, said = answers(run, sample_index, env)
    assert said == ""
    assert [hit["path"] for hit in found] == [hit["path"] for hit in right]
    for one, other in zip(found, right, strict=True):
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-4)
    if path.is_file():
        np.testing.assert_allclose(np.linalg.norm(np.load(path), axis=1), 1, atol=1e-5)  # any program can read it


# -- models of the hub -------------------------------------------------------------------------------------------


def test_weights_that_rot_in_the_hub_s_cache_make_no_index(run: Run, tmp_path: Path, small_clip: Path) -> None:
    paint(tmp_path / "p" / "a.png", "red")
    with serving() as hub:
        hub.add("somebody/small-clip", small_clip)
        env = hub.environment(tmp_path / "hf") | {"CLIPSEARCH_CACHE": str(tmp_path / "cache")}
        assert run("models", "pull", "somebody/small-clip", cwd=tmp_path, env=env).returncode == 0
    (weights,) = (tmp_path / "hf").rglob("model.safetensors")
    zeros(weights.resolve())
    done = run("index", "p", "--model", "somebody/small-clip", cwd=tmp_path, env=env | {"HF_HUB_OFFLINE": "1"})
    (said,) = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert "model.safetensors" in said
    assert said.endswith("clipsearch models pull somebody/small-clip")


def test_files_of_the_hub_are_compared_once(tmp_path: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipsearch.models.disk import hub as cache_of_hub
    from clipsearch.models.encoder_options import FOR_QUERIES
    from clipsearch.models.in_torch.loading import load_encoder

    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "blobs").mkdir()
    snapshot = tmp_path / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for path in small_clip.iterdir():
        if path.is_file():
            digest = cache_of_hub.digest(path, "0" * 64)
            shutil.copy(path, tmp_path / "blobs" / digest)
            (snapshot / path.name).symlink_to(tmp_path / "blobs" / digest)
    compared: list[str] = []
    real = cache_of_hub.blob_is_whole

    def is_whole(path: Path) -> bool:
        compared.append(path.name)
        return real(path)

    monkeypatch.setattr(cache_of_hub, "blob_is_whole", is_whole)
    files = ModelFiles("small", snapshot, "0" * 40)
    load_encoder(files, FOR_QUERIES)
    assert "model.safetensors" in compared
    compared.clear()
    encoder: Encoder = load_encoder(files, FOR_QUERIES)
    assert compared == []
    assert encoder.fingerprint == fingerprint(small_clip)


def test_nothing_of_the_cache_is_left_open_to_one_user_only(cache: tuple[dict[str, str], Path]) -> None:
    _, tower = cache
    modes = {path.name: path.stat().st_mode & 0o777 for path in tower.iterdir()}
    assert set(modes.values()) == {0o666 & ~_umask()}, modes


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_tower_that_another_library_cannot_read_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path))
    encoder = Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu")
    encoder.save_text_tower()
    folder = tower_cache.tower_folder(encoder.fingerprint)
    (folder / "text_tower.json").write_text('{"other": 1}')
    sealed.seal(folder)
    assert tower_cache.is_whole(encoder.fingerprint)
    with pytest.raises(tower_cache.TowerDamagedError):
        tower_cache.load(encoder.fingerprint)
    assert not tower_cache.is_whole(encoder.fingerprint)
    encoder.save_text_tower()
    assert tower_cache.load(encoder.fingerprint) is not None


def test_comparing_a_large_file_takes_no_memory_for_it(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 100 * 2**20)
    tracemalloc.start()
    checksum(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 * 2**20


def test_a_note_of_compared_files_knows_only_what_is_unchanged(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "sub" / "other"
    other.parent.mkdir()
    for path in (one, other):
        path.write_text("content")
    note = Compared(tmp_path / "note.json")
    note.add((path, identity(path)) for path in (one, other))
    note = Compared(tmp_path / "note.json")
    assert one in note
    assert other in note
    one.write_text("Content")
    assert one not in note
    replaced = tmp_path / "new"
    replaced.write_text("content")
    replaced.replace(other)
    assert other not in note
    assert tmp_path / "missing" not in note
    one.unlink()
    note.add([(other, identity(other))])
    assert list(json.loads((tmp_path / "note.json").read_bytes())) == [str(other)]
    note.forget()
    assert other not in Compared(tmp_path / "note.json")
