"""The whole forecast of a run, as plain values."""

import math
from dataclasses import asdict
from typing import Any

from scripts.planning.disk import coordinator_disk, local_disk, node_disk
from scripts.planning.federation import PlannedRun
from scripts.planning.memory import coordinator_memory, machine_memory, node_memory, supernode_memory
from scripts.planning.speed import Speed
from scripts.planning.traffic import Traffic, planned_traffic
from scripts.run.resources import simulation_resources
from trfmoe_core.training.schedule import schedule_remarks

EVALUATION_SPEED = 3.0
"""Evaluation has no backward pass, which takes about twice as long as the forward pass."""


def forecast(
    run: PlannedRun, speed: Speed | None, tokens_per_s: float | None, megabits: float | None
) -> dict[str, Any]:
    """Returns what a run costs; None where something is not known before it.

    Tokens and seconds of a round are means over the run's rounds.

    Args:
        run: What is planned.
        speed: What this machine was measured to do.
        tokens_per_s: Instead of that, the rate of training that a node is said to have.
        megabits: Bandwidth of a node and of the coordinator, in Mbit/s.
    """
    recipe = run.recipe
    result: dict[str, Any] = {
        "parameters": run.parameters,
        "parameters_active": run.active_parameters,
        "parameters_frozen": run.frozen_parameters,
        "parameters_node": run.node_parameters,
        "device": run.device.type,
        "tokens_per_s": speed.tokens_per_s if speed else tokens_per_s,
        "measured": asdict(speed) if speed else None,
    }
    result["evaluation_tokens_per_s"] = (
        speed.evaluation_tokens_per_s if speed else tokens_per_s and EVALUATION_SPEED * tokens_per_s
    )
    if not run.zones:
        return result | _on_one_machine(run, result)
    traffic = planned_traffic(run)
    rounds = recipe.rounds
    node, coordinator = node_memory(run, traffic), coordinator_memory(run, traffic)
    return result | {
        "steps": recipe.total_steps,
        "steps_round": rounds.steps_text,
        "tokens_round": recipe.total_steps * _tokens_a_step(run) / rounds.num_rounds,
        "tokens_node": recipe.total_steps * _tokens_a_step(run),
        "tokens_all": len(run.zones) * recipe.total_steps * _tokens_a_step(run),
        "rounds": rounds.num_rounds,
        "memory_gpu": machine_memory(run) if run.device.type == "cuda" else None,
        "memory_node": node,
        "memory_node_bytes": sum(node.values()),
        "memory_supernode_bytes": supernode_memory(run, traffic),
        "memory_coordinator": coordinator,
        "memory_coordinator_bytes": sum(coordinator.values()),
        "traffic": asdict(traffic),
        "disk_node_bytes": node_disk(run),
        "disk_coordinator_bytes": coordinator_disk(run, traffic),
        **_seconds(run, result, traffic, megabits),
        "remarks": schedule_remarks(recipe.training, recipe.total_steps),
    }


def _tokens_a_step(run: PlannedRun) -> int:
    training = run.recipe.training
    devices = training.devices if isinstance(training.devices, int) else 1
    return training.batch_size * training.accumulation * devices * run.recipe.model.context


def _on_one_machine(run: PlannedRun, known: dict[str, Any]) -> dict[str, Any]:
    recipe = run.recipe
    steps = None
    if recipe.training.epochs is None:
        devices = recipe.training.devices if isinstance(recipe.training.devices, int) else 1
        steps = recipe.training.budget(recipe.model.context, devices) or recipe.total_steps
    tokens = steps and steps * _tokens_a_step(run)
    parts, seconds = machine_memory(run), None
    if tokens and steps and known["tokens_per_s"]:
        every = recipe.local.evaluate_every
        evaluations = 1 + (math.ceil(steps / every) if every else recipe.rounds.rounds_of(steps))
        evaluated = evaluations * recipe.data.evaluation_tokens / known["evaluation_tokens_per_s"]
        seconds = tokens / known["tokens_per_s"] + evaluated
    return {
        "steps": steps,
        "tokens_node": tokens,
        "memory_node": parts,
        "memory_node_bytes": sum(parts.values()),
        "disk_node_bytes": local_disk(run),
        "seconds": seconds,
        "remarks": schedule_remarks(recipe.training, steps) if steps else [],
    }


def _seconds(run: PlannedRun, known: dict[str, Any], traffic: Traffic, megabits: float | None) -> dict[str, Any]:
    """Returns the seconds of a round and of the run, with every node on a machine of its own, and all on this one."""
    recipe = run.recipe
    sending = None
    if megabits:
        rate = megabits * 1e6 / 8
        # The coordinator's link carries every node's messages, a node's its own.
        sending = max(traffic.node_down + traffic.node_up, traffic.down + traffic.up) / rate
    if not known["tokens_per_s"]:
        return {"seconds_training": None, "seconds_sending": sending, "seconds_round": None, "seconds": None}
    training = recipe.total_steps * _tokens_a_step(run) / recipe.rounds.num_rounds / known["tokens_per_s"]
    training += recipe.data.evaluation_tokens / known["evaluation_tokens_per_s"]
    a_round = training + (sending or 0.0)
    return {
        "seconds_training": training,
        "seconds_sending": sending,
        "seconds_round": a_round,
        "seconds": recipe.rounds.num_rounds * a_round,
        "seconds_simulated": recipe.rounds.num_rounds * training * math.ceil(len(run.zones) / _at_a_time(run)),
    }


def _at_a_time(run: PlannedRun) -> int:
    """Returns how many nodes a simulation on this machine runs at the same time."""
    settings = simulation_resources(run.recipe)
    return max(1, int(settings["init-args-num-cpus"] // settings["client-resources-num-cpus"]))
