"""Names of models: which there are, where they come from, what is published about them. Touches no file."""

from __future__ import annotations

DEFAULT = "laion"
BUNDLED = "picturebook"
REPOSITORIES = {
    "laion": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "openai": "openai/clip-vit-base-patch32",
}
"""Short names of models on the hub."""
PICTUREBOOK_NOTE = (
    "picturebook understands picture-book drawings only and says nothing useful about photographs. "
    "For those use the default model, or --model openai."
)
