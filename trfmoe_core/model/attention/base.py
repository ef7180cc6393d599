"""Causal self-attention with rotary positions and, optionally, grouped queries: Mixtral's own, and base of the others.

B = sequences, T = positions, D = width, H = query heads, J = key-value heads, C = width of a head,
R = H + J rotated heads, P = C / 2, U = visible positions.
"""

import math
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from trfmoe_core.config.model import ModelConfig, RopeScaling
from trfmoe_core.model.cpu_attention import causal_attention
from trfmoe_core.model.kv_cache import LayerCache
from trfmoe_core.model.layers import Projection
from trfmoe_core.registry import Registry


class Attention(nn.Module):
    """Multi-head attention as in Mixtral; queries, keys and values come from one fused projection.

    Another kind is a subclass that replaces `prepare`, or `forward` as a whole.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.num_kv_heads, config.head_width
        rows = (self.heads + 2 * self.kv_heads) * self.head_width
        self.qkv = Projection(config.width, rows, config.qkv_bias)
        self.output = Projection(self.heads * self.head_width, config.width)

    def matrices(self) -> dict[str, tuple[int, ...]]:
        """Returns the parameters that are matrices: name -> rows of the separate matrices in it, from top to bottom."""
        keys = self.kv_heads * self.head_width
        return {
            "qkv.weight": (self.heads * self.head_width, keys, keys),
            "output.weight": (self.output.weight.shape[0],),
        }

    @staticmethod
    def activation_width(config: ModelConfig) -> int:
        """Returns how many numbers a token leaves behind for the backward pass, without the input of the attention."""
        heads, kv_heads = config.heads, config.num_kv_heads
        copied = 2 * heads if heads != kv_heads else 0  # keys and values, one for every query head
        fused, rotated, mixed = heads + 2 * kv_heads, heads + kv_heads, heads
        return (fused + rotated + copied + mixed) * config.head_width

    def prepare(self, q_BTHC: Tensor, k_BTJC: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the queries and keys that are rotated next; here they stay as they are."""
        return q_BTHC, k_BTJC

    def forward(
        self,
        x_BTD: Tensor,
        cos_TP: Tensor,
        sin_TP: Tensor,
        cache: LayerCache | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        """Returns (B, T, D).

        Args:
            x_BTD: The normalised residual stream.
            cos_TP: Cosines of the positions' angles, see `rotary_tables`.
            sin_TP: Sines of the same angles.
            cache: Keys and values of earlier positions; every position sees them, and the new ones are added.
            mask_B1TT: True where a position (dimension 2) sees another (dimension 3); None: it sees all up to itself.
        """
        batch, length, _ = x_BTD.shape
        rotated = self.heads + self.kv_heads
        qkv = self.qkv(x_BTD).view(batch, length, rotated + self.kv_heads, self.head_width)
        qk_BTRC, v_BTJC = torch.split(qkv, [rotated, self.kv_heads], dim=2)
        # Splitting and joining would copy, so it is done only for a kind that changes something.
        if type(self).prepare is not Attention.prepare:
            qk_BTRC = torch.cat(self.prepare(*torch.split(qk_BTRC, [self.heads, self.kv_heads], dim=2)), dim=2)
        qk_BTRC = rotate(qk_BTRC, cos_TP, sin_TP)
        q_BTHC, k_BTJC = torch.split(qk_BTRC, [self.heads, self.kv_heads], dim=2)
        q, k, v = q_BTHC.transpose(1, 2), k_BTJC.transpose(1, 2), v_BTJC.transpose(1, 2)
        mask = mask_B1TT
        if cache is not None:
            k, v = cache.append(k, v)
            mask = torch.ones(length, k.shape[2], dtype=torch.bool, device=x_BTD.device).tril(k.shape[2] - length)
        grouped = self.heads != self.kv_heads
        # Only the flash kernel on CUDA reads shared heads in place; with other inputs torch leaves its fused kernels.
        in_place = grouped and x_BTD.is_cuda and x_BTD.dtype == torch.bfloat16
        if grouped and not in_place:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        by_products = x_BTD.device.type == "cpu" and x_BTD.dtype == torch.bfloat16 and not torch.compiler.is_compiling()
        if mask is None and by_products:
            mixed_BHTC = causal_attention(q, k, v)
        else:
            mixed_BHTC = nnf.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=in_place
            )
        out: Tensor = self.output(mixed_BHTC.transpose(1, 2).reshape(batch, length, -1))
        return out


def rotary_tables(
    length: int, head_width: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines (length, head_width / 2) of rotary positions (arXiv 2104.09864) in float32.

    They are made on the CPU even while the model is made on the meta device, where these operators would import torch's
    compiler.
    """
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    frequency_P = 1.0 / (theta ** (torch.arange(0, head_width, 2, **kind) / head_width))
    if scaling is not None:
        frequency_P = stretched(frequency_P, scaling)
    angle_TP = torch.arange(length, **kind)[:, None] * frequency_P
    return angle_TP.cos(), angle_TP.sin()


def stretched(frequency_P: Tensor, scaling: RopeScaling) -> Tensor:
    """Returns the angles a position of each pair of a head, after the stretching that a recipe asks for."""
    divided_P = frequency_P / scaling.factor
    if scaling.kind == "linear":
        return divided_P
    # A wave turns this often within the first training's context; those in between are mixed.
    turns_P = scaling.original_context * frequency_P / (2 * math.pi)
    share_P = (turns_P - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    share_P = share_P.clamp(0.0, 1.0)
    return share_P * frequency_P + (1 - share_P) * divided_P


def rotate(x_BTRC: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
    """Returns `x` with the pair (i, i + C/2) of each head turned by its position's angle (the half-split layout)."""
    cos_T1P, sin_T1P = cos_TP.to(x_BTRC.dtype).unsqueeze(1), sin_TP.to(x_BTRC.dtype).unsqueeze(1)
    first, second = x_BTRC.chunk(2, dim=-1)
    return torch.cat([first * cos_T1P - second * sin_T1P, second * cos_T1P + first * sin_T1P], dim=-1)


ATTENTIONS: Registry[type[Attention]] = Registry("model.attention", "trfmoe_core.model.attention")
ATTENTIONS.register("rotary")(Attention)
