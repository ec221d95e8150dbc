"""How to tune: the method, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from clipsearch.errors import InputError

MAX_FALL = 0.01
"""How far recall@1 on the control set may fall by default."""
MANY_PAIRS = 5000
"""Number of pairs from which on the weights are trained, where there is a GPU."""


class Method(StrEnum):
    """What is changed."""

    AUTO = "auto"
    QUERY = "query"
    LORA = "lora"


class Trained(StrEnum):
    """The towers whose weights are trained."""

    TEXT = "text"
    IMAGE = "image"
    BOTH = "both"


@dataclass(frozen=True)
class Options:
    """How to tune.

    Attributes:
        method: "query" learns a matrix for the vectors of texts; images keep their vectors. "lora" trains the weights
            of the model. "auto" is "lora" if there are many pairs, peft is installed, and there is a GPU; or if one of
            the next two is given.
        towers: With "lora", the towers to train: "text", "image" or, by default, "both".
        epochs: With "lora", how often each image is seen at most; None for 20 times, or fewer if there are many.
        seed: That of the random numbers.
        max_fall: How far recall@1 on the control set may fall.

    Raises:
        InputError: a value is invalid, or only for another method.
    """

    method: str = Method.AUTO
    towers: str | None = None
    epochs: int | None = None
    seed: int = 0
    max_fall: float = MAX_FALL

    def __post_init__(self) -> None:
        if self.method == Method.AUTO and (self.towers or self.epochs):
            object.__setattr__(self, "method", Method.LORA)
        for what, given, known in (("method", self.method, [*Method]), ("towers", self.towers, [*Trained])):
            if given is not None and given not in known:
                raise InputError(f"Unknown {what} {given!r}; choose one of: {', '.join(known)}.")
        if self.method == Method.QUERY and (self.towers or self.epochs):
            raise InputError("The method query trains no towers.", hint="method-lora")
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"The pairs are seen once or more often, not {self.epochs} times.")

    @property
    def trains_images(self) -> bool:
        """Whether images get new vectors, if the method is "lora"."""
        return self.towers != Trained.TEXT
