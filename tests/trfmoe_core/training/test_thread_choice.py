"""Tests of how a training process chooses its number of threads."""

from collections.abc import Callable

import pytest
import torch

from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.training.thread_choice import GAIN, HOLD, LEAST_HOLD_S, ThreadChoice, thread_choice_for


class Machine:
    """Stands in for a machine: the length of a step is a function of the number of threads, which may change."""

    def __init__(self, seconds: Callable[[int], float], most: int) -> None:
        self.seconds, self.now, self.used = seconds, 0.0, most
        self.choice = ThreadChoice(most, self._set, lambda: self.now)
        self.spent: dict[int, float] = {}

    def _set(self, threads: int) -> None:
        self.used = threads

    def train(self, until: float) -> None:
        self.choice.begin()
        while self.now < until:
            took = self.seconds(self.used)
            self.spent[self.used] = self.spent.get(self.used, 0.0) + took
            self.now += took
            self.choice.step_done()


def test_all_threads_stay_where_they_are_faster() -> None:
    machine = Machine(lambda threads: 0.8 / threads, most=8)
    machine.train(600.0)
    assert machine.choice.threads == 8
    assert machine.spent[8] > 0.93 * 600.0, "little time goes into trials"


def test_fewer_threads_are_taken_beside_busy_processes() -> None:
    fastest = {8: 1.0, 4: 0.6, 2: 0.3, 1: 0.5}
    machine = Machine(lambda threads: fastest[threads], most=8)
    machine.train(30.0)
    assert machine.choice.threads == 2
    machine.train(600.0)
    assert machine.spent[2] > 0.9 * 600.0


def test_threads_come_back_when_the_machine_is_idle_again() -> None:
    machine = Machine(lambda threads: 0.1 if threads == 1 else 0.2, most=2)
    machine.train(10.0)
    assert machine.choice.threads == 1
    machine.seconds = lambda threads: 0.1 / threads
    machine.train(10.0 + 3 * max(LEAST_HOLD_S, HOLD * 0.5))
    assert machine.choice.threads == 2


def test_a_difference_within_the_noise_changes_nothing() -> None:
    machine = Machine(lambda threads: 0.1 if threads == 2 else 0.1 / (GAIN - 0.01), most=2)
    machine.train(100.0)
    assert machine.choice.threads == 2


def test_a_pause_between_rounds_is_not_taken_for_a_step() -> None:
    machine = Machine(lambda threads: 0.2 / threads, most=2)
    for number in range(200):
        machine.train(machine.now + 0.7)
        machine.now += 50.0 * (number % 3)  # waiting for the other nodes
    assert machine.choice.threads == 2


def test_the_first_step_after_a_change_does_not_count() -> None:
    machine = Machine(lambda threads: 1.0, most=2)
    before = [2]

    def seconds(threads: int) -> float:
        fresh, before[0] = threads != before[0], threads
        return 30.0 if fresh else 0.1 * threads  # kernels are made

    machine.seconds = seconds
    machine.train(60.0)
    assert machine.choice.threads == 1


def test_only_an_automatic_number_on_a_cpu_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trfmoe_core.processors.usable_cores", lambda: 8)
    config, cpu = TrainingConfig(), torch.device("cpu")
    before = torch.get_num_threads()
    choice = thread_choice_for(config, None, cpu, 1)
    torch.set_num_threads(before)
    assert choice is not None and choice.threads == 8
    assert thread_choice_for(config, None, cpu, 1) is choice, "it goes on in the next round"
    assert thread_choice_for(config, 8, cpu, 1) is None
    assert thread_choice_for(config.model_copy(update={"threads": 8}), None, cpu, 1) is None
    assert thread_choice_for(config.model_copy(update={"compile": True}), None, cpu, 1) is None
    assert thread_choice_for(config, None, cpu, 2) is None
    assert thread_choice_for(config, None, torch.device("cuda", 0), 1) is None
    monkeypatch.setattr("trfmoe_core.processors.usable_cores", lambda: 1)
    assert thread_choice_for(config, None, cpu, 1) is None
