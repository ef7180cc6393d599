"""The local loop: it learns, resumes bit for bit, accumulates exactly, and stops when it diverges."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from trfmoe_core.config import ModelConfig, TrainingConfig
from trfmoe_core.errors import RunError
from trfmoe_core.model.transformer import MoETransformer, build_model
from trfmoe_core.training.local_state import load_state, save_state
from trfmoe_core.training.schedule import learning_rate
from trfmoe_core.training.trainer import Trainer

CPU = torch.device("cpu")
MODEL = ModelConfig.model_validate(
    {"layers": 2, "width": 32, "heads": 2, "experts": 4, "expert_width": 24, "context": 16}
)
VOCAB = 64


class CountingStream:
    """Batches of arithmetic sequences, a pure function of the position."""

    ignored_target: int | None = None

    def __init__(self, batch_size: int, position: int = 0) -> None:
        self.batch_size, self.position = batch_size, position

    def next(self) -> npt.NDArray[np.int64]:
        draw = np.random.default_rng(self.position)
        self.position += 1
        start, stride = draw.integers(0, 40, (self.batch_size, 1)), draw.integers(1, 3, (self.batch_size, 1))
        return (start + stride * np.arange(17)) % 40


def make_config(**changes: Any) -> TrainingConfig:
    base = {"learning_rate": 3e-3, "min_learning_rate": 3e-4, "warmup_steps": 2, "batch_size": 4}
    return TrainingConfig.model_validate({**base, **changes})


def make_trainer(config: TrainingConfig, total_steps: int = 6) -> Trainer:
    return Trainer(build_model(MODEL, VOCAB, 0), config, total_steps, CPU)


def stream(batch_size: int = 4, position: int = 0) -> Any:
    return CountingStream(batch_size, position)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return trainer.model.state_dict()


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_it_learns_and_reports(tmp_path: Any) -> None:
    trainer = make_trainer(make_config(), total_steps=60)
    batches = stream(8)
    first = trainer.train(batches, 10)
    last = [trainer.train(batches, 10) for _ in range(5)][-1]
    assert last.loss < 0.6 * first.loss
    assert first.tokens == 10 * 8 * 16 and first.seconds > 0 and first.grad_norm > 0
    assert last.learning_rate == learning_rate(59, 60, trainer.config)
    assert first.balance_loss == pytest.approx(1.0, abs=0.2)
    assert len(first.expert_share) == 2 and all(sum(row) == pytest.approx(1.0) for row in first.expert_share)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Any) -> None:
    config = make_config()
    whole, batches = make_trainer(config), stream()
    whole.train(batches, 6)

    first, half = make_trainer(config), stream()
    first.train(half, 3)
    save_state(tmp_path / "state", {**weights(first), **first.state()}, {"position": half.position})

    tensors, meta = load_state(tmp_path / "state")
    second = make_trainer(config)
    names = second.model.state_dict().keys()
    second.model.load_state_dict({name: tensors[name] for name in names})
    second.load_state({name: tensor for name, tensor in tensors.items() if name not in names})
    rest = stream(position=meta["position"])
    second.train(rest, 3)

    assert second.step == whole.step == 6 and rest.position == batches.position
    assert_equal(weights(second), weights(whole))
    assert_equal(second.state(), whole.state())


def test_a_step_is_adamw_with_decay_on_matrices_only() -> None:
    config = make_config(warmup_steps=0, weight_decay=0.5, clip_norm=0.05)
    trainer = make_trainer(config)
    reference: MoETransformer = build_model(MODEL, VOCAB, 0)
    batch = torch.from_numpy(stream().next())
    metrics = trainer.train(stream(), 1)

    reference(batch[:, :-1], batch[:, 1:]).loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.05)
    assert metrics.grad_norm == pytest.approx(norm.item(), rel=1e-5) and norm > 0.05
    for name, parameter in reference.named_parameters():
        rate, grad = config.learning_rate, parameter.grad
        decayed = parameter.data * (1 - rate * 0.5 if parameter.ndim >= 2 else 1.0)
        # After one step the corrected moments are the gradient and its square.
        expected = decayed - rate * grad / (grad.abs() + 1e-8)
        torch.testing.assert_close(weights(trainer)[name], expected, rtol=1e-4, atol=1e-5)


def test_accumulation_is_the_mean_over_micro_batches() -> None:
    config = {"clip_norm": 1e9, "warmup_steps": 0}
    whole, parts = make_trainer(make_config(**config)), make_trainer(make_config(accumulation=2, **config))

    class Halves(CountingStream):
        def next(self) -> npt.NDArray[np.int64]:
            rows = CountingStream(4).next()[2 * self.position : 2 * self.position + 2]
            self.position += 1
            return rows

    one: Any = CountingStream(4)
    two: Any = Halves(2)
    # The balance loss is not linear in the batch, so only the cross-entropy is the same.
    for trainer in (whole, parts):
        trainer.model.config = MODEL.model_copy(update={"balance_weight": 0.0})
    together, apart = whole.train(one, 1), parts.train(two, 1)
    assert apart.loss == pytest.approx(together.loss, abs=1e-5)
    assert apart.tokens == together.tokens
    assert apart.grad_norm == pytest.approx(together.grad_norm, rel=1e-4)
    for name, moment in whole.state().items():
        torch.testing.assert_close(parts.state()[name], moment, rtol=1e-3, atol=1e-7)


def test_gradient_checkpointing_changes_no_bit() -> None:
    plain, thrifty = make_trainer(make_config()), make_trainer(make_config(gradient_checkpointing=True))
    kept: list[int] = []
    layer = thrifty.model.layers[0]
    layer.register_forward_pre_hook(lambda *_: kept.append(1))
    assert plain.train(stream(), 3).loss == thrifty.train(stream(), 3).loss
    assert len(kept) == 6, "every layer runs twice a step"
    assert_equal(weights(plain), weights(thrifty))


def test_random_numbers_of_model_parts_follow_from_the_step(tmp_path: Any) -> None:
    """A part with dropout: what it draws must not depend on where the run was cut."""

    def noisy() -> Trainer:
        trainer = make_trainer(make_config())
        trainer.model.layers[0].attention.register_forward_hook(lambda _m, _a, out: nnf.dropout(out, 0.3))
        return trainer

    whole, first, second, batches = noisy(), noisy(), noisy(), stream()
    whole.train(stream(), 4)
    first.train(batches, 2)
    torch.rand(7)
    second.model.load_state_dict(weights(first))
    second.load_state(first.state())
    second.train(batches, 2)
    assert_equal(weights(second), weights(whole))
    silent = make_trainer(make_config())
    silent.train(stream(), 4)
    assert not torch.equal(silent.model.head.weight, whole.model.head.weight)


def test_a_run_can_be_stopped_between_two_steps() -> None:
    trainer, whole = make_trainer(make_config()), make_trainer(make_config())
    asked: list[int] = []

    def third() -> bool:
        asked.append(trainer.step)
        return trainer.step == 3

    metrics = trainer.train(stream(), 6, third)
    assert trainer.step == 3 and asked == [1, 2, 3] and metrics.tokens == 3 * 4 * 16
    assert metrics.loss == whole.train(stream(), 3).loss


def test_lack_of_memory_names_the_settings_to_lower() -> None:
    trainer = make_trainer(make_config())

    class Endless(CountingStream):
        def next(self) -> npt.NDArray[np.int64]:
            return np.zeros((1 << 40, 17), dtype=np.int64)

    endless: Any = Endless(4)
    with pytest.raises(RunError, match=r"out of memory on cpu while training step 1 .*batch_size.*accumulation"):
        trainer.train(endless, 1)
    trainer.model.layers[0].register_forward_pre_hook(lambda *_: torch.empty(1 << 60))
    with pytest.raises(RunError, match=r"out of memory on cpu .*gradient_checkpointing"):
        trainer.train(stream(), 1)


def test_a_loss_that_is_not_finite_stops_before_the_weights_move() -> None:
    trainer = make_trainer(make_config())
    with torch.no_grad():
        trainer.model.layers[0].moe_norm.weight[0] = float("inf")
    before = {name: tensor.clone() for name, tensor in weights(trainer).items()}
    with pytest.raises(RunError, match=r"diverged at step 0.*learning_rate"):
        trainer.train(stream(), 2)
    assert_equal(weights(trainer), before)


def test_state_of_another_model_is_refused_and_fresh_state_is_fine() -> None:
    trainer = make_trainer(make_config())
    fresh = trainer.state()
    assert set(fresh) == {"step"}
    trainer.train(stream(), 1)
    state = dict(trainer.state())
    state["exp_avg.head.weight"] = torch.zeros(3, 3)
    with pytest.raises(RunError, match=r"exp_avg\.head\.weight is of shape \(3, 3\)"):
        make_trainer(make_config()).load_state(state)
    trainer.load_state(fresh)
    assert trainer.step == 0 and set(trainer.state()) == {"step"}


def test_bfloat16_trains_with_float32_weights_and_moments() -> None:
    trainer = make_trainer(make_config(precision="bfloat16"), total_steps=20)
    losses = [trainer.train(stream(), 1).loss for _ in range(20)]
    assert losses[-1] < losses[0]
    floats = [*weights(trainer).values(), *(t for t in trainer.state().values() if t.ndim)]
    assert {tensor.dtype for tensor in floats} == {torch.float32}


def test_targets_that_are_padding_do_not_count() -> None:
    """A stream of whole pieces: what follows the padding changes neither loss nor gradient."""

    class Padded(CountingStream):
        ignored_target = VOCAB - 1

        def next(self) -> npt.NDArray[np.int64]:
            rows = super().next()
            rows[:, 9:] = self.ignored_target
            return rows

    class Short(CountingStream):
        def next(self) -> npt.NDArray[np.int64]:
            return super().next()[:, :9]

    one: Any = Padded(4)
    other: Any = Short(4)
    padded, short = make_trainer(make_config()), make_trainer(make_config())
    for trainer in (padded, short):
        trainer.model.config = MODEL.model_copy(update={"balance_weight": 0.0})
    assert padded.train(one, 1).loss == pytest.approx(short.train(other, 1).loss, rel=1e-5)
    for name, weight in weights(short).items():
        torch.testing.assert_close(weights(padded)[name], weight, rtol=1e-4, atol=1e-5)


def test_micro_batches_with_padding_are_weighted_by_their_targets() -> None:
    """The gradient of eight rows of different lengths is the same however the rows are divided."""
    padding, lengths = VOCAB - 1, (17, 5, 16, 4, 17, 3, 9, 2)
    rows = np.stack([np.where(np.arange(17) < length, np.arange(17) + length, padding) for length in lengths])

    class Rows:
        ignored_target = padding

        def __init__(self, size: int) -> None:
            self.size, self.at = size, 0

        def next(self) -> npt.NDArray[np.int64]:
            self.at += self.size
            return rows[self.at - self.size : self.at]

    moments, losses = [], []
    for parts in (1, 2, 4, 8):
        config = make_config(batch_size=8 // parts, accumulation=parts, clip_norm=1e9)
        model = build_model(MODEL.model_copy(update={"balance_weight": 0.0}), VOCAB, 0)
        trainer = Trainer(model, config, 6, CPU)
        batches: Any = Rows(8 // parts)
        losses.append(trainer.train(batches, 1).loss)
        # After one step AdamW's moments are the gradient and its square, but for constants.
        moments.append({name: value for name, value in trainer.state().items() if value.is_floating_point()})
    assert any((value != 0).any() for value in moments[0].values())
    for moment in moments[1:]:
        torch.testing.assert_close(moment, moments[0], atol=1e-7, rtol=1e-3)
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)
