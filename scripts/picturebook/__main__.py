"""`python -m scripts.picturebook STAGE`, such as draw, train or release: see the README beside this file."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(prog="python -m scripts.picturebook", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("draw", help="draw the training pictures")
    stage.add_argument("folder", type=Path)
    stage.add_argument("--count", type=int, default=180_000)
    stage.add_argument("--workers", type=int, default=2)
    stage = stages.add_parser("train", help="train on them, from the last checkpoint if there is one")
    stage.add_argument("folder", type=Path)
    stage.add_argument("--steps", type=int, default=3000)
    stage.add_argument("--decay", type=int, default=700, help="the last steps, in which the rate falls to zero")
    stage.add_argument("--threads", type=int, default=2)
    stage.add_argument("--peak", type=float, default=1.0, help="scales the learning rate")
    stage.add_argument("--focus", action="store_true", help="half of each batch are animals in one pose and colour")
    stage.add_argument("--seed", type=int, default=0, help="of the first weights")
    stage.add_argument("--small", action="store_true", help="a smaller model, to judge what the released one makes")
    stage = stages.add_parser("release", help="write the model of the last checkpoint for transformers, and check it")
    stage.add_argument("folder", type=Path)
    stage.add_argument("out", type=Path, nargs="?", default=Path("clipsearch/data/picturebook"))
    stage.add_argument("--small", action="store_true", help="as in train")
    stage = stages.add_parser("evaluate", help="examine a released model")
    stage.add_argument("model", type=Path, help="the folder that release wrote")
    stage.add_argument("out", type=Path, help="the JSON file to write")
    stage.add_argument("--pictures", type=int, default=1000)
    stage.add_argument("--draws", type=int, default=20)
    stage = stages.add_parser("samples", help="draw the sample pictures")
    stage.add_argument("out", type=Path, nargs="?", default=Path("sample-images"))
    stage = stages.add_parser("regions", help="draw the test of searching by regions")
    stage.add_argument("out", type=Path)
    stage.add_argument("--pictures", dest="number", type=int, default=300)
    stage.add_argument("--workers", type=int, default=2)
    stage = stages.add_parser("novelties", help="draw kinds that the model never saw, to try `clipsearch tune` on")
    stage.add_argument("out", type=Path)
    stage.add_argument("--count", type=int, default=40, help="pictures of each new kind")
    stage.add_argument("--held-out", type=int, default=10, help="more pictures of each new kind, to search for")
    stage.add_argument(
        "--old",
        type=int,
        default=1000,
        help="held-out pictures of what the model knows, and as many for the control set",
    )
    arguments = vars(parser.parse_args())
    name = arguments.pop("stage")
    if name == "draw":
        from .data import draw

        draw(**arguments)
    elif name == "train":
        from .train import train

        train(**arguments)
    elif name == "release":
        from .release import release

        release(**arguments)
    elif name == "evaluate":
        from .evaluate import evaluate

        evaluate(**arguments)
    elif name == "samples":
        from .samples import samples

        samples(**arguments)
    elif name == "regions":
        from .regions import regions

        regions(**arguments)
    elif name == "novelties":
        from .novelties import novelties

        novelties(**arguments)


if __name__ == "__main__":
    main()
