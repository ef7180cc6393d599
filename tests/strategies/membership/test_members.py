"""Who takes part: names and keys, refusals that are not for ever, nodes that come back, strangers that want a name."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Context, Message, MessageType, RecordDict

from scripts.experiments.in_process import InProcessGrid
from strategies.exchange.in_flight import Clock
from strategies.exchange.messages import DescribeRequest, Description, pack
from strategies.exchange.refusals import Code, Refusal
from strategies.membership.members import Federation
from strategies.membership.presence import AGAIN_S, ANSWER_S
from strategies.membership.seats import Seats
from strategies.placement.placement import place
from trfmoe_core.config import ReputationConfig
from trfmoe_core.errors import RunError

CODE, OTHER = "a" * 64, "b" * 64
REQUEST = DescribeRequest(run_id="r", recipe={}, code_fingerprint=CODE, tokenizer_fingerprint=CODE)


@dataclass
class Node:
    """A node as the coordinator meets it. `key` is what the operator registered its key as; empty: it has none."""

    name: str
    key: str = ""
    zone: str | None = None
    online: bool = True
    answers: bool = True
    takes_s: float = 0.0
    tokenizer: str = CODE
    refusal: Code | None = None
    asked: int = 0


class World(InProcessGrid):
    """Nodes behind Flower's ids, a clock, a federation and its events."""

    def __init__(self, *nodes: Node, keys: bool = False, **known: Iterable[str]) -> None:
        self.nodes = dict(enumerate(nodes, 1))
        self.time = 0.0
        clock = Clock(now=lambda: self.time, sleep=self.pass_time)
        super().__init__(
            self._answer,  # type: ignore[arg-type]
            [{} for _ in range(9)],
            {},
            latency_s=lambda number, _: self.nodes[number].takes_s if self.nodes[number].answers else math.inf,
            now=lambda: self.time,
        )
        self.keys = keys or any(node.key for node in nodes)
        self.events: list[dict[str, Any]] = []
        self.happens: dict[float, Callable[[], object]] = {}
        self.federation = Federation(
            REQUEST, lambda kind, **f: self.events.append({"event": kind, **f}), clock, **known
        )

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        for moment in sorted(self.happens):
            if moment <= self.time:
                self.happens.pop(moment)()

    def watch(self, seconds: float, every_s: float = 1.0) -> None:
        """Looks for nodes again and again."""
        end = self.time + seconds
        while self.time < end:
            self.federation.refresh(self)
            self.pass_time(every_s)
        self.federation.refresh(self)

    def come(self, *nodes: Node) -> None:
        for node in nodes:
            self.nodes[len(self.nodes) + 1] = node

    def leave(self, number: int) -> None:
        self.nodes[number].online = False

    def get_node_ids(self) -> Iterable[int]:
        return [number for number, node in self.nodes.items() if node.online]

    def get_nodes(self) -> Iterable[Any]:
        if not self.keys:
            return []
        return [SimpleNamespace(node_id=number, name=self.nodes[number].key) for number in self.get_node_ids()]

    def _answer(self, message: Message, context: Context) -> Message:
        node = self.nodes[context.node_id]
        if message.metadata.message_type != MessageType.QUERY:
            return Message(RecordDict(), reply_to=message)
        node.asked += 1
        described = Description.model_construct(  # unchecked: what a liar writes into its header
            name=node.name,
            zone=node.zone,
            refusal=Refusal(code=node.refusal) if node.refusal else None,
            code_fingerprint=CODE,
            tokenizer_fingerprint=node.tokenizer,
            versions={},
        )
        return Message(pack(described), reply_to=message)

    @property
    def seats(self) -> dict[str, int]:
        """Names of the members that are online -> Flower's id."""
        return {name: member.node_id for name, member in self.federation.online.items()}

    def told(self, kind: str = "node_refused") -> list[tuple[str, str]]:
        return [(e.get("node", ""), e.get("reason", e.get("text", ""))) for e in self.events if e["event"] == kind]


def three(**changes: Any) -> list[Node]:
    return [Node(name, **changes) for name in ("ada", "bob", "cyd")]


