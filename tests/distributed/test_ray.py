"""`index --ray` on a real cluster of two machines, which are processes of this one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, TESTS, Run, index, paint
from same_index import assert_same

from clipsearch.distributed import cluster
from clipsearch.distributed.cluster import connected
from clipsearch.errors import DeviceError, InputError
from clipsearch.index.format import DATABASE, MATRIX

with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra `ray`")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Machines:
    """A cluster of two machines with a core each."""

    def __init__(self, process: subprocess.Popen[str], environment: dict[str, str]) -> None:
        self._process = process
        self.environment = environment
        """That of a command which is to find the cluster."""
        self.address = self._said()

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def remove(self) -> None:
        """Let one of the machines go away."""
        assert self._process.stdin is not None
        self._process.stdin.write("remove\n")
        self._process.stdin.flush()
        assert self._said() == "done"

    def processes(self) -> dict[int, str]:
        """All of its processes, with their names."""
        mark = f"RAY_TMPDIR={self.environment['RAY_TMPDIR']}".encode()
        found = {}
        for place in Path("/proc").iterdir():
            if place.name.isdecimal():
                try:
                    if mark in (place / "environ").read_bytes().split(b"\0"):
                        found[int(place.name)] = (place / "cmdline").read_text()
                except OSError:  # it has ended
                    continue
        return found

    def workers(self) -> list[int]:
        """The processes that embed."""
        return [pid for pid, name in self.processes().items() if name.startswith("ray::Worker")]


@pytest.fixture(scope="module")
def machines(environment: dict[str, str]) -> Iterator[Machines]:
    """Starting it takes some ten seconds, so there is one for all tests; the last one takes it apart."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # not of pytest: names of sockets have to be short
        variables = environment | {
            "RAY_TMPDIR": folder,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray would take this machine's address for 127.0.0.1
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, *TESTS))),
            "PYTHONWARNINGS": "ignore",
        }
        program = [sys.executable, str(REPOSITORY / "tests" / "support" / "ray_nodes.py")]
        pipe = subprocess.PIPE
        with (
            open(Path(folder) / "log", "w") as log,
            subprocess.Popen(program, env=variables, stdin=pipe, stdout=pipe, stderr=log, text=True) as process,
        ):
            yield Machines(process, variables)
            assert process.stdin is not None
            process.stdin.close()


def command(
    machines: Machines, *arguments: str | Path, cwd: Path, address: str | None = None
) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "clipsearch", "index", *arguments, "--ray", address or machines.address]
    variables = machines.environment | {"RAY_ADDRESS": machines.address}  # which auto takes
    pipe = subprocess.PIPE
    return subprocess.Popen(program, cwd=cwd, env=variables, stdout=pipe, stderr=pipe)


@with_ray
@linux
def test_indexes_made_on_a_cluster_equal_a_local_one_and_all_is_on_loopback(
    machines: Machines, run: Run, pictures: Path, tmp_path: Path
) -> None:
    shutil.copy(pictures / "cold" / "red.png", pictures / "copy.png")
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    arguments = [pictures.name, "--model", "picturebook", "--engine", "numpy", "--exclude", "pink.png"]
    with command(machines, *arguments, "--json", "-v", cwd=tmp_path, address="auto") as process:
        out, said = process.communicate(timeout=100)
        assert process.returncode == 0, said.decode()
    summary = json.loads(out)
    assert (summary["images"], summary["embedded"], summary["engine"]) == (10, 9, "numpy")
    assert b"worker: " in said
    assert index(run, *arguments, "--index", "here", cwd=tmp_path)["embedded"] == 9
    assert_same(tmp_path / ".clipsearch", tmp_path / "here")
    with command(machines, *arguments, "--parts", "2", "--index", "parts", cwd=tmp_path) as process:
        said = process.communicate(timeout=100)[1]
        assert process.returncode == 0, said.decode()
    assert_same(tmp_path / "parts", tmp_path / "here")
    assert set(listening(machines.processes())) <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1


def listening(processes: dict[int, str]) -> Iterator[str]:
    """The addresses at which processes wait for connections, in hexadecimal."""
    sockets = set()
    for pid in processes:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            if descriptor.is_symlink():
                sockets.add(os.readlink(descriptor))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                yield local.partition(":")[0]


