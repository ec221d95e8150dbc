"""Downloads, from a hub on this machine: whole, resumed, refused, broken; and none where none is needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, make_clip, paint
from hub_server import Hub, names_of, serving
from huggingface_hub import constants
from safetensors.numpy import save_file

from clipsearch.errors import ModelError
from clipsearch.models.disk.files import find_local, fingerprint, locate, pull, verify
from clipsearch.models.disk.open_clip import Checkpoint
from clipsearch.output.hints import with_hints
from clipsearch.system.progress import Progress

NAME = "somebody/small-clip"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as server:
        yield server


@pytest.fixture
def home(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library's own folder; this process and commands use the hub above."""
    home = tmp_path / "hf"
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between two attempts
    return home


@pytest.fixture
def other_clip(tmp_path: Path, small_clip: Path) -> Path:
    """The same model with another preprocessing: another fingerprint."""
    folder = shutil.copytree(small_clip, tmp_path / "other-clip")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(config | {"image_mean": [0.5, 0.5, 0.5]}))
    return folder


def blobs(home: Path) -> list[str]:
    return sorted(path.name for path in home.glob("hub/models--*/blobs/*"))


class Bytes(Progress):
    def __init__(self) -> None:
        self.reports: list[tuple[int, int]] = []

    def downloading(self, done: int, total: int) -> None:
        self.reports.append((done, total))


def test_only_what_is_needed_is_fetched_into_the_layout_that_the_library_has(
    hub: Hub, home: Path, tmp_path: Path, small_clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(small_clip, tmp_path / "repository")
    for extra in ("README.md", "pytorch_model.bin", "tf_model.h5", "open_clip_model.safetensors"):
        (folder / extra).write_bytes(b"not needed")
    commit = hub.add(NAME, folder, "v1")
    progress = Bytes()
    reports = progress.reports
    files = locate(NAME, progress=progress)
    assert files.revision == commit
    assert files.folder == home / "hub" / "models--somebody--small-clip" / "snapshots" / commit
    wanted = {path.name for path in small_clip.iterdir()}
    assert {path.name for path in files.folder.iterdir()} == wanted
    for name in wanted:
        assert (files.folder / name).read_bytes() == (small_clip / name).read_bytes()
        assert (files.folder / name).resolve().name == names_of(small_clip / name)[0]
    assert fingerprint(files.folder) == fingerprint(small_clip)
    assert all(check.whole for check in verify(files))
    total = sum((small_clip / name).stat().st_size for name in wanted)
    assert reports[-1] == (total, total)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert len(caplog.messages) == 1
    assert f"{NAME!r}" in caplog.messages[0]
    # The library finds it as its own, and a second time nobody is asked.
    from huggingface_hub import snapshot_download

    assert snapshot_download(NAME, local_files_only=True, cache_dir=home / "hub") == str(files.folder)
    asked = len(hub.asked)
    assert locate(NAME).folder == files.folder
    assert locate(f"hf-hub:{NAME}@{commit[:8]}").folder == files.folder
    assert len(hub.asked) == asked


def test_open_clip_files_are_taken_where_transformers_has_none(hub: Hub, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    towers = {"vision_cfg": {"layers": 1, "width": 64}, "text_cfg": {"layers": 1, "width": 8, "heads": 1}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 8, **towers}}))
    shapes = {name: one.shape for name, one in Checkpoint.load(folder)._expected().items()} | {"logit_scale": ()}
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "config.json").write_text('{"model_type": "clip"}')
    hub.add(NAME, folder)
    files = locate(NAME)
    assert files.layout == "open_clip"
    assert {path.name for path in files.folder.iterdir()} == {
        *("config.json", "open_clip_config.json", "open_clip_model.safetensors"),
    }
    assert home in files.folder.parents


def test_a_repository_with_pickles_only_is_refused_before_anything_is_fetched(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"a pickle")
    hub.add(NAME, folder)
    with pytest.raises(ModelError, match=f"{NAME}.* pickles") as caught:
        locate(NAME)
    assert caught.value.hints == ("list-models",)
    assert blobs(home) == []


def test_a_broken_connection_is_taken_up_where_it_broke(
    hub: Hub, home: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    hub.add(NAME, small_clip)
    hub.break_after = [1000, 5000]
    progress = Bytes()
    reports = progress.reports
    files = pull(NAME, progress=progress).files
    assert all(check.whole for check in verify(files))
    # The redirect carries the range along: each is asked for twice.
    assert sorted(set(hub.ranges())) == ["bytes=1000-", "bytes=6000-"]
    assert reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1]
    assert home in files.folder.parents


