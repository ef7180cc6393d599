"""`trfmoe bench vote`: how long votes on three replicas take.

Results are relative to a floor, which is twice the time of a copy: a copy reads one array and writes one, a vote reads
three and writes one. Times are processor times of one thread. Each group runs every case several times, in changing
order. The result of a case is the best of its groups' medians. Our votes write into memory that was used before, as in
a run, and so does the copy; `new_memory` allocates the result. Flower's strategies get the same arrays as replies, only
in the first groups because they are slow.
"""

import logging
import time
import tracemalloc
from collections.abc import Callable
from statistics import median as middle
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor

from scripts.bench.measure import peak_mb, show
from strategies.voting.kernels import median, norm
from strategies.voting.vote import Agreement, vote

TIME_LIMIT_S = 50.0
REPEATS = 5
FLOWER_GROUPS = 3

Case = Callable[[], object]


def make_replicas(megabytes: float) -> dict[str, dict[str, Tensor]]:
    """Returns sets of three replicas: that agree, with one liar, with no majority, and that agree in bfloat16."""
    numel = max(1, round(megabytes * 1e6 / 4))
    random = np.random.default_rng(0)

    def draw(scale: float) -> Tensor:
        values = random.standard_normal(numel, dtype=np.float32)
        return torch.from_numpy(np.multiply(values, scale, out=values))

    base = draw(1.0)
    honest = {name: draw(0.5).add_(base) for name in "abc"}
    liar, stranger = torch.from_numpy(honest["a"].numpy() * np.float32(-1.5)), base.copy_(draw(1.0))
    return {
        "": honest,
        "outvoted": {"a": honest["a"], "b": honest["b"], "c": liar},
        "split": {"a": honest["a"], "b": liar, "c": stranger},
        "bfloat16": {name: update.to(torch.bfloat16) for name, update in honest.items()},
    }


def our_cases(sets: dict[str, dict[str, Tensor]]) -> dict[str, Case]:
    """Returns a copy, and our rules on every set."""
    honest, agreement = sets[""], Agreement()
    source = honest["a"].numpy()
    target, result = np.zeros_like(source), torch.from_numpy(np.zeros_like(source))
    sizes = {name: norm(update) for name, update in honest.items()}

    def majority(of: str) -> Case:
        return lambda: vote("majority", sets[of], agreement, result=result)

    return {
        "copy": lambda: np.copyto(target, source),
        "median": lambda: median(list(honest.values()), result=result),
        "median_bfloat16": lambda: median(list(sets["bfloat16"].values()), result=result),
        "median_new_memory": lambda: median(list(honest.values())),
        "median_vote": lambda: vote("median", honest, agreement, norms=sizes, result=result),
        "majority": majority(""),
        "majority_outvoted": majority("outvoted"),
        "majority_split": majority("split"),
        "majority_bfloat16": majority("bfloat16"),
        "majority_new_memory": lambda: vote("majority", honest, agreement),
        "mean": lambda: vote("mean", honest, agreement, result=result),
        "norms": lambda: [norm(update) for update in honest.values()],
    }


def flower_cases(replicas: dict[str, Tensor]) -> dict[str, Case]:
    """Returns Flower's aggregation of the replicas as replies, by several strategies."""
    arrays = [Array(update.numpy()) for update in replicas.values()]
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # what a message is signed with
    request = Message(RecordDict({"config": ConfigRecord()}), dst_node_id=1, message_type=MessageType.TRAIN)

    def case(strategy: FedAvg) -> Case:
        def replies() -> list[Message]:
            contents = [
                RecordDict({"arrays": ArrayRecord({"update": array}), "metrics": MetricRecord({"num-examples": 1})})
                for array in arrays
            ]
            return [Message(content, reply_to=request) for content in contents]

        return lambda: strategy.aggregate_train(1, replies())

    return {
        "fedavg": case(FedAvg()),
        "fedmedian": case(FedMedian()),
        "fedtrimmedavg": case(FedTrimmedAvg(beta=0.34)),
        "krum": case(Krum(num_malicious_nodes=1)),
    }


def scratch_mb(case: Case) -> float:
    """Returns the most memory that a case holds at once beyond what it was given, in MB."""
    case()  # the first call compiles
    tracemalloc.start()
    case()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure(megabytes: float, groups: int) -> dict[str, Any]:
    """Returns every case as a multiple of the floor, the floor in milliseconds, and what memory it took."""
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    started = time.monotonic()
    sets = make_replicas(megabytes)
    ours, flower = our_cases(sets), flower_cases(sets[""])
    scratch = {name: scratch_mb(ours[name]) for name in ("median", "majority", "majority_split")}
    best = dict.fromkeys([*ours, *flower], float("inf"))
    done = 0
    while done < groups and (done == 0 or time.monotonic() - started < TIME_LIMIT_S):
        taken: dict[str, list[float]] = {name: [] for name in best}
        for repeat in range(REPEATS):
            cases = list((ours | flower if repeat == 0 and done < FLOWER_GROUPS else ours).items())
            turn = (done * REPEATS + repeat) * 3 % len(cases)
            for name, case in cases[turn:] + cases[:turn]:
                begun = time.process_time()
                case()
                taken[name].append(time.process_time() - begun)
        best = {name: min([best[name], *([middle(times)] if times else [])]) for name, times in taken.items()}
        done += 1
    floor = 2 * best.pop("copy")
    return {
        **{f"{name}_over_floor": round(seconds / floor, 3) for name, seconds in best.items()},
        **{f"{name}_scratch_mb": round(size, 2) for name, size in scratch.items()},
        "floor_ms": float(f"{1000 * floor:.3g}"),
        "megabytes": megabytes,
        "groups": done,
        "peak_memory_mb": peak_mb(),
        "seconds": round(time.monotonic() - started, 1),
    }


def main(megabytes: float, groups: int, as_json: bool) -> None:
    """Measures and shows."""
    show(measure(megabytes, groups), as_json)