PICTURES = 10


@with_ray
@linux
def test_neither_a_driver_nor_a_worker_nor_a_machine_that_is_gone_costs_what_was_done(
    machines: Machines, run: Run, tmp_path: Path
) -> None:
    # Pictures that take time to decode. They look alike, so that one vector is that of all of them.
    first = paint(tmp_path / "p" / "0.png", "orange", (5000, 4000), compress_level=1)
    for number in range(1, PICTURES):
        (tmp_path / "p" / f"{number}.png").write_bytes(first.read_bytes() + b"%d" % number)
    folder = tmp_path / ".clipsearch"

    # 1. The driver is killed.
    with command(machines, "p", "--model", "picturebook", cwd=tmp_path) as driver:
        until(lambda: done(folder) > 0, driver)
        driver.kill()
    before = done(folder)
    assert 0 < before < PICTURES
    until(lambda: not machines.workers())

    # 2. It is started again; the workers are killed, and a machine goes away while others take their place.
    with command(machines, cwd=tmp_path) as driver:
        until(lambda: done(folder) > before, driver)
        for pid in machines.workers():
            os.kill(pid, signal.SIGKILL)
        machines.remove()
        _, said = driver.communicate(timeout=100)
        assert driver.returncode == 0, said.decode()
    assert b"A worker on " in said
    embedded = re.search(rf"{PICTURES} images in the index \((\d+) embedded".encode(), said)
    assert embedded is not None
    assert int(embedded[1]) == PICTURES - before
    rows = np.load(folder / MATRIX)
    assert len(rows) == PICTURES
    index(run, first, "--model", "picturebook", "--index", "one", cwd=tmp_path)
    np.testing.assert_allclose(rows, np.broadcast_to(np.load(tmp_path / "one" / MATRIX), rows.shape), atol=2e-4)


def done(folder: Path) -> int:
    """How many pictures an index holds."""
    if not (folder / DATABASE).exists():
        return 0
    with closing(sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM images").fetchone()[0])


def until(true: Callable[[], bool], driver: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 100
    while not true():
        assert time.monotonic() < end
        assert driver is None or driver.poll() is None, driver.communicate()
        time.sleep(0.02)


# -- addresses -----------------------------------------------------------------------------------------------


@contextmanager
def listener(answer: bytes | None) -> Iterator[str]:
    """An address where something else than Ray waits; it says nothing if there is no `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def accept() -> None:
            accepted.append(server.accept()[0])
            if answer is not None:
                accepted[0].sendall(answer)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()
        accepted[0].close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [(None, "no answer within 0.2 seconds"), (b"SSH-2.0-x\r\n", "not Ray"), (b"", "")],
)
def test_an_address_where_something_else_answers_is_an_error(
    answer: bytes | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda _: True)
    monkeypatch.setattr(cluster, "_PROBE_SECONDS", 0.2)
    with listener(answer) as address:
        said = f"No Ray cluster answers at {address}: .*{why}"
        with pytest.raises(InputError, match=said), connected(address, "auto"):
            pass


@pytest.mark.parametrize("address", ["", "here", "host:", ":6379", "host:port", "ray://host:10001", "localhost:99999"])
def test_what_is_no_address_is_an_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda _: True)
    with pytest.raises(InputError) as error, connected(address, "auto"):
        pass
    assert error.value.hints == ("ray-address",)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    with pytest.raises(InputError) as error, connected("auto", "auto"):
        pass
    assert error.value.hints == ("install-ray",)
    with pytest.raises(DeviceError, match="cuda:1 is one GPU"), connected("auto", "cuda:1"):
        pass


@with_ray
def test_where_no_cluster_runs_the_error_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", lambda _: None)
    with pytest.raises(InputError) as error, connected("auto", "auto"):
        pass
    assert error.value.hints == ("start-ray",)


def test_a_cluster_that_does_not_answer_is_an_error_before_anything_is_written(run: Run, pictures: Path) -> None:
    result = run("index", pictures, "--ray", "127.0.0.1:1", cwd=pictures.parent)
    assert result.returncode == 2
    assert b"No Ray cluster answers at 127.0.0.1:1: Connection refused." in result.stderr or find_spec("ray") is None
    assert not (pictures.parent / ".clipsearch").exists()
