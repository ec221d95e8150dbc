"""Imports flow downwards, and the query path stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "clipsearch"

# What each room may import, besides itself. A room that is not listed fails the test.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "settings": {"system.places", "errors"},
    "paths": set(),
    "system.failures": {"system.places", "errors"},
    "system.limits": set(),
    "system.places": {"errors"},
    "system.streams": {"errors"},
    "images": set(),
    "images.raw": {"errors"},
    "images.dates": set(),
    "images.jpeg2000": set(),
    "images.jpegxl": {"images.jpeg2000"},
    "images.avif": {"images.jpeg2000"},
    "images.bitmaps": {"errors", "images.layouts"},
    "images.rare": {"errors", "images.avif", "images.extras", "images.jpeg2000", "images.jpegxl"},
    "images.second": {"cores", "errors", *(f"images.{room}" for room in ("extras", "layouts", "limits", "rare"))},
    "images.second_worker": {"images.pixels"},
    "images.extras": set(),
    "images.layouts": {"errors", "images.jpeg2000"},
    "images.colour_tags": {"images.avif"},
    "images.colour": {"images.avif", "images.colour_tags", "images.jpeg2000"},
    "images.pixels": {"images.colour", "images.jpeg2000", "images.layouts"},
    "images.stripping": set(),
    "images.shares": set(),
    "images.reasons": {"images.layouts", "images.stripping"},
    "images.damage": {"errors", "images.shares", "images.stripping"},
    "images.kinds": {"images.extras"},
    "images.signatures": {"images.jpegxl", "images.layouts", "images.raw"},
    "images.ignoring": {"errors", "system.bounded"},
    "images.finding": {
        *("errors", "paths", "system.naming"),
        *(f"images.{room}" for room in ("extras", "ignoring", "kinds", "raw", "reading", "signatures")),
    },
    "images.reading": {"errors", "images.limits", "system.bounded"},
    "images.limits": {"errors"},
    "images.recognising": {"images.layouts", "images.signatures"},
    "images.quiet": {"system.streams"},
    "images.decoding": {
        *("errors", "images.bitmaps", "images.colour", "images.damage", "images.dates", "images.jpegxl"),
        "images.reasons",
        *("images.layouts", "images.limits", "images.pixels", "images.rare", "images.raw", "images.recognising"),
        *("images.second", "images.stripping"),
    },
    "interrupts": set(),
    "system": set(),
    "system.bounded": {"errors"},
    "system.flushing": set(),
    "system.drives": set(),
    "system.checksums": {"system.flushing"},
    "system.naming": set(),
    "system.unicode": {"errors"},
    "system.removal": {"errors", "interrupts", "system.naming"},
    "system.copying": {"errors", "interrupts", "system.flushing", "system.naming", "system.removal"},
    "cores": set(),
    "ranking": {"cores"},
    "terms": {"errors", "system.unicode"},
    "filters": {"errors", "paths"},
    "logits": set(),
    "unit": set(),
    "confidence": {"logits"},
    "store": set(),
    "store.format": {"errors"},
    "store.connections": {"errors", "store.format"},
    "store.reading": {"errors", "paths", "store.connections", "store.format", "system.places", "unit"},
    "store.locking": {"errors", "store.format", "system.flushing"},
    "store.creating": {"errors", "interrupts", "store.connections", "store.format", "system.flushing"},
    "store.writing": {
        *("errors", "paths", "images.dates", "interrupts"),
        *("store.connections", "store.creating", "store.format", "store.locking", "store.reading"),
        *("system.flushing", "unit"),
    },
    "store.filtering": {"errors", "filters", "paths", "store.reading"},
    "store.verifying": {"store.format", "store.reading"},
    "models.catalog": set(),
    "models.hub": {"system.places"},
    "models.downloading": {"errors", "models.catalog", "models.hub", "system.flushing"},
    "models.names": {"errors", "models.catalog", "models.hub", "models.integrity"},
    "models.integrity": set(),
    "models.limits": {"models.integrity"},
    "models.files": {
        "errors",
        *(f"models.{room}" for room in ("catalog", "downloading", "hub", "integrity", "limits", "names", "open_clip")),
    },
    "models.describing": {
        "errors",
        *(f"models.{room}" for room in ("catalog", "files", "integrity", "names", "open_clip", "tower_cache")),
    },
    "models.activations": set(),
    "models.quick_tokens": set(),
    "models.clip_vocabulary": {"errors"},
    "models.open_clip": {"errors", "models.clip_vocabulary"},
    "models.preprocessing": {"errors", "models.files", "models.open_clip"},
    "models.text_tower": {
        *("cores", "errors", "logits", "models.activations", "models.clip_vocabulary", "models.quick_tokens"),
    },
    "models.tower_cache": {
        *("errors", "models.integrity", "models.quick_tokens", "models.text_tower"),
        *("system.checksums", "system.failures", "system.flushing", "system.places"),
    },
    "models.siglip_tokenizer": set(),
    "models.families": {
        *("errors", "logits", "system.failures"),
        *(f"models.{room}" for room in ("clip_vocabulary", "files", "open_clip", "siglip_tokenizer", "text_tower")),
    },
    "models.devices": {"errors"},
    "models.precision": {"errors", "models.devices"},
    "models.image_tower": {"errors"},
    "models.encoder": {
        "unit",
        *("cores", "errors", "logits"),
        *(f"models.{room}" for room in ("activations", "families", "files", "image_tower", "precision")),
        *(f"models.{room}" for room in ("preprocessing", "text_tower", "tower_cache")),
    },
    "models.known_values": {"models.catalog"},
    "models.plain": {*(f"models.{room}" for room in ("clip_vocabulary", "families", "files", "open_clip"))},
    "models.loading": {
        *("cores", "errors", "models.encoder", "models.files", "models.hub", "models.tower_cache"),
        *("system.checksums", "system.limits", "system.places"),
    },
    "models": set(),
    "query": {
        *("paths", "search.distinct", "unit"),
        "store.format",
        *("confidence", "errors", "filters", "images.reading", "ranking", "telling", "terms"),
        *("store.filtering", "store.reading"),
    },
    "search": set(),
    "search.near": {"cores", "ranking"},
    "search.distinct": {"ranking", "search.near", "store.format", "store.reading"},
    "duplicates": {
        *("errors", "filters", "paths", "search.distinct", "search.near"),
        *("store.filtering", "store.format", "store.reading", "system.removal"),
    },
    "clusters": {
        *("cores", "errors", "filters", "query", "store.filtering", "store.format", "store.reading", "system.limits"),
    },
    "changes": {"errors", "paths", "images.finding", "images.kinds", "index.missing", "store.reading"},
    "index": set(),
    "index.missing": {"paths", "store.reading", "system.drives"},
    "telling": {"images.shares", "models.catalog", "models.encoder", "models.files", "models.names", "store.format"},
    "embedding": {
        "unit",
        *("errors", "store.format", *(f"images.{room}" for room in ("decoding", "finding", "limits", "reading"))),
    },
    "indexing": {
        *("cores", "errors", "paths", "changes", "embedding", "index.missing"),
        *(f"images.{room}" for room in ("finding", "kinds", "reading", "decoding", "limits", "shares")),
        *("store.format", "store.writing"),
    },
    "towers": {
        "unit",
        *("confidence", "embedding", "errors", "images.decoding", "images.finding", "images.quiet", "images.reading"),
        *(f"models.{room}" for room in ("files", "encoder", "loading", "preprocessing", "text_tower", "tower_cache")),
        *("logits", "store.format", "store.reading", "telling"),
    },
    "api": {
        "system.places",
        *("errors", "query", "settings", "store.format", "store.locking", "store.reading", "telling", "towers"),
        *(
            f"models.{room}"
            for room in ("catalog", "downloading", "encoder", "files", "loading", "names", "tower_cache")
        ),
    },
    "checking": {
        *("errors", "images.decoding", "images.quiet", "models.encoder", "models.files", "models.known_values"),
        *("models.names", "models.plain", "models.preprocessing", "models.tower_cache"),
    },
    "tables": {"errors", "paths", "system.unicode"},
    "captions": {"errors", "images.finding", "images.reading", "system.bounded", "tables"},
    "evaluation": {"captions", "errors", "images.finding"},
    "exchange": set(),
    "exchange.parquet": {"errors"},
    "exchange.writing": {"errors", "exchange.parquet", "interrupts", "system.flushing", "system.places"},
    "exchange.reading": {"errors", "exchange.parquet", "system.bounded", "tables"},
    "exchange.exporting": {
        *("exchange.writing", "filters", "store.filtering", "store.format", "store.reading"),
    },
    "exchange.importing": {
        *("changes", "cores", "embedding", "errors", "exchange.reading", "paths", "tables"),
        *(f"images.{room}" for room in ("decoding", "finding", "limits", "reading")),
        *("store.format", "store.reading", "store.writing"),
    },
    "pickles": set(),
    "datasets": {"errors", "images.finding", "paths", "pickles", "system.bounded", "tables"},
    "classification": {
        *("errors", "filters", "images.finding", "logits", "store.filtering", "store.reading"),
        *("system.unicode", "zeroshot"),
    },
    "output.counting": set(),
    "output.confusion": {"classification", "output.counting", "output.rows"},
    "output.sorting": {
        *("errors", "output.counting", "output.paths", "output.placing", "system.copying", "system.naming"),
    },
    "output": set(),
    "output.paths": {"paths"},
    "output.rows": {"output.paths", "output.table"},
    "output.hits": {"output.paths", "output.rows", "output.table", "query"},
    "output.table": {"output.paths", "query"},
    "zeroshot": {"errors", "logits"},
    "tokenizing": {"models.text_tower", "system.unicode"},
    "caption_ranks": {
        *("errors", "filters", "images.reading", "paths", "query", "ranking", "store.filtering", "store.reading"),
    },
    "output.matrix": {"output.paths", "output.rows", "zeroshot"},
    "output.tokens": {"output.paths", "output.rows", "tokenizing"},
    "output.models": {"models.catalog", "models.describing", "models.files", "output.rows"},
    "output.checks": {"checking", "output.paths", "output.rows"},
    "output.heatmap": {
        "output.replacing",
        *("", "cores", "errors", "images.reading", "zeroshot"),
        *(f"output.{room}" for room in ("matrix", "paths", "thumbnails")),
    },
    "output.replacing": {"errors", "output.paths", "system.flushing"},
    "output.thumbnails": {"images.decoding", "images.reading"},
    "output.gallery": {
        "output.replacing",
        "",
        "cores",
        "errors",
        "images.reading",
        "output.paths",
        "output.thumbnails",
        "query",
    },
    "output.terminals": {"errors"},
    "output.drawing": {"output.terminals"},
    "output.previews": {
        *("errors", "query"),
        *(f"output.{room}" for room in ("drawing", "paths", "table", "terminals", "thumbnails")),
    },
    "output.placing": {"errors", "output.counting", "output.paths", "system.copying", "system.naming"},
    "output.reports": {
        "output.counting",
        "images.shares",
        "output.rows",
        "output.paths",
        "images.kinds",
        "indexing",
        "models.names",
        "store.format",
        "store.reading",
        "store.verifying",
    },
    "": {"api", "errors", "query", "terms", "models.encoder"},
    "cli": {"cores", "system.limits", "errors", "system.failures", "system.streams"},
    "cli.command": {"errors"},
    "cli.talk": {"output.paths"},
    "cli.options": {"", "api", "errors", "models.devices", "models.loading", "output.rows", "towers"},
    "cli.inputs": {
        "images.shares",
        "",
        "errors",
        "images.finding",
        "images.kinds",
        "images.reading",
        "output.paths",
        "paths",
        "system.bounded",
        "tables",
    },
    "cli.progress": {"cli.options"},
    "cli.index": {
        "system.places",
        *(
            "api",
            "errors",
            "indexing",
            "images.quiet",
            "images.finding",
            "models.catalog",
            "models.encoder",
            "output.reports",
        ),
        *("store.format", "store.reading", "telling"),
    },
    "cli.forget": {"api", "output.counting", "output.paths", "paths", "store.reading", "store.writing"},
    "cli.grouping": set(),
    "cli.leftovers": {"cli.talk", "errors", "output.paths", "system.naming"},
    "cli.searching": {
        "store.filtering",
        "system.places",
        *("api", "errors", "filters", "images.quiet", "paths", "query"),
        *(f"output.{room}" for room in ("gallery", "hits", "placing", "previews", "replacing")),
    },
    "cli.query": {"errors", "output.hits", "terms"},
    "cli.eval_": {"captions", "errors", "evaluation", "images.quiet", "output.paths", "output.rows", "towers"},
    "cli.embed": {
        *("errors", "exchange.writing", "images.finding", "images.quiet", "output.paths", "towers"),
    },
    "cli.export": {"exchange.exporting"},
    "cli.import_": {
        "system.places",
        *("api", "errors", "exchange.importing", "exchange.reading", "images.quiet", "settings"),
        *("output.counting", "output.paths", "output.rows", "store.format", "store.reading"),
    },
    "cli.duplicates": {
        "output.counting",
        "output.replacing",
        "duplicates",
        "errors",
        "images.quiet",
        "output.gallery",
        "output.paths",
        "output.rows",
        "query",
    },
    "cli.cluster": {
        "output.counting",
        "output.replacing",
        "clusters",
        "errors",
        "images.quiet",
        "output.gallery",
        "output.rows",
        "towers",
    },
    "cli.sources": {
        "classification",
        "datasets",
        "errors",
        "images.finding",
        "images.quiet",
        "models.loading",
        "towers",
    },
    "cli.classify": {
        *("classification", "datasets", "errors"),
        *(f"output.{room}" for room in ("confusion", "paths", "rows", "sorting")),
    },
    "cli.texts": {"errors", "system.unicode"},
    "cli.score": {
        *("errors", "images.finding", "images.quiet", "towers", "zeroshot"),
        *("output.heatmap", "output.matrix"),
    },
    "cli.caption_rank": {"caption_ranks", "output.rows", "towers"},
    "cli.tokens": {"api", "errors", "output.tokens", "tokenizing"},
    "cli.downloads": set(),
    "cli.models": {
        *("api", "errors", "output.models", "output.rows"),
        *(f"models.{room}" for room in ("catalog", "describing", "files")),
    },
    "cli.models_check": {"checking", "output.checks", "system.places"},
    "cli.status": {
        "images.kinds",
        "output.rows",
        "models.tower_cache",
        "store.format",
        "api",
        "models.catalog",
        "output.reports",
        "store.locking",
        "store.reading",
        "store.verifying",
    },
    "__main__": {"cli"},
}


def room(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


ROOMS = {room(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """All rooms that a file imports, also inside functions and for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from clipsearch.models import text_tower` imports a room, `from clipsearch.store import Store` does not.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in inner if name.removeprefix("clipsearch.") in ROOMS] or [str(node.module)]
        else:
            continue
        found |= {n.removeprefix("clipsearch").removeprefix(".") for n in names if n.split(".")[0] == "clipsearch"}
    return found


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_imports_flow_downwards(name: str) -> None:
    assert name in ALLOWED, f"give {name} a place in the drawing"
    own = {name} | ({other for other in ROOMS if other.startswith("cli.")} if name.startswith("cli") else set())
    assert imports(ROOMS[name]) - own <= ALLOWED[name]


def test_the_drawing_has_no_cycle() -> None:
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"cycle: {path}"
        for below in ALLOWED[name]:
            visit(below, (*path, name))
        order.append(name)

    for name in ALLOWED:
        visit(name, ())


WITH_TORCH = {
    f"models.{room}" for room in ("encoder", "families", "image_tower", "precision", "siglip_tokenizer", "plain")
}


def test_only_the_encoder_and_its_parts_import_torch_and_transformers() -> None:
    for name, path in ROOMS.items():
        text = path.read_text("utf-8")
        heavy = any(f"import {library}" in text or f"from {library}" in text for library in ("torch", "transformers"))
        assert heavy == (name in WITH_TORCH), name


def loaded_by(code: str, environment: dict[str, str], cwd: Path) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nprint('\\n'.join({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return set(done.stderr.decode().split())


HEAVY = {
    *("torch", "transformers", "pydantic", "huggingface_hub", "safetensors", "rich", "PIL", "pillow_heif", "rawpy"),
    *("filelock", "pathspec"),
}
COMMAND = """
import sys
from clipsearch.cli import main
sys.argv = {arguments!r}
try:
    main()
except SystemExit as done:
    assert done.code in (0, None), done.code
"""


def test_import_clipsearch_loads_nothing_heavy(environment: dict[str, str], tmp_path: Path) -> None:
    assert not loaded_by("import clipsearch", environment, tmp_path) & (HEAVY | {"numpy", "typer"})


@pytest.mark.parametrize(
    "command", [["--help"], ["query", "--help"], ["index", "--help"], ["models", "check", "--help"]]
)
def test_help_loads_no_library_of_ours(command: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    loaded = loaded_by(COMMAND.format(arguments=["clipsearch", *command]), environment, tmp_path)
    assert not loaded & (HEAVY | {"numpy", "tokenizers"})


def test_a_query_loads_no_model_library(sample_index: Path, environment: dict[str, str]) -> None:
    arguments = ["clipsearch", "query", "a dog is sleeping"]
    loaded = loaded_by(COMMAND.format(arguments=arguments), environment, sample_index)
    assert "tokenizers" in loaded  # it really answered
    assert not loaded & (HEAVY | {"csv", "html"})


def test_what_only_some_outputs_need_is_loaded_by_these(sample_index: Path, environment: dict[str, str]) -> None:
    def outputs(*options: str) -> set[str]:
        arguments = ["clipsearch", "query", "a dog is sleeping", *options]
        tell = "\nprint(*(name for name in sys.modules if name.startswith('clipsearch.output.')), file=sys.stderr)"
        code = COMMAND.format(arguments=arguments) + tell
        return {name.rpartition(".")[2] for name in loaded_by(code, environment, sample_index) if "output." in name}

    assert outputs() == outputs("--format", "csv") == outputs("--json") == {"hits", "paths", "rows"}
    assert outputs("--format", "table") == {"hits", "paths", "rows", "table"}


def test_a_picture_that_the_index_knows_needs_no_model(sample_index: Path, environment: dict[str, str]) -> None:
    picture = "sample-images/dogs/dog_0.webp"
    for arguments in (["similar", picture], ["query", "in the snow", "--image", picture]):
        code = COMMAND.format(arguments=["clipsearch", *arguments])
        assert not loaded_by(code, environment, sample_index) & HEAVY


def test_an_index_run_without_work_loads_no_model_library(sample_index: Path, environment: dict[str, str]) -> None:
    arguments = ["clipsearch", "index"]
    loaded = loaded_by(COMMAND.format(arguments=arguments), environment, sample_index)
    assert not loaded & {"torch", "transformers", "pillow_heif", "rawpy"}


NOTE_THREADS = """
import os, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "numpy":
            print("threads:", os.environ.get("OPENBLAS_NUM_THREADS"), file=sys.stderr)
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(
    ("arguments", "threads"),
    [
        (["query", "a dog is sleeping"], "1"),
        (["similar", "sample-images/dogs/dog_0.webp"], "1"),
        (["score", "sample-images/dogs/dog_0.webp", "--text", "a dog"], "1"),
        (["duplicates"], "None"),
    ],
)
def test_blas_is_told_of_its_threads_before_numpy_is_imported(
    arguments: list[str], threads: str, sample_index: Path, environment: dict[str, str]
) -> None:
    code = NOTE_THREADS + COMMAND.format(arguments=["clipsearch", *arguments])
    kept = {name: value for name, value in environment.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=sample_index, env=kept, capture_output=True, check=False)
    assert f"threads: {threads}\n".encode() in done.stderr
    assert done.stderr.count(b"threads:") == 1
