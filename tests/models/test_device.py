"""Where a model runs and what it computes in: what can be asked for, what is chosen, and what is said of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PICTUREBOOK, Run, index, paint
from tiny import MODEL, TinyEncoder

from clipsearch.errors import DeviceError
from clipsearch.index import updating
from clipsearch.index.format import FOLDER, Computed
from clipsearch.index.models import LoadedModel
from clipsearch.index.reading import Store
from clipsearch.index.writing import Writer
from clipsearch.models.devices import check_device
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.models.in_torch.precision import choose_device, choose_precision

PB = ("--model", "picturebook")
CPU = torch.device("cpu")
KEYS = ("device", "device_reason", "precision", "precision_reason", "engine")
UNITS = {"architecture": "x86_64", "amx_bf16": True, "avx512_bf16": True, "avx512_fp16": True}

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Let PyTorch see a machine with these GPUs, and with Apple's or without."""

    def machine(*gpus: str, mps: bool = False, built: bool = True, capability: tuple[int, int] = (8, 0)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: gpus[number])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda: built and mps)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return machine


# -- the device ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "mps", "device", "reason"),
    [
        ((), False, "cpu", "no GPU that PyTorch sees"),
        (("H200",), False, "cuda:0", "H200"),
        (("H200", "T4"), True, "cuda:0", "H200"),
        ((), True, "mps", "the GPU of this Mac"),
    ],
)
def test_auto_takes_the_first_gpu_and_else_the_cpu(
    machine: Machine, gpus: tuple[str, ...], device: str, reason: str, *, mps: bool
) -> None:
    machine(*gpus, mps=mps)
    assert choose_device("auto") == (torch.device(device), reason)


@pytest.mark.parametrize(
    ("wanted", "device", "reason"),
    [
        ("cpu", "cpu", "as asked for"),
        ("cuda", "cuda:0", "H200, as asked for"),
        ("cuda:0", "cuda:0", "H200, as asked for"),
        ("cuda:1", "cuda:1", "T4, as asked for"),
        ("mps", "mps", "the GPU of this Mac, as asked for"),
    ],
)
def test_what_is_asked_for_is_taken(machine: Machine, wanted: str, device: str, reason: str) -> None:
    machine("H200", "T4", mps=True)
    assert choose_device(wanted) == (torch.device(device), reason)


def test_pytorch_without_mps_has_none_whatever_the_machine(machine: Machine) -> None:
    machine(mps=True, built=False)
    assert choose_device("auto").device == CPU
    with pytest.raises(DeviceError, match=r"mps.* sees: cpu\)"):
        choose_device("mps")


@pytest.mark.parametrize(
    ("gpus", "wanted", "seen", "way_out"),
    [
        ((), "cuda", "sees: cpu)", "install PyTorch with CUDA"),
        ((), "cuda:1", "sees: cpu)", "with CUDA"),
        ((), "mps", "sees: cpu)", ""),
        (("H200",), "cuda:1", "sees: cpu, cuda:0 (H200))", ""),
        (("H200", "T4"), "cuda:2", "sees: cpu, cuda:0 (H200), cuda:1 (T4))", ""),
    ],
)
def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(
    machine: Machine, gpus: tuple[str, ...], wanted: str, seen: str, way_out: str
) -> None:
    machine(*gpus)
    with pytest.raises(DeviceError) as error:
        choose_device(wanted)
    assert wanted in str(error.value)
    assert seen in str(error.value)
    assert way_out in str(error.value)
    assert ("with CUDA" in str(error.value)) == bool(way_out)


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:15", "mps"])
def test_names_of_devices_are_known_without_torch(name: str) -> None:
    assert check_device(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpu", "'cuda'"),
        ("GPU:0", "'cuda'"),
        ("CUDA", "'cuda'"),
        ("cuda:x", "'cuda'"),
        ("cuda:-1", "'cuda'"),
        ("MPS", "'mps'"),
        ("cpu ", "'cpu'"),
        ("tpu", None),
        ("", None),
        ("cuda:\N{SUPERSCRIPT TWO}", "'cuda'"),
        ("cuda:0\n", "'cuda'"),
        ("cuda:99999999999999999999", None),
    ],
)
def test_nonsense_is_refused_with_all_that_can_be_typed(name: str, hint: str | None) -> None:
    with pytest.raises(DeviceError) as error:
        check_device(name)
    assert repr(name) in str(error.value)
    assert "auto, cpu, cuda, mps; or cuda:0, cuda:1" in str(error.value)
    assert ("?" in str(error.value)) == (hint is not None)
    assert hint is None or f" {hint}?" in str(error.value)


