"""The store against a dictionary: whatever is done to it in whatever order, readers see the last commit exactly."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from conftest import MEMORY
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clipsearch.errors import IndexWriteError
from clipsearch.index.format import FOLDER, SCHEMA, ModelRecord, Record
from clipsearch.index.reading import Store
from clipsearch.index.verifying import verify
from clipsearch.index.writing import Writer
from clipsearch.system.paths import is_below

MODEL = ModelRecord("test", None, "f" * 32, 8)
REPRODUCIBLE = settings(deadline=None, derandomize=True)

Contents = dict[bytes, int | None]
"""What an index holds: by path the number of the content, or None for an unreadable file."""


def vector(content: int) -> npt.NDArray[np.float16]:
    """A unit vector that tells its content."""
    numbers = np.random.default_rng(content).standard_normal(MODEL.dim)
    return np.asarray((numbers / np.linalg.norm(numbers)).astype(np.float16))


def record(path: bytes, content: int | None, row: int | None = None, size: int = 1) -> Record:
    if content is None:
        return Record(path, None, size, 2, None, error="broken")
    return Record(path, row, size, 2, b"%d" % content, width=content)


# -- anything in any order --------------------------------------------------------------------------------------

NAMES = (b"a", b"a/b", b"a/b/c", b"a-", b"a.png", b"a0", b"A", b"-", b"\xff\xfe", b"new\nline", b"z/\x01", b"z/~")
ROOTS = (b"", b"a", b"z")
names = st.sampled_from(NAMES)
contents = st.integers(0, 5)


class StoreMachine(RuleBasedStateMachine):
    """An index in a folder, beside what it should hold: now, and as of the last commit."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=MEMORY))
        self.folder = self.home / FOLDER
        self.now: Contents = {}
        self.committed: Contents = {}
        self.mapped: list[tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]] = []
        """Matrices that readers have mapped, and what was in them then."""
        self.open()

    def open(self) -> None:
        self.stack = ExitStack()
        self.writer = self.stack.enter_context(Writer.locked(self.folder))
        self.writer.set_model(MODEL)
        self.writer.commit()
        self.now = dict(self.committed)

    def teardown(self) -> None:
        self.stack.close()
        shutil.rmtree(self.home)

    def path(self, name: bytes) -> bytes:
        # Every second one lies elsewhere, so that its path is stored in full.
        return os.path.join(os.fsencode(self.home) if NAMES.index(name) % 2 else b"/elsewhere", name)

    def saved(self) -> None:
        """All that was done is committed, and whatever lay about is tidied up."""
        self.committed = dict(self.now)
        with closing(Store.open(self.folder)) as store:
            assert verify(store) == []

    # What can be done to records.

    @rule(batch=st.dictionaries(names, contents, min_size=1, max_size=4))
    def add(self, batch: dict[bytes, int]) -> None:
        new = {self.path(name): content for name, content in batch.items()}
        vectors = np.stack([vector(content) for content in new.values()]).astype(np.float32)
        self.writer.add([record(*item) for item in new.items()], vectors)
        self.now |= new

    @rule(name=names)
    def put_unreadable(self, name: bytes) -> None:
        self.writer.put(record(self.path(name), None))
        self.now[self.path(name)] = None

    @rule(name=names, content=contents)
    def put_known_content(self, name: bytes, content: int) -> None:
        """As `index` does with a file whose content is known: touched, back from the dead, or a copy."""
        path = self.path(name)
        same = self.writer.same_content(b"%d" % content)
        living = [path for path, known in self.now.items() if known == content]
        assert sorted(one.path for one in same if one.path) == sorted(living)
        if not same:
            return
        own = next((one for one in same if one.path in (path, b"")), None)
        if own:
            self.writer.put(same[0]._replace(path=path, row=own.row))
        else:
            self.writer.add_copy(same[0]._replace(path=path))
        self.now[path] = content

    @rule(old=names, new=names)
    def move(self, old: bytes, new: bytes) -> None:
        known = self.writer.record(self.path(old))
        if old == new or known is None or known.row is None:
            return
        self.writer.move(self.path(old), known._replace(path=self.path(new)))
        self.now[self.path(new)] = self.now.pop(self.path(old))

    @rule(some=st.lists(names, max_size=6))
    def remove(self, some: list[bytes]) -> None:
        self.writer.remove(map(self.path, some))
        for name in some:
            self.now.pop(self.path(name), None)

    # What makes it count.

    @rule()
    def commit(self) -> None:
        self.writer.commit()
        self.saved()

    @rule()
    def compact(self) -> None:
        self.writer.compact()
        self.saved()
        assert self.writer.contents().dead_rows * 4 <= self.writer.committed_rows()

    @rule(root=st.sampled_from(ROOTS), below_home=st.booleans())
    def forget(self, root: bytes, *, below_home: bool) -> None:
        path = os.path.join(os.fsencode(self.home) if below_home else b"/elsewhere", root).rstrip(b"/")
        self.writer.set_root(path, {})
        forgotten = next(known.path for known in self.writer.roots() if is_below(path, known.path))
        inside = [path for path in self.now if is_below(path, forgotten)]
        images = sum(self.now[path] is not None for path in inside)
        assert self.writer.forget([forgotten]) == [images]
        for path in inside:
            del self.now[path]
        self.saved()

    # What ends a writer.

    @rule()
    def close_without_commit(self) -> None:
        self.stack.close()
        self.open()

    @rule()
    def crash(self) -> None:
        """The files are those of the moment; another process goes on with them."""
        crashed = self.home / "crashed"
        shutil.copytree(self.folder, crashed)
        self.stack.close()
        shutil.rmtree(self.folder)
        crashed.rename(self.folder)
        self.open()

    @rule(step=st.sampled_from(["sync", "_write_all", "sync_folder"]), content=contents)
    def fail(self, step: str, content: int) -> None:
        """A change or a commit fails; from then on the writer refuses everything."""
        with mock.patch(f"clipsearch.index.matrix_file.{step}", side_effect=OSError(5, "Input/output error")):
            try:
                self.add({NAMES[0]: content})
                self.writer.commit()
            except IndexWriteError:
                pass
            else:  # no new file had to be named
                self.saved()
                return
        assert not self.writer.sound
        with pytest.raises(RuntimeError):
            self.writer.commit()
        self.close_without_commit()

    @precondition(lambda self: self.committed)
    @rule()
    def map_the_matrix(self) -> None:
        with closing(Store.open(self.folder)) as store:
            matrix, _ = store.matrix()
            self.mapped.append((matrix, np.array(matrix)))

    # What must always hold.

    @invariant()
    def readers_see_the_last_commit(self) -> None:
        with closing(Store.open(self.folder)) as store:
            findings = verify(store)
            assert all(finding.harmless for finding in findings), findings
            matrix, alive = store.matrix()
            records = list(store.records())
            assert [known.path for known in records] == sorted(self.committed)
            for known in records:
                content = self.committed[known.path]
                assert known.width == content
                assert (known.row is None) == (content is None)
                if known.row is not None and content is not None:
                    assert alive is None or alive[known.row]
                    assert np.array_equal(matrix[known.row], vector(content))
                    assert store.images([known.row]) == [known]

    @invariant()
    def the_writer_knows_what_it_did(self) -> None:
        assert {known.path: known.width for known in self.writer.records()} == self.now

    @invariant()
    def what_is_mapped_stays(self) -> None:
        for matrix, before in self.mapped:
            assert np.array_equal(matrix, before)


