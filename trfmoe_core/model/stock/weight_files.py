"""The weights in a folder, each read from its file when it is asked for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from trfmoe_core.model.stock.settings import UnsupportedError, read_object

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
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return {}
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UnsupportedError(f"{index.name} has no weight_map of file names")
    return places


def _weight_files(folder: Path) -> list[Path]:
    single = folder / "model.safetensors"
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
