"""A node's figures for its owner's Prometheus, at http://127.0.0.1:PORT/metrics.

They are read from the node's own notes whenever they are asked for, so nothing runs inside the training, and they go on
between two runs. They are served on the loopback address alone. docs/monitoring.md names them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from clients.kept.own_rounds import OwnRun, own_runs
from clients.kept.progress import Progress, read_progress
from clients.settings import state_base, state_folder
from scripts.deploy.lifecycle.node_view import read_settings
from trfmoe_core.errors import ConfigError, MachineError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

ADDRESS = "127.0.0.1"

Figure = tuple[str, str, Callable[[OwnRun, Progress | None], float | None]]
"""Name, meaning, and its value of a run; None: nothing to tell."""
GAUGES: tuple[Figure, ...] = (
    ("trfmoe_node_round", "last round that this node trained in", lambda run, _: max(run.rounds, default=None)),
    ("trfmoe_node_step", "steps made of the round that was trained last", lambda _, now: now.step if now else None),
    ("trfmoe_node_steps", "steps of that round", lambda _, now: now.steps if now else None),
    ("trfmoe_node_train_loss", "last training loss in nats a token", lambda run, _: run.loss),
    ("trfmoe_node_bits_per_byte", "bits per byte of the node's own held-out text", lambda run, _: run.bits_per_byte),
    ("trfmoe_node_last_answer_seconds", "when it answered last, seconds since 1970", lambda run, _: run.last or None),
)
COUNTERS: tuple[Figure, ...] = (
    ("trfmoe_node_rounds", "rounds that this node trained in", lambda run, _: len(run.rounds)),
    ("trfmoe_node_sent_bytes", "bytes that left this machine in answers", lambda run, _: run.bytes),
    ("trfmoe_node_outvoted_blocks", "blocks on which it was outvoted", lambda run, _: sum(run.outvoted.values())),
    ("trfmoe_node_accepted_rounds", "rounds in which all its updates counted", lambda run, _: len(run.accepted)),
)


class NodeFigures:
    """A collector of `prometheus_client`.

    Args:
        folder: The node's folder.

    Raises:
        ConfigError: It is no node's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._settings = read_settings(folder)

    def collect(self) -> "Iterator[Metric]":
        """Yields every figure with a value for each run; the label `run` is the recipe's name and the id's beginning.

        Raises:
            OSError: The notes cannot be read.
        """
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        settings = self._settings
        runs = own_runs(state_base(settings), settings.name)
        known = [(run, read_progress(state_folder(settings, run.run_id))) for run in runs]
        for kind, figures in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for name, meaning, value in figures:
                family = kind(name, meaning, labels=["node", "run"])
                for run, progress in known:
                    found = value(run, progress)
                    if found is not None:
                        family.add_metric([settings.name, f"{run.name or '?'} {run.run_id[:8]}"], found)
                yield family


def serve_node(folder: Path, port: int) -> tuple[WSGIServer, Thread]:
    """Serves a node's figures in a thread, and returns the server and the thread.

    Args:
        folder: The node's folder.
        port: 0 takes a free one.

    Raises:
        ConfigError: It is no node's folder, or the port is taken.
        MachineError: The client library is not installed.
    """
    figures = NodeFigures(folder)
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise MachineError("prometheus-client is not installed; install it: pip install prometheus-client") from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(figures)
    try:
        return start_http_server(port, ADDRESS, registry)
    except OSError as error:
        raise ConfigError(f"--port {port}: cannot be used ({error.strerror or error}); choose another") from error
