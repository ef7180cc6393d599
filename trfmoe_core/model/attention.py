"""Causal self-attention with rotary positions and, optionally, grouped queries.

B = sequences, T = positions, D = width, H = query heads, J = key-value heads, C = width of a head,
R = H + J rotated heads, P = C / 2, U = positions that can be seen.
"""

from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.cache import LayerCache
from trfmoe_core.model.parts import ATTENTIONS
from trfmoe_core.model.products import linear


@ATTENTIONS.register("rotary")
class Attention(nn.Module):
    """Multi-head attention as in Mixtral; queries, keys and values come from one fused projection.

    Base of every other kind, which replaces `prepare`, or `forward` as a whole.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.num_kv_heads, config.head_width
        rows = (self.heads + 2 * self.kv_heads) * self.head_width
        self.qkv = Projection(config.width, rows)
        self.output = Projection(self.heads * self.head_width, config.width)

    def prepare(self, q_BTHC: Tensor, k_BTJC: Tensor) -> tuple[Tensor, Tensor]:
        """Returns queries and keys as they are to be rotated; here, as they are."""
        return q_BTHC, k_BTJC

    def forward(
        self,
        x_BTD: Tensor,
        cos_TP: Tensor,
        sin_TP: Tensor,
        cache: LayerCache | None = None,
        seen_B1TT: Tensor | None = None,
    ) -> Tensor:
        """Returns (B, T, D); position t sees positions 0..t, and all that the cache held before.

        Args:
            seen_B1TT: True where a position (third) sees another (fourth), when that is not all up to itself.
        """
        batch, length, _ = x_BTD.shape
        rotated = self.heads + self.kv_heads
        qkv = self.qkv(x_BTD).view(batch, length, rotated + self.kv_heads, self.head_width)
        qk_BTRC, v_BTJC = torch.split(qkv, [rotated, self.kv_heads], dim=2)
        if type(self).prepare is not Attention.prepare:
            qk_BTRC = torch.cat(self.prepare(*torch.split(qk_BTRC, [self.heads, self.kv_heads], dim=2)), dim=2)
        qk_BTRC = rotate(qk_BTRC, cos_TP, sin_TP)
        q_BTHC, k_BTJC = torch.split(qk_BTRC, [self.heads, self.kv_heads], dim=2)
        q, k, v = q_BTHC.transpose(1, 2), k_BTJC.transpose(1, 2), v_BTJC.transpose(1, 2)
        seen = seen_B1TT
        if cache is not None:
            k, v = cache.append(k, v)
            seen = torch.ones(length, k.shape[2], dtype=torch.bool, device=x_BTD.device).tril(k.shape[2] - length)
        grouped = self.heads != self.kv_heads
        # Only the flash kernel on CUDA reads shared heads in place; elsewhere torch would leave its fused kernels.
        in_place = grouped and x_BTD.is_cuda and x_BTD.dtype == torch.bfloat16
        if grouped and not in_place:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        mixed_BHTC = nnf.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=seen is None, enable_gqa=in_place
        )
        out: Tensor = self.output(mixed_BHTC.transpose(1, 2).reshape(batch, length, -1))
        return out


class Projection(nn.Module):
    """A linear map without bias, computed in the type of its input. `weight` is (out, in), uninitialised."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_width, in_width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x @ weight.T`."""
        return linear(x, self.weight.to(x.dtype))


def rotary_tables(length: int, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines (length, head_width / 2) of rotary positions (arXiv 2104.09864) in float32.

    They lie on the CPU until the model moves: made on the meta device they would import torch's compiler.
    """
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    frequency_P = 1.0 / (theta ** (torch.arange(0, head_width, 2, **kind) / head_width))
    angle_TP = torch.arange(length, **kind)[:, None] * frequency_P
    return angle_TP.cos(), angle_TP.sin()


def rotate(x_BTRC: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
    """Returns `x` with the pair (i, i + C/2) of each head turned by its position's angle (the half-split layout)."""
    cos_T1P, sin_T1P = cos_TP.to(x_BTRC.dtype).unsqueeze(1), sin_TP.to(x_BTRC.dtype).unsqueeze(1)
    if torch.compiler.is_compiling():
        first, second = x_BTRC.chunk(2, dim=-1)
        return torch.cat([first * cos_T1P - second * sin_T1P, second * cos_T1P + first * sin_T1P], dim=-1)
    turned: Tensor = _Rotate.apply(x_BTRC, cos_T1P, sin_T1P)  # type: ignore[no-untyped-call]
    return turned


class _Rotate(torch.autograd.Function):
    """Rotation without temporaries; its gradient is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x_BTRC: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
        ctx.save_for_backward(cos_T1P, sin_T1P)
        return _turn(x_BTRC, cos_T1P, sin_T1P, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos_T1P, sin_T1P = ctx.saved_tensors
        return _turn(grads[0], cos_T1P, sin_T1P, -1.0), None, None


def _turn(x_BTRC: Tensor, cos_T1P: Tensor, sin_T1P: Tensor, sign: float) -> Tensor:
    turned = torch.empty_like(x_BTRC, memory_format=torch.contiguous_format)
    first, second = x_BTRC.chunk(2, dim=-1)
    out_first, out_second = turned.chunk(2, dim=-1)
    # Products first and then the sum, as in transformers: a fused multiply-add would differ in the last bit.
    torch.mul(first, cos_T1P, out=out_first).sub_(second * sin_T1P, alpha=sign)
    torch.mul(second, cos_T1P, out=out_second).add_(first * sin_T1P, alpha=sign)
    return turned
