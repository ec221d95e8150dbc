"""Benchmark of colour spaces in files: the error of ignoring them, and the time of applying them.

Each picture is an sRGB one, written again in another space of colours with an ICC profile, a PNG's chunks or HDR's
numbers. It is decoded by clipsearch, and by Pillow's `convert("RGB")`, which passes all that over; the cosine of each
with the sRGB picture, and how far its levels are from it, say what is lost. Run it with:

    python scripts/bench_colour.py [--pictures FOLDER]

With the bundled model and a ViT-B/32 of random weights, for which colours matter less than for trained ones. The times
are of decoding alone. It takes some minutes.
"""

from __future__ import annotations

import io
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bench_common as common
import numpy as np
import numpy.typing as npt
from PIL import Image

from clipsearch.images.codecs.decoding import decode
from clipsearch.models.disk.files import locate
from clipsearch.models.in_torch.encoder import Encoder

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLES = REPOSITORY / "sample-images"
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

import colour_files as files  # noqa: E402  (the tests', which write such files)
from image_files import Pixels, png, saved  # noqa: E402

BATCH = 16
LARGEST = 448
"""Length of a side in pixels: twice that of the models' input."""
MATRICES = {
    "sRGB": files.matrix_profile(files.REC_709, files.srgb_curve()),
    "gamma 2.2": files.matrix_profile(files.REC_709, files.gamma(2.2)),
    "gamma 2.0": files.matrix_profile(files.REC_709, files.gamma(2.0)),
    "gamma 2.4": files.matrix_profile(files.REC_709, files.gamma(2.4)),
    "gamma 1.8": files.matrix_profile(files.REC_709, files.gamma(1.8)),
    "linear": files.matrix_profile(files.REC_709, files.gamma(1.0)),
    "Display P3": files.matrix_profile(files.P3, files.srgb_curve()),
    "Adobe RGB": files.matrix_profile(files.ADOBE, files.gamma(2.2)),
    "ProPhoto": files.matrix_profile(files.PROPHOTO, files.gamma(1.8), (0.3457, 0.3585)),
    "swapped channels": files.matrix_profile(files.REC_709, files.srgb_curve(), order="gbr"),
}
GREYS = {f"grey, gamma {power}": files.grey_profile(files.gamma(power)) for power in (1.0, 1.8, 2.2)}
DOT_GAIN = 0.75
"""Dots of ink are larger on paper: an amount of ink to this power is what it covers."""


