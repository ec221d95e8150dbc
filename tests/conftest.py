"""What the tests share: pictures, small real models, and the real command in a subprocess."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

# Threads that wait for work sleep, or are not there: by default they run on for a while and take the cores from other
# tests and commands (three times the processor time in PyTorch, measured with two processes on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as commands have it

import privileges
from asking import needs_torch
from faulty import Faults, library
from filelock import FileLock
from PIL import Image
from privileges import without_privileges
from warm import COMMANDS, WITHOUT_TORCH, Server, Warm

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLES = REPOSITORY / "sample-images"
TESTS = (REPOSITORY / "tests", REPOSITORY / "tests" / "support")
"""Folders from which tests import shared code; programs that tests start have to be given them."""
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
"""A folder in memory, where there is such a place: to flush thousands of small files to a disk takes minutes."""
PICTUREBOOK = REPOSITORY / "clipsearch" / "data" / "picturebook"

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(autouse=True)
def unheard_log() -> Iterator[None]:
    """A command that a test called in this process leaves no handler behind."""
    yield
    log = logging.getLogger("clipsearch")
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)


def users_environment(home: Path) -> dict[str, str]:
    """What a user with this home and a cache of its own has: no hub, no settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLIPSEARCH_", "HF_", "XDG_"))}
    return kept | {
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "CLIPSEARCH_CACHE": str(home / "cache"),
        "PYTHONWARNINGS": "default",
        "COLUMNS": "80",
        "CUDA_VISIBLE_DEVICES": "-1",  # what is shown and compared is the CPU's, whatever the machine has
    }


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's environment."""
    return users_environment(tmp_path_factory.mktemp("home"))


