"""What `index` did and what an index holds, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from clipsearch.indexing import Summary
from clipsearch.output.paths import json_fields, printable, shown
from clipsearch.store import Contents, ModelRecord

NAMED_AT_MOST = 20
"""So many unreadable files are named in text; JSON names all."""


def summary_json(summary: Summary, seconds: float, device: str | None, precision: str | None) -> str:
    """The summary of `index --json`; device and precision are null when no model was needed."""
    fields = {
        "images": summary.images,
        "embedded": summary.embedded,
        "reused": summary.reused,
        "moved": summary.moved,
        "removed": summary.removed,
        "unreadable": [json_fields(shown(path)) | {"reason": reason} for path, reason in summary.unreadable],
        "seconds": round(seconds, 3),
        "device": device,
        "precision": precision,
    }
    return json.dumps(fields, indent=2, ensure_ascii=False)


def summary_text(summary: Summary, seconds: float) -> str:
    """The last lines of `index`."""
    counts = [
        f"{number} {word}"
        for number, word in (
            (summary.embedded, "embedded"),
            (summary.reused, "unchanged"),
            (summary.moved, "moved"),
            (summary.removed, "removed"),
            (len(summary.unreadable), "unreadable"),
        )
        if number
    ]
    lines = [f"Cannot read {printable(shown(path))}: {reason}" for path, reason in summary.unreadable[:NAMED_AT_MOST]]
    if len(summary.unreadable) > NAMED_AT_MOST:
        lines.append(f"... and {len(summary.unreadable) - NAMED_AT_MOST} more; --json names them all.")
    lines.append(
        f"{plural(summary.images, 'image')} in the index ({', '.join(counts) or 'nothing new'}) in {seconds:.1f} s"
    )
    return "\n".join(lines)


def status_json(model: ModelRecord | None, contents: Contents, roots: Sequence[bytes]) -> str:
    """`status --json`."""
    fields = {
        "model": model.name if model else None,
        "revision": model.revision if model else None,
        "dim": model.dim if model else None,
        "images": contents.images,
        "unreadable": contents.unreadable,
        "roots": [json_fields(shown(root)) for root in roots],
        "dead_rows": contents.dead_rows,
        "bytes": contents.bytes,
    }
    return json.dumps(fields, indent=2, ensure_ascii=False)


def status_text(folder: bytes, model: ModelRecord | None, contents: Contents, roots: Sequence[bytes]) -> str:
    """`status` for people."""
    made_with = "none yet"
    if model:
        made_with = f"{model.name}{f' ({model.revision})' if model.revision else ''}, {model.dim} dimensions"
    rows = [
        ("index", printable(shown(folder))),
        ("model", made_with),
        *(("root", printable(shown(root)) or ".") for root in roots),
        ("images", str(contents.images)),
        ("unreadable", str(contents.unreadable)),
        ("dead rows", str(contents.dead_rows)),
        ("size", f"{contents.bytes / 1e6:.1f} MB"),
    ]
    return "\n".join(f"{name:<11} {value}" for name, value in rows)


def plural(number: int, noun: str) -> str:
    """Count things: 1 image, 2 images."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