def main() -> None:
    """Measure, and finally print one line of JSON."""
    parser = ArgumentParser(description=__doc__)
    common.add_options(parser, runs=5)
    parser.add_argument("--pictures", type=Path, default=SAMPLES, help="a folder of JPEG, PNG or WebP in sRGB")
    parser.add_argument("--count", type=int, default=32, help="number of pictures (default %(default)s)")
    options = parser.parse_args()
    found = sorted(path for path in options.pictures.rglob("*") if path.suffix in (".jpg", ".png", ".webp"))
    chosen = found[:: max(1, len(found) // options.count)][: options.count]
    scenes = [_scene(path) for path in chosen]
    spaces = dict(_spaces())
    with tempfile.TemporaryDirectory() as work:
        common.isolate(Path(work))
        models = common.models(options.model, Path(work), vit=not options.no_vit)
        losses = {
            name: _losses(name, Encoder(locate(str(folder)), "cpu"), scenes, spaces) for name, folder in models.items()
        }
    common.finish(pictures=len(scenes), losses=losses, milliseconds=_times(options.runs))


def _scene(path: Path) -> Pixels:
    image = decode(path.read_bytes()).image
    image.thumbnail((LARGEST, LARGEST))
    return np.asarray(image)


# --- what is lost ---


def _spaces() -> Iterator[tuple[str, Callable[[Pixels], tuple[bytes, Pixels]]]]:
    """Return for each way to write a picture the function that writes it, and the expected pixels."""
    for name, profile in MATRICES.items():
        yield (
            name,
            lambda scene, profile=profile: (saved(files.stored(scene, profile), "PNG", icc_profile=profile), scene),
        )
    yield "mixed channels (XYB)", _mixed
    for name, profile in GREYS.items():
        yield name, partial(_grey, profile=profile, power=float(name.split()[-1]))
    yield "CMYK with dot gain", _printed
    for power in (1.0, 1.8, 2.2):
        yield (
            f"PNG gAMA {power}",
            partial(_png, profile=files.matrix_profile(files.REC_709, files.gamma(power)), chunks=[files.gama(power)]),
        )
    yield "PNG cHRM of P3", partial(_png, profile=MATRICES["Display P3"], chunks=[files.P3_CHRM])
    yield (
        "AVIF, P3 by nclx",
        lambda scene: (files.nclx_avif(np.asarray(files.stored(scene, MATRICES["Display P3"])), 12, 13), scene),
    )
    for kind in ("PNG", "HEIF", "AVIF"):
        for curve in files.TRANSFER:
            yield (
                f"{kind}, {curve.upper()}",
                lambda scene, kind=kind, curve=curve: (files.hdr_file(scene, kind, curve), scene),
            )


def _png(scene: Pixels, profile: bytes, chunks: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, Pixels]:
    return png(np.asarray(files.stored(scene, profile)), 8, 2, chunks), scene


def _mixed(scene: Pixels) -> tuple[bytes, Pixels]:
    channels, profile = files.xyb_like(scene)
    return saved(channels, "PNG", icc_profile=profile), scene


def _grey(scene: Pixels, profile: bytes, power: float) -> tuple[bytes, Pixels]:
    grey = np.asarray(Image.fromarray(scene).convert("L"))
    level = grey / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    own = np.rint(linear ** (1 / power) * 255).astype(np.uint8)
    return saved(own, "PNG", icc_profile=profile), np.dstack([grey] * 3)


def _printed(scene: Pixels) -> tuple[bytes, Pixels]:
    inks = np.dstack([(1 - scene / 255) ** (1 / DOT_GAIN), np.zeros(scene.shape[:2])])
    image = Image.fromarray(np.rint(inks * 255).astype(np.uint8), "CMYK")
    profile = files.cmyk_profile(
        lambda ink: files.lab_of_srgb((1 - ink[:, :3] ** DOT_GAIN) * (1 - ink[:, 3:] ** DOT_GAIN)), 13
    )
    return saved(image, "TIFF", icc_profile=profile), scene


def _losses(
    model: str, encoder: Encoder, scenes: list[Pixels], spaces: Mapping[str, Callable[[Pixels], tuple[bytes, Pixels]]]
) -> dict[str, Any]:
    losses = {}
    for name, write in spaces.items():
        written = [write(scene) for scene in scenes]
        wanted = [seen for _, seen in written]
        truth = _embedded(encoder, [Image.fromarray(seen) for seen in wanted])
        losses[name] = {
            "passed over": _loss(encoder, [_as_before(content) for content, _ in written], wanted, truth),
            "heeded": _loss(encoder, [decode(content).image for content, _ in written], wanted, truth),
        }
        before, now = losses[name]["passed over"], losses[name]["heeded"]
        changes = (f"{figure} {before[figure]:.4g} -> {now[figure]:.4g}" for figure in before)
        print(f"{model:<12} {name:<22} {', '.join(changes)}", flush=True)
    return losses


def _as_before(content: bytes) -> Image.Image:
    """Decode as Pillow alone does; of colour in 16 bits it keeps the upper eight."""
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def _loss(
    encoder: Encoder, images: list[Image.Image], wanted: list[Pixels], truth: npt.NDArray[np.float32]
) -> dict[str, float]:
    """Cosines with the vectors in `truth`, and how far levels are on average from those that are wanted."""
    cosines = (_embedded(encoder, images) * truth).sum(axis=1)
    pairs = zip(images, wanted, strict=True)
    levels = [np.abs(np.asarray(image, np.int16) - scene).mean() for image, scene in pairs]
    return {
        "least": round(float(cosines.min()), 4),
        "median": round(float(np.median(cosines)), 4),
        "below .99": round(float((cosines < 0.99).mean()), 3),
        "levels": round(float(np.mean(levels)), 2),
    }


def _embedded(encoder: Encoder, images: list[Image.Image]) -> npt.NDArray[np.float32]:
    pixels = [encoder.preprocessing(image, (0, 0, *image.size)) for image in images]
    return np.concatenate([encoder.encode_images(pixels[at : at + BATCH]) for at in range(0, len(pixels), BATCH)])


# --- what it costs ---


def _times(runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds of decoding one picture, with profiles at hand."""
    photo = Image.effect_noise((4000, 3000), 60).convert("RGB")
    small = photo.crop((0, 0, 1000, 1000))
    p3, tables = MATRICES["Display P3"], files.xyb_like(np.asarray(small))[1]
    named = {"no profile": b"", "sRGB": MATRICES["sRGB"], "Display P3": p3, "tables (XYB)": tables}
    cases = {
        f"JPEG 12 MP, for 224: {name}": (saved(photo, "JPEG", icc_profile=profile), 628)
        for name, profile in named.items()
    }
    cases |= {f"PNG 1 MP: {name}": (saved(small, "PNG", icc_profile=profile), None) for name, profile in named.items()}
    cases["PNG 1 MP: PQ"] = (
        png(np.asarray(small).astype(np.uint16) * 257, 16, 2, [(files.CICP, bytes((9, 16, 0, 1)))]),
        None,
    )
    cases["PNG 1 MP: 16 bits"] = png(np.asarray(small).astype(np.uint16) * 257, 16, 2), None
    seconds = common.interleaved(
        {
            name: partial(common.timed, partial(decode, content, at_least=least))
            for name, (content, least) in cases.items()
        },
        runs,
    )
    figures = {name: common.summary([1000 * second for second in found]) for name, found in seconds.items()}
    for name, figure in figures.items():
        common.show(name, figure, "ms", 1)
    return figures


if __name__ == "__main__":
    main()
