"""CIFAR's files as they were published: pickles of Python 2."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

CLASSES = ["airplane", "bird", "cat"]


def python_2_pickle(value: object) -> bytes:
    """`value` as Python 2's cPickle and NumPy 1 wrote it with protocol 2."""
    return b"\x80\x02" + operations(value) + b"."


def operations(value: object) -> bytes:
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"]q\x05(" + b"".join(map(operations, value)) + b"e"
    if isinstance(value, dict):
        return b"}q\x01(" + b"".join(operations(k) + operations(v) for k, v in value.items()) + b"u"
    assert isinstance(value, np.ndarray)
    shape = b"(" + b"".join(map(operations, value.shape)) + b"t"
    data_type = (
        b"cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\nq\x0ccnumpy\nndarray\nq\x0dK\x00\x85U\x01b\x87Rq\x0e"
    return empty + b"(K\x01" + shape + data_type + b"\x89" + operations(value.tobytes()) + b"tb"


def rows(number: int = 4, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (number, 3072), np.uint8)


def cifar_10(folder: Path, data: npt.NDArray[np.uint8], numbers: list[int], classes: list[str] = CLASSES) -> Path:
    """A batch and its labels, as the original files are written."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i}.png".encode() for i in range(len(data))]
    batch = {b"batch_label": b"testing batch 1 of 1", b"labels": numbers, b"data": data, b"filenames": names}
    (folder / "test_batch").write_bytes(python_2_pickle(batch))
    meta = {b"num_cases_per_batch": 10000, b"label_names": [name.encode() for name in classes], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(python_2_pickle(meta))
    return folder / "test_batch"
