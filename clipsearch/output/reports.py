"""Reports of `index` and `status`, as text and as JSON."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsearch.images.codecs.missing_share import missing
from clipsearch.images.other_files import install_for, listed, rule_for, total
from clipsearch.images.parts import Part
from clipsearch.index.format import Computed, Contents, Folder, ModelRecord
from clipsearch.index.missing import Kept
from clipsearch.index.reading import Store
from clipsearch.index.summary import Summary
from clipsearch.index.verifying import Finding
from clipsearch.models.disk.names import repository_of
from clipsearch.output.hints import in_words, with_option
from clipsearch.output.paths import escaped, json_fields, printable, shown
from clipsearch.output.rows import json_bytes, utf8
from clipsearch.system.counting import plural
from clipsearch.system.members import file_of, on_disk

NAMED_AT_MOST = 20
"""Number of unreadable files that the text names; JSON names all."""


def summary_json(summary: Summary, used: Computed | None, indent: int | None = 2) -> bytes:
    """Return the summary of `index --json`; device, precision and their reasons are null if no model was needed."""
    fields = {
        "images": summary.images,
        "part": summary.part and str(summary.part),
        "embedded": summary.embedded,
        "reused": summary.reused,
        "unchanged": summary.unchanged,
        "touched": summary.touched,
        "copied": summary.copied,
        "moved": summary.moved,
        "removed": summary.removed,
        "left_out": summary.left_out,
        "regions": summary.regions,
        "given_regions": summary.given_regions,
        "kept": sum(kept.images for kept in summary.kept),
        "kept_folders": [_kept_fields(shown(kept.folder), kept.images, kept.away) for kept in summary.kept],
        "merged": [json_fields(shown(path)) | {"into": json_fields(shown(name))} for path, name in summary.merged],
        "unreadable": _unreadable_fields(summary.unreadable),
        "damaged": _damaged_fields(summary.damaged),
        "passed_over": _passed_over_fields(summary.passed_over),
        "seconds": summary.seconds,
        **_computed_fields(used),
    }
    return json_bytes(fields, indent)


def _passed_over_fields(counts: Mapping[str, int]) -> list[dict[str, object]]:
    return [
        {"kind": kind, "count": count, "install": install_for(kind), "option": _option_for(kind)}
        for kind, count in counts.items()
    ]


def _option_for(kind: str) -> str | None:
    """Return the option of `clipsearch index` that includes a kind of files; None if there is none."""
    rule = rule_for(kind)
    return f"--{rule.replace('_', '-')}" if rule else None


def _help_for(kind: str) -> str | None:
    return install_for(kind) or _option_for(kind)


def passed_over_text(summary: Summary) -> str:
    """Return a line on files that were left out because they are no images; empty if there were none."""
    return f"Left out: {listed(summary.passed_over, _help_for)}" if summary.passed_over else ""


def _kept_fields(folder: bytes, images: int, away: bool) -> dict[str, object]:  # noqa: FBT001  (a `Kept`)
    return json_fields(folder) | {"images": images, "reason": "drive" if away else "empty"}


def _unreadable_fields(
    unreadable: Sequence[tuple[bytes, str]], name: Callable[[bytes], bytes] = shown
) -> list[dict[str, str]]:
    return [json_fields(name(file_of(path))) | {"reason": with_option(reason)} for path, reason in unreadable]


def _damaged_fields(
    damaged: Sequence[tuple[bytes, float]], name: Callable[[bytes], bytes] = shown
) -> list[dict[str, object]]:
    return [json_fields(name(path)) | {"missing": round(share, 4)} for path, share in damaged]


def merged_text(summary: Summary) -> str:
    """Return a line for each folder that was known under two names."""
    return "\n".join(
        f"{printable(shown(path)) or '.'} is {printable(shown(name)) or '.'}, and is known under that name only."
        for path, name in summary.merged
    )


def kept_text(kept: Sequence[Kept], index: Path | None) -> str:
    """Return a line for each folder whose missing images stay in the index; `index` is the value of `--index`."""
    named = f" --index {shlex.quote(str(index))}" if index else ""
    return "\n".join(
        f"Kept {plural(images, 'image')} of {printable(shown(folder)) or '.'}: "
        f"{'the drive that was mounted there is not' if away else 'none is there any more. Is a drive not mounted?'}"
        f"{'.' if away else ''} If they are gone for good: "
        f"clipsearch forget {shlex.quote(printable(shown(folder)) or '.')}{named}"
        for folder, images, away in kept[:NAMED_AT_MOST]
    ) + _more(kept)


def unreadable_text(unreadable: Sequence[tuple[bytes, str]]) -> str:
    """Return a line for each file that could not be read, given with the reason."""
    lines = _unreadable_lines(unreadable)
    return "\n".join(f"Cannot read {line}" for line in lines) + _more(unreadable)


def damaged_text(summary: Summary) -> str:
    """Return a line for each image that this run found to be partly missing."""
    lines = _damaged_lines(summary.newly_damaged)
    return "\n".join(f"Damaged: {line}" for line in lines) + _more(summary.newly_damaged)


def summary_text(summary: Summary) -> str:
    """Return the last line of `index`."""
    embedded, regions, *others = _changes(summary)
    found = [
        (sum(kept.images for kept in summary.kept), "kept though not there"),
        (len(summary.damaged), "damaged"),
        (len(summary.unreadable), "unreadable"),
    ]
    return _in_all(summary, [embedded, regions, (summary.unchanged, "unchanged"), *others, *found])


def changes_text(summary: Summary) -> str:
    """Return a line about what an update has changed; empty if that is nothing."""
    changes = _changes(summary)
    return _in_all(summary, changes) if any(number for number, _ in changes) else ""


def _changes(summary: Summary) -> list[tuple[int, str]]:
    return [
        (summary.embedded, "embedded"),
        (summary.given_regions, "given regions"),
        (summary.touched, "touched"),
        (summary.copied, "copied"),
        (summary.moved, "moved"),
        (summary.removed, _removed_text(summary)),
    ]


def _in_all(summary: Summary, counts: Sequence[tuple[int, str]]) -> str:
    done = ", ".join(f"{number} {word}" for number, word in counts if number) or "nothing new"
    where = f"part {summary.part}" if summary.part else "the index"
    return f"{plural(summary.images, 'image')} in {where} ({done}) in {summary.seconds:.1f} s"


def _removed_text(summary: Summary) -> str:
    if not summary.left_out:
        return "removed"
    return f"removed, {'all' if summary.left_out == summary.removed else summary.left_out} left out now"


def computed_text(used: Computed) -> str:
    """Return a sentence with the device and the precision of a run of `index`."""
    return f"Computed on {used.device} in {used.precision} ({used.precision_reason})."


def _computed_fields(used: Computed | None) -> dict[str, str | None]:
    return dict(used._asdict() if used else dict.fromkeys(Computed._fields))


@dataclass(frozen=True)
class Status:
    """The contents of `clipsearch status`."""

    folder: bytes
    model: ModelRecord | None
    contents: Contents
    date_sources: Mapping[str, int]
    """Number of images by the source of their date, as `Reader` returns it."""
    roots: Sequence[tuple[bytes, int]]
    """Path of each root, and number of images below it."""
    part: Part | None
    """The part of the roots that the index holds; None for all of them."""
    kept: Sequence[Folder]
    """Folders whose images the last run did not find and kept in the index."""
    unreadable: Sequence[tuple[bytes, str]]
    damaged: Sequence[tuple[bytes, float]]
    """Path of each image of which a part is missing, and the missing share in [0, 1]."""
    passed_over: Mapping[str, int]
    """Number of files in the roots that were left out as no images at the last search, by kind."""
    last_run: Mapping[str, Any] | None
    """Record of the last run, as in the index; None if there was none."""
    at_work: bool
    """Whether a run is writing to it."""
    is_whole: bool
    """Whether all of its folders were searched completely at least once."""
    findings: Sequence[Finding] | None
    """Result of `--verify`; None without it."""

    @property
    def computed(self) -> Computed | None:
        """Device and precision of the last vectors; None if unknown, as for an index of an older clipsearch."""
        known = (self.last_run or {}).get("computed")
        return Computed(**{name: known[name] for name in Computed._fields if name in known}) if known else None


def status_of(store: Store, findings: Sequence[Finding] | None = None) -> Status:
    """Collect the status of an index from one commit; `findings` are those of a check of it.

    Raises:
        IndexDamagedError: the matrix is missing or too short, and there are no `findings` that would say so.
    """
    from clipsearch.index.locking import is_locked

    at_work = is_locked(store.folder)
    with store.snapshot():
        if findings is None:
            store.matrix()
        return Status(
            folder=os.fsencode(store.folder.absolute()),
            model=store.model(),
            contents=store.contents(),
            date_sources=store.date_sources(),
            roots=[(on_disk(root.path), store.count(root.path)) for root in store.roots()],
            part=store.part(),
            kept=[folder for folder in store.folders() if folder.kept],
            unreadable=store.unreadable(),
            damaged=store.damaged(),
            passed_over=total([root.options.get("passed_over", {}) for root in store.roots()]),
            last_run=store.last_run(),
            # Checked twice, because a run may begin or end meanwhile, and must not be taken for a killed one.
            at_work=is_locked(store.folder) or at_work,
            is_whole=store.is_whole(),
            findings=findings,
        )


def status_json(status: Status) -> bytes:
    """Return the output of `status --json`."""
    return json_bytes(status_fields(status), indent=2)


def status_fields(status: Status, name: Callable[[bytes], bytes] = shown) -> dict[str, object]:
    """Return the fields of `status --json`; `name` turns an absolute path into the one that is written."""
    model, run = status.model, status.last_run
    fields: dict[str, object] = {
        "model": model.name if model else None,
        "repository": repository_of(model.name) if model and model.revision else None,
        "revision": model.revision if model else None,
        "fingerprint": model.fingerprint if model else None,
        "dim": model.dim if model else None,
        **_computed_fields(status.computed),
        "images": status.contents.images,
        "date_sources": dict(status.date_sources),
        "unreadable": _unreadable_fields(status.unreadable, name),
        "damaged": _damaged_fields(status.damaged, name),
        "passed_over": _passed_over_fields(status.passed_over),
        "part": status.part and str(status.part),
        "roots": [json_fields(name(root)) | {"images": images} for root, images in status.roots],
        "kept_folders": [_kept_fields(name(folder.path), folder.kept, folder.away) for folder in status.kept],
        "dead_rows": status.contents.dead_rows,
        "regions": status.contents.regions,
        "codes": status.contents.codes,
        "bytes": status.contents.bytes,
        "at_work": status.at_work,
        "whole": status.is_whole,
        "last_run": run and {key: value for key, value in run.items() if key != "computed"},
    }
    if status.findings is not None:
        fields["problems"] = [{"what": finding.what, "mend": _mend(status, finding)} for finding in status.findings]
    return fields


def status_text(status: Status) -> str:
    """Return the output of `status` as text."""
    rows = [
        ("index", printable(shown(status.folder))),
        *_model_rows(status.model),
        *([("computed", _last_computed(status.computed))] if status.computed else []),
        *(("root", f"{printable(shown(root)) or '.'} ({plural(images, 'image')})") for root, images in status.roots),
        *(
            ("kept", f"{printable(shown(path)) or '.'} ({plural(kept, 'image')}, not there at the last run)")
            for path, _, kept, _ in status.kept
        ),
        *([("part", f"{status.part} of its roots")] if status.part else []),
        ("images", str(status.contents.images)),
        ("dates", _dates_text(status.date_sources)),
        ("unreadable", str(len(status.unreadable))),
        *([("damaged", str(len(status.damaged)))] if status.damaged else []),
        *([("left out", listed(status.passed_over, _help_for))] if status.passed_over else []),
        *([] if status.contents.regions is None else [("regions", str(status.contents.regions))]),
        *([] if status.contents.codes is None else [("codes", str(status.contents.codes))]),
        ("dead rows", str(status.contents.dead_rows)),
        ("size", f"{status.contents.bytes / 1e6:.1f} MB"),
        *([] if status.is_whole else [("state", _state_text(status))]),
        ("last run", _run_text(status)),
    ]
    lines = [f"{name:<11} {escaped(value)}" for name, value in rows]
    if status.unreadable:
        lines += ["", "Unreadable:", *(f"  {line}" for line in _unreadable_lines(status.unreadable))]
        lines[-1] += _more(status.unreadable)
    if status.damaged:
        lines += ["", "Damaged:", *(f"  {line}" for line in _damaged_lines(status.damaged))]
        lines[-1] += _more(status.damaged)
    if status.findings is not None:
        lines += ["", *_verdict(status)]
    return "\n".join(lines)


def _model_rows(model: ModelRecord | None) -> list[tuple[str, str]]:
    if model is None:
        return [("model", "none yet")]
    rows = [("model", f"{printable(utf8(model.name))}, {model.dim} dimensions")]
    if model.revision:
        rows += [("repository", repository_of(model.name) or "none"), ("revision", model.revision)]
    return [*rows, ("fingerprint", model.fingerprint)]


def _dates_text(sources: Mapping[str, int]) -> str:
    words = {"exif": "EXIF", "xmp": "XMP", "name": "the file's name", "file": "the file's time"}
    return ", ".join(f"{number} from {words[source]}" for source, number in sources.items() if number) or "none"


def _last_computed(used: Computed) -> str:
    return f"last on {used.device} ({used.device_reason}) in {used.precision} ({used.precision_reason})"


def _state_text(status: Status) -> str:
    images = plural(status.contents.images, "image")
    if status.at_work:
        return f"being built: {images} so far"
    return f"not complete: {images} so far. Go on with: clipsearch index"


def _run_text(status: Status) -> str:
    run = status.last_run
    if run is None:
        return "none"
    unfinished = "is under way" if status.at_work else "did not finish: it was killed"
    outcome = unfinished if run["outcome"] == "unfinished" else run["outcome"]
    return f"{run['ended_at'].replace('T', ' ').replace('+00:00', ' UTC')}, {run['seconds']:.1f} s, {outcome}"


def _verdict(status: Status) -> list[str]:
    if not status.findings:
        return ["Verified: matrix and database fit together."]
    lines = []
    for finding in status.findings:
        lines += [
            f"{'Harmless' if finding.harmless else 'DAMAGED'}: {printable(utf8(finding.what))}",
            f"  {_mend(status, finding)}",
        ]
    return lines


def _mend(status: Status, finding: Finding) -> str:
    """Return what to type about a finding."""
    folder = shlex.quote(printable(status.folder))
    if finding.hint is not None:
        facts = {"folder": status.folder, "model": status.model.name if status.model else ""}
        return printable(utf8(" ".join(in_words([finding.hint], facts))))
    if finding.harmless:
        return "The next `clipsearch index` puts it right. If one is running, this is its unfinished work."
    model = f" --model {status.model.name}" if status.model else ""
    roots = " ".join(shlex.quote(printable(root)) for root, _ in status.roots) or "PATH"
    return (
        f"Your images are untouched. Make the index anew: rm -r {folder} && clipsearch index {roots} "
        f"--index {folder}{model}"
    )


def _unreadable_lines(unreadable: Sequence[tuple[bytes, str]]) -> list[str]:
    return [
        f"{printable(shown(file_of(path)))}: {printable(utf8(with_option(reason)))}"
        for path, reason in unreadable[:NAMED_AT_MOST]
    ]


def _damaged_lines(damaged: Sequence[tuple[bytes, float]]) -> list[str]:
    return [f"{printable(shown(path))}: {missing(share)}" for path, share in damaged[:NAMED_AT_MOST]]


def _more(unreadable: Sequence[object]) -> str:
    rest = len(unreadable) - NAMED_AT_MOST
    return f"\n... and {rest} more; --json names them all." if rest > 0 else ""
