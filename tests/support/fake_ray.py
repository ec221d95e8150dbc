"""Ray as far as clipsearch uses it, in this process: a worker is an object whose methods are called in threads."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import pytest

from clipsearch.distributed import cluster, worker
from clipsearch.distributed.cluster import Node, Place


class RayError(Exception):
    """A worker is lost."""


class RayTaskError(RayError):
    """A call raised an exception."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Actor:
    """A worker. Ends with `die`, as `kill -9` would end it: what it was asked is not answered any more."""

    def __init__(self, made: Any, place: Place, calls: int) -> None:  # noqa: ANN401
        self.place, self.made = place, made
        self.asked: list[str] = []
        """The methods that were called, in order."""
        self._pool = ThreadPoolExecutor(calls)
        self._open: set[Future[Any]] = set()
        self.is_dead = False

    def __getattr__(self, method: str) -> Any:  # noqa: ANN401
        return types.SimpleNamespace(remote=lambda *values, **named: self._call(method, values, named))

    def _call(self, method: str, values: Sequence[Any], named: dict[str, Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        self.asked.append(method)
        if self.is_dead:
            answer.set_exception(RayError("it is dead"))
            return answer
        self._open.add(answer)
        given = [one.content if isinstance(one, Stored) else one for one in values]

        def run() -> None:
            try:
                result = getattr(self.made, method)(*given, **named)
            except BaseException as error:  # noqa: BLE001  (as Ray does)
                self._settle(answer, answer.set_exception, RayTaskError(error))
            else:
                self._settle(answer, answer.set_result, result)

        self._pool.submit(run)
        return answer

    def _settle(self, answer: Future[Any], settle: Callable[[Any], None], value: Any) -> None:  # noqa: ANN401
        if answer in self._open:
            self._open.discard(answer)
            settle(value)

    def die(self) -> None:
        """Answer no call any more."""
        self.is_dead = True
        for answer in [*self._open]:
            self._settle(answer, answer.set_exception, RayError("it died"))
        self._pool.shutdown(wait=False, cancel_futures=True)


class Stored:
    """An object in the object store."""

    def __init__(self, content: bytes) -> None:
        self.content = content


class FakeRay:
    """A cluster of two machines with a core each. `actors` are the workers that were started, in order."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.nodes = [Node("a", "host-a", 1, 0), Node("b", "host-b", 1, 0)]
        self.make: Callable[[Place], Any] | None = None
        """Makes a worker in place of its class."""

    def start(self, kind: type, place: Place, calls: int) -> Actor:
        self.actors.append(Actor(self.make(place) if self.make else kind(), place, calls))
        return self.actors[-1]

    def of(self, made: object) -> Actor:
        """The actor of a worker."""
        return next(one for one in self.actors if one.made is made)


@contextmanager
def fake_ray() -> Iterator[FakeRay]:
    """Within: Ray is this."""
    fake = FakeRay()
    ray, exceptions = types.ModuleType("ray"), types.ModuleType("ray.exceptions")

    def wait_for(calls: Sequence[Future[Any]], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        done = wait(calls, timeout, FIRST_COMPLETED).done if num_returns == 1 else {one for one in calls if one.done()}
        return [*done], []

    ray.wait, ray.get = wait_for, lambda call: call.result()  # type: ignore[attr-defined]
    ray.kill, ray.put = Actor.die, Stored  # type: ignore[attr-defined]
    exceptions.RayError, exceptions.RayTaskError = RayError, RayTaskError  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", ray)
        patch.setitem(sys.modules, "ray.exceptions", exceptions)
        patch.setattr(cluster, "start", fake.start)
        patch.setattr(cluster, "nodes", lambda: fake.nodes)
        patch.setattr(worker, "_limit_cores", lambda *_: None)  # this process has them all
        yield fake
    for actor in fake.actors:
        actor.die()