def test_all_are_gathered_and_late_ones_are_waited_for() -> None:
    world = World(*three(), Node("dan", takes_s=90.0))
    world.federation.gather(world, 4, 3, 20.0, 100.0)
    assert world.seats == {"ada": 1, "bob": 2, "cyd": 3, "dan": 4}
    assert 90 <= world.time <= 91, "it was asked and prepares its data"


def test_a_node_that_never_says_who_it_is_does_not_hold_the_start() -> None:
    world = World(*(Node(name, key=name, takes_s=9.0) for name in ("ada", "bob", "cyd")), Node("dan", key="dan"))
    world.nodes[4].answers = False
    world.federation.gather(world, 4, 3, 20.0, 3600.0, 10.0)
    assert 90 <= world.time <= 100
    ((_, waits),) = world.told("waiting")
    assert waits.startswith("the run waits for dan (starts or prepares its data), at most until ")
    assert waits.endswith("; 3 of 4 nodes are ready (ada, bob, cyd)")
    late, starts = [text for _, text in world.told("warning")]
    assert late.startswith("the run waits for dan (still starts or prepares its data, or hangs")
    assert "the run starts without the others; dan did not say" in starts
    world.nodes[4].answers = True
    world.watch(AGAIN_S)
    assert world.seats["dan"] == 4, "it joins later"
    alone = World(Node("ada"), Node("bob"), Node("cyd", takes_s=1000.0))
    alone.federation.gather(alone, 3, 3, 20.0, 3600.0, 10.0)
    assert alone.time >= 1000, "without it there are not enough"


def test_a_node_without_which_the_run_cannot_start_is_named_soon_with_the_end_of_the_wait() -> None:
    world = World(*(Node(name, key=name) for name in ("ada", "bob")), Node("cyd", key="cyd", answers=False))
    seen: list[tuple[float, str, str]] = []
    world.federation.record = lambda kind, **fields: seen.append((world.time, kind, fields.get("text", "")))
    with pytest.raises(RunError, match="cyd did not say who they are"):
        world.federation.gather(world, 3, 3, 20.0, 1800.0, 10.0)
    assert 1800 <= world.time <= 1801
    waits, late = [entry for entry in seen if "the run waits for cyd" in entry[2]]
    assert 15 <= waits[0] <= 16 and waits[1] == "waiting", "no node is late at first"
    assert waits[2].endswith(", in 0:29:45 (rounds.preparing_deadline_s); 2 of 3 nodes are ready (ada, bob)")
    assert 300 <= late[0] <= 301 and late[1] == "warning"
    assert "or hangs" in late[2]


def test_a_run_starts_without_who_does_not_come_and_not_with_too_few() -> None:
    world = World(*three())
    world.federation.gather(world, 4, 3, 20.0, 100.0)
    waits, starts = [text for _, text in world.told("warning")]
    assert waits.startswith("the run waits for 1 node that is not connected, at most until ")
    assert waits.endswith("in 0:00:05 (rounds.nodes_deadline_s); 3 of 4 nodes are ready (ada, bob, cyd)")
    assert "3 of 4 nodes can take part (ada, bob, cyd) after 20 s; the run starts" in starts
    few = World(*three()[:2], Node("cyd", tokenizer=OTHER))
    with pytest.raises(RunError, match=r"2 of 3 nodes .* \(ada, bob\).*refused: cyd: the node's tokenizer bbbb"):
        few.federation.gather(few, 3, 3, 20.0, 100.0)
    assert few.time <= 21, "a node that was refused is asked again, and not waited for as if it prepared its data"


def test_a_node_that_is_mended_while_others_are_waited_for_is_gathered() -> None:
    world = World(*three()[:2], Node("cyd", refusal="data"))
    world.happens[12.0] = lambda: setattr(world.nodes[3], "refusal", None)
    world.federation.gather(world, 3, 3, 60.0, 100.0)
    assert list(world.seats) == ["ada", "bob", "cyd"]
    assert world.time == pytest.approx(15.0, abs=1.0)


