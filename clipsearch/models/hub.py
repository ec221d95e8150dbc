"""The Hugging Face hub: snapshots of it on this disk, and downloads, with a deadline. Imports no model library.

transformers and huggingface_hub by themselves would retry for half a minute before they say that there is no network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clipsearch.errors import ModelError
from clipsearch.models.catalog import BUNDLED

CONTACT_SECONDS = 8.0
"""How long the hub has to answer before it counts as unreachable."""
TEXT_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
"""What a model's folder has beside its weights."""
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"

_T = TypeVar("_T")


def on_disk(repository: str) -> Path | None:
    """The snapshot of a repository in the hub's cache, whole or not; found without the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def download(name: str, repository: str, say: Callable[[str], None]) -> Path:
    """Fetch what is needed of a repository; its snapshot. `name` is what the user calls it.

    Raises:
        ModelError: the hub cannot be reached, or has no such model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = _files_on_hub(name, repository)
    say(f"Downloading model {name!r} ({repository}) from the Hugging Face hub ...")
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ModelError(_unreachable(name, repository, _first_line(error))) from error


def _files_on_hub(name: str, repository: str) -> list[str]:
    """Which files of the repository are needed; asks the hub, within `CONTACT_SECONDS`."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        info = _within(CONTACT_SECONDS, lambda: HfApi().model_info(repository, timeout=CONTACT_SECONDS))
    except GatedRepoError as error:
        raise ModelError(f"{repository} asks for permission: accept its terms on the hub and set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The Hugging Face hub knows no model {repository!r} (or it is private and HF_TOKEN is not set). "
            "Check the spelling of --model."
        ) from error
    except OfflineModeIsEnabled as error:
        raise ModelError(_unreachable(name, repository, "HF_HUB_OFFLINE is set")) from error
    except Exception as error:  # the HTTP libraries below share no base class; any failure means this
        raise ModelError(_unreachable(name, repository, _first_line(error))) from error
    names = {sibling.rfilename for sibling in info.siblings or []}
    weights = [n for n in names if n.startswith("model") and n.endswith((".safetensors", ".safetensors.index.json"))]
    return [*TEXT_FILES, *(weights or [PICKLED, f"{PICKLED}.index.json", "pytorch_model-*.bin"])]


def _within(seconds: float, work: Callable[[], _T]) -> _T:
    """The result of `work`, or `TimeoutError`. Name look-ups have no time limit of their own, hence the thread."""
    results: list[_T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001  (raised again below)
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    return results[0]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _unreachable(name: str, repository: str, reason: str) -> str:
    return (
        f"Model {name!r} ({repository}) is not on this disk, and the Hugging Face hub cannot be reached: {reason}\n"
        "Three ways out:\n"
        "  1. Connect to the network and run the same command again; the model is downloaded once.\n"
        f"  2. Copy the folder of {repository} from another machine and name it: --model PATH\n"
        "  3. Try clipsearch without any download, on the sample pictures: "
        f"clipsearch index sample-images --model {BUNDLED}"
    )