def test_an_interrupted_download_keeps_the_files_that_are_complete(hub: Hub, home: Path, small_clip: Path) -> None:
    hub.add(NAME, small_clip)

    class Stop(Progress):
        def downloading(self, done: int, total: int) -> None:
            del total
            if done > 200_000:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(NAME, progress=Stop())
    kept = blobs(home)
    assert kept
    assert not any("incomplete" in name for name in kept)
    assert find_local(NAME) is None
    before = {path for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path}
    hub.asked.clear()
    pulled = pull(NAME)
    again = {path for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path}
    assert {path.rpartition("/")[2] for path in before & again} == {"model.safetensors"}
    assert pulled.fetched
    assert all(check.whole for check in pulled.checks)


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "Interrupted."), (signal.SIGTERM, "Ended by SIGTERM.")])
def test_a_signal_ends_a_download_at_once_and_leaves_a_cache_that_goes_on(
    hub: Hub, home: Path, small_clip: Path, environment: dict[str, str], *, number: int, said: str
) -> None:
    hub.add(NAME, small_clip)
    hub.stuck = threading.Event()
    command = [sys.executable, "-m", "clipsearch", "models", "pull", NAME]
    own = environment | hub.environment(home)
    with subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not any(path.startswith("content/") for _, path, _ in hub.asked):
            threading.Event().wait(0.01)
        process.send_signal(number)
        talk = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 128 + number
    assert talk.splitlines()[1:] == [said]  # after "Downloading ..."
    # It has not waited for the file, nor asked for it once more.
    assert not hub.stuck.is_set()
    assert sum(path.startswith("content/") for _, path, _ in hub.asked) == 1
    assert blobs(home)
    assert not any("incomplete" in name for name in blobs(home))
    assert find_local(NAME) is None
    hub.stuck = None
    assert all(check.whole for check in pull(NAME).checks)


def test_what_killed_downloads_left_is_removed_once_it_is_old(hub: Hub, home: Path, small_clip: Path) -> None:
    hub.add(NAME, small_clip)
    folder = home / "hub" / "models--somebody--small-clip" / "blobs"
    folder.mkdir(parents=True)
    for name in ("dead.1.incomplete", "alive.2.incomplete"):
        (folder / name).write_bytes(b"half")
    os.utime(folder / "dead.1.incomplete", (0, 0))
    locate(NAME)
    assert [name for name in blobs(home) if "incomplete" in name] == ["alive.2.incomplete"]


