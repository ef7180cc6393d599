"""One rank of `trfmoe train` on several devices: `python -m scripts.run.local.rank`."""

from pathlib import Path

import torch

from scripts.run.local.run import LocalRun, prepare_data
from server.run_folder.folder import RunFolder
from trfmoe_core.training.launch import run_rank
from trfmoe_core.training.ranks import Ranks


def work(ranks: Ranks, device: torch.device, arguments: list[str]) -> None:
    """Trains this rank's part of the run in a folder, on data that the command has prepared."""
    folder = RunFolder.open(Path(arguments[0]))
    tokenizer, corpus = prepare_data(folder.recipe)
    run = LocalRun(folder, tokenizer, corpus, sink=lambda _: None, device=device, ranks=ranks)
    try:
        run.run()
    except KeyboardInterrupt:
        # The run is saved; the command, which was interrupted too, says how to go on.
        return


if __name__ == "__main__":
    run_rank(work)
