"""The workers of an update: started wherever the cluster has room, given the model, and replaced when they are lost.

Knows nothing of which images they have.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import clipsearch
from clipsearch.distributed import cluster
from clipsearch.distributed.cluster import Place
from clipsearch.distributed.model_files import pieces
from clipsearch.distributed.worker import Begun, Taken, Task, Worker
from clipsearch.errors import DeviceError, InputError
from clipsearch.images.codecs.optional_packages import readers
from clipsearch.index.format import Computed
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.system.members import on_disk

if TYPE_CHECKING:
    from clipsearch.models.disk.files import ModelFiles

_log = logging.getLogger(__name__)

_CALLS = 8
"""Number of calls that a worker answers at a time."""
_LOOK_SECONDS = 5.0
"""Time between two looks at the machines of the cluster, of which some may be new."""
_WAIT_SECONDS = 1.0
"""How long to wait for an answer before looking around."""
_NONE_LEFT_SECONDS = 30.0
"""How long to wait for a machine to come if none is left."""
_SLOW_START_SECONDS = 60.0
"""When to say that no worker has started, because other work has the cores of the cluster."""
_SILENT_SECONDS = 60.0
"""When a worker that has not answered any more is given up: its machine may hang."""
_MOST_FAILURES = 3
"""Number of workers that may be lost at one place without having embedded anything in between."""

MANY = 100_000
"""A number of images for which torch is always worth its start."""

Answer = Callable[[Any], None]


class ModelOnDisk(Protocol):
    """A model that is on this disk."""

    used: Computed | None
    """How the workers compute; None until one has begun."""

    def on_disk(self) -> tuple[ModelFiles, str]:
        """Return the files of the model, and its fingerprint."""


class Member:
    """A worker as this process sees it."""

    def __init__(self, fleet: Fleet, place: Place, actor: Any) -> None:  # noqa: ANN401  (Ray's)
        self.place, self.actor = place, actor
        self.node = "a machine"
        self.room = 0
        """Number of images that it may have; 0 until it is ready."""
        self.is_lost = False
        self.answered = time.monotonic()
        """When it last answered a call. While it embeds, it does so every second."""
        self._fleet = fleet

    def call(self, method: str, *values: object, then: Answer | None = None, **named: object) -> None:
        """Call a method of the worker; `then` is called with its result, unless the worker is lost."""
        self._fleet.call(self, method, values, named, then)


class Fleet:
    """The workers of one update. Close it at the end."""

    def __init__(self, model: ModelOnDisk, options: EncoderOptions, kind: type[Worker] = Worker) -> None:
        """Start nothing yet. `options` say how to compute, and `kind` is the class of the workers."""
        self._model, self._options, self._kind = model, options, kind
        self._most = 0
        self._members: dict[tuple[str, int], Member] = {}
        self._calls: dict[Any, tuple[Member, Answer | None]] = {}
        """What each call that was not answered yet is for."""
        self._failures: Counter[tuple[str, int]] = Counter()
        self._last_failure = ""
        self._pieces: list[tuple[str, int, Any]] = []
        """The model in Ray's object store, if a worker lacks it."""
        self._looked = self._alive = self._began = 0.0
        self._has_warned = False

    def begin(
        self,
        witness: bytes,
        most: int,
        expected: int = MANY,
        *,
        max_pixels: int | None,
        took: Callable[[Member, Taken], None],
        lost: Callable[[Member], None],
    ) -> int:
        """Start workers, and return the number of those that there is a place for.

        Args:
            witness: the path of a file or folder that all machines have to see.
            most: the largest number of workers.
            expected: number of images that will come.
            max_pixels: images with more pixels are not decoded.
            took: is called with a worker and what it reports.
            lost: is called with a worker that is no more.

        Raises:
            ClipsearchError: there is no place for workers.
        """
        model, fingerprint = self._model.on_disk()
        self._task = Task(
            clipsearch.__version__,
            witness,
            model.name,
            model.revision,
            fingerprint,
            self._options,
            expected,
            max_pixels,
        )
        self._most, self._took, self._lost = most, took, lost
        self._began = self._alive = time.monotonic()
        places = len(cluster.places(cluster.nodes(), self._options.device))
        if not places:
            what = "a GPU" if self._options.device == "cuda" else "processor cores for workers"
            raise DeviceError(f"No machine of the cluster has {what}.")
        self._look()
        return min(places, self._most)

    def close(self) -> None:
        """End all workers."""
        import ray

        for member in self._members.values():
            ray.kill(member.actor)
        self._members.clear()
        self._calls.clear()

    def ready(self) -> list[Member]:
        """Return the workers that can be given work."""
        return [member for member in self._members.values() if member.room]

    def call(
        self, member: Member, method: str, values: Sequence[object], named: dict[str, object], then: Answer | None
    ) -> None:
        """Call a method of a worker, as `Member.call`."""
        if not member.is_lost:
            self._calls[getattr(member.actor, method).remote(*values, **named)] = member, then

    def wait(self) -> None:
        """Wait until a worker has answered, or a moment, and handle all answers. Start workers where there is room.

        Raises:
            ClipsearchError: a worker cannot do its work, or none is left.
        """
        import ray

        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._look()
        if not self._calls:
            if now - self._alive > _NONE_LEFT_SECONDS:
                raise InputError(f"No worker of the cluster is left. {self._last_failure}".strip(), hint="go-on")
            time.sleep(_WAIT_SECONDS)
            return
        self._alive = now
        if not self._has_warned and not self.ready() and now - self._began > _SLOW_START_SECONDS:
            self._has_warned = True
            _log.warning("No worker has started yet. Is other work using the cluster?")
        ray.wait([*self._calls], num_returns=1, timeout=_WAIT_SECONDS)
        answered, _ = ray.wait([*self._calls], num_returns=len(self._calls), timeout=0)
        for call in answered:
            if call in self._calls:  # the worker may have been found lost meanwhile
                self._answer(call)
        for member in [one for one in self.ready() if now - one.answered > _SILENT_SECONDS]:
            self._lose(member, f"no answer for {_SILENT_SECONDS:g} seconds")

    # -- how ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Start a worker at each place that has none, if it has not failed there too often."""
        self._looked = time.monotonic()
        for place in cluster.places(cluster.nodes(), self._options.device):
            key = place.node, place.number
            if len(self._members) >= self._most:
                return
            if key not in self._members and self._failures[key] < _MOST_FAILURES:
                member = self._members[key] = Member(self, place, cluster.start(self._kind, place, _CALLS))
                self._begin(member)

    def _begin(self, member: Member) -> None:
        task = self._task._replace(cores=member.place.cores, first_core=member.place.first_core)
        member.call("begin", task, then=lambda begun: self._begun(member, begun))

    def _begun(self, member: Member, begun: Begun) -> None:
        member.node = begun.node
        if begun.unseen and os.path.exists(on_disk(self._task.witness)):
            raise unseen(begun.node, self._task.witness, begun.unseen)
        if not begun.has_model:
            self._send_model(member)
            return
        member.room = begun.room
        self._model.used = self._model.used or begun.computed
        if begun.readers != readers():
            _log.warning("%s reads pictures with %s, and this machine with %s.", begun.node, begun.readers, readers())
        _log.info("worker: %s, %d cores, %d GPU", begun.node, member.place.cores, member.place.gpus)
        self._take(member)

    def _send_model(self, member: Member) -> None:
        import ray

        if not self._pieces:
            _log.info("model: sent to %s, which does not have it", member.node)
            folder = self._model.on_disk()[0].folder
            self._pieces = [(name, offset, ray.put(content)) for name, offset, content in pieces(folder)]
        left = len(self._pieces)

        def received(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                self._begin(member)

        for name, offset, content in self._pieces:
            member.call("receive", name, offset, content, then=received)

    def _take(self, member: Member) -> None:
        member.call("take", then=lambda taken: self._taken(member, taken))

    def _taken(self, member: Member, taken: Taken) -> None:
        member.room = taken.room
        if taken.results or taken.amounts.done:
            self._failures.pop((member.place.node, member.place.number), None)
        self._took(member, taken)
        self._take(member)

    def _answer(self, call: Any) -> None:  # noqa: ANN401
        """Handle the answer to a call, or find that the worker is lost."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        member, then = self._calls.pop(call)
        member.answered = time.monotonic()
        try:
            value = ray.get(call)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            self._lose(member, str(error))
        else:
            if then is not None:
                then(value)

    def _lose(self, member: Member, why: str) -> None:
        import ray

        if "No module named" in why:
            raise InputError(
                "A machine of the cluster lacks clipsearch, or a package that it needs. "
                f"({next(line for line in why.splitlines() if 'No module named' in line).strip()})",
                hint="install-ray-workers",
            )
        _log.debug("worker lost: %s", why)
        key = member.place.node, member.place.number
        member.is_lost = True
        self._failures[key] += 1
        self._last_failure = f"The last was on {member.node}: {' '.join(why.split())[:300]}"
        self._calls = {call: one for call, one in self._calls.items() if one[0] is not member}
        self._members.pop(key, None)
        self._looked = 0.0  # another one can start there at once
        ray.kill(member.actor)
        self._lost(member)


def unseen(node: str, path: bytes, why: str) -> InputError:
    """Make the error for a machine that does not see a file that is there on this one."""
    return InputError(
        f"{node} cannot read {os.fsdecode(path)} ({why}), and this machine can. All machines of the cluster need the "
        "pictures under the same paths. Nothing is lost.",
        hint="same-paths",
        path=path,
    )
