"""Every mistake gets exit code 2, one clear message, no traceback, and nothing is lost."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Run, index, paint

PB = ("--model", "picturebook")


def refused(run: Run, *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command that must fail, and give back what it says."""
    done = run(*arguments, cwd=cwd, env=env)
    message = done.stderr.decode()
    assert done.returncode == 2, message
    assert done.stdout == b""
    assert "Traceback" not in message
    return message


def test_no_such_path(tmp_path: Path, run: Run) -> None:
    assert str(tmp_path / "nowhere") in refused(run, "index", "nowhere", *PB, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_images(tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused(run, "index", "empty", *PB, cwd=tmp_path)


@pytest.mark.parametrize("loss", ["emptied", "missing"])
def test_a_root_that_lost_its_images_deletes_nothing(pictures: Path, run: Run, loss: str) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    shutil.rmtree(pictures)
    if loss == "emptied":
        pictures.mkdir()
    refused(run, "index", cwd=pictures.parent)
    assert json.loads(run("status", "--json", cwd=pictures.parent).stdout)["images"] == 10


@pytest.mark.parametrize("command", [["query", "a dog"], ["status"], ["index"]])
def test_no_index(tmp_path: Path, run: Run, command: list[str]) -> None:
    message = refused(run, *command, cwd=tmp_path)
    assert str(tmp_path) in message
    assert "clipsearch index" in message


def test_a_named_index_that_is_not_there(tmp_path: Path, run: Run) -> None:
    assert "other" in refused(run, "query", "a dog", "--index", "other", cwd=tmp_path)
    assert "other" in refused(run, "query", "a dog", cwd=tmp_path, env={"CLIPSEARCH_INDEX": "other"})


def test_an_unknown_model(pictures: Path, run: Run) -> None:
    message = refused(run, "index", "pictures", "--model", "openia", cwd=pictures.parent)
    assert re.search("'openia'.*'openai'", message)
    assert not (pictures.parent / ".clipsearch").exists()


THREE_WAYS_OUT = ("Connect", "--model PATH", "--model picturebook")


@pytest.mark.parametrize("arguments", [(), ("--model", "openai"), ("--model", "somebody/some-clip")])
def test_offline_without_the_model(pictures: Path, run: Run, arguments: tuple[str, ...]) -> None:
    message = refused(run, "index", "pictures", *arguments, cwd=pictures.parent)
    assert "HF_HUB_OFFLINE" in message
    for way in THREE_WAYS_OUT:
        assert way in message


def test_a_hub_that_refuses(pictures: Path, run: Run) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{unused.getsockname()[1]}"}
        message = refused(run, "index", "pictures", cwd=pictures.parent, env=hub)
    for way in ("cannot be reached", *THREE_WAYS_OUT):
        assert way in message


def test_a_hub_that_never_answers_is_given_up(pictures: Path, run: Run) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        # The system accepts connections into the backlog; nobody ever reads them.
        hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}"}
        message = refused(run, "index", "pictures", cwd=pictures.parent, env=hub)
    for way in ("cannot be reached", *THREE_WAYS_OUT):
        assert way in message


def test_a_model_that_the_hub_does_not_know(pictures: Path, run: Run) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}"}
        message = refused(run, "index", "pictures", "--model", "some/thing", cwd=pictures.parent, env=hub)
        server.shutdown()
    assert "'some/thing'" in message
    assert "HF_HUB_OFFLINE" not in message


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "bert"),
        (lambda f: (f / "model.safetensors").unlink(), "weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"broken" * 99), "loaded"),
        (lambda f: _cut(f / "model.safetensors"), "loaded"),
        (lambda f: _drop_tensors(f / "model.safetensors"), "do not belong together"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "how pictures are prepared"),
        (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "tokenizer"),
    ],
)
def test_a_model_folder_that_is_not_whole(
    pictures: Path, run: Run, small_clip: Path, spoil: Callable[[Path], object], said: str
) -> None:
    folder = shutil.copytree(small_clip, pictures.parent / "clip")
    spoil(folder)
    message = refused(run, "index", "pictures", "--model", "./clip", cwd=pictures.parent)
    assert said in message
    assert not (pictures.parent / ".clipsearch").exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _drop_tensors(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({name: value for name, value in load_file(path).items() if "layers.1" not in name}, path)


def test_cuda_without_cuda(pictures: Path, run: Run) -> None:
    message = refused(run, "index", "pictures", *PB, "--device", "cuda", cwd=pictures.parent)  # of which it sees none
    assert re.search(r"\bcuda\b.* cpu\b", message)


@pytest.mark.parametrize("k", ["0", "-3", "three", "1.5"])
def test_k_must_be_a_positive_whole_number(sample_index: Path, run: Run, k: str) -> None:
    assert "'-k'" in refused(run, "query", "a dog", "-k", k, cwd=sample_index)


@pytest.mark.parametrize("size", ["0", "many"])
def test_batch_size_must_be_a_positive_whole_number(pictures: Path, run: Run, size: str) -> None:
    assert "--batch-size" in refused(run, "index", "pictures", "--batch-size", size, cwd=pictures.parent)


@pytest.mark.parametrize("text", ["   ", "\n\t"])
def test_an_empty_query(sample_index: Path, run: Run, text: str) -> None:
    assert "clipsearch query" in refused(run, "query", text, cwd=sample_index)


def test_formats_that_exclude_each_other(sample_index: Path, run: Run) -> None:
    assert "json and paths" in refused(run, "query", "a dog", "--json", "-0", cwd=sample_index)


def test_an_index_of_another_model(pictures: Path, run: Run, small_clip: Path) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    for wanted in (str(small_clip), "openai"):
        message = refused(run, "index", "pictures", "--model", wanted, cwd=pictures.parent)
        assert re.search(rf"picturebook.* {wanted}.*--model picturebook.*--index DIR", message)
    assert json.loads(run("status", "--json", cwd=pictures.parent).stdout)["images"] == 10


def test_a_model_that_changed_under_its_name(pictures: Path, run: Run, small_clip: Path) -> None:
    folder = shutil.copytree(small_clip, pictures.parent / "clip")
    index(run, "pictures", "--model", "./clip", cwd=pictures.parent)
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(config | {"image_mean": [0.5, 0.5, 0.5]}))
    paint(pictures / "new.png", "cyan")
    assert "--index DIR" in refused(run, "index", "pictures", cwd=pictures.parent)
    assert json.loads(run("status", "--json", cwd=pictures.parent).stdout)["images"] == 10