def test_two_seated_nodes_are_waited_for() -> None:
    world = World(*three())
    world.watch(1)
    world.leave(2), world.leave(3)
    world.happens[30.0] = lambda: setattr(world.nodes[3], "online", True)
    world.federation.await_seated(world, ["ada", "bob", "cyd"], 100.0)
    assert 30 <= world.time <= 31
    assert "1 of 3 nodes are online (ada); waiting up to 100 s" in world.told("warning")[0][1]
    world.leave(3)
    with pytest.raises(RunError, match=r"1 of 3 nodes are online \(ada\) after 7 s .*go on with --resume"):
        world.federation.await_seated(world, ["ada", "bob", "cyd"], 7.0)


def test_a_refusal_is_told_once_and_asked_again_less_and_less_often() -> None:
    world = World(*three(), Node("dan", tokenizer=OTHER))
    world.watch(3600)
    assert len(world.told()) == 1
    assert world.nodes[4].asked == pytest.approx(6 + 3600 / 300, abs=2)  # 0, 5, 15, 35, 75, 155, 315, then every 300 s
    world.nodes[4].refusal = "disk"
    world.watch(700)
    assert [reason.split()[2] for _, reason in world.told()] == ["tokenizer", "disk"]
    world.nodes[4].refusal, world.nodes[4].tokenizer = None, CODE
    world.watch(301)
    assert world.seats["dan"] == 4
    assert len(world.told()) == 2
    assert [node for node, _ in world.told()] == ["dan", "dan"]


def test_a_node_that_comes_back_mended_under_the_same_id_is_asked_at_once() -> None:
    world = World(*three(), Node("dan", key="south/dan", refusal="data"), keys=True)
    world.watch(400)
    world.leave(4)
    world.watch(2)
    world.nodes[4].online, world.nodes[4].refusal = True, None
    world.watch(2)
    assert world.seats["dan"] == 4
    assert len(world.told()) == 1


@pytest.mark.parametrize("key", ["", "north/ada"])
@pytest.mark.parametrize("owes", [True, False])
def test_a_node_that_restarts_before_flower_has_noticed_takes_part_again(key: str, owes: bool) -> None:
    world = World(Node("ada", key=key), *three()[1:])
    world.watch(10)
    world.federation.owes = lambda name: owes
    world.nodes[1].answers = False  # killed; Flower sees it for another minute
    world.come(Node("ada", key=key))
    world.happens[70.0] = lambda: world.leave(1)
    world.watch(30)
    assert world.seats["ada"] == 1
    assert [node for node, _ in world.told()] == ["node 4 (ada)"]
    world.watch(70)
    assert world.seats["ada"] == 4
    assert len(world.told()) == 1
    joined = [(event["node"], event["back"]) for event in world.events if event["event"] == "node_joined"]
    assert joined[-1] == ("ada", True)


def test_a_wedged_node_that_flower_sees_for_ever_gives_its_name_up_unless_it_owes_an_answer() -> None:
    for owes, holder in ((False, 4), (True, 1)):
        world = World(*three())
        world.watch(10)
        world.federation.owes = lambda name, owes=owes: owes  # type: ignore[misc]
        world.nodes[1].answers = False
        world.come(Node("ada"))
        world.watch(700)
        assert world.seats["ada"] == holder


@pytest.mark.parametrize("every_s", [0.5, 20.0, 600.0])
def test_a_stranger_gets_no_name_while_its_owner_lives(every_s: float) -> None:
    world = World(*three())
    world.watch(2)
    world.come(Node("ada"), Node("Ada"), Node("BOB"))
    working = [False]
    world.federation.owes = lambda name: working[0]
    for _ in range(12):
        working[0] = not working[0]
        world.nodes[1].takes_s = 3.0
        world.watch(10 * every_s, every_s)
        assert world.seats == {"ada": 1, "bob": 2, "cyd": 3}
    assert sorted(node for node, _ in world.told()) == ["Ada", "BOB", "node 4 (ada)"]
    assert all("letter case only" in reason for node, reason in world.told() if "ada" not in node)


