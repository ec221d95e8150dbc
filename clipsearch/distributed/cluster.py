"""The connection to a Ray cluster, and the places in it where a worker can run. Knows nothing of what workers do."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

from clipsearch.errors import DeviceError, InputError

CORES_OF_A_WORKER = 8
"""The most cores of a worker without a GPU: as many batches are computed at a time on a CPU, each on its own cores."""
_ANSWER_SECONDS = 10.0
"""How long a cluster has to answer."""
_PROBE_SECONDS = 5.0
_GRACE_SECONDS = 20.0
"""How much longer Ray may take once something has answered at the address: then only this machine is busy."""
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of HTTP/2, and so of gRPC, says first (RFC 9113, sections 3.4 and 6.5)."""
_SETTINGS = 4
"""The type of the frame with which a server answers."""


class Node(NamedTuple):
    """A machine of a cluster."""

    id: str
    host: str
    """Its address. Several nodes may be on one machine."""
    cpus: int
    gpus: int


class Place(NamedTuple):
    """Where one worker runs."""

    node: str
    number: int
    """Which of the workers of its node, from 0."""
    cores: int
    """Number of cores for it."""
    gpus: int
    """0 or 1."""
    first_core: int
    """Number of cores of the machine that other workers have."""


def places(nodes: Sequence[Node], device: str) -> list[Place]:
    """Return where workers can run: one for each GPU or, if no machine has any, one for up to eight cores.

    Args:
        nodes: the machines that are there.
        device: auto, or the device that is asked for; with "cpu", GPUs are left alone.
    """
    on_gpus = device.startswith("cuda") or (device == "auto" and any(node.gpus for node in nodes))
    taken: dict[str, int] = {}
    found = []
    for node in nodes:
        workers = node.gpus if on_gpus else -(-node.cpus // CORES_OF_A_WORKER)
        for number in range(workers):
            cores = max(1, node.cpus // workers)
            found.append(Place(node.id, number, cores, int(on_gpus), taken.get(node.host, 0)))
            taken[node.host] = taken.get(node.host, 0) + cores
    return found


@contextmanager
def connected(address: str, device: str) -> Iterator[None]:
    """Connect to the cluster at `address` (HOST:PORT, or auto for that of this machine), and disconnect at the end.

    Raises:
        InputError: Ray is not installed, or no cluster answers within ten seconds.
        DeviceError: `device` names one GPU of one machine.
    """
    if ":" in device:
        raise DeviceError(
            f"{device} is one GPU of one machine; in a cluster each worker has one of its own.", hint="any-gpu"
        )
    if find_spec("ray") is None:
        raise InputError("Ray is not installed.", hint="install-ray")
    handler = signal.getsignal(signal.SIGTERM)
    ray = _connect(address)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process without a last checkpoint
    try:
        yield
    finally:
        ray.shutdown()


def nodes() -> list[Node]:
    """Return the machines of the cluster that are there."""
    import ray

    return [
        Node(
            one["NodeID"],
            one["NodeManagerAddress"],
            int(one["Resources"].get("CPU", 0)),
            int(one["Resources"].get("GPU", 0)),
        )
        for one in ray.nodes()
        if one["Alive"]
    ]


def start(worker: type, place: Place, calls: int) -> Any:  # noqa: ANN401  (Ray's)
    """Start a worker at a place; it may have to wait until its cores are free there. `calls` may run at a time."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(worker)
        .options(
            num_cpus=place.cores,
            num_gpus=place.gpus,
            max_concurrency=calls,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
            # As the command line has it, before NumPy is imported.
            runtime_env={"env_vars": {"OPENBLAS_NUM_THREADS": "1"}},
        )
        .remote()
    )


def _connect(address: str) -> Any:  # noqa: ANN401  (a module without types)
    """Import Ray, and connect to the cluster.

    Raises:
        InputError: it does not answer.
    """
    began = time.monotonic()
    if address.startswith("ray://"):
        raise InputError(
            f"{address} is for Ray's client. This command has to run on a machine of the cluster.", hint="ray-address"
        )
    if address != "auto":
        _probe(address)  # first, because importing Ray takes seconds
    import ray
    from ray._private.services import canonicalize_bootstrap_address  # there is no public way to ask this

    if address == "auto":
        try:
            found = canonicalize_bootstrap_address("auto")
        except (ValueError, OSError, ConnectionError):
            found = None
        if found is None:
            raise InputError("No Ray cluster runs on this machine.", hint="start-ray")
        _probe(found)
    _init(ray, address, began)
    return ray


def _init(ray: Any, address: str, began: float) -> None:  # noqa: ANN401
    """Call Ray's `init`, which may wait for minutes, and give up earlier."""
    failed: list[BaseException] = []

    def init() -> None:
        try:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        except BaseException as error:  # noqa: BLE001  (raised again below)
            failed.append(error)

    thread = threading.Thread(target=init, name="ray", daemon=True)
    thread.start()
    thread.join(max(1.0, _ANSWER_SECONDS - (time.monotonic() - began)) + _GRACE_SECONDS)
    if thread.is_alive():
        raise _silent(address, "it takes too long")
    if failed:
        said = next(iter(str(failed[0]).splitlines()), type(failed[0]).__name__)
        raise _silent(address, said) from failed[0]


def _probe(address: str) -> None:
    """Check that something answers at an address as Ray does.

    Raises:
        InputError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"{address!r} is no address of a Ray cluster.", hint="ray-address")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                connection.sendall(_HTTP2)
                if connection.recv(9)[3:4] != bytes([_SETTINGS]):
                    raise _silent(address, "what answers there is not Ray")
    except TimeoutError as error:
        raise _silent(address, f"no answer within {_PROBE_SECONDS:g} seconds") from error
    except (OSError, OverflowError) as error:
        raise _silent(address, getattr(error, "strerror", None) or str(error)) from error


def _silent(address: str, why: str) -> InputError:
    return InputError(f"No Ray cluster answers at {address}: {why}.", hint="ray-address")