def test_a_server_that_cannot_resume_sends_all_again(
    hub: Hub, home: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    hub.add(NAME, small_clip)
    hub.ignore_ranges = True
    hub.break_after = [1000]
    files = locate(NAME)
    assert "bytes=1000-" in hub.ranges()
    assert all(check.whole for check in verify(files))
    assert home in files.folder.parents


def test_a_connection_that_always_breaks_is_given_up(
    hub: Hub, home: Path, small_clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.add(NAME, small_clip)
    hub.break_after = [1000, *[0] * 20]
    with pytest.raises(ModelError, match=r"model\.safetensors: ") as caught:
        locate(NAME)
    assert with_hints(caught.value).endswith(f"clipsearch models pull {NAME}")
    assert blobs(home)
    assert not any("incomplete" in name for name in blobs(home))
    assert capfd.readouterr() == ("", "")  # the library's own warnings and bars


def test_what_arrives_damaged_is_fetched_once_more_and_then_refused(hub: Hub, home: Path, small_clip: Path) -> None:
    hub.add(NAME, small_clip)
    hub.wrong = 1
    assert all(check.whole for check in verify(locate(NAME)))
    shutil.rmtree(home)
    hub.wrong = 2
    with pytest.raises(ModelError, match=r"[.](safetensors|json) .*damaged twice"):
        locate(NAME)
    assert find_local(NAME) is None


def test_a_mirror_whose_lists_have_names_only(hub: Hub, home: Path, small_clip: Path) -> None:
    hub.add(NAME, small_clip)
    hub.names_only = True
    hub.wrong = 1
    files = locate(NAME)
    assert all(check.whole for check in verify(files))
    assert home in files.folder.parents


def test_a_full_disk_is_seen_before_anything_is_fetched(
    hub: Hub, home: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, small_clip)
    usage = namedtuple("usage", "total used free")  # noqa: PYI024  (as in shutil)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(ModelError, match=r"\d+ MB .* 0 MB .*HF_HOME"):
        locate(NAME)
    assert blobs(home) == []


@pytest.mark.parametrize(
    ("status", "code", "files_only", "said"),
    [
        (403, "GatedRepo", False, "pull-permitted HF_TOKEN"),
        (403, "GatedRepo", True, "pull-permitted HF_TOKEN"),
        (401, "", False, "known-models 'somebody/small-clip' .*HF_TOKEN"),
        (403, "", True, " somebody/small-clip .403.*HF_TOKEN"),
        (404, "RepoNotFound", False, "known-models 'somebody/small-clip'"),
        (500, "", False, "no-network .500"),
        (503, "", True, "pull-rest 503"),
    ],
)
def test_a_hub_that_refuses(
    hub: Hub, home: Path, small_clip: Path, status: int, code: str, *, files_only: bool, said: str
) -> None:
    hub.add(NAME, small_clip)
    hub.status, hub.code, hub.files_only = status, code, files_only
    hint, _, words = said.partition(" ")
    with pytest.raises(ModelError, match=words) as caught:
        locate(NAME)
    assert caught.value.hints == ((hint,) if hint else ())
    assert blobs(home) == [name for name in blobs(home) if name.endswith(".incomplete")]


def test_a_token_goes_to_the_hub_and_to_nobody_else(
    hub: Hub, home: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add(NAME, small_clip)
    hub.elsewhere = True
    assert home in locate(NAME).folder.parents
    there = hub.address.removeprefix("http://")
    assert {token for host, token in hub.tokens if host == there} == {"Bearer hf_secret"}
    assert {token for host, token in hub.tokens if host != there} == {None}


def test_a_revision_that_is_not_there(hub: Hub, home: Path, small_clip: Path) -> None:
    hub.add(NAME, small_clip)
    with pytest.raises(ModelError, match=f"'v9' .*: {NAME}$"):
        locate(f"{NAME}@v9")
    assert blobs(home) == []


def test_branches_tags_and_commits_pin_a_revision(hub: Hub, home: Path, small_clip: Path, other_clip: Path) -> None:
    old = hub.add(NAME, small_clip, "v1")
    new = hub.add(NAME, other_clip)
    assert locate(NAME).revision == new
    files = locate(f"{NAME}@v1")
    assert (files.name, files.revision) == (f"{NAME}@v1", old)
    asked = len(hub.asked)
    assert locate(f"{NAME}@{old}").folder == files.folder
    assert locate(f"{NAME}@{old[:7]}").folder == files.folder
    assert locate(NAME, revision=old).folder == files.folder
    assert locate(NAME, revision=old).name == NAME
    assert locate(NAME).revision == new  # the pinned ones have not moved the branch
    assert len(hub.asked) == asked
    shutil.rmtree(home)
    assert locate(NAME, revision=old).revision == old  # neither is here: the one that was wanted is fetched


def test_pull_asks_for_what_is_new_with_update_only(hub: Hub, home: Path, small_clip: Path, other_clip: Path) -> None:
    old = hub.add(NAME, small_clip)
    assert pull(NAME).fetched
    new = hub.add(NAME, other_clip)
    asked = len(hub.asked)
    again = pull(NAME)
    assert (again.fetched, again.files.revision, len(hub.asked)) == (False, old, asked)
    moved = pull(NAME, update=True)
    assert (moved.fetched, moved.files.revision) == (True, new)
    assert not pull(NAME, update=True).fetched
    assert locate(NAME).revision == new
    assert home in moved.files.folder.parents


def test_an_update_that_breaks_leaves_what_is_here(hub: Hub, home: Path, small_clip: Path, tmp_path: Path) -> None:
    old = hub.add(NAME, small_clip)
    pull(NAME)
    hub.add(NAME, make_clip(tmp_path / "new", seed=5))
    hub.break_after = [0] * 20
    with pytest.raises(ModelError) as caught:
        pull(NAME, update=True)
    assert caught.value.hints == ("pull-rest",)
    assert locate(NAME).revision == old
    assert home in locate(NAME).folder.parents


@pytest.mark.parametrize("lost", [None, "model.safetensors"])
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_pull_mends_damaged_files(  # noqa: PLR0917
    hub: Hub, home: Path, small_clip: Path, file: str, lost: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add(NAME, small_clip)
    files = pull(NAME).files
    blob = (files.folder / file).resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])  # as long as before
    assert [check.name for check in verify(files) if check.whole is False] == [file]
    if lost and lost != file:
        (files.folder / lost).resolve().unlink()
    pulled = pull(NAME)
    assert pulled.fetched
    assert all(check.whole for check in pulled.checks)
    assert blob.read_bytes() == content
    assert any(f"{file} is damaged" in line for line in caplog.messages)
    assert home in files.folder.parents


def test_a_damaged_file_in_the_cache_is_named_with_the_way_to_mend_it(hub: Hub, home: Path, small_clip: Path) -> None:
    hub.add(NAME, small_clip)
    blob = (pull(NAME).files.folder / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r": model\.safetensors has [0-9,]+ bytes") as caught:
        locate(NAME)
    assert with_hints(caught.value).endswith(f"clipsearch models pull {NAME}")
    assert home in blob.parents


def test_a_cache_whose_repositories_share_files(hub: Hub, home: Path, small_clip: Path) -> None:
    """The layout of the library since 2.4 for hf-xet: a blob is a link to a store of the whole cache."""
    hub.add(NAME, small_clip)
    files = pull(NAME).files
    blob = (files.folder / "model.safetensors").resolve()
    shared = home / "hub" / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    assert all(check.whole for check in verify(files))
    shared.write_bytes(shared.read_bytes()[:-1] + b"?")
    assert [check.name for check in verify(files) if not check.whole] == ["model.safetensors"]
    assert all(check.whole for check in pull(NAME).checks)
    assert not shared.exists()


def test_without_links_in_the_file_system(
    hub: Hub, home: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    hub.add(NAME, small_clip)
    files = locate(NAME)
    assert fingerprint(files.folder) == fingerprint(small_clip)
    assert not (files.folder / "config.json").is_symlink()
    assert locate(NAME).folder == files.folder
    assert [check.whole for check in verify(files)] == [None] * len(verify(files))  # nobody wrote the hashes down
    (files.folder / "model.safetensors").write_bytes(b"")
    assert pull(NAME).fetched
    assert home in files.folder.parents


@pytest.mark.parametrize("settings", [{}, {"HF_HOME": "/a/home"}, {"HF_HOME": "/a", "HF_HUB_CACHE": "$HOME/b"}])
def test_the_cache_is_the_library_s(settings: dict[str, str], tmp_path: Path) -> None:
    code = "from clipsearch.models.disk.hub import cache; from huggingface_hub import constants; print(cache())"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | {"HOME": str(tmp_path)} | settings, capture_output=True, check=True
    )
    wanted = {0: f"{tmp_path}/.cache/huggingface/hub", 1: "/a/home/hub", 2: f"{tmp_path}/b"}[len(settings)]
    assert done.stdout.decode().strip() == wanted


@pytest.mark.parametrize("name", ["../../etc@main", "somebody/clip@../../x", "somebody/..", "a/b@--x", "a/b@", "a/b/c"])
def test_names_that_lead_elsewhere_are_no_names(name: str, hub: Hub, home: Path) -> None:
    with pytest.raises(ModelError):
        locate(name)
    assert hub.asked == []
    assert not home.exists()


def test_a_server_that_hangs_in_the_middle_is_given_up(
    hub: Hub, home: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.add(NAME, small_clip)
    hub.silent = threading.Event()
    with pytest.raises(ModelError, match=r"config\.json: ") as caught:
        locate(NAME)
    assert caught.value.hints == ("pull-rest",)
    assert home.exists()


NO_NETWORK = """
import os, sys

def watch(event, arguments):
    # Sockets between processes of this machine are no network.
    unix = event == "socket.connect" and isinstance(arguments[1], (str, bytes))
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") and not unix:
        os.write(2, f"NETWORK: {event} {arguments}\\n".encode())
        os._exit(97)

sys.addaudithook(watch)
"""


def test_with_a_model_on_the_disk_no_command_touches_the_network(
    hub: Hub, home: Path, small_clip: Path, tmp_path: Path, run: Run
) -> None:
    commit = hub.add(NAME, small_clip)
    locate(NAME)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    paint(tmp_path / "pictures" / "a.png", "red")
    paint(tmp_path / "pictures" / "b.png", "green")
    paint(tmp_path / "new.png", "blue")
    environment = hub.environment(home) | {
        "PYTHONPATH": str(tmp_path / "site"),
        "CLIPSEARCH_CACHE": str(tmp_path / "c"),
    }
    asked = len(hub.asked)

    def works(*arguments: str) -> str:
        done = run(*arguments, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        assert "Warning" not in done.stderr.decode()
        return done.stdout.decode()

    # The watch bites: what is not here wants the network.
    assert run("tokens", "a", "--model", "somebody/else", cwd=tmp_path, env=environment).returncode == 97
    works("index", "pictures", "--model", NAME)
    assert len(works("query", "a dog").splitlines()) == 2
    works("query", "--image", "new.png")
    assert works("tokens", "a dog", "--model", NAME)
    assert works("models")
    assert commit in works("models", "show", NAME)
    assert commit in works("models", "pull", NAME)
    assert len(hub.asked) == asked
