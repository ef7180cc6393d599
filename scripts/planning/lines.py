"""A forecast in lines for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.terminal.console import quantity, size

WIDTH = 11


def forecast_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a run costs, one fact a line; what is not known says how to learn it."""
    node = f", {quantity(found['parameters_node'])} on a node" if "traffic" in found else ""
    yield _line(
        "parameters",
        f"{quantity(found['parameters'])}, {quantity(found['parameters_active'])} of them used by a token{node}",
    )
    if found["parameters_frozen"]:
        trained = quantity(found["parameters"] - found["parameters_frozen"])
        yield _line(
            "", f"{trained} of them trained; a node gets the others once, {size(4 * found['parameters_frozen'])}"
        )
    if found["steps"] is None:
        yield _line("length", "as many steps as training.epochs needs; known once the text is prepared")
    else:
        rounds = f" in {found['rounds']:,} rounds of {found['steps_round']}" if "rounds" in found else ""
        yield _line("length", f"{found['steps']:,} steps of a node{rounds}, {quantity(found['tokens_node'])} tokens")
        if "tokens_all" in found:
            yield _line(
                "",
                f"{quantity(found['tokens_round'])} tokens of a node in a round on average; all nodes together "
                f"read {quantity(found['tokens_all'])}",
            )
    yield from _memory(found)
    if "traffic" in found:
        yield from _traffic(found["traffic"])
    yield _line(
        "disk",
        f"{size(found['disk_node_bytes'])} on a node for its state"
        if "traffic" in found
        else f"{size(found['disk_node_bytes'])} for checkpoints",
    )
    if "disk_coordinator_bytes" in found:
        yield _line("", f"{size(found['disk_coordinator_bytes'])} on the coordinator; prepared text comes on top")
    yield from _time(found)
    for remark in found["remarks"]:
        yield f"note: {remark}"


def duration(seconds: float) -> str:
    """Returns a time in its two largest units, such as `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"


def share(value: float) -> str:
    """Returns a share in percent with two digits, such as `0.93%` and `25%`."""
    return f"{float(f'{100 * value:.2g}'):g}%"


def _memory(found: Mapping[str, Any]) -> Iterator[str]:
    who = "a node" if "traffic" in found else "this run"
    if found["device"] == "cuda" and "traffic" in found:
        yield _line(
            "memory", f"{size(sum(found['memory_gpu'].values()))} of {who}'s GPU: {_parts(found['memory_gpu'])}"
        )
        yield _line("", f"{size(found['memory_node_bytes'])} beside it: {_parts(found['memory_node'])}")
    else:
        yield _line("memory", f"{size(found['memory_node_bytes'])} for {who}: {_parts(found['memory_node'])}")
    if "memory_coordinator" in found:
        more = size(found["memory_supernode_bytes"])
        yield _line("", f"{more} more on a node of a deployment: SuperNode and executor, which a simulation has not")
        total = size(found["memory_coordinator_bytes"])
        yield _line("", f"{total} for the coordinator: {_parts(found['memory_coordinator'])}")
    if found["measured"]:
        yield _line("", f"{size(found['measured']['peak_memory_bytes'])} measured while a few steps ran here")


def _traffic(traffic: Mapping[str, Any]) -> Iterator[str]:
    yield _line("network", f"{size(traffic['node_down'])} to a node and {size(traffic['node_up'])} from it in a round")
    yield _line("", f"{size(traffic['down'] + traffic['up'])} a round for all nodes, {size(traffic['total'])} in all")
    if traffic["momentum_rounds"]:
        more = size(traffic["momentum_down"] + traffic["momentum_up"])
        yield _line(
            "", f"{more} more for all nodes in each of {traffic['momentum_rounds']} rounds, for muon's momentum"
        )
    fedavg, full = traffic["fedavg_share"], traffic["full_share"]
    of_full = f", and {share(full)} of it with full experts" if full < fedavg else ""
    yield _line("", f"{share(fedavg)} of FedAvg, which sends the whole model in float32 both ways{of_full}")


def _time(found: Mapping[str, Any]) -> Iterator[str]:
    rate = found["tokens_per_s"]
    if not rate:
        yield _line("time", "not known: --measure trains a few steps here, --tokens-per-second states a rate")
    elif "traffic" not in found:
        told = duration(found["seconds"]) if found["seconds"] else "known once the text is prepared"
        yield _line("time", f"{told} at {quantity(rate)} tokens/s")
    else:
        yield _line(
            "time", f"{duration(found['seconds_training'])} a round for a node's work at {quantity(rate)} tokens/s"
        )
        if found["seconds_sending"] is not None:
            yield _line("", f"{duration(found['seconds_sending'])} a round for the network")
            yield _line("", f"{duration(found['seconds'])} in all, with every node on a machine of its own")
        yield _line("", f"{duration(found['seconds_simulated'])} in all if this machine simulates all nodes")
    if "traffic" in found and found["seconds_sending"] is None:
        yield _line("", "time of the network not known: --bandwidth states it in Mbit/s")


def _parts(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size(count)}" for name, count in parts.items())


def _line(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}"
