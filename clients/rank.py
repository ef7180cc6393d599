"""One rank of a node's training on several devices: `python -m clients.rank`, started by `clients.training`."""

import json
from pathlib import Path

import torch

from clients.refusals import RefusedError
from clients.settings import state_folder
from clients.training import leave_refused, leave_trained, momentum_path, train_round, weights_path
from clients.worker import Worker
from strategies.exchange.messages import TrainRequest
from trfmoe_core.config import NodeSettings
from trfmoe_core.training.launch import run_rank
from trfmoe_core.training.local_state import load_state
from trfmoe_core.training.ranks import Ranks


def work(ranks: Ranks, device: torch.device, arguments: list[str]) -> None:
    """Trains this rank's part of the round that a node's process left in a folder."""
    place = Path(arguments[0])
    job = json.loads((place / "job.json").read_text(encoding="utf-8"))
    settings = NodeSettings.model_validate(job["settings"])
    request = TrainRequest.model_validate(job["request"])
    worker = Worker(settings, job["recipe"])
    tokenizer = worker.tokenizer()
    model = worker.model(tokenizer, request)
    model.load_state_dict(load_state(weights_path(place))[0])
    state = state_folder(settings, request.run_id)
    corpus = worker.corpus(tokenizer)
    try:
        momentum = load_state(momentum_path(place))[0]
        trained = train_round(model, corpus, settings, worker.recipe, request, state, device, momentum, ranks)
        if ranks.is_first:
            leave_trained(place, model, trained)
    except RefusedError as error:
        if ranks.is_first:
            leave_refused(place, error)
    ranks.wait()


if __name__ == "__main__":
    run_rank(work)
