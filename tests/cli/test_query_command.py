"""`clipsearch query` and `clipsearch status`, run as a user runs them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, index, make_clip, paint
from terminal import on_a_terminal
from warm import Warm

import clipsearch
from clipsearch.index.reading import Store
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_torch.encoder import Encoder


def test_tab_separated_lines_in_a_pipe(sample_index: Path, run: Run) -> None:
    done = run("query", "a dog is sleeping", "-k", "3", cwd=sample_index)
    assert done.returncode == 0
    assert done.stderr == b""
    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [line[0] for line in lines] == ["1", "2", "3"]
    scores = [float(line[1]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)
    assert all(0 <= float(line[2]) <= 1 for line in lines)
    assert all((sample_index / line[3]).is_file() for line in lines)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("a dog is sleeping", {0, 1, 2}), ("a running dog", {3, 4, 5}), ("a sitting dog", {6, 7, 8})],
)
def test_the_dogs_of_the_quick_start(sample_index: Path, run: Run, text: str, wanted: set[int]) -> None:
    hits = json.loads(run("query", text, "-k", "3", "--json", cwd=sample_index).stdout)
    assert {Path(hit["path"]).stem for hit in hits} == {f"dog_{i}" for i in wanted}
    assert {Path(hit["path"]).parent.name for hit in hits} == {"dogs"}


def test_json_has_the_promised_fields(sample_index: Path, run: Run) -> None:
    hits = json.loads(run("query", "a red car", "-k", "2", "--json", cwd=sample_index).stdout)
    assert [hit["rank"] for hit in hits] == [1, 2]
    assert all(set(hit) >= {"rank", "score", "path"} for hit in hits)


def test_print0_gives_paths_only(sample_index: Path, run: Run) -> None:
    out = run("query", "a cat", "-k", "4", "-0", cwd=sample_index).stdout
    paths = out.removesuffix(b"\0").split(b"\0")
    assert len(paths) == 4
    assert all(os.path.isfile(os.path.join(os.fsencode(sample_index), path)) for path in paths)


def test_a_table_on_a_terminal(sample_index: Path, without_torch: Warm) -> None:
    done = on_a_terminal("query", "a dog is sleeping", "-k", "3", cwd=sample_index, warm=without_torch)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["rank", "score", "conf", "path", "size", "date"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert "sample-images/dogs/dog_" in lines[1]


def test_k_larger_than_the_index_gives_all(sample_index: Path, run: Run) -> None:
    status = json.loads(run("status", "--json", cwd=sample_index).stdout)
    out = run("query", "a dog", "-k", "100000", cwd=sample_index).stdout
    assert out.count(b"\n") == status["images"] >= 200


def test_equal_images_come_in_the_order_of_their_paths(tmp_path: Path, run: Run) -> None:
    for name in ("c", "a", "d", "b"):
        paint(tmp_path / "p" / f"{name}.png", "red")
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    out = run("query", "red", "-k", "3", cwd=tmp_path).stdout.decode()
    assert [line.split("\t")[3] for line in out.splitlines()] == ["p/a.png", "p/b.png", "p/c.png"]


def test_names_that_are_not_utf8_come_out_exactly(tmp_path: Path, run: Run) -> None:
    name = b"caf\xe9.png"
    paint(tmp_path / "p" / "a.png", "red")
    os.rename(tmp_path / "p" / "a.png", os.path.join(os.fsencode(tmp_path), b"p", name))
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    assert run("query", "red", "-0", cwd=tmp_path).stdout == b"p/" + name + b"\0"
    assert run("query", "red", cwd=tmp_path).stdout.endswith(b"\tp/" + name + b"\n")
    (hit,) = json.loads(run("query", "red", "--json", cwd=tmp_path).stdout)
    assert hit["path"] == "p/caf\N{REPLACEMENT CHARACTER}.png"
    import base64

    assert base64.b64decode(hit["path_bytes"]) == b"p/" + name


def test_an_index_is_found_from_below_and_paths_are_relative_to_here(sample_index: Path, run: Run) -> None:
    dogs = sample_index / "sample-images" / "dogs"
    out = run("query", "a dog is sleeping", "-k", "1", "-0", cwd=dogs).stdout
    assert out.startswith(b"dog_")
    elsewhere = run(
        "query", "a dog is sleeping", "-k", "1", "-0", "--index", sample_index, cwd=dogs.parent.parent.parent
    )
    assert elsewhere.stdout.endswith(b"sample-images/dogs/" + out)


def test_an_index_whose_images_are_all_unreadable_finds_nothing(tmp_path: Path, run: Run) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_text("no picture")
    assert index(run, "p", "--model", "picturebook", cwd=tmp_path)["images"] == 0
    done = run("query", "red", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert run("query", "red", "--json", cwd=tmp_path).stdout.strip() == b"[]"


def test_a_closed_pipe_is_silent(sample_index: Path, environment: dict[str, str]) -> None:
    command = f"{shlex.quote(sys.executable)} -m clipsearch query dog -k 200 | head -n 1"
    done = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", command],
        cwd=sample_index,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_a_missing_text_tower_is_made_once_and_said(sample_index: Path, run: Run, tmp_path: Path) -> None:
    cache = {"CLIPSEARCH_CACHE": str(tmp_path / "cache")}
    first = run("query", "a dog", cwd=sample_index, env=cache)
    second = run("query", "a dog", cwd=sample_index, env=cache)
    assert "'picturebook'" in first.stderr.decode()
    assert second.stderr == b""
    assert first.stdout == second.stdout == run("query", "a dog", cwd=sample_index).stdout


def test_a_text_tower_unlike_clips_is_left_to_transformers(tmp_path: Path, pictures: Path, run: Run) -> None:
    model = make_clip(tmp_path / "model", activation="gelu_new")
    assert run("index", pictures, "--model", model, "--precision", "fp32", cwd=tmp_path).returncode == 0
    text = "a dog " * 20
    done = run("query", text, cwd=tmp_path, torch=True)
    said = done.stderr.decode()
    *prepared, cut = said.splitlines()
    assert any("whole model" in line for line in prepared)
    assert "a dog a dog" in cut
    encoder = Encoder(ModelFiles("test", model, None), "cpu")
    scores = [float(line.split(b"\t")[1]) for line in done.stdout.splitlines()]
    with closing(Store.open(tmp_path / ".clipsearch")) as store:
        matrix, _ = store.matrix()
        wanted = sorted(matrix.astype(np.float32) @ encoder.encode_texts([text])[0], reverse=True)
    np.testing.assert_allclose(scores, wanted, atol=1e-3)


def test_a_query_opens_no_network_connection(sample_index: Path, environment: dict[str, str]) -> None:
    script = """
