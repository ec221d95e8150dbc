"""The catalogue of models with short names: where they come from and what is published about them. Reads no file.

Every figure was taken from `source`; figures that nobody published are None. `docs/models.md` shows this table, and a
test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

DEFAULT = "laion"
BUNDLED = "picturebook"
PICTUREBOOK_NOTE = (
    "picturebook understands picture-book drawings only and says nothing useful about photographs. "
    "For those use the default model, or openai."
)

_CLIP_TEXTS = (
    "77 tokens in lower case; a byte-level vocabulary learned from English, in which many emoji are pieces of their "
    "own, but Korean and most other scripts fall into bytes that mean little to the model."
)
_SIGLIP_TEXTS = (
    "64 tokens in lower case, without ASCII punctuation; a vocabulary of 32,000 pieces learned from English, and with "
    "Korean, Japanese or Chinese words it finds nothing."
)
_SIGLIP_I18N_TEXTS = (
    "64 tokens in lower case, without ASCII punctuation; a vocabulary of 250,000 pieces learned from texts in many "
    "languages, Korean among them."
)
_SIGLIP2_TEXTS = (
    "64 tokens in lower case; Gemma's vocabulary of 256,000 pieces knows many languages, and what it has no piece for "
    "becomes bytes."
)
_OPEN_CLIP = "mlfoundations/open_clip: docs/openclip_results.csv, docs/openclip_retrieval_results.csv"
_BIG_VISION = "google-research/big_vision: big_vision/configs/proj/image_text/README_siglip2.md"
_TINYCLIP = "microsoft/Cream: TinyCLIP/README.md (ImageNet); no table with COCO was found"


@dataclass(frozen=True)
class Entry:
    """One model that has a short name."""

    name: str
    """Short name, as users type it."""
    repository: str | None
    """owner/name on the Hugging Face hub; None for the bundled model."""
    what: str
    """Architecture and training data, in a few words."""
    family: str
    """Kind of the checkpoint: clip, siglip or open_clip."""
    licence: str
    """SPDX identifier of the licence of the weights."""
    parameters: float
    """Number of parameters of both towers, in millions."""
    dim: int
    """Dimensions D of its vectors."""
    image_size: int
    """Height and width of the image tower's input in pixels."""
    gflop: float
    """Floating-point operations of the image tower for one image, in units of 10^9; a multiply-add counts as two."""
    context: int
    """Largest number of tokens that the text tower reads."""
    languages: str
    texts: str
    """How it treats other scripts, emoji and long texts."""
    imagenet: float | None
    """Zero-shot top-1 accuracy on ImageNet's validation images, in [0, 1]."""
    coco: float | None
    """Recall@1 of text-to-image retrieval on COCO's 5,000 test images, in [0, 1]."""
    source: str
    """Where `imagenet` and `coco` were published."""


# Shared values of the entries below.
_clip = partial(
    Entry, family="clip", licence="MIT", context=77, languages="English", texts=_CLIP_TEXTS, source=_OPEN_CLIP
)
_siglip = partial(Entry, family="siglip", licence="Apache-2.0", context=64, source=_OPEN_CLIP)
_siglip2 = partial(_siglip, languages="over 100", texts=_SIGLIP2_TEXTS, source=_BIG_VISION)