SERVERS = pytest.StashKey[list[str]]()
"""The addresses of the processes that fork commands, with PyTorch and without; all workers share them."""


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets what it starts in the background ignore SIGINT, and nohup SIGHUP; so would the commands of tests,
    # also those that this process forks for all workers.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    if hasattr(config, "workerinput"):
        config.stash[SERVERS] = config.workerinput["servers"]
        return
    stack = contextlib.ExitStack()
    config.add_cleanup(stack.close)
    environment = users_environment(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    servers = [Server(environment, imports) for imports in (COMMANDS, WITHOUT_TORCH)]
    config.stash[SERVERS] = [stack.enter_context(server) for server in servers]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for other processes most comes first, so that no worker does at the end while others are done."""
    items.sort(key=lambda item: item.path.name not in _WAITING)


_WAITING = {"test_ray.py", "test_wheel.py"}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401  (pytest-xdist's)
    node.workerinput["servers"] = node.config.stash[SERVERS]


@pytest.fixture(autouse=True)
def _own_cache(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs inside the test process has the same environment."""
    for name in ("HOME", "HF_HUB_OFFLINE", "CLIPSEARCH_CACHE"):
        monkeypatch.setenv(name, environment[name])
    for name in ("CLIPSEARCH_MODEL", "CLIPSEARCH_INDEX"):
        monkeypatch.delenv(name, raising=False)


_READ_WHEN_NEEDED = {
    *("CLIPSEARCH_MODEL", "CLIPSEARCH_INDEX", "CLIPSEARCH_DEBUG", "CLIPSEARCH_CACHE", "COLUMNS"),
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_EC2_METADATA_DISABLED"),
    *("CLIPSEARCH_STORE_TRIES", "CLIPSEARCH_STORE_TIMEOUT"),
    "PYTHONIOENCODING",  # of which a fork makes what the interpreter would
}
"""Variables that neither the interpreter nor a library looks at before."""


@pytest.fixture(scope="session")
def with_torch(environment: dict[str, str], pytestconfig: pytest.Config) -> Iterator[Warm]:
    """Forks programs from a process that has imported PyTorch."""
    with Warm(pytestconfig.stash[SERVERS][0], environment) as warm:
        yield warm


@pytest.fixture(scope="session")
def without_torch(environment: dict[str, str], pytestconfig: pytest.Config) -> Iterator[Warm]:
    """Forks programs from a process that has not, in half of the time."""
    with Warm(pytestconfig.stash[SERVERS][1], environment) as warm:
        yield warm


def _asking(config: pytest.Config) -> list[str]:
    """A command that begins fast and has `clipsearch` forked."""
    return [sys.executable, "-IS", str(TESTS[1] / "asking.py"), *config.stash[SERVERS]]


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A folder with a program `clipsearch` for shells that is forked, too."""
    program = tmp_path_factory.mktemp("forked") / "clipsearch"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(_asking(pytestconfig))} "$@"\n')
    program.chmod(0o755)
    return program.parent


@pytest.fixture(scope="session")
def run(environment: dict[str, str], with_torch: Warm, without_torch: Warm, pytestconfig: pytest.Config) -> Run:
    """Run `clipsearch ARGUMENTS` in a folder, as a shell would, `before` it another command, its talk into `stderr`.

    `line` is what a shell runs, with the command as `"$@"`.

    It is forked from a process that has imported what it needs, unless something is asked for that may matter before,
    or it is to be `fresh`. With `torch` it will import PyTorch or another large library although such commands usually
    do not. If it is `unprivileged`, permissions bind it even if it is root's.
    """

    def run(
        *arguments: str | bytes | Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        before: Sequence[str] = (),
        line: str | None = None,
        fresh: bool = False,
        stdin: bytes = b"",
        stderr: Path | Literal["closed"] | None = None,
        torch: bool = False,
        unprivileged: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        changed = dict(env or {})
        command: Sequence[str | bytes | Path] = [*before, sys.executable, "-m", "clipsearch", *arguments]
        if line is not None:
            assert _READ_WHEN_NEEDED.issuperset(changed)
            command = ["bash", "-c", line, "bash", *_asking(pytestconfig), *arguments]
        elif not fresh and not before and _READ_WHEN_NEEDED.issuperset(changed):
            module = [privileges.__file__] if unprivileged else ["-m", "clipsearch"]
            program = [*module, *map(os.fsdecode, arguments)]
            warm = with_torch if torch or needs_torch(arguments) else without_torch
            return warm.run(program, cwd=cwd, env=changed, timeout=timeout, stdin=stdin, stderr=stderr)
        assert stderr is None, "for forks only"
        assert not stdin, "for forks only"
        assert not unprivileged, "for forks only"
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment | changed,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    run.environment = environment  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """Makes commands fail, or die, while they change a folder; skips the test where that cannot be done."""
    return Faults(library(tmp_path_factory.mktemp("faults")))


def index(run: Run, *arguments: str | Path, cwd: Path) -> dict[str, Any]:
    """Make or refresh an index in `cwd` as `clipsearch index ... --json` does, and give back its summary.

    Most tests only need one to begin with, so this is not the command itself (which `run` runs) but the same code in
    this process, where PyTorch is imported once and not each time. It must succeed.
    """
    from clipsearch import cli

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")  # as in the command
        for name, value in run.environment.items():  # type: ignore[attr-defined]
            patch.setenv(name, value)
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["clipsearch", "index", *map(str, arguments), "--json"])
        patch.setattr(sys, "stdout", out)
        assert cli._run() == 0
    out.seek(0)
    summary: dict[str, Any] = json.loads(out.read())
    return summary


def paint(path: Path, colour: str, size: tuple[int, int] = (64, 48), **options: Any) -> Path:  # noqa: ANN401  (Pillow's)
    """A picture with a square in the middle, so that colours and sizes make a difference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    image.paste("white", (size[0] // 3, size[1] // 3, size[0] // 2, size[1] // 2))
    image.save(path, **options)
    return path


COLOURS: Sequence[str] = ("red", "green", "blue", "orange", "purple", "black", "pink", "gray", "brown", "yellow")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with ten small pictures in two folders."""
    folder = tmp_path / "pictures"
    for i, colour in enumerate(COLOURS):
        paint(folder / ("warm" if i % 2 else "cold") / f"{colour}.png", colour)
    return folder


def make_clip(
    folder: Path,
    *,
    activation: str = "quick_gelu",
    eos: int = 1,
    layers: int = 2,
    seed: int = 0,
    context: int = 24,
    side: int = 64,
    patch: int = 16,
) -> Path:
    """A small CLIP with random weights in Hugging Face layout; the tokenizer is picturebook's with other ids."""
    import torch
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(PICTUREBOOK)
    # transformers takes an end token of 2 for an old configuration and looks for the largest id instead.
    vocabulary = len(tokenizer)
    config = CLIPConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "max_position_embeddings": context,
            "bos_token_id": 0,
            "eos_token_id": eos,
            "pad_token_id": 1,
            "hidden_act": activation,
        },
        vision_config={
            "image_size": side,
            "patch_size": patch,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "hidden_act": activation,
        },
        projection_dim=32,
    )
    model = CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh biases are zero and fresh norms are one: neither would show a mistake.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        f'{{"size": {{"shortest_edge": {side}}}, "crop_size": {{"height": {side}, "width": {side}}}, "resample": 3,'
        ' "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],'
        ' "image_processor_type": "CLIPImageProcessor"}'
    )
    return folder


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One such model for tests that need another than picturebook."""
    return make_clip(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def sample_index(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder with a copy of the sample pictures and their index, for all workers. Tests read it only."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if os.environ.get("PYTEST_XDIST_WORKER") else place
    folder = place / "sample-index"
    with FileLock(place / "sample-index.lock"):
        if not folder.is_dir():
            made = tmp_path_factory.mktemp("samples") / folder.name
            shutil.copytree(SAMPLES, made / "sample-images")
            summary = index(run, "sample-images", cwd=made)
            assert summary["embedded"] >= 200
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def in_memory() -> Iterator[Path]:
    """A folder in memory, where there is such a place."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


@pytest.fixture
def another_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`: in memory, or where temporary files are otherwise."""
    places = (Path("/dev/shm"), Path(tempfile.gettempdir()))  # noqa: S108  (a file system in memory)
    others = [place for place in places if place.is_dir() and place.stat().st_dev != tmp_path.stat().st_dev]
    if not others:
        pytest.skip("needs /dev/shm to be another file system than the temporary folder")
    with tempfile.TemporaryDirectory(dir=others[0]) as name:
        yield Path(name)


@contextlib.contextmanager
def deny(path: Path, mode: int = 0) -> Iterator[None]:
    """Within: a file or folder has these permissions, and they bind this process even if it is root's."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with without_privileges():
            yield
    finally:
        path.chmod(before)


def unprivileged() -> list[str]:
    """What to put before a command so that permissions bind it even if it is root's."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("permissions do not bind root, and setpriv is not there to lay its rights down")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
