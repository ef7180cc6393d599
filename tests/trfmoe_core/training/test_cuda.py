"""Training on CUDA devices: the numbers of the CPU, the same bits in every run, several devices."""

import json
from pathlib import Path

import pytest
import torch

from tests.trfmoe_core.training.rank_work import STEPS, both_models
from tests.trfmoe_core.training.test_trainer import MODEL, VOCAB, assert_equal, make_config, stream, weights
from trfmoe_core.errors import RunError
from trfmoe_core.model.transformer import build_model
from trfmoe_core.training.device import prepare_process
from trfmoe_core.training.launch import launch
from trfmoe_core.training.ranks import ALONE
from trfmoe_core.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device that torch can use"),
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_float32_steps_are_those_of_the_cpu_but_for_rounding() -> None:
    config = make_config(precision="float32")
    ours, theirs = (Trainer(build_model(MODEL, VOCAB, 0), config, 6, device) for device in (CUDA, CPU))
    first, second = ours.train(stream(), 6), theirs.train(stream(), 6)
    assert first.loss == pytest.approx(second.loss, abs=1e-4)
    assert first.peak_memory_bytes > 0
    for name, tensor in weights(ours).items():
        torch.testing.assert_close(tensor.cpu(), weights(theirs)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_deterministic_training_gives_the_same_bits_and_resumes_with_them(precision: str) -> None:
    config = make_config(precision=precision, deterministic=True)
    prepare_process(config)
    try:
        whole, again, first, second = (Trainer(build_model(MODEL, VOCAB, 0), config, 6, CUDA) for _ in range(4))
        whole.train(stream(), 6)
        again.train(stream(), 6)
        batches = stream()
        first.train(batches, 3)
        second.model.load_state_dict(weights(first))
        second.load_state(first.state())
        second.train(batches, 3)
    finally:
        prepare_process(make_config())
    assert_equal(weights(again), weights(whole))
    assert_equal(weights(second), weights(whole))


def test_lack_of_memory_is_explained() -> None:
    trainer = Trainer(build_model(MODEL, VOCAB, 0), make_config(), 6, CUDA)
    trainer.model.layers[0].register_forward_pre_hook(lambda *_: torch.empty(1 << 50, device="cuda"))
    with pytest.raises(RunError, match=r"out of memory on cuda:0 .*batch_size.*gradient_checkpointing"):
        trainer.train(stream(), 1)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_train_like_one_with_the_doubled_batch(tmp_path: Path) -> None:
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    launch("tests.trfmoe_core.training.rank_work", ["train", str(tmp_path / "two")], CUDA, 2, tmp_path / "scratch")
    both_models(ALONE, CUDA, tmp_path / "one", batch_size=4)
    curves = [torch.tensor(json.loads((tmp_path / n / "busy.json").read_text())[0]) for n in ("two", "one")]
    assert curves[0].shape[0] == STEPS
    torch.testing.assert_close(curves[0], curves[1], rtol=1e-2, atol=1e-2)
