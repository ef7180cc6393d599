"""A node goes on with the momentum that a request brings, on one device and on several, and refuses a broken one."""

from collections.abc import Callable

import pytest
import torch

from clients import rank, training
from clients.settings import state_folder
from clients.voted_momentum import open_parcel
from clients.worker import Worker
from strategies.exchange.messages import MomentumIndex, TrainRequest
from tests.clients.test_worker import Coordinator
from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.config import Recipe
from trfmoe_core.errors import WireError
from trfmoe_core.training.ranks import ALONE
from trfmoe_core.training.shared_momentum import momentum_names, split_momentum, with_momentum
from trfmoe_core.wire import Parcel, encode


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Recipe]) -> Recipe:
    made = tiny_recipe(rounds={"num_rounds": 3, "local_steps": 3, "momentum_every": 1})
    return made.model_copy(update={"training": made.training.model_copy(update={"optimizer": "muon"})})


def with_parcel(recipe: Recipe, factor: float = 1e-3) -> tuple[TrainRequest, Parcel, BlockLayout, Blocks]:
    """A request with a model and a momentum."""
    coordinator = Coordinator(recipe)
    request, model = coordinator.request(1)
    layout = with_momentum(coordinator.layout, recipe.model)
    generator = torch.Generator().manual_seed(3)
    names = momentum_names(layout, coordinator.layout.names)
    sent = {name: factor * torch.randn(layout.specs[name].numel, generator=generator) for name in names}
    parcel = encode(sent, layout, "float32", 1 << 12)
    told = MomentumIndex(index=parcel.index, buffers=len(parcel.buffers))
    both = Parcel(model.index, (*model.buffers, *parcel.buffers))
    return request.model_copy(update={"momentum": told}), both, layout, split_momentum(sent)[1]


def test_the_two_parcels_of_a_request_are_told_apart(recipe: Recipe) -> None:
    request, parcel, layout, sent = with_parcel(recipe)
    model, momentum = open_parcel(parcel, request, layout, recipe.transport)
    assert model.buffers + parcel.buffers[len(model.buffers) :] == parcel.buffers
    assert momentum.keys() == sent.keys()
    assert all(torch.equal(momentum[block], sent[block]) for block in sent)
    alone, none = open_parcel(parcel, request.model_copy(update={"momentum": None}), layout, recipe.transport)
    assert (alone, none) == (parcel, {})


def test_what_is_not_as_announced_is_refused(recipe: Recipe) -> None:
    request, parcel, layout, _ = with_parcel(recipe, float("nan"))
    with pytest.raises(WireError, match="the momentum that arrived is not finite"):
        open_parcel(parcel, request, layout, recipe.transport)
    with pytest.raises(WireError, match="1 buffers arrived, and the momentum alone has"):
        open_parcel(Parcel(parcel.index, parcel.buffers[:1]), request, layout, recipe.transport)
    request, parcel, layout, _ = with_parcel(recipe)
    with pytest.raises(WireError, match="held by another node"):
        held = [block for block in request.held if not block.endswith("experts.0")]
        open_parcel(parcel, request.model_copy(update={"held": held}), layout, recipe.transport)


def test_one_device_and_several_go_on_with_it(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    request, _, _, momentum = with_parcel(recipe)
    worker = Worker(recipe.nodes[0], request.recipe)
    tokenizer = worker.tokenizer()
    corpus, folder = worker.corpus(tokenizer), state_folder(worker.settings, "run")
    monkeypatch.setattr(
        training, "launch", lambda module, arguments, device, size, scratch: rank.work(ALONE, device, arguments)
    )

    def trained(voted: Blocks, devices: int) -> torch.Tensor:
        model = worker.model(tokenizer, request)
        model.init_weights(torch.Generator().manual_seed(0))
        part = (worker.settings, worker.recipe, request, folder, worker.device)
        if devices > 1:
            training.train_round_in_ranks(model, *part, devices, voted)
        else:
            training.train_round(model, corpus, *part, voted)
        return torch.cat([values.detach().reshape(-1) for values in model.parameters()])

    alone = trained(momentum, 1)
    assert torch.equal(trained(momentum, 2), alone)
    assert not torch.equal(trained({}, 1), alone)
