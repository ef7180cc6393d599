"""Rounds with a node that lies, breaks or sends rubbish: the run goes on and says who it was."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MessageType, RecordDict

from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import read_events
from server.run_folder.recorder import best_round
from strategies.exchange.messages import TrainReply, pack, pack_buffers, read_header, read_parcel
from strategies.exchange.refusals import Refusal
from tests.conftest import words
from tests.federation import grid_of, of_kind, run_recipe
from trfmoe_core.config import DrillConfig, Recipe
from trfmoe_core.errors import RunError, RunFolderError
from trfmoe_core.wire import Parcel

LIAR = 3
BLOCKS = 2 * 4 + 1


def with_drill(recipe: Recipe, drill: dict[str, Any]) -> Recipe:
    nodes = list(recipe.nodes)
    nodes[LIAR - 1] = nodes[LIAR - 1].model_copy(update={"drill": DrillConfig(**drill)})
    return recipe.model_copy(update={"nodes": nodes})


def test_a_liar_is_outvoted_in_every_round_in_which_it_lies(tiny_recipe: Callable[..., Recipe]) -> None:
    _, events = run_recipe(with_drill(tiny_recipe(), {"factor": -10.0, "from_round": 2}))
    committed = of_kind(events, "round_committed")
    assert committed[0]["outvoted"] == {}
    assert all(event["outvoted"] == {"cyd": BLOCKS} for event in committed[1:])
    drills = [(event["round"], event["node"]) for event in of_kind(events, "node_reply") if event.get("drill")]
    assert drills == [(2, "cyd"), (3, "cyd")]
    bits = [event["bits_per_byte"] for event in of_kind(events, "evaluated")]
    assert bits[3] < bits[1] < bits[0]
    _, worse = run_recipe(with_drill(tiny_recipe(vote="mean"), {"factor": -10.0, "from_round": 2}))
    assert of_kind(worse, "evaluated")[-1]["bits_per_byte"] > bits[-1] + 0.5


def base_digests(events: list[dict[str, Any]]) -> list[str]:
    """Returns the digests of the models that the rounds started from."""
    return [event["base_digest"] for event in of_kind(events, "round_planned")]


@pytest.mark.parametrize(
    ("vote", "unheld"), [("majority", "train"), ("median", "train"), ("mean", "train"), ("majority", "absent")]
)
def test_a_lone_liar_in_the_first_rounds_moves_nothing(
    tiny_recipe: Callable[..., Recipe], vote: str, unheld: str
) -> None:
    rounds = {"num_rounds": 4, "local_steps": 2, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    recipe = with_drill(tiny_recipe(vote=vote, rounds=rounds, experts={"unheld": unheld}), {"factor": -300.0})
    crash = DrillConfig(attack="crash", to_round=2)
    nodes = [node.model_copy(update={"drill": crash}) if node.name != "cyd" else node for node in recipe.nodes]
    liar = recipe.nodes[LIAR - 1].drill.model_copy(update={"to_round": 2})
    nodes[LIAR - 1] = nodes[LIAR - 1].model_copy(update={"drill": liar})
    _, events = run_recipe(recipe.model_copy(update={"nodes": nodes}))
    assert [event["outcomes"] for event in of_kind(events, "round_committed")[:2]] == [{"kept": BLOCKS}] * 2
    first, second, third, fourth = base_digests(events)
    assert first == second == third != fourth
    bits = {event["round"]: event["bits_per_byte"] for event in of_kind(events, "evaluated")}
    assert bits[4] < bits[0]


def test_a_lone_liar_after_a_resume_is_held_by_the_norm_of_before(tiny_recipe: Callable[..., Recipe]) -> None:
    rounds = {"num_rounds": 3, "local_steps": 2, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    recipe = with_drill(tiny_recipe(rounds=rounds), {"factor": -1.0, "from_round": 2, "to_round": 2})
    crash = DrillConfig(attack="crash", from_round=2, to_round=2)
    nodes = [node.model_copy(update={"drill": crash}) if node.name != "cyd" else node for node in recipe.nodes]
    folder = RunFolder.create(Path(recipe.run_root), recipe.model_copy(update={"nodes": nodes}))
    with pytest.raises(KilledError):
        run(grid_of(folder, die_at(4)), folder)
    run(grid_of(folder), folder)
    events = read_events(folder.events_path)
    assert of_kind(events, "run_started")[1]["resumed_from"] == 1
    outcomes = [event["outcomes"] for event in of_kind(events, "round_committed")]
    assert outcomes == [{"unanimous": BLOCKS}, {"unverified": BLOCKS}, {"unanimous": BLOCKS}]
    bits = {event["round"]: event["bits_per_byte"] for event in of_kind(events, "evaluated")}
    assert bits[2] < bits[1] + 0.5
    assert bits[3] < bits[0]


@pytest.mark.parametrize("away", ["", "ada", "bob"])
def test_a_liar_does_not_choose_the_best_round(tiny_recipe: Callable[..., Recipe], away: str) -> None:
    claims = {0: 1e6, 1: 0.0, 2: 1e6, 3: 1e6}

    def tamper(node_id: int, message: Message) -> Message:
        if node_id != LIAR or message.metadata.message_type == MessageType.QUERY:
            return message
        reply = read_header(message, TrainReply)
        assert reply.evaluation
        claim = claims[reply.round - 1 if reply.training else reply.round]
        return edit_header(message, evaluation=reply.evaluation.model_copy(update={"bits_per_byte": claim}))

    recipe = tiny_recipe(rounds={"num_rounds": 3, "local_steps": 4, "nodes_deadline_s": 1.0})
    crash = DrillConfig(attack="crash", from_round=2, to_round=2)  # so round 1 is measured without it
    nodes = [node.model_copy(update={"drill": crash}) if node.name == away else node for node in recipe.nodes]
    folder, events = run_recipe(recipe.model_copy(update={"nodes": nodes}), tamper)
    told = [(e["round"], e["best"]) for e in of_kind(events, "evaluated")]
    assert told == [(0, False), (1, True), (2, True), (3, True)]
    assert best_round(folder) == of_kind(events, "run_finished")[0]["best_round"] == RunHistory(events).best_round == 3


@pytest.mark.parametrize("factor", [3.0, 1000.0])
def test_a_claim_of_more_tokens_weighs_nothing(tiny_recipe: Callable[..., Recipe], factor: float) -> None:
    rounds = {"num_rounds": 2, "local_steps": 2, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    honest = of_kind(run_recipe(tiny_recipe(rounds=rounds))[1], "run_finished")[0]["digest"]
    lie = {"attack": "token_lie", "factor": factor}
    _, events = run_recipe(with_drill(tiny_recipe(rounds=rounds), lie))
    tokens = {e["node"]: e["tokens"] for e in of_kind(events, "node_reply") if e["status"] == "accepted"}
    assert tokens["cyd"] == factor * tokens["ada"], "the claim arrived"
    assert of_kind(events, "run_finished")[0]["digest"] == honest


@pytest.mark.parametrize(
    ("attack", "status", "reason"),
    [("nan", "dropped", "not finite"), ("crash", "missing", "crashes in round"), ("zero", "accepted", None)],
)
def test_nan_crash_and_zero(tiny_recipe: Callable[..., Recipe], attack: str, status: str, reason: str | None) -> None:
    _, events = run_recipe(with_drill(tiny_recipe(), {"attack": attack, "from_round": 2}))
    replies = [e for e in of_kind(events, "node_reply") if e["node"] == "cyd" and e["round"] > 1]
    assert replies[0]["status"] == status
    assert reason is None or reason in replies[0]["reason"]
    # The same zeros a second time are a replay.
    assert replies[1]["status"] == ("dropped" if attack == "zero" else status)
    last = of_kind(events, "verdicts")[1]["verdicts"]
    column = {"nan": "invalid", "crash": "missing", "zero": "outvoted"}[attack]
    assert all(verdict[column] == ["cyd"] and verdict["accepted"] == ["ada", "bob"] for verdict in last)
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


@pytest.mark.parametrize(("num_rounds", "last"), [(3, 3), (9, 4)])
def test_a_run_to_which_nobody_contributes_fails(
    tiny_recipe: Callable[..., Recipe], num_rounds: int, last: int
) -> None:
    recipe = tiny_recipe(rounds={"num_rounds": num_rounds, "local_steps": 1, "nodes_deadline_s": 1.0})
    drill = DrillConfig(attack="nan", from_round=2)
    recipe = recipe.model_copy(update={"nodes": [n.model_copy(update={"drill": drill}) for n in recipe.nodes]})
    with pytest.raises(RunError, match=rf"no node delivered an update that counts in rounds 2 to {last}"):
        run_recipe(recipe)


def test_nodes_that_all_refuse_are_not_waited_for(tiny_recipe: Callable[..., Recipe]) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a CUDA device")
    recipe = tiny_recipe(rounds={"num_rounds": 1, "nodes_deadline_s": 1000.0}, training={"device": "cuda"})
    with pytest.raises(RunError, match=r"0 of 3 nodes .* refused: ada: the node does not have the device"):
        run_recipe(recipe)


def test_one_node_that_refuses_does_not_end_the_wait_for_the_others(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(rounds={"num_rounds": 1, "nodes_deadline_s": 1.5})
    nodes = [node.model_copy(update={"device": "cuda:9"}) if node.name == "ada" else node for node in recipe.nodes]
    with pytest.raises(RunError, match=r"2 of 3 nodes can take part \(bob, cyd\) after [1-9].* refused: ada: the node"):
        run_recipe(recipe.model_copy(update={"nodes": nodes}))


def test_a_witness_convicts_the_liar_and_nobody_else(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    text = tmp_path / "witness.txt"
    text.write_text(words(99, 3000))
    recipe = tiny_recipe(
        witness={"data": [str(text)], "windows": 16},
        rounds={"num_rounds": 3, "local_steps": 15, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0},
    )
    _, events = run_recipe(with_drill(recipe, {"attack": "sign_flip", "from_round": 2}))
    convicted = [list(event["convicted"]) for event in of_kind(events, "judgement")]
    assert convicted == [[], ["cyd"], ["cyd"]]
    committed = of_kind(events, "round_committed")
    assert [event["outcomes"] for event in committed] == [{"unanimous": 9}, {"majority": 9}, {"majority": 9}]
    assert committed[2]["outvoted"] == {"cyd": 9}
    honest = tiny_recipe(rounds=recipe.rounds.model_dump(), witness=recipe.witness.model_dump())
    plain = tiny_recipe(rounds=recipe.rounds.model_dump())
    digests = {of_kind(run_recipe(r)[1], "run_finished")[0]["digest"] for r in (honest, plain)}
    assert len(digests) == 1, "where nobody harms, the witness leaves the mean as it is, bit for bit"


def edit_header(message: Message, **changes: object) -> Message:
    reply = read_header(message, TrainReply).model_copy(update=changes)
    message.content["header"] = ConfigRecord({"json": reply.model_dump_json()})
    return message


def replace_content(message: Message, content: RecordDict) -> Message:
    for key in list(message.content):
        del message.content[key]
    for key, value in content.items():
        message.content[key] = value
    return message


def grow(message: Message) -> Message:
    reply = read_header(message, TrainReply)
    parcel = read_parcel(message, reply.index or "", 1 << 40)
    message.content["parcel"] = pack_buffers(Parcel(parcel.index, (*parcel.buffers, b"x" * 10_000_000)))
    return message


def foreign_array(message: Message) -> Message:
    message.content["parcel"] = ArrayRecord({"0": Array(dtype="object", shape=(1,), stype="pickle", data=b"x")})
    return message


def signed(message: Message, field: str, value: object) -> Message:
    reply = read_header(message, TrainReply)
    if field == "tokens" and reply.training:
        return edit_header(message, training=reply.training.model_copy(update={"tokens": value}))
    if field == "share" and reply.training:
        return edit_header(message, training=reply.training.model_copy(update={"expert_share": [[0.5]]}))
    return edit_header(message, **{field: value})


def failed(message: Message) -> Message:
    error = Message(Error(code=2, reason="boom"), reply_to=_request_of(message))
    error.metadata.__dict__["_src_node_id"] = LIAR
    return error


def _request_of(reply: Message) -> Message:
    request = Message(pack(_EMPTY), LIAR, MessageType.TRAIN)
    request.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
    return request


_EMPTY = TrainReply(run_id="", round=0, epoch=0, base_digest="0" * 64, name="x")

RUBBISH: dict[str, tuple[Callable[[Message], Message | None], str]] = {
    "empty": (lambda m: replace_content(m, RecordDict()), "no TrainReply header"),
    "header of another type": (lambda m: replace_content(m, RecordDict({"header": ConfigRecord({"json": 3})})), "no"),
    "no json": (lambda m: replace_content(m, RecordDict({"header": ConfigRecord({"json": "[["})})), "no TrainReply"),
    "no parcel": (lambda m: m.content.pop("parcel") and m, "no parcel"),
    "foreign array": (foreign_array, "missing or not"),
    "oversize": (grow, "more than"),
    "old round": (lambda m: signed(m, "round", 1), "another request"),
    "other epoch": (lambda m: signed(m, "epoch", 7), "another request"),
    "other base": (lambda m: signed(m, "base_digest", "0" * 64), "another request"),
    "other run": (lambda m: signed(m, "run_id", "x"), "another request"),
    "other name": (lambda m: signed(m, "name", "ada"), "signed"),
    "negative tokens": (lambda m: signed(m, "tokens", -5), "tokens"),
    "absurd tokens": (lambda m: signed(m, "tokens", 10**14), "tokens"),
    "wrong shares": (lambda m: signed(m, "share", None), "expert_share"),
    "no training": (lambda m: signed(m, "training", None), "no training"),
    "no index": (lambda m: signed(m, "index", None), "no index"),
    "bad index": (lambda m: signed(m, "index", "{}"), "index"),
    "reports an error": (lambda m: signed(m, "error", Refusal(code="disk")), "disk is full"),
    "flower error": (failed, "the node answers: "),
    "silence": (lambda _: None, "still at work on round 1"),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_from_one_node_is_dropped_and_named(tiny_recipe: Callable[..., Recipe], name: str) -> None:
    spoil, reason = RUBBISH[name]

    def tamper(node_id: int, message: Message) -> Message | None:
        if node_id != LIAR or message.metadata.message_type != MessageType.TRAIN:
            return message
        return spoil(message)

    rounds = {"num_rounds": 2, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 0.3}
    _, events = run_recipe(tiny_recipe(rounds=rounds), tamper)
    dropped = [
        e
        for e in of_kind(events, "node_reply")
        if e["node"] == "cyd" and e["round"] == 2 and e.get("phase") != "evaluate"
    ]
    assert len(dropped) == 1
    assert dropped[0]["status"] in ("dropped", "missing")
    assert reason in dropped[0]["reason"]
    for verdict in of_kind(events, "verdicts")[-1]["verdicts"]:
        assert verdict["accepted"] == ["ada", "bob"]
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


class KilledError(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def die_at(moment: int) -> Callable[[int, Message], Message]:
    count = 0

    def die(_: int, message: Message) -> Message:
        nonlocal count
        if message.metadata.message_type == MessageType.TRAIN:
            count += 1
            if count == moment:
                raise KilledError
        return message

    return die


@pytest.fixture
def witnessed(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> Recipe:
    """A run in which a node lies a little from round 2 on."""
    text = tmp_path / "witness.txt"
    text.write_text(words(99, 3000))
    recipe = tiny_recipe(
        witness={"data": [str(text)], "windows": 16},
        rounds={"num_rounds": 5, "local_steps": 8, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0},
    )
    return with_drill(recipe, {"factor": -0.5, "from_round": 2})


def test_a_run_with_a_witness_that_dies_goes_on_bit_for_bit(witnessed: Recipe) -> None:
    folder, events = run_recipe(witnessed)
    judged = of_kind(events, "judgement")
    assert any(event["convicted"] for event in judged)
    other = RunFolder.create(Path(witnessed.run_root), witnessed)
    shutil.copy(folder.path / "witness.salt", other.path)
    with pytest.raises(KilledError):
        run(grid_of(other, die_at(3 * 3 + 2)), other)
    run(grid_of(other), other)
    again = read_events(other.events_path)
    assert of_kind(again, "run_started")[1]["resumed_from"] == 3
    fields = ("round", "convicted", "gain", "scores", "t", "struck")
    assert [[e[f] for f in fields] for e in of_kind(again, "judgement")] == [[e[f] for f in fields] for e in judged]
    assert of_kind(again, "run_finished")[0]["digest"] == of_kind(events, "run_finished")[0]["digest"]


def test_a_run_does_not_go_on_with_another_salt(witnessed: Recipe) -> None:
    folder = RunFolder.create(Path(witnessed.run_root), witnessed)
    with pytest.raises(KilledError):
        run(grid_of(folder, die_at(4)), folder)
    (folder.path / "witness.salt").unlink()
    with pytest.raises(RunFolderError, match=r"witness\.salt: not the secret that this run began with"):
        run(grid_of(folder), folder)


@pytest.mark.parametrize("moment", [2, 5, 7])
def test_a_run_that_dies_goes_on_at_the_last_committed_round(tiny_recipe: Callable[..., Recipe], moment: int) -> None:
    whole = of_kind(run_recipe(tiny_recipe())[1], "run_finished")[0]["digest"]
    folder = RunFolder.create(Path(tiny_recipe().run_root), tiny_recipe())
    with pytest.raises(KilledError):
        run(grid_of(folder, die_at(moment)), folder)
    with folder.events_path.open("ab") as file:
        file.write(b'{"seq": 99, "torn')
    run(grid_of(folder), folder)
    events = read_events(folder.events_path)
    started = of_kind(events, "run_started")
    assert started[1]["resumed_from"] == ((moment - 1) // 3 or None)
    assert started[1]["run_id"] == started[0]["run_id"]
    finished = of_kind(events, "run_finished")
    assert [event["digest"] for event in finished] == [whole]
    assert [event["seq"] for event in events] == list(range(len(events)))
