"""Serves a run's figures for Prometheus at http://127.0.0.1:<log.prometheus_port>/metrics while the run goes on.

docs/monitoring.md names every figure. They come from the coordinator's journal alone, and are served on the loopback
address alone: an operator who collects them from another machine forwards the port.
"""

import logging
from pathlib import Path
from typing import Any

from server.run_folder.journal import Event
from server.sinks.registry import SINKS
from trfmoe_core.config import LogConfig

ADDRESS = "127.0.0.1"
FATES = ("accepted", "outvoted", "missing", "invalid")

log = logging.getLogger(__name__)


class PrometheusSink:
    """A reader of events that keeps the figures. If the port is taken it warns and the run goes on without them.

    Args:
        port: Where they are served; 0 takes a free port.
        run: Name of the run; a label of every figure.
    """

    def __init__(self, port: int, run: str) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

        self.registry = CollectorRegistry()

        def make(kind: Any, name: str, text: str, *labels: str) -> Any:
            return kind(f"trfmoe_{name}", text, ("run", *labels), registry=self.registry)

        self._run = run
        self._round = make(Gauge, "round", "last committed round or step")
        self._planned = make(Gauge, "rounds_planned", "rounds or steps that the run is to have")
        self._nodes = make(Gauge, "nodes", "nodes that have joined")
        self._bits = make(Gauge, "bits_per_byte", "held-out bits per byte of a node, or of all (node='')", "node")
        self._loss = make(Gauge, "train_loss", "last training loss of a node in nats a token", "node")
        self._speed = make(Gauge, "tokens_per_second", "tokens trained a second in the last round")
        self._seconds = make(Gauge, "round_seconds", "duration of the last round")
        self._tokens = make(Counter, "tokens", "tokens that a node trained in accepted replies", "node")
        self._bytes = make(Counter, "bytes", "bytes that travelled", "direction")
        self._replies = make(Counter, "replies", "replies of a node by status", "node", "status")
        self._votes = make(Counter, "votes", "blocks by what became of a node's update", "node", "fate")
        self._ended = make(Gauge, "finished", "1 when the run has ended this way", "outcome")
        self._joined: set[str] = set()
        self.server, self._thread = start_http_server(port, ADDRESS, self.registry)

    def __call__(self, event: Event) -> None:
        """Takes in one event."""
        kind, run = event["event"], self._run
        if kind == "run_started":
            self._planned.labels(run).set(event.get("num_rounds") or 0)
        elif kind == "node_joined":
            self._joined.add(event["node"])
            self._nodes.labels(run).set(len(self._joined))
        elif kind == "node_reply":
            self._reply(event)
        elif kind == "verdicts":
            for verdict in event["verdicts"]:
                for fate in FATES:
                    for node in verdict.get(fate, []):
                        self._votes.labels(run, node, fate).inc()
        elif kind == "evaluated":
            found = {"": event, **event.get("nodes", {})}
            for node, measured in found.items():
                if measured.get("bits_per_byte") is not None:
                    self._bits.labels(run, node).set(measured["bits_per_byte"])
        elif kind == "round_committed":
            self._committed(event)
        elif kind == "run_finished":
            self._ended.labels(run, event["outcome"]).set(1)
            self.server.shutdown()
            self.server.server_close()

    def _reply(self, event: Event) -> None:
        node, run = event["node"], self._run
        self._replies.labels(run, node, event["status"]).inc()
        if event.get("loss") is not None:
            self._loss.labels(run, node).set(event["loss"])
        if event["status"] == "accepted":
            self._tokens.labels(run, node).inc(event.get("tokens") or 0)

    def _committed(self, event: Event) -> None:
        run = self._run
        self._round.labels(run).set(event["round"])
        for gauge, key in ((self._speed, "tokens_per_s"), (self._seconds, "seconds")):
            if event.get(key) is not None:
                gauge.labels(run).set(event[key])
        for direction in ("down", "up"):
            self._bytes.labels(run, direction).inc(event.get(f"bytes_{direction}") or 0)


@SINKS.register("prometheus")
def prometheus_sink(settings: LogConfig, run_dir: Path) -> Any:
    """Returns the sink of a run folder, or one that does nothing if its figures cannot be served."""
    try:
        return PrometheusSink(settings.prometheus_port, run_dir.name)
    except ImportError:
        log.warning("log.sinks: prometheus needs its client: pip install prometheus-client; the run goes on without")
    except OSError as error:
        log.warning(
            "log.prometheus_port: %s: cannot be served (%s); the run goes on without; choose another port",
            settings.prometheus_port,
            error.strerror or error,
        )
    return lambda event: None
