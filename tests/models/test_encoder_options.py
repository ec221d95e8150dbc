"""How a model is to compute is checked where it is said."""

from __future__ import annotations

from typing import Any

import pytest

from clipsearch import EncoderOptions
from clipsearch.errors import ClipsearchError


@pytest.mark.parametrize(
    "given",
    [
        {"device": "gpu"},
        {"precision": "int8"},
        {"engine": "jax"},
        {"batch_size": 0},
        {"exact": True, "precision": "bf16"},
    ],
    ids=str,
)
def test_what_means_nothing_or_contradicts_itself_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ClipsearchError, match=str(list(given.values())[-1])):
        EncoderOptions(**given)


def test_what_is_exact_is_computed_in_fp32() -> None:
    assert EncoderOptions(exact=True).precision == "fp32"
    assert EncoderOptions().precision == "auto"
