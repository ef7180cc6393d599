"""Tests of how long a SuperNode waits between two questions."""

import ast
import inspect

import pytest
from flwr.supernode import start_client_internal

from scripts.deploy.prompt_supernode import Waits


class Node:
    """A SuperNode's loop on a clock of its own."""

    def __init__(self) -> None:
        self.now, self.waited = 0.0, list[float]()
        self.waits = Waits(self._sleep, lambda: self.now)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waited.append(seconds)

    def ask(self, flowers_own: float, until: float, asking: float = 0.0) -> list[float]:
        self.waited = []
        while self.now < until:
            self.now += asking
            self.waits.sleep(flowers_own)
        return self.waited


def test_short_rounds_lose_little_and_long_ones_ask_as_rarely_as_flower() -> None:
    node = Node()
    assert set(node.ask(3.0, 50.0)) == {0.5}
    later = node.ask(3.0, 300.0)
    assert later == sorted(later)
    assert later[-1] <= 0.01 * node.now
    assert set(node.ask(3.0, 1000.0)[1:]) == {3.0}


def test_every_message_begins_anew() -> None:
    node = Node()
    node.ask(3.0, 1000.0)
    assert node.ask(0.5, node.now + 1.0)[0] == pytest.approx(0.5 / 6), "the app is at work"
    assert node.ask(0.5, node.now + 200.0)[-1] == 0.5
    assert node.ask(3.0, node.now + 3.0)[0] == 0.5, "its answer is sent"


def test_a_slow_superlink_is_asked_as_rarely_as_by_flower() -> None:
    assert set(Node().ask(3.0, 40.0, asking=0.4)[1:]) == {3.0}
    assert max(Node().ask(3.0, 40.0, asking=0.1)) == pytest.approx(1.0)


def test_flowers_loops_wait_by_the_function_that_is_replaced() -> None:
    tree = ast.parse(inspect.getsource(start_client_internal))
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "time"]
    assert {node.attr for node in used} == {"sleep"}
    waits = [ast.unparse(node.args[0]) for node in ast.walk(tree) if isinstance(node, ast.Call) and node.func in used]
    assert sorted(set(waits)) == ["0.5", "3"]
