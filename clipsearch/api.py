"""The public entry: puts an index on disk and the text tower of its model together."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import IndexMissingError, ModelMismatchError
from clipsearch.models.catalog import DEFAULT
from clipsearch.models.files import canonical, fingerprint, locate
from clipsearch.query import Index
from clipsearch.settings import wanted_model
from clipsearch.store.format import FOLDER, ModelRecord, mismatch
from clipsearch.store.reading import Store, find_index
from clipsearch.towers import BY_ITSELF, Options, Towers, load_encoder

if TYPE_CHECKING:
    from clipsearch.models.encoder import Encoder

_FOR_QUERIES = Options(device="cpu", precision="auto", batch_size=None, exact=False)


def index_folder(given: str | os.PathLike[str] | None, start: Path | None = None) -> Path:
    """The folder of an existing index: `given`, else `CLIPSEARCH_INDEX`, else the nearest from `start` upwards.

    `given` may be the index folder itself or the folder that holds it.

    Raises:
        IndexMissingError: nothing was named and none is found.
    """
    named = given or os.environ.get("CLIPSEARCH_INDEX")
    if not named:
        return find_index(start or Path.cwd())
    folder = Path(named).expanduser()
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder


def open_index(folder: str | os.PathLike[str] | None = None, *, say: Callable[[str], None] = lambda _: None) -> Index:
    """Open an index for searching; as for `index_folder`, by default the nearest one. Loads no torch.

    `say` hears of anything that takes long or should be known.

    Raises:
        ClipsearchError: there is no index, or it cannot be read.
    """
    store = Store.open(index_folder(folder))
    return Index(store, Towers(store, say, options=_FOR_QUERIES))


def open_towers(
    model: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    options: Options = BY_ITSELF,
) -> Towers:
    """A model for work that needs no index: `model`, else as settings say, else that of the nearest index, else laion.

    Where it is the model of that index, pictures that the index knows are not embedded again. `folder` is as for
    `index_folder`.

    Raises:
        ClipsearchError: there is no such index, or the model cannot be had.
    """
    store = None
    try:
        store = Store.open(index_folder(folder))
    except IndexMissingError:
        if folder is not None:
            raise
    wanted = wanted_model(model, [Path.cwd()])
    known = store.model() if store else None
    name = canonical(wanted[0]) if wanted else known.name if known else DEFAULT
    if store and known and (name == known.name or _is_copy(name, known)):
        return Towers(store, say, options=options)
    if store:
        store.close()
    return Towers(locate(name, say), say, options=options)


class ModelChoice:
    """Which model an `index` run uses, decided at once and loaded only if something has to be embedded."""

    def __init__(
        self,
        folder: Path,
        roots: list[Path],
        flag: str | None,
        say: Callable[[str], None],
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        exact: bool = False,
    ) -> None:
        """Decide: `flag`, else environment, else `clipsearch.toml`, else the index's own model, else the default.

        The rest is for the `Encoder`.

        Raises:
            ModelMismatchError: the index in `folder` was made with another model.
        """
        self.encoder: Encoder | None = None
        """The model, once it was needed."""
        self._say = say
        self._options = Options(device=device, precision=precision, batch_size=batch_size, exact=exact)
        known = None
        if Store.exists(folder):
            with closing(Store.open(folder)) as store:
                known = store.model()
        wanted = wanted_model(flag, roots)
        self.name = canonical(wanted[0]) if wanted else known.name if known else DEFAULT
        if known and wanted and self.name != known.name and not _is_copy(self.name, known):
            raise ModelMismatchError(mismatch(folder, known, f"{wanted[0]} (from {wanted[1]})"))

    def load(self) -> tuple[Encoder, ModelRecord]:
        """The model, and what the index records of it. Leaves its text tower where queries find it.

        Raises:
            ClipsearchError: the model or the device cannot be had.
        """
        encoder = load_encoder(locate(self.name, self._say), self._options)
        encoder.divide_cores()
        encoder.save_text_tower()
        self.encoder = encoder
        return encoder, ModelRecord(encoder.name, encoder.revision, encoder.fingerprint, encoder.dim)


def _is_copy(name: str, known: ModelRecord) -> bool:
    """Whether `name` is a folder with the very model that the index was made with."""
    return Path(name).is_dir() and fingerprint(Path(name)) == known.fingerprint
