"""Keys and values of the positions that a model has seen, so that the next token costs one position instead of all.

B = sequences, J = key-value heads, T = new positions, U = all positions so far, C = width of a head.
"""

from torch import Tensor


class LayerCache:
    """One layer's rotated keys and values. Its memory is allocated once, for `capacity` positions."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def append(self, k_BJTC: Tensor, v_BJTC: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new positions and returns the keys and values (B, J, U, C) of all positions so far."""
        if self._k is None or self._v is None:
            shape = (*k_BJTC.shape[:2], self.capacity, k_BJTC.shape[3])
            self._k, self._v = k_BJTC.new_empty(shape), v_BJTC.new_empty(shape)
        begin, self.length = self.length, self.length + k_BJTC.shape[2]
        self._k[:, :, begin : self.length] = k_BJTC
        self._v[:, :, begin : self.length] = v_BJTC
        return self._k[:, :, : self.length], self._v[:, :, : self.length]


class KeyValueCache:
    """The caches of all layers, for `capacity` positions (the model's context). They hold no gradient."""

    def __init__(self, layers: int, capacity: int) -> None:
        self.layers = [LayerCache(capacity) for _ in range(layers)]

    @property
    def length(self) -> int:
        """Positions so far."""
        return self.layers[0].length