def test_a_typo_does_not_wait_for_the_model(tmp_path: Path, run: Run) -> None:
    """The folder is not even looked for."""
    for command in (["index", "nowhere"], ["score", "nowhere", "-t", "a"], ["embed", "nowhere", "-o", "x.npy"]):
        done = run(*command, "--device", "gpu", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.decode().startswith("clipsearch: Unknown device 'gpu'. Did you mean 'cuda'?")
        assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_not_made_on_a_device_that_is_not_there(pictures: Path, run: Run) -> None:
    done = run("index", "pictures", *PB, "--device", "cuda:1", cwd=pictures.parent)
    assert done.returncode == 2
    assert re.search(r"cuda:1.* sees: cpu\b", done.stderr.decode())
    assert not (pictures.parent / FOLDER).exists()


def test_the_shell_completes_devices(tmp_path: Path, run: Run) -> None:
    asked = {"_CLIPSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": "clipsearch index --device c", "COMP_CWORD": "3"}
    assert run(cwd=tmp_path, env=asked).stdout.split() == [b"cpu", b"cuda"]


def test_the_encoder_says_what_was_chosen() -> None:
    encoder = Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu", "fp32")
    assert (encoder.device, encoder.device_reason) == (CPU, "as asked for")
    assert (encoder.precision, encoder.precision_reason) == ("fp32", "as asked for")
    with pytest.raises(DeviceError, match="'gpu'"):
        Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "gpu")


# -- the precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "has", "drawback"),
    [
        ("bf16", UNITS, ""),
        ("fp16", UNITS, ""),
        ("fp32", {"architecture": "x86_64"}, ""),
        ("bf16", {"architecture": "x86_64"}, "; slower than fp32, for this processor has no bf16 units"),
        (
            "fp16",
            {"architecture": "x86_64", "amx_bf16": True},
            "; slower than fp32, for this processor has no fp16 units",
        ),
        ("bf16", {"architecture": "aarch64"}, ""),  # never measured
    ],
)
def test_a_precision_that_a_processor_has_no_units_for_is_taken_and_said_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, wanted: str, has: Mapping[str, object], drawback: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert choose_precision(wanted, CPU, 768) == (wanted, f"as asked for{drawback}")


def test_bf16_on_a_gpu_without_units_is_taken_and_said_to_be_without(machine: Machine) -> None:
    gpu = torch.device("cuda", 1)
    machine("T4", "T4", capability=(7, 5))
    assert choose_precision("bf16", gpu, 768) == ("bf16", "as asked for; this GPU has no bf16 units")
    assert choose_precision("auto", gpu, 768).name == "fp16"
    machine("H200", "H200", capability=(9, 0))
    assert choose_precision("bf16", gpu, 768) == ("bf16", "as asked for")
    assert choose_precision("auto", gpu, 768).name == "bf16"


