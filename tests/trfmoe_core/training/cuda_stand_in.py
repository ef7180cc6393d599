"""A CUDA device that computes nothing, on a machine without one: tensors with shapes and types that say `cuda:0`.

An operator that mixes tensors of the device with tensors of the host fails, as on a real device. Where the host would
wait for a value of the device, that is written down, and the value is 1.
"""

from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA = torch.device("cuda", 0)
_NAMES = ("cuda", "meta")
"""What the device is called by this project and by torch's own code."""


class MixedDevicesError(Exception):
    """An operator got tensors of the device and of the host."""


class OnDevice(Tensor):
    """A tensor of the device. torch's own code sees the meta device, which has shapes and no values."""

    @staticmethod
    def __new__(cls, value: Tensor) -> Self:
        made: Self = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, value.shape, strides=value.stride(), dtype=value.dtype, device="meta", requires_grad=False
        )
        made.value = value
        return made

    value: Tensor

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called outside of the stand-in")


class StandIn(TorchDispatchMode):
    """Context manager in which `cuda:0` can be used. `waits` says for what the host would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        device = kwargs.get("device")
        wanted = None if device is None else torch.device(device)
        if func is torch.ops.aten._to_copy.default and wanted is not None:
            return self._copied(func, args[0], wanted, kwargs)
        if func is torch.ops.aten.copy_.default and len(ours) == 1:
            raise MixedDevicesError(f"{func} between the device and the host")
        if not ours and (wanted is None or wanted.type not in _NAMES):
            return func(*args, **kwargs)
        if func is torch.ops.aten._local_scalar_dense.default:
            self.waits.append(f"for the value of {ours[0]}")
            return 1.0 if ours[0].dtype.is_floating_point else 1
        if func is torch.ops.aten.nonzero.default:
            raise AssertionError(f"the shape of nonzero({ours[0]}) makes the host wait")
        # As on a real device, a scalar of the host may take part.
        if foreign := [tensor for tensor in tensors if not isinstance(tensor, OnDevice) and tensor.ndim]:
            raise MixedDevicesError(f"{func} of {ours} and the host's {tuple(foreign[0].shape)}")
        if wanted is not None:
            kwargs["device"] = "meta"
        return self._computed(func, args, kwargs)

    def _copied(self, func: Any, source: Tensor, wanted: torch.device, kwargs: dict[str, Any]) -> Tensor:
        if wanted.type in _NAMES:
            values = source.value if isinstance(source, OnDevice) else source
            return OnDevice(func(values, **{**kwargs, "device": "meta", "non_blocking": False}))
        if not isinstance(source, OnDevice):
            result: Tensor = func(source, **kwargs)
            return result
        if not kwargs.get("non_blocking"):
            self.waits.append(f"for a copy of {source}")
        return torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)

    def _computed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        before = {id(t.value): t for t in tree_leaves((args, kwargs)) if isinstance(t, OnDevice)}
        plain_args, plain_kwargs = tree_map_only(OnDevice, lambda tensor: tensor.value, (args, kwargs))
        # A result that is an argument, as of an operator in place, stays the same tensor.
        return tree_map_only(
            Tensor,
            lambda tensor: before[id(tensor)] if id(tensor) in before else OnDevice(tensor),
            func(*plain_args, **plain_kwargs),
        )


def install(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Returns the stand-in after making torch believe that there is a CUDA device, for the time of a test."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    return StandIn()


class Event:
    """In the place of `torch.cuda.Event`."""

    def record(self) -> None:
        """Marks a place in the device's work."""

    def synchronize(self) -> None:
        """Waits for that place; the trainer does so once a step, after the backward pass was handed over."""
