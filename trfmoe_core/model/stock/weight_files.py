"""The weights in a folder: each is read from its file when it is asked for, and they are written file by file."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trfmoe_core.errors import ConfigError
from trfmoe_core.model.stock.settings import UnsupportedError, read_object

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
SHARD_SIZE = "50GB"
"""Size of a file of weights, at most, unless a user says otherwise; that of transformers."""
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_QUANTIZED = (".qweight", ".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_scale_inv", ".absmax")
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack")


class WeightFiles(Mapping[str, Tensor]):
    """The tensors of a folder's safetensors files in float32, from the files that transformers would take."""

    def __init__(self, folder: Path) -> None:
        """Opens the files; the tensors stay on disk.

        Raises:
            OSError: A file cannot be opened.
            SafetensorError: A file is damaged.
            UnsupportedError: There are none, or the index names a tensor that is in no file.
        """
        self._files: dict[str, tuple[str, Any]] = {}
        for path in _weight_files(folder):
            file: Any = safe_open(path, framework="pt")
            self._files |= dict.fromkeys(file.keys(), (path.name, file))
        for name, place in _index(folder).items():
            if name not in self._files:
                raise UnsupportedError(f"the index says that {name} is in {place}, and it is not there")

    def __getitem__(self, name: str) -> Tensor:
        """Reads one tensor.

        Raises:
            UnsupportedError: It is quantized.
        """
        path, file = self._files[name]
        tensor: Tensor = file.get_tensor(name)
        if name.endswith(_QUANTIZED) or not tensor.is_floating_point() or tensor.element_size() < 2:
            raise UnsupportedError(
                f"{path}: {name} is quantized ({str(tensor.dtype).removeprefix('torch.')}); "
                "save the weights as bfloat16 or float32 first"
            )
        return tensor.float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def refuse_quantized(self) -> None:
        """Refuses a folder with a tensor that only a quantized model has.

        Raises:
            UnsupportedError: There is one.
        """
        for name in self:
            if name.endswith(_QUANTIZED):
                self[name]


def _index(folder: Path) -> dict[str, str]:
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file() or not index.is_file():
        return {}
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UnsupportedError(f"{index.name} has no weight_map of file names")
    return places


def _weight_files(folder: Path) -> list[Path]:
    single = folder / SINGLE_FILE
    if single.is_file():
        return [single]
    places = _index(folder)
    if places:
        return [folder / Path(name).name for name in sorted(set(places.values()))]
    found = sorted(folder.glob("*.safetensors"))
    if any(path.name.startswith("adapter_") for path in found) or (folder / "adapter_config.json").is_file():
        raise UnsupportedError("it holds an adapter (LoRA), not a model; merge it into its model first")
    if not found:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_WEIGHTS)
        raise UnsupportedError(
            f"it holds {', '.join(others[:3])} and no *.safetensors, and opening a pickle may run code; convert it: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
            if others
            else "it holds no weights (*.safetensors)"
        )
    return found


def parse_size(text: str) -> int:
    """Returns the bytes of a size such as `200MB` or `5GB`; units are decimal, as in transformers.

    Raises:
        ConfigError: It is no size above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]B)?", text.strip().upper())
    size = int(float(found[1]) * _UNITS.get(found[2], 1)) if found else 0
    if size < 1:
        raise ConfigError(f"--max-shard-size {text}: no size; give one such as 500MB or 5GB")
    return size


def write_weights(tensors: Mapping[str, Tensor], folder: Path, dtype: torch.dtype, max_bytes: int) -> list[Path]:
    """Writes weights as transformers does: in one file, or in numbered files with an index. Returns the files.

    Only the tensors of one file are copied at a time. A tensor that is larger than a file may be gets its own.

    Args:
        tensors: By their names in files.
        folder: Where to.
        dtype: Type in the files.
        max_bytes: Of a file, at most.

    Raises:
        OSError: It cannot be written.
        SafetensorError: The same, as the library says it.
    """
    width = torch.empty((), dtype=dtype).element_size()
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * width
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    count = len(shards)
    files = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    files = [SINGLE_FILE] if count == 1 else files
    for file, names in zip(files, shards, strict=True):
        # A copy of each: views of one tensor of ours would be taken for one tensor.
        part = {name: tensors[name].detach().to("cpu", dtype, copy=True).contiguous() for name in names}
        save_file(part, folder / file, metadata={"format": "pt"})
    written = [folder / file for file in files]
    if count > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        total = sum(tensor.numel() for tensor in tensors.values())
        index = {"metadata": {"total_parameters": total, "total_size": total * width}, "weight_map": places}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return written
