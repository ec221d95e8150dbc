"""clip-retrieval's back end on given vectors, for `bench_serve.py`: run it with the Python that has clip-retrieval.

Of the package only the back end is imported, as it is; its start would import everything else. The model is open_clip's
ViT-B/32 with random weights, which need no download, and the index is exact (faiss's `IndexFlatIP`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
from pathlib import Path

MODEL = "ViT-B-32"


def main() -> None:
    """Make what the back end reads, unless it is there, and start it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vectors", type=Path, help="a .npy file of unit vectors")
    parser.add_argument("folder", type=Path, help="where its index, metadata and weights are put")
    parser.add_argument("port", type=int)
    given = parser.parse_args()
    without_most_of_the_package()
    weights = make(given.vectors, given.folder)
    from clip_retrieval.clip_back import clip_back

    clip_back(
        str(given.folder / "indices.json"),
        port=given.port,
        clip_model=f"open_clip:{MODEL}/{weights}",
        use_jit=False,
        enable_mclip_option=False,
        provide_aesthetic_embeddings=False,
        columns_to_return=["image_path"],
    )


def without_most_of_the_package() -> None:
    """Let its modules be imported without what imports them all, and torchvision without CUDA's libraries."""
    found = importlib.util.find_spec("clip_retrieval")
    if found is None or found.submodule_search_locations is None:
        sys.exit("There is no clip-retrieval for this Python.")
    package = types.ModuleType("clip_retrieval")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["clip_retrieval"] = package
    for name in ("torchvision._meta_registrations", "torchvision._autograd_registrations"):
        sys.modules[name] = types.ModuleType(name)


def make(vectors: Path, folder: Path) -> Path:
    """Write index, metadata and weights; the path of the weights."""
    import faiss
    import numpy as np
    import open_clip
    import pandas as pd
    import torch

    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    if not (folder / "image.index").exists():
        matrix = np.load(vectors).astype(np.float32)
        index = faiss.IndexFlatIP(matrix.shape[1])
        index.add(matrix)
        faiss.write_index(index, str(folder / "image.index"))
        paths = [f"images/{row // 1000:04}/{row:07}.jpg" for row in range(len(matrix))]
        pd.DataFrame({"image_path": paths}).to_parquet(folder / "metadata" / "0.parquet")
    (folder / "indices.json").write_text(json.dumps({"pictures": str(folder)}), "utf-8")
    weights = folder / "random.pt"
    if not weights.exists():
        torch.save(open_clip.create_model(MODEL).state_dict(), weights)
    return weights


if __name__ == "__main__":
    main()
