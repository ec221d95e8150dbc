"""The log messages and errors about a loaded model: which one it is and why, and what is prepared or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipsearch.errors import ModelError
from clipsearch.models.disk.catalog import BUNDLED
from clipsearch.models.in_numpy.tower_cache import TowerDamagedError, tower_folder
from clipsearch.unit import NOTHING

if TYPE_CHECKING:
    from clipsearch.models.in_torch.encoder import Encoder
    from clipsearch.models.in_torch.image_encoder import ImageEncoder

OF_THE_INDEX, AS_ASKED_FOR, BY_DEFAULT = "that of the index", "as asked for", "the default"
"""The reasons why a model is used."""
PREPARING = "Preparing the text tower of model %r, which takes some seconds."
WHOLE_MODEL_NEEDED = (
    "The text tower of model %r is neither CLIP's nor SigLIP's, so every query has to load the whole model."
)
CUT = "The text is too long for the model, which reads as far as %r and not %r."
_SHOWN = 40
"""Number of characters shown on both sides of the place where a text is cut."""


def around(text: str, cut: int) -> tuple[str, str]:
    """Return the text before and after the place where it is truncated, shortened for a message."""
    return text[max(0, cut - _SHOWN) : cut], text[cut : cut + _SHOWN].strip()


def no_vector(model: str, text: str) -> ModelError:
    """Make the error for a text whose vector is not finite or zero."""
    return ModelError(
        f"Model {model!r} makes no vector of the text {text!r}: {NOTHING}. Its weights are damaged.",
        hint="check-model",
        model=model,
    )


def model_used(name: str, revision: str | None, why: str) -> str:
    """Make the log line about a model's name, its origin, and why it was chosen."""
    origin = ""
    if revision:
        from clipsearch.models.disk.names import repository_of

        origin = f" ({repository_of(name)} at {revision})"
    return f"model: {name}{' (bundled with clipsearch)' if name == BUNDLED else origin}, {why}"


def encoder_loaded(encoder: Encoder, device_reason: str | None = None) -> list[str]:
    """Make the log lines about the files, device and precision of a loaded model.

    `device_reason` replaces the encoder's own reason.
    """
    return [
        f"files: {encoder.folder}",
        f"fingerprint: {encoder.fingerprint}",
        *how_it_computes(encoder, device_reason),
    ]


def how_it_computes(encoder: ImageEncoder, device_reason: str | None = None) -> list[str]:
    """Make the log lines about device and precision. `device_reason` replaces the encoder's own reason."""
    return [
        f"device: {encoder.device} ({device_reason or encoder.device_reason})",
        f"precision: {encoder.precision} ({encoder.precision_reason})",
    ]


def texts_in_numpy(fingerprint: str) -> str:
    """Make the log line about the folder of the text tower that embeds texts."""
    return f"texts: in the text tower, without torch, from {tower_folder(fingerprint)}"


def check_replaceable(name: str, revision: str | None, damage: TowerDamagedError) -> None:
    """Check that the model from which a damaged text tower can be made again is on this disk.

    Raises:
        ModelError: it is not on this disk.
    """
    from clipsearch.models.disk.files import find_local

    said = f"The text tower of model {name!r} in the cache is damaged ({damage}), and the model that it could "
    try:
        files = find_local(name, revision=revision)
    except ModelError as error:
        raise ModelError(f"{said}be made from is not there: {error}", hint=error.hints, **error.facts) from error
    if files is None:
        pinned = f"{name}@{revision}" if revision and "@" not in name else name
        raise ModelError(f"{said}be made from is not on this disk.", hint="pull", model=pinned)