def test_an_index_folder_that_cannot_be_written(pictures: Path, run: Run) -> None:
    (pictures.parent / "file").write_text("in the way")
    message = refused(run, "index", "pictures", *PB, "--index", "file/index", cwd=pictures.parent)
    assert "file/index" in message
    assert (pictures.parent / "file").read_text() == "in the way"


def test_a_damaged_database(pictures: Path, run: Run) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    (pictures.parent / ".clipsearch" / "index.db").write_bytes(b"damaged" * 5000)
    for command in (["query", "a dog"], ["status"], ["index", "pictures"]):
        message = refused(run, *command, cwd=pictures.parent)
        assert "index.db" in message
        assert f"delete {pictures.parent / '.clipsearch'}" in message


def test_a_missing_matrix(pictures: Path, run: Run) -> None:
    index(run, "pictures", *PB, cwd=pictures.parent)
    (pictures.parent / ".clipsearch" / "embeddings.npy").unlink()
    paint(pictures / "new.png", "cyan")
    for command in (["query", "a dog"], ["status"], ["index", "pictures"]):
        assert "embeddings.npy is missing" in refused(run, *command, cwd=pictures.parent)


def test_broken_settings(pictures: Path, run: Run) -> None:
    (pictures / "clipsearch.toml").write_text("model = ")
    assert "clipsearch.toml cannot be read" in refused(run, "index", "pictures", cwd=pictures.parent)


@pytest.mark.parametrize("arguments", [["serch"], ["index", "--colour"], ["forget"], ["query", "a", "-k", "few"]])
def test_usage_errors_name_the_way_to_help(tmp_path: Path, run: Run, arguments: list[str]) -> None:
    message = refused(run, *arguments, cwd=tmp_path)
    command = "clipsearch" if arguments == ["serch"] else f"clipsearch {arguments[0]}"
    assert message.endswith(f". To see what it takes: {command} --help\n")
    assert message.count("\n") == 1