StoreMachine.TestCase.settings = settings(REPRODUCIBLE, max_examples=60, stateful_step_count=40)
test_store_machine = StoreMachine.TestCase


# -- ranges of paths ---------------------------------------------------------------------------------------------

PARENTS = (b"/", b"/p", b"/p/q")
"""Where the index folder lies."""
# The bytes around "/", which is 0x2f, and others that are odd in names.
components = st.lists(st.sampled_from([b"p", b"q", b"-", b".", b"0", b"\x01", b"\n", b"\xff"]), min_size=1, max_size=3)
component = components.map(b"".join).filter(lambda name: name not in (b".", b".."))
paths = st.lists(component, min_size=1, max_size=4).map(lambda names: b"/" + b"/".join(names))


def store_of(parent: bytes, known: set[bytes]) -> Store:
    """An index below `parent`, without a file, with images and unreadable files under these paths."""
    database = sqlite3.connect(":memory:")
    database.executescript(SCHEMA)
    writer = Writer(Path(os.fsdecode(parent)) / FOLDER, database)
    for row, path in enumerate(sorted(known)):
        writer.put(record(path, row if row % 3 else None, row))
    return writer


@given(parent=st.sampled_from(PARENTS), known=st.sets(paths, max_size=30), others=st.lists(paths, max_size=5))
@settings(REPRODUCIBLE, max_examples=200)
def test_what_lies_below_a_root_is_found_in_order(parent: bytes, known: set[bytes], others: list[bytes]) -> None:
    roots = {*PARENTS, *others}
    for path in known:  # and what begins alike
        roots |= {path, os.path.dirname(path), os.path.normpath(path[:-1])}
    with closing(store_of(parent, known)) as store:
        everything = list(store.records())
        assert [record.path for record in everything] == sorted(known)
        for root in roots:
            below = [record for record in everything if is_below(record.path, root)]
            assert list(store.records(root)) == below
            assert [(old.path, old.error) for old in store.known(root)] == [(r.path, r.error) for r in below]
            assert store.count(root) == sum(record.row is not None for record in below)
            assert store.unreadable(root) == [(record.path, record.error) for record in below if record.error]


@given(parent=st.sampled_from(PARENTS), known=st.sets(paths, max_size=20), root=paths)
@settings(REPRODUCIBLE, max_examples=100)
def test_forgetting_a_root_takes_what_lies_below_it_and_no_more(parent: bytes, known: set[bytes], root: bytes) -> None:
    with closing(store_of(parent, known)) as store, mock.patch.object(Writer, "compact"):
        assert isinstance(store, Writer)
        store.set_root(root, {})
        store.forget([root])
        assert [record.path for record in store.records()] == sorted(path for path in known if not is_below(path, root))
