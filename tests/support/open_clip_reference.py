"""What open_clip itself makes of pictures and texts. Run as a program: `python open_clip_reference.py REQUESTS.json`.

It lies in a folder of its own, since transformers cannot be imported beside the torchvision that it needs, unless it
is imported already; `available` says where. Each request names what to do (see `_main`) and the .npz file for the
results.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from warm import Warm

FOLDER = Path(sys.prefix) / "reference"
Arrays = Mapping[str, npt.NDArray[Any]]


def available() -> Path:
    """Where open_clip lies; skips the test if it is not there."""
    if not (FOLDER / "open_clip").is_dir():
        pytest.skip(
            "needs open_clip: pip install --no-deps -r scripts/reference.txt --target "
            "$(python -c 'import sys; print(sys.prefix)')/reference"
        )
    return FOLDER


def ask(with_torch: Warm, place: Path, *requests: Mapping[str, Any]) -> list[Arrays]:
    """What open_clip answers to each of `requests`, in a process of its own, with files in `place`."""
    available()
    named = [{**request, "out": str(place / f"answer-{i}.npz")} for i, request in enumerate(requests)]
    (place / "requests.json").write_text(json.dumps(named), "utf-8")
    done = with_torch.run([__file__, place / "requests.json"], timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return [_arrays(Path(request["out"])) for request in named]


def _arrays(path: Path) -> Arrays:
    with np.load(path) as answer:
        return dict(answer)


def _import_open_clip(only: str | None = None) -> types.ModuleType:
    """All of it, or `only` one of its modules, which takes two seconds less."""
    sys.path.insert(0, str(FOLDER))
    if only:
        package = types.ModuleType("open_clip")
        package.__path__ = [str(FOLDER / "open_clip")]
        sys.modules["open_clip"] = package
        return import_module(f"open_clip.{only}")
    # torchvision's operators need the libraries of CUDA, and without them it cannot register how to differentiate and
    # trace them. open_clip only resizes and crops with it, which Pillow does.
    for name in ("torchvision._meta_registrations", "torchvision._autograd_registrations"):
        sys.modules[name] = types.ModuleType(name)
    return import_module("open_clip")


class _NoTokenizer:
    """open_clip's own checkpoints have none: there is only one."""

    def save_pretrained(self, folder: Path) -> None:
        """Write nothing."""


def _make(open_clip: Any, request: dict[str, Any]) -> None:  # noqa: ANN401  (a module)
    """Save a random model as open_clip saves models for the hub: `config` and `preprocess` are as it stores them.

    With `weights` these are those of the model in that folder. An `architecture` may have fewer `layers`.
    """
    import torch

    # 1. A model of that configuration.
    folder = Path(request["folder"])
    config = open_clip.get_model_config(request["architecture"]) if "architecture" in request else request["config"]
    if "layers" in request:
        config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = request["layers"]
    folder.mkdir()
    described = {"model_cfg": config, "preprocess_cfg": request.get("preprocess", {})}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    if "weights" in request:
        weights = "open_clip_model.safetensors"
        (folder / weights).hardlink_to(Path(request["weights"]) / weights)
        return
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    # 2. Fresh biases are zero and fresh norms are one: neither would show a mistake.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    # 3. On disk.
    saving = import_module("open_clip.push_to_hf_hub")  # open_clip.push_to_hf_hub is its function of that name
    saving.save_for_hf(model, _NoTokenizer(), config, str(folder), safe_serialization=True)


def _read(open_clip: Any, request: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:  # noqa: ANN401  (a module)
    """`pixels` (N, 3, H, W) of pictures, `images` (N, D) and `texts` (Q, D) of unit length, `ids` (Q, context)."""
    import torch
    from PIL import Image

    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{request['folder']}")
    model.eval()
    ids = open_clip.get_tokenizer(f"local-dir:{request['folder']}")(request["texts"])
    pixels = torch.stack([prepare(Image.open(path).convert("RGB")) for path in request["pictures"]])
    with torch.inference_mode():
        images, texts = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
    return {
        "pixels": pixels.numpy(),
        "images": images.numpy(),
        "texts": texts.numpy(),
        "ids": ids.numpy(),
        "scale": model.logit_scale.exp().detach().numpy(),
    }


def _tokenize(tokenizers: Any, request: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:  # noqa: ANN401  (a module)
    """`ids` (Q, 77) of texts, and what they are `cleaned` to, in JSON."""
    tokenizer = tokenizers.SimpleTokenizer()
    texts = json.loads(Path(request["texts"]).read_text("utf-8"))
    cleaned = json.dumps([tokenizer.clean_fn(text) for text in texts])
    return {"ids": tokenizer(texts).numpy(), "cleaned": np.frombuffer(cleaned.encode(), np.uint8)}


def _main() -> None:
    requests = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    (what,) = {request["what"] for request in requests}
    module = _import_open_clip("tokenizer" if what == "tokenize" else None)
    for request in requests:
        if what == "model":
            _make(module, request)
        answered = _tokenize if what == "tokenize" else _read
        answer: dict[str, Any] = answered(module, request)  # savez has named parameters, and its types count them in
        np.savez(request["out"], **answer)


if __name__ == "__main__":
    _main()