# fmt: off
ENTRIES: tuple[Entry, ...] = (
    _clip("laion", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "CLIP ViT-B/32, LAION-2B",
          parameters=151.3, dim=512, image_size=224, gflop=8.8, imagenet=0.6656, coco=0.3934),
    _clip("openai", "openai/clip-vit-base-patch32", "CLIP ViT-B/32, OpenAI",
          parameters=151.3, dim=512, image_size=224, gflop=8.8, imagenet=0.6332, coco=0.3044),
    _clip("openai-b16", "openai/clip-vit-base-patch16", "CLIP ViT-B/16, OpenAI",
          parameters=149.6, dim=512, image_size=224, gflop=35.1, imagenet=0.6834, coco=0.3309),
    _clip("openai-l14", "openai/clip-vit-large-patch14", "CLIP ViT-L/14, OpenAI",
          parameters=427.6, dim=768, image_size=224, gflop=162.0, imagenet=0.7554, coco=0.3651),
    _clip("openai-l14-336", "openai/clip-vit-large-patch14-336", "CLIP ViT-L/14 at 336 pixels, OpenAI",
          parameters=427.9, dim=768, image_size=336, gflop=381.9, imagenet=0.7656, coco=0.3709),
    _clip("datacomp", "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K", "CLIP ViT-B/32 at 256 pixels, DataComp",
          family="open_clip", parameters=151.3, dim=512, image_size=256, gflop=11.5, imagenet=0.7281, coco=0.3993),
    _siglip("siglip", "google/siglip-base-patch16-224", "SigLIP ViT-B/16", languages="English", texts=_SIGLIP_TEXTS,
            parameters=203.2, dim=768, image_size=224, gflop=35.4, imagenet=0.7604, coco=0.4778),
    _siglip("siglip-i18n", "google/siglip-base-patch16-256-multilingual", "SigLIP i18n ViT-B/16 at 256 pixels",
            languages="over 100", texts=_SIGLIP_I18N_TEXTS,
            parameters=370.6, dim=768, image_size=256, gflop=46.8, imagenet=0.7513, coco=0.4492),
    _siglip2("siglip2", "google/siglip2-base-patch32-256", "SigLIP 2 ViT-B/32 at 256 pixels",
             parameters=376.9, dim=768, image_size=256, gflop=11.5, imagenet=0.740, coco=0.472),
    _siglip2("siglip2-b16", "google/siglip2-base-patch16-224", "SigLIP 2 ViT-B/16",
             parameters=375.2, dim=768, image_size=224, gflop=35.4, imagenet=0.782, coco=0.521),
    _clip("tinyclip", "wkcn/TinyCLIP-ViT-40M-32-Text-19M-LAION400M", "TinyCLIP ViT-40M/32", source=_TINYCLIP,
          parameters=84.2, dim=512, image_size=224, gflop=4.0, imagenet=0.598, coco=None),
    _clip(BUNDLED, None, "drawings only, bundled", context=32, languages="simple English",
          texts="32 tokens of simple English; its 2,400 byte-level pieces know nothing else.",
          parameters=4.1, dim=512, image_size=96, gflop=0.2, imagenet=None, coco=None,
          source="none: no photograph was among what it learned from"),
)
# fmt: on
"""All models with a short name: the default first, the bundled one last."""

OPEN_CLIP = {
    "ViT-B-32/laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "ViT-B-32/datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    "ViT-B-32-256/datacomp_s34b_b86k": "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
    "ViT-B-16/laion2b_s34b_b88k": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "ViT-B-16/datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
    "ViT-B-16/datacomp_l_s1b_b8k": "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K",
    "ViT-L-14/laion2b_s32b_b82k": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "ViT-L-14/datacomp_xl_s13b_b90k": "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
    "ViT-H-14/laion2b_s32b_b79k": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "ViT-g-14/laion2b_s12b_b42k": "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
    "ViT-g-14/laion2b_s34b_b88k": "laion/CLIP-ViT-g-14-laion2B-s34B-b88K",
    "ViT-bigG-14/laion2b_s39b_b160k": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
    "ViT-B-32/openai": "openai/clip-vit-base-patch32",
    "ViT-B-32-quickgelu/openai": "openai/clip-vit-base-patch32",
    "ViT-B-16/openai": "openai/clip-vit-base-patch16",
    "ViT-B-16-quickgelu/openai": "openai/clip-vit-base-patch16",
    "ViT-L-14/openai": "openai/clip-vit-large-patch14",
    "ViT-L-14-quickgelu/openai": "openai/clip-vit-large-patch14",
    "ViT-L-14-336/openai": "openai/clip-vit-large-patch14-336",
    "ViT-L-14-336-quickgelu/openai": "openai/clip-vit-large-patch14-336",
}
"""Repositories by open_clip's names (architecture/weights), taken from open_clip's own table of weights.

OpenAI's models point to OpenAI's own repositories, whose weights are the same.
"""

ORIGINALS: dict[str, str | None] = {
    "ViT-B-32.pt": "openai",
    "ViT-B-16.pt": "openai-b16",
    "ViT-L-14.pt": "openai-l14",
    "ViT-L-14-336px.pt": "openai-l14-336",
    "RN50.pt": None,
    "RN101.pt": None,
    "RN50x4.pt": None,
    "RN50x16.pt": None,
    "RN50x64.pt": None,
}
"""Short names of the same weights by file names of OpenAI's archives; None for ResNets, which are not supported."""


def find(name: str) -> Entry | None:
    """Return the entry with this short name or repository; None if there is none."""
    return next((entry for entry in ENTRIES if name in (entry.name, entry.repository)), None)