def test_two_that_want_one_name_do_not_take_turns() -> None:
    world = World(*three(), Node("ada"), Node("ada"))
    world.watch(3000)
    assert world.seats == {"ada": 1, "bob": 2, "cyd": 3}
    assert len([event for event in world.events if event["event"] == "node_joined"]) == 3


def test_newcomers_are_asked_while_a_round_is_under_way_and_decided_about_after_it() -> None:
    world = World(*three())
    world.watch(2)
    world.nodes[3].online = False
    world.come(Node("dan", takes_s=20.0), Node("ada"), Node("eve", tokenizer=OTHER), Node("fay"))
    before = dict(world.federation.members)
    for _ in range(600):
        world.federation.look(world)
        world.pass_time(0.5)
    assert world.federation.members == before
    assert list(world.seats) == ["ada", "bob", "cyd"], "as it was when the round began"
    assert [node.asked for node in world.nodes.values()] == [1] * 7
    world.leave(7)
    world.federation.refresh(world)
    assert world.seats == {"ada": 1, "bob": 2, "dan": 4}
    assert sorted(node for node, _ in world.told()) == ["eve", "node 5 (ada)"]


def test_a_key_takes_its_name_from_who_has_none() -> None:
    world = World(*three(), keys=True)
    world.watch(2)
    world.come(Node("ada", key="north/ada"))
    world.watch(10)
    assert world.seats["ada"] == 4
    assert "registered for a key" in world.told()[0][1]
    world.leave(4)
    world.watch(400)
    assert "ada" not in world.seats, "the name waits for its key"
    again = World(*three(), keys=True, names=["ada", "bob"], registered=world.federation.registered)
    again.watch(400)
    assert list(again.seats) == ["bob", "cyd"], "also after a resume"


@pytest.mark.parametrize("claimed", ["bob", "Ada", "ADA"])
def test_a_key_is_for_one_name(claimed: str) -> None:
    world = World(Node(claimed, key="north/ada"), Node("bob", key="bob"), Node("cyd", key="a/b/cyd"))
    world.watch(400)
    assert list(world.seats) == ["bob", "cyd"]
    (refused,) = world.told()
    assert refused[0] == "ada", "it is named by its key, not by what it says"
    assert f"registered as 'north/ada', and it calls itself {claimed!r}" in refused[1]


@pytest.mark.parametrize("claimed", ["north/ada", "ada ", "", "../ada", "a" * 65])
def test_what_is_no_name_is_refused_under_the_name_of_its_key(claimed: str) -> None:
    world = World(Node(claimed, key="north/ada"), Node("bob", key="bob"), Node("cyd", key="a/b/cyd"))
    world.watch(400)
    assert list(world.seats) == ["bob", "cyd"]
    ((refused, reason),) = world.told()
    assert refused == "ada" and "name" in reason


def test_zones_are_those_that_are_registered() -> None:
    nodes = [
        Node("ada", key="north/ada", zone="south"),
        Node("bob", key="north/bob", zone="east"),
        Node("cyd", key="north/cyd"),
        Node("dan", key="south/dan", zone="south"),
        Node("eve", key="eve", zone="south"),
        Node("fay", key="east/fay", zone="east"),
    ]
    world = World(*nodes)
    world.watch(2)
    zones = {name: member.description.zone for name, member in world.federation.members.items()}
    assert zones == {"ada": "north", "bob": "north", "cyd": "north", "dan": "south", "eve": None, "fay": "east"}
    told = {text.split()[0] for _, text in world.told("warning")}
    assert told == {"ada", "bob", "cyd", "eve"}
    world.leave(1)
    world.watch(2)
    world.nodes[1].online = True
    world.watch(2)
    assert len(world.told("warning")) == 4
    joined = {event["node"]: event["zone"] for event in world.events if event["event"] == "node_joined"}
    assert joined == zones, "the journal has no claims"


EXPERTS = [f"layers.{layer}.experts.{number}" for layer in range(2) for number in range(4)]


