"""One rank of `trfmoe train` on several devices: `python -m scripts.run.local_rank`."""

from pathlib import Path

import torch
from pydantic import TypeAdapter

from scripts.run.local_run import LocalRun, prepare_data
from server.run_folder.folder import RunFolder
from trfmoe_core.config.sources import DataEntry
from trfmoe_core.training.launch import run_rank
from trfmoe_core.training.ranks import Ranks

DATA: TypeAdapter[list[DataEntry]] = TypeAdapter(list[DataEntry])


def work(ranks: Ranks, device: torch.device, arguments: list[str]) -> None:
    """Trains this rank's part of the run in a folder, on data that the command has prepared."""
    folder = RunFolder.open(Path(arguments[0]))
    tokenizer, corpus = prepare_data(folder.recipe, DATA.validate_json(arguments[1]))
    run = LocalRun(folder, tokenizer, corpus, sink=lambda _: None, device=device, ranks=ranks)
    try:
        run.run()
    except KeyboardInterrupt:
        # The run is saved; the command, which was interrupted too, says how to go on.
        return


if __name__ == "__main__":
    run_rank(work)