def test_the_gpu_that_is_used_decides_not_the_first_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("H200", "T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: [(9, 0), (7, 5)][torch.device(gpu).index])
    assert choose_precision("auto", torch.device("cuda", 0), 768).name == "bf16"
    assert choose_precision("auto", torch.device("cuda", 1), 768).name == "fp16"


def test_on_a_mac_fp32_is_taken_since_nothing_else_was_measured(machine: Machine) -> None:
    machine(mps=True)
    chosen = choose_precision("auto", torch.device("mps"), 768)
    assert chosen.name == "fp32"
    assert "measured" in chosen.reason
    assert choose_precision("fp16", torch.device("mps"), 768) == ("fp16", "as asked for")


# -- what an index remembers -----------------------------------------------------------------------------------------

FIRST = Computed("cuda:1", "T4, as asked for", "fp16", "this GPU has no bf16 units")


def update(folder: Path, computed: Computed | None) -> None:
    """Index the pictures with the small encoder, which says that it computes so."""

    class Told:
        def choose(self, index: object, known: object, folders: object) -> None:
            """It is chosen."""

        def side(self) -> None:
            """It is not asked."""

        def load(self, expected: int) -> LoadedModel:  # noqa: ARG002
            return LoadedModel(TinyEncoder(batch_size=2), MODEL)

        def computed(self) -> Computed | None:
            return computed

    updating.update(folder / FOLDER, [folder / "pictures"], Told())


def status(run: Run, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("status", "--json", cwd=folder).stdout)
    return found


def remembered(folder: Path) -> object:
    with closing(Store.open(folder / FOLDER)) as store:
        return (store.last_run() or {}).get("computed")


def test_index_and_status_tell_how_it_was_computed(pictures: Path, run: Run) -> None:
    folder = pictures.parent
    summary = index(run, "pictures", *PB, "--device", "cpu", "--engine", "torch", cwd=folder)
    wanted = dict(zip(KEYS, ("cpu", "as asked for", "fp32", "the model is small", "torch"), strict=True))
    found = status(run, folder)
    assert {key: summary[key] for key in KEYS} == {key: found[key] for key in KEYS} == wanted
    assert "computed" not in found["last_run"]
    assert (found["repository"], found["revision"], len(found["fingerprint"])) == (None, None, 32)
    text = run("status", cwd=folder).stdout.decode()
    assert "\ncomputed    last on cpu (as asked for) in fp32 (the model is small)\n" in text
    assert f"\nfingerprint {found['fingerprint']}\n" in text


def test_an_index_remembers_how_it_was_last_computed(pictures: Path, run: Run) -> None:
    folder = pictures.parent
    update(folder, FIRST)
    assert remembered(folder) == FIRST._asdict()
    # A run that embeds nothing forgets nothing, whatever it would have computed in.
    (pictures / "warm" / "green.png").unlink()
    update(folder, FIRST._replace(precision="bf16"))
    assert remembered(folder) == FIRST._asdict()
    # The last one that embeds something counts.
    paint(pictures / "new.png", "teal")
    second = Computed("cpu", "no GPU that PyTorch sees", "bf16", "as asked for")
    update(folder, second)
    assert remembered(folder) == second._asdict()
    text = run("status", cwd=folder).stdout.decode()
    assert "\ncomputed    last on cpu (no GPU that PyTorch sees) in bf16 (as asked for)\n" in text


def test_what_died_half_way_is_remembered_too(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyEncoder, "encode_images", failing_after(1, TinyEncoder.encode_images))
    with pytest.raises(RuntimeError, match="enough"):
        update(pictures.parent, FIRST)
    assert remembered(pictures.parent) == FIRST._asdict()


def failing_after(calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    done: list[int] = []

    def encode(*arguments: Any) -> Any:  # noqa: ANN401  (whatever it is)
        if len(done) == calls:
            raise RuntimeError("enough")
        done.append(1)
        return real(*arguments)

    return encode


def test_an_index_of_an_older_clipsearch_does_without(pictures: Path, run: Run) -> None:
    folder = pictures.parent
    update(folder, FIRST)
    with Writer.locked(folder / FOLDER) as writer:
        run_before = writer.last_run() or {}
        del run_before["computed"]
        writer.set_last_run(run_before)
        writer.commit()
    found = status(run, folder)
    assert [found[key] for key in KEYS] == [None] * len(KEYS)
    assert "computed" not in run("status", cwd=folder).stdout.decode()
    update(folder, FIRST)
    assert remembered(folder) is None
    paint(pictures / "new.png", "teal")
    update(folder, FIRST)
    assert remembered(folder) == FIRST._asdict()


def test_what_a_newer_clipsearch_adds_is_passed_over(pictures: Path, run: Run) -> None:
    folder = pictures.parent
    update(folder, FIRST)
    with Writer.locked(folder / FOLDER) as writer:
        newer = {**FIRST._asdict(), "colour": "blue"}
        writer.set_last_run((writer.last_run() or {}) | {"computed": newer})
        writer.commit()
    assert {key: status(run, folder)[key] for key in KEYS} == FIRST._asdict()


def test_status_names_repository_and_revision_of_a_model_from_the_hub(pictures: Path, run: Run) -> None:
    folder = pictures.parent
    update(folder, None)
    revision = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
    with Writer.locked(folder / FOLDER) as writer:
        writer.set_model(replace(MODEL, name="openai", revision=revision))
        writer.commit()
    found = status(run, folder)
    assert (found["model"], found["repository"], found["revision"]) == (
        "openai",
        "openai/clip-vit-base-patch32",
        revision,
    )
    assert run("status", cwd=folder).stdout.decode().splitlines()[1:5] == [
        "model       openai, 48 dimensions",
        "repository  openai/clip-vit-base-patch32",
        f"revision    {revision}",
        f"fingerprint {MODEL.fingerprint}",
    ]
