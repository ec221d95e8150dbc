"""The catalogue of models: names, figures, and that the documentation shows the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import PICTUREBOOK, REPOSITORY

from clipsearch.models.disk.catalog import BUNDLED, DEFAULT, ENTRIES, OPEN_CLIP, ORIGINALS, Entry, find
from clipsearch.models.disk.files import FAMILIES
from clipsearch.models.disk.golden_values import KNOWN

DOCUMENT = (REPOSITORY / "docs" / "models.md").read_text("utf-8")
NAMES = [entry.name for entry in ENTRIES]


def figures() -> str:
    """The documentation's first table."""
    lines = [
        "| name | what | parameters | image tower | D | input | ImageNet | COCO | languages | licence |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in ENTRIES:
        published = (f"{figure:.3f}" if figure is not None else "none" for figure in (entry.imagenet, entry.coco))
        cells = (
            f"`{entry.name}`",
            entry.what,
            f"{entry.parameters:.1f} M",
            f"{entry.gflop:.1f} GFLOP",
            str(entry.dim),
            str(entry.image_size),
            *published,
            entry.languages,
            entry.licence,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def origins() -> str:
    """The second table."""
    lines = ["| name | repository | format | figures read in |", "|---|---|---|---|"]
    for entry in ENTRIES:
        repository = f"[{entry.repository}](https://huggingface.co/{entry.repository})" if entry.repository else "none"
        lines.append(f"| `{entry.name}` | {repository} | {entry.family} | {entry.source} |")
    return "\n".join(lines)


def reading() -> str:
    """The third table."""
    alike: dict[str, list[str]] = {}
    for entry in ENTRIES:
        alike.setdefault(entry.texts, []).append(f"`{entry.name}`")
    lines = [f"| {', '.join(names)} | {texts} |" for texts, names in alike.items()]
    return "\n".join(["| name | what it makes of texts |", "|---|---|", *lines])


@pytest.mark.parametrize("table", [figures, origins, reading])
def test_documentation_shows_the_catalogue(table: Any) -> None:  # noqa: ANN401  (a function)
    assert table() in DOCUMENT, f"docs/models.md should hold:\n{table()}"


def test_documentation_names_every_family_and_every_name_of_open_clip() -> None:
    for name in (*FAMILIES, *OPEN_CLIP):
        assert f"`{name}`" in DOCUMENT


def test_names_are_found_by_name_and_by_repository() -> None:
    assert NAMES[0] == DEFAULT
    assert NAMES[-1] == BUNDLED
    assert len(set(NAMES)) == len(NAMES)
    for entry in ENTRIES:
        assert find(entry.name) is entry
        if entry.repository is not None:
            assert find(entry.repository) is entry
    for unknown in ("", "clip", "OPENAI", "openai/clip-vit-base-patch99"):
        assert find(unknown) is None


def test_entries_have_a_repository_unless_they_are_bundled() -> None:
    assert [entry.name for entry in ENTRIES if entry.repository is None] == [BUNDLED]
    repositories = [entry.repository for entry in ENTRIES]
    assert len(set(repositories)) == len(repositories)


def test_figures_are_fractions_with_a_source() -> None:
    for entry in ENTRIES:
        for figure in (entry.imagenet, entry.coco):
            assert figure is None or 0.2 < figure < 1
        assert entry.source
        assert entry.family in ("clip", "siglip", "open_clip")


def test_names_of_open_clip_and_of_archives_lead_to_known_models() -> None:
    for name, repository in OPEN_CLIP.items():
        architecture, _, weights = name.partition("/")
        assert architecture.startswith("ViT-")
        assert weights
        assert repository.count("/") == 1
    for file, name_of_same in ORIGINALS.items():
        assert file.endswith(".pt")
        assert name_of_same is None or name_of_same in NAMES
        assert (name_of_same is None) == file.startswith("RN")


def test_known_values_belong_to_models_of_the_catalogue() -> None:
    assert set(KNOWN) <= set(NAMES)


def _clip(size: int, patch: int, vision: tuple[int, int], text: tuple[int, int, int], dim: int) -> Any:  # noqa: ANN401
    from transformers import CLIPConfig, CLIPModel

    (layers, width), (text_layers, text_width, heads) = vision, text
    config = CLIPConfig(
        text_config={
            "vocab_size": 49408,
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "max_position_embeddings": 77,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
        },
        vision_config={
            "image_size": size,
            "patch_size": patch,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
        },
        projection_dim=dim,
    )
    return CLIPModel(config)


def _siglip(size: int, patch: int, vocabulary: int) -> Any:  # noqa: ANN401
    from transformers import SiglipConfig, SiglipModel

    return SiglipModel(
        SiglipConfig(
            text_config={"vocab_size": vocabulary, "max_position_embeddings": 64},
            vision_config={"image_size": size, "patch_size": patch},
        )
    )


def _built(entry: Entry) -> Any:  # noqa: ANN401
    """The model without weights, from the sizes that its authors give."""
    small, large = (12, 512, 8), (12, 768, 12)
    if entry.name == BUNDLED:
        from transformers import AutoConfig, CLIPModel

        return CLIPModel(AutoConfig.from_pretrained(PICTUREBOOK))
    build = {
        "laion": lambda: _clip(224, 32, (12, 768), small, 512),
        "openai": lambda: _clip(224, 32, (12, 768), small, 512),
        "openai-b16": lambda: _clip(224, 16, (12, 768), small, 512),
        "openai-l14": lambda: _clip(224, 14, (24, 1024), large, 768),
        "openai-l14-336": lambda: _clip(336, 14, (24, 1024), large, 768),
        "datacomp": lambda: _clip(256, 32, (12, 768), small, 512),
        "tinyclip": lambda: _clip(224, 32, (12, 512), (6, 512, 8), 512),
        "siglip": lambda: _siglip(224, 16, 32_000),
        "siglip-i18n": lambda: _siglip(256, 16, 250_000),
        "siglip2": lambda: _siglip(256, 32, 256_000),
        "siglip2-b16": lambda: _siglip(224, 16, 256_000),
    }
    return build[entry.name]()


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_sizes_are_those_of_the_architecture(entry: Entry) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = _built(entry).eval()
        model.set_attn_implementation("eager")  # of which the counter sees every product
        pixels = torch.empty(1, 3, entry.image_size, entry.image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        features = model.get_image_features(pixel_values=pixels).pooler_output
    assert features.shape == (1, entry.dim)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(entry.parameters, abs=0.05)
    assert counter.get_total_flops() / 1e9 == pytest.approx(entry.gflop, abs=0.05)
    assert model.config.text_config.max_position_embeddings == entry.context


def test_the_catalogue_loads_nothing_and_opens_no_file(tmp_path: Path) -> None:
    code = """
import sys
import clipsearch
before = set(sys.modules)
opened = []
sys.addaudithook(lambda event, values: opened.append(values[0]) if event == "open" else None)
import clipsearch.models.disk.catalog
assert not {"numpy", "torch", "transformers", "huggingface_hub", "platformdirs"} & set(sys.modules)
assert not [name for name in map(str, opened) if not name.endswith((".py", ".pyc")) and ".pyc." not in name], opened
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