import socket, sys
def forbidden(*_, **__):
    print("a network connection", file=sys.stderr)
    raise SystemExit(99)
sys.addaudithook(lambda event, _: forbidden() if event.startswith("socket.") else None)
from clipsearch.cli import main
sys.argv = ["clipsearch", "query", "a dog is sleeping", "-k", "3"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=sample_index, env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 3
    # And the hook does hear of connections.
    script = script.replace("main()\n", "socket.socket()\n")
    assert (
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False).returncode
        == 99
    )


def test_a_text_that_is_too_long_is_cut_with_a_warning(sample_index: Path, run: Run) -> None:
    done = run("query", "a dog is sleeping " * 30, "-k", "1", cwd=sample_index)
    assert done.returncode == 0
    (said,) = done.stderr.decode().splitlines()
    assert "is sleeping a dog" in said


def test_status(sample_index: Path, run: Run) -> None:
    fields = json.loads(run("status", "--json", cwd=sample_index).stdout)
    assert {key: fields[key] for key in ("model", "revision", "dim", "unreadable", "dead_rows")} == {
        "model": "picturebook",
        "revision": None,
        "dim": 512,
        "unreadable": [],
        "dead_rows": 0,
    }
    assert fields["roots"] == [{"path": "sample-images", "images": fields["images"]}]
    assert fields["bytes"] > fields["images"] * 1024
    text = run("status", cwd=sample_index).stdout.decode()
    assert "picturebook, 512 dimensions" in text
    assert "sample-images" in text


def test_the_library_answers_as_the_command_does(sample_index: Path, run: Run) -> None:
    with clipsearch.open_index(sample_index) as opened:
        hits = opened.search("a dog is sleeping", k=3)
        assert opened.search("a dog is sleeping", k=3) == hits
    out = run("query", "a dog is sleeping", "-k", "3", "-0", cwd=sample_index).stdout
    assert [os.fsencode(hit.path.relative_to(sample_index)) for hit in hits] == out.split(b"\0")[:-1]


def test_version(run: Run, tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout.decode() == f"clipsearch {clipsearch.__version__}\n"
