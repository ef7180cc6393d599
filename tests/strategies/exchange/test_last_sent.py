"""Differences: every node decodes the same weights, whatever it had, and errors do not add up."""

from pathlib import Path
from typing import Any

import pytest
import torch

from clients.kept.models import KeptModels, receive
from strategies.exchange.broadcast import Broadcast
from strategies.exchange.last_sent import LastSent
from strategies.exchange.messages import TrainRequest
from tests.strategies.exchange.test_broadcast import BLOCKS, LAYOUT
from trfmoe_core.blocks import TRUNK, Blocks, blocks_digest
from trfmoe_core.config import TransportConfig
from trfmoe_core.wire import Parcel

SETTINGS = [("float32", "bfloat16"), ("bfloat16", "bfloat16"), ("bfloat16", "int8"), ("float32", "int8")]


def request(broadcast: Broadcast, node: str, number: int) -> TrainRequest:
    sent = broadcast.of(node)
    held: dict[str, Any] = {"run_id": "run", "round": number, "epoch": 1, "steps": 1, "held": [], "recipe": {}}
    return TrainRequest(**held, base_digest=sent.base_digest, index=sent.index, against=sent.against)


def parcel(broadcast: Broadcast, node: str) -> Parcel:
    arrays = broadcast.arrays_of(node, broadcast.arrays)
    return Parcel(broadcast.of(node).index, tuple(arrays[str(number)].data for number in range(len(arrays))))


def got(broadcast: Broadcast, node: str, number: int, transport: TransportConfig, folder: Path) -> Blocks | None:
    asked, bases = request(broadcast, node, number), KeptModels(folder / node)
    return receive(parcel(broadcast, node), asked, LAYOUT, LAYOUT.names, transport, bases)


def moved(model: Blocks, seed: int, size: float) -> Blocks:
    generator = torch.Generator().manual_seed(seed)
    return {name: flat + size * torch.randn(flat.shape, generator=generator) for name, flat in model.items()}


@pytest.mark.parametrize(("whole", "difference"), SETTINGS)
def test_all_nodes_have_the_chain_and_errors_do_not_add_up(tmp_path: Path, whole: str, difference: str) -> None:
    transport = TransportConfig.model_validate({"broadcast": whole, "difference": difference})
    chain, model, known = LastSent(whole), BLOCKS, {}
    wanted = {"ada": LAYOUT.names, "bob": [*LAYOUT.experts[:3], TRUNK], "late": LAYOUT.names}
    first = 0
    for number in range(1, 31):
        model = moved(model, number, 1e-3)
        present = wanted if number > 20 else {name: wanted[name] for name in ("ada", "bob")}
        broadcast = Broadcast(model, LAYOUT, transport, present, chain, known)
        for node in present:
            blocks = got(broadcast, node, number, transport, tmp_path)
            assert blocks is not None
            assert set(blocks) == set(wanted[node])
            assert all(torch.equal(values, chain.blocks[name].float()) for name, values in blocks.items())
            assert blocks_digest(blocks) == broadcast.of(node).base_digest
            known[node] = {broadcast.of(node).base_digest}
        assert (broadcast.of("ada").against is None) == (number == 1)
        first = first or broadcast.of("ada").num_bytes
    assert broadcast.of("late").against == broadcast.of("ada").against
    assert broadcast.of("ada").num_bytes < (0.8 if difference == "int8" else 1.01) * first
    errors = [float((chain.blocks[name].float() - values).abs().max()) for name, values in model.items()]
    # Half a bfloat16 of values up to about 4, and half a level of the last difference.
    assert max(errors) < (2**-7 if whole == "bfloat16" else 1e-4)
    plain = {name: values.to(getattr(torch, whole)).float() for name, values in model.items()}
    wrong = sum(float((chain.blocks[name].float() - plain[name]).norm()) for name in model)
    assert wrong < 0.01 * sum(float(values.norm()) for values in plain.values())


def test_the_chain_does_not_depend_on_who_is_there() -> None:
    transport = TransportConfig(broadcast="bfloat16", difference="int8")
    chains = [LastSent("bfloat16"), LastSent("bfloat16")]
    for number in range(3):
        model = moved(BLOCKS, number, 1e-2)
        Broadcast(model, LAYOUT, transport, {"ada": LAYOUT.names}, chains[0], {"ada": [chains[0].digest(LAYOUT.names)]})
        Broadcast(model, LAYOUT, transport, {"bob": LAYOUT.experts[:2]}, chains[1], {})
    assert chains[0].digests == chains[1].digests
    again = LastSent("bfloat16", chains[0].blocks)
    assert again.digests == chains[0].digests


def test_a_node_whose_blocks_changed_gets_the_whole() -> None:
    transport = TransportConfig(broadcast="bfloat16", difference="int8")
    chain = LastSent("bfloat16")
    before = Broadcast(BLOCKS, LAYOUT, transport, {"ada": LAYOUT.experts[:2]}, chain)
    known = {"ada": [before.of("ada").base_digest]}
    assert Broadcast(BLOCKS, LAYOUT, transport, {"ada": LAYOUT.experts[:3]}, chain, known).of("ada").against is None


def test_a_base_that_is_lost_or_damaged_is_told_and_nothing_else(tmp_path: Path) -> None:
    transport = TransportConfig(broadcast="bfloat16", difference="int8")
    chain = LastSent("bfloat16")
    wanted = {"ada": LAYOUT.names}
    first = Broadcast(BLOCKS, LAYOUT, transport, wanted, chain)
    assert got(first, "ada", 1, transport, tmp_path) is not None
    known = {"ada": [first.of("ada").base_digest]}
    second = Broadcast(moved(BLOCKS, 1, 0.01), LAYOUT, transport, wanted, chain, known)
    [file] = (tmp_path / "ada").iterdir()
    good = file.read_bytes()
    for bad in (good[: len(good) // 2], good[:-1] + bytes([good[-1] ^ 1]), b""):
        file.write_bytes(bad)
        assert got(second, "ada", 2, transport, tmp_path) is None
    file.unlink()
    assert got(second, "ada", 2, transport, tmp_path) is None
    arrays = second.whole("ada")
    whole = Parcel(second.of("ada").index, tuple(array.data for array in arrays.values()))
    asked = request(second, "ada", 2)
    assert asked.against is None
    blocks = receive(whole, asked, LAYOUT, LAYOUT.names, transport, KeptModels(tmp_path / "ada"))
    assert blocks is not None
    assert blocks_digest(blocks) == asked.base_digest


def test_two_models_are_kept_and_those_of_rounds_that_never_were_are_not(tmp_path: Path) -> None:
    bases = KeptModels(tmp_path / "bases")
    marks = {number: f"{number:064x}" for number in range(1, 6)}
    for number in (1, 2, 3, 4, 5):
        bases.keep(number, marks[number], {TRUNK: BLOCKS[TRUNK]}, torch.bfloat16)
    assert bases.digests() == [marks[4], marks[5]]
    bases.keep(3, marks[3], {TRUNK: BLOCKS[TRUNK]}, torch.bfloat16)
    assert bases.digests() == [marks[3]]
    bases.keep(4, marks[4], {TRUNK: BLOCKS[TRUNK]}, torch.bfloat16)
    assert bases.digests() == [marks[3], marks[4]]
