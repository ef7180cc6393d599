"""Devices and number types."""

import os
import subprocess
import sys

import pytest
import torch
from pydantic import TypeAdapter

from strategies.exchange.messages import Device
from tests.places import ROOT
from trfmoe_core.errors import ConfigError
from trfmoe_core.training.device import (
    BFLOAT16_WIDTH,
    count_devices,
    cpu_multiplies_bfloat16,
    device_text,
    resolve_device,
    resolve_precision,
)


def test_without_cuda_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"cuda is not on this machine .*use auto or cpu"):
        resolve_device("cuda")


def test_with_cuda_auto_is_the_first_device_and_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="it has 2"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(("instructions", "library"), [(True, True), (False, True), (True, False)])
def test_auto_precision_is_bfloat16_for_wide_models_on_processors_that_multiply_it(
    instructions: bool, library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)
    cpu_multiplies_bfloat16.cache_clear()
    wide, narrow = (resolve_precision("auto", cpu, width) for width in (BFLOAT16_WIDTH, BFLOAT16_WIDTH - 1))
    cpu_multiplies_bfloat16.cache_clear()
    assert narrow == torch.float32
    assert wide == (torch.bfloat16 if instructions and library else torch.float32)
    assert resolve_precision("float32", cpu, BFLOAT16_WIDTH) == torch.float32
    assert resolve_precision("bfloat16", cpu, 1) == torch.bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_on_cuda_is_what_the_device_computes_in(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    found = resolve_precision("auto", torch.device("cuda", 0), 32)
    assert found == (torch.bfloat16 if native else torch.float32)


def test_what_a_node_trains_with_is_told_in_one_text() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert device_text(cpu, 1, torch.float32) == "cpu, 1 thread, float32"
    assert device_text(cuda, 2, torch.bfloat16) == "cuda:0 x 2, bfloat16"
    for text in (device_text(cpu, 4, torch.bfloat16), device_text(cuda, 1, torch.float32)):
        assert TypeAdapter(Device).validate_python(text) == text  # a node may send it


def test_devices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert (count_devices(cpu, "all"), count_devices(cpu, 3)) == (1, 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (count_devices(cuda, "all"), count_devices(cuda, 2)) == (2, 2)
    with pytest.raises(ConfigError, match=r"training\.devices: 3, but this machine has 2"):
        count_devices(cuda, 3)


DIGEST = """
import hashlib, sys
import numpy as np
from tests.trfmoe_core.training.test_trainer import CPU, MODEL, build_model, make_config
from trfmoe_core.training.device import prepare_process
from trfmoe_core.training.trainer import Trainer
config = make_config(deterministic=sys.argv[2] == "true", batch_size=16)
prepare_process(config, int(sys.argv[1]))
model = MODEL.model_copy(update={"width": 128, "heads": 4, "context": 128, "experts": 8, "expert_width": 96})
class Stream:
    number = 0
    ignored_target = None
    def next(self):
        self.number += 1
        return np.random.default_rng(self.number).integers(0, 300, (16, 129))
trainer = Trainer(build_model(model, 512, 0), config, 6, CPU)
trainer.train(Stream(), 6)
state = hashlib.sha256()
for tensor in trainer.model.state_dict().values():
    state.update(tensor.numpy().tobytes())
print(state.hexdigest())
"""


LAZY = """
import sys
import numpy as np
import clients.app
from tests.trfmoe_core.training.test_trainer import CPU, MODEL, build_model, make_config
from trfmoe_core.model.transformer import parameter_shapes
from trfmoe_core.training.device import prepare_process
from trfmoe_core.training.trainer import Trainer
config = make_config()
prepare_process(config, 1)
parameter_shapes(MODEL, 300)
class Stream:
    ignored_target = None
    def next(self):
        return np.zeros((config.batch_size, MODEL.context + 1), np.int64)
Trainer(build_model(MODEL, 300, 0), config, 1, CPU).train(Stream(), 1)
"""


def test_a_node_imports_neither_torchs_compiler_nor_the_coordinators() -> None:
    script = LAZY + 'print([name for name in sys.modules if name in ("torch._dynamo", "torch._inductor", "numba")])'
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def digest(threads: int, deterministic: bool) -> str:
    arguments = [sys.executable, "-c", DIGEST, str(threads), str(deterministic).lower()]
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    return subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_deterministic_training_gives_the_same_bits_for_every_number_of_threads() -> None:
    if not torch.backends.mkl.is_available():
        pytest.skip("needs a torch that multiplies with Intel's MKL")
    assert digest(1, True) == digest(2, True)  # without the setting it is so on some processors only
