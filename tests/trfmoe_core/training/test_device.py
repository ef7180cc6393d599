"""Devices and number types."""

import os
import subprocess
import sys

import pytest
import torch

from tests.places import ROOT
from trfmoe_core.errors import ConfigError
from trfmoe_core.training.device import count_devices, resolve_device, resolve_precision


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


def test_auto_precision_is_float32_on_the_cpu() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == resolve_precision("float32", cpu) == torch.float32
    assert resolve_precision("bfloat16", cpu) == torch.bfloat16


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