def test_registered_nodes_are_seated_first_then_those_that_came_first() -> None:
    world = World(Node("ada"), Node("bob"), Node("cyd"), Node("zoe", key="zoe"))
    for node in world.nodes.values():
        node.online = False
    for number in (2, 1, 3, 4):
        world.nodes[number].online = True
        world.watch(2)
    told: list[dict[str, Any]] = []
    two = [f"layers.0.experts.{number}" for number in range(2)]
    seating = Seats(two, ReputationConfig(), lambda kind, **fields: told.append({"event": kind, **fields}), None, 2)
    seating.open(world.federation.members)
    assert sorted(seating.placement.nodes) == ["ada", "bob", "zoe"]
    seating.update(1, world.federation.online)
    assert [event["node"] for event in told if event["event"] == "node_refused"] == ["cyd"]


def seating_of(world: World, state: dict[str, Any] | None = None) -> Seats:
    seating = Seats(EXPERTS, ReputationConfig(), lambda kind, **fields: None, state)
    seating.open(world.federation.members)
    return seating


def sharing(seating: Seats, zones: dict[str, str]) -> list[str]:
    """Returns the experts of which two replicas lie in one registered zone."""
    return [e for e, names in seating.placement.experts.items() if len({zones[n] for n in names}) < 3]


def test_no_claim_brings_two_replicas_into_one_zone() -> None:
    truth = dict(zip("abcdefg", "NNSSEEW", strict=True))
    nodes = [Node(name, key=f"{truth[name]}/{name}", zone=f"claimed-{name}") for name in "abcdefg"]
    world = World(*nodes[:6])
    world.watch(2)
    seating = seating_of(world)
    assert not sharing(seating, truth)
    world.come(nodes[6])
    world.watch(2)
    seating.update(1, world.federation.online)
    assert "g" in seating.placement.nodes
    assert not sharing(seating, truth), "a node that joins later"
    again = seating_of(world, seating.state())
    assert not sharing(again, truth), "a run that goes on"


def test_a_run_that_began_with_claims_goes_on_with_what_is_registered() -> None:
    truth = dict(zip("abcdefg", "NNSSEEW", strict=True))
    nodes = [Node(name, zone=f"claimed-{name}") for name in "abcdefg"]
    world = World(*nodes)
    world.watch(2)
    seating = seating_of(world)
    assert sharing(seating, truth)
    for node in nodes:
        node.key = f"{truth[node.name]}/{node.name}"
    resumed = World(*nodes)
    resumed.watch(2)
    seating = seating_of(resumed, seating.state())
    assert seating.placement.zones == truth
    assert not sharing(seating, truth)
    loads = seating.placement.loads()
    assert sum(loads.values()) == place(EXPERTS, list("abcdefg"), zones=truth).replication * len(EXPERTS)
    epoch = seating.placement.epoch
    seating.update(1, resumed.federation.online)
    assert seating.placement.epoch == epoch, "nothing moves twice"


def test_three_nodes_of_one_zone_keep_their_seats() -> None:
    nodes = [Node(name, key=f"N/{name}", zone=name) for name in "abc"]
    world = World(*nodes)
    world.watch(2)
    state = {"epoch": 1, "nodes": list("abc"), "zones": {}, "reputation": {}}
    state["holders"] = {block: list("abc") for block in (*EXPERTS, "trunk")}
    seating = seating_of(world, state)
    assert seating.placement.zones == dict.fromkeys("abc", "N")
    assert seating.placement.nodes == ("a", "b", "c")


def test_a_question_that_was_lost_is_asked_again_and_a_slow_answer_is_waited_for() -> None:
    away = [Node("dan", answers=False), Node("eve", answers=False)]
    world = World(*three(), *away, Node("fay", takes_s=700.0))
    world.watch(ANSWER_S / 2)
    away[0].answers = True  # it was started again under its key, and works on nothing
    world.watch(ANSWER_S)
    assert world.seats["dan"] == 4
    away[1].answers = True
    world.watch(AGAIN_S)
    assert world.seats["eve"] == 5
    world.watch(400)
    assert world.seats["fay"] == 6
    assert [node.asked for node in (*away, world.nodes[6])] == [2, 2, 1]
