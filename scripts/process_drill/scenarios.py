"""The scenarios of `trfmoe drill --processes`: which process each harms and how, and what must hold in the end."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.process_drill.scene import Check, Scenario, Scene, Script, Stage
from strategies.exchange.refusals import Code, Refusal, sentence
from trfmoe_core.config import Recipe
from trfmoe_core.counts import counted
from trfmoe_core.errors import ConfigError

SUBNET = "10.231.77"
LONG = ("rounds.num_rounds=24",)


def kill_node(moment: str) -> Callable[[Scene], Script]:
    """Returns a script that kills the victim's SuperNode before, during or after its training of a round."""

    def script(scene: Scene) -> Script:
        if moment == "before":
            yield from scene.until_event("round_committed", round=1)
        elif moment == "during":
            yield from scene.until_training()
        else:
            yield from scene.until_event("node_reply", round=2, node=scene.victim, status="accepted")
        scene.mark("hurt")
        scene.supernode().kill()

    return script


def stop_node(scene: Scene) -> Script:
    """Suspends the victim's SuperNode during training, and resumes it two rounds later."""
    yield from scene.until_training()
    node = scene.supernode()
    scene.mark("hurt")
    node.suspend()
    yield from scene.until_event("round_committed", round=3)
    scene.mark("healed")
    node.resume()


def hurt_client(how: str) -> Callable[[Scene], Script]:
    """Returns a script that kills, suspends or terminates the victim's client during training."""

    def script(scene: Scene) -> Script:
        yield from scene.until_training()
        scene.mark("hurt")
        for client in scene.clients():
            getattr(client, how)()

    return script


def kill_app(scene: Scene) -> Script:
    """Kills the server app while the nodes train."""
    yield from scene.until_training()
    yield from scene.until(scene.server_apps)
    scene.mark("hurt")
    for app in scene.server_apps():
        app.kill()
    yield from scene.until_free()
    scene.mark("free")


def kill_service(name: str) -> Callable[[Scene], Script]:
    """Returns a script that kills the SuperLink or its executor while the nodes train."""

    def script(scene: Scene) -> Script:
        yield from scene.until_training()
        scene.mark("hurt")
        scene.service(name).kill()
        yield from scene.until_free()
        scene.mark("free")

    return script


def fill_server(scene: Scene) -> Script:
    """Fills the coordinator's disk after a commit."""
    yield from scene.until_event("round_committed", round=2)
    scene.mark("hurt")
    with contextlib.suppress(OSError), _filler(scene).open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def free_server(scene: Scene) -> None:
    """Frees the coordinator's disk again."""
    _filler(scene).unlink()
    scene.mark("healed")


def fill_node(scene: Scene) -> Script:
    """Fills the disk of the victim's state during a run."""
    yield from scene.until_event("round_committed", round=1)
    folder = Path(str(scene.folder.recipe.nodes[-1].state_dir))
    scene.mark("hurt")
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield from scene.until_event("round_committed", round=3)
    (folder / "filler").unlink()
    scene.mark("healed")


def cut_network(scene: Scene) -> Script:
    """Cuts the victim's network during training, and mends it two rounds later."""
    yield from scene.until_training()
    scene.mark("hurt")
    _run("ip", "link", "set", _link(), "down")
    yield from scene.until_event("round_committed", round=3)
    _run("ip", "link", "set", _link(), "up")
    scene.mark("healed")


def slow_network(scene: Scene) -> Script:
    """Slows the victim's link down to 48 kbit/s after the first round."""
    yield from scene.until_event("round_committed", round=1)
    scene.mark("hurt")
    _run("tc", "qdisc", "add", "dev", _link(), "root", "tbf", "rate", "48kbit", "burst", "16kb", "latency", "400ms")


def closed_without(scene: Scene) -> list[Check]:
    """Checks that the victim was reported missing, and that its round closed before Flower noticed."""
    replies = scene.of_kind("node_reply", node=scene.victim)
    missing = [event for event in replies if event["status"] in ("missing", "dropped")]
    early = [event for event in missing if "the others were enough" in event["reason"] or "online" in event["reason"]]
    return [("the victim was missed, and the round closed by quorum", bool(early))]


def named(code: Code) -> Callable[[Scene], list[Check]]:
    """Returns a check that the victim's replies name a reason, by its code."""

    def check(scene: Scene) -> list[Check]:
        text = sentence(Refusal(code=code))
        reasons = [str(event.get("reason")) for event in scene.of_kind("node_reply", node=scene.victim)]
        return [(f"the journal says of the victim: {text}", any(text in reason for reason in reasons))]

    return check


def came_back(scene: Scene) -> list[Check]:
    """Checks that the victim was missed, and trained again under the same key."""
    healed = scene.marks.get("healed", scene.marks.get("hurt", 0.0))
    replies = scene.of_kind("node_reply", node=scene.victim, status="accepted")
    back = any(event["time"] > healed for event in replies)
    return [*closed_without(scene), ("the victim trained again", back)]


def started_again(scene: Scene) -> list[Check]:
    """Checks that the victim came back, and that its SuperNode was started again for that."""
    count = scene.deployment.services[scene.victim].restarts
    return [*came_back(scene), (f"its SuperNode was started again ({counted(count, 'time')})", count > 0)]


def resumed(scene: Scene) -> list[Check]:
    """Checks that the same run went on in a new server app."""
    starts = scene.of_kind("run_started")
    return [
        ("it went on in a new server app", len(starts) >= 2 and starts[-1]["resumed_from"] >= 1),
        ("it is the same run", len({event["run_id"] for event in starts}) == 1),
    ]


@contextlib.contextmanager
def small_disk(recipe: Recipe, size: str) -> Iterator[Path]:
    """Yields a folder that is a small file system of its own.

    Raises:
        ConfigError: this machine does not permit it.
    """
    folder = Path(tempfile.mkdtemp(prefix="trfmoe-disk-"))
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "trfmoe-drill", str(folder))
        try:
            yield folder
        finally:
            _run("umount", "-l", str(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def server_disk(recipe: Recipe) -> Iterator[Stage]:
    """Puts the run folder on a small disk."""
    with small_disk(recipe, "24m") as folder:
        yield Stage(recipe=recipe.model_copy(update={"run_root": str(folder)}))


@contextlib.contextmanager
def node_disk(recipe: Recipe) -> Iterator[Stage]:
    """Puts the victim's state on a small disk."""
    with small_disk(recipe, "8m") as folder:
        nodes = [*recipe.nodes[:-1], recipe.nodes[-1].model_copy(update={"state_dir": str(folder)})]
        yield Stage(recipe=recipe.model_copy(update={"nodes": nodes}))


@contextlib.contextmanager
def own_network(recipe: Recipe) -> Iterator[Stage]:
    """Puts the victim behind a link of its own, in a network namespace.

    Raises:
        ConfigError: this machine does not permit it.
    """
    space, link = _space(), _link()
    _run("ip", "netns", "add", space)
    try:
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        _run("ip", "addr", "add", f"{SUBNET}.1/24", "dev", link)
        _run("ip", "link", "set", link, "up")
        _run("ip", "-n", space, "addr", "add", f"{SUBNET}.2/24", "dev", "eth0")
        for name in ("lo", "eth0"):
            _run("ip", "-n", space, "link", "set", name, "up")
        launcher = (shutil.which("ip") or "ip", "netns", "exec", space)
        yield Stage(recipe=recipe, host=f"{SUBNET}.1", launcher=launcher)
    finally:
        for command in (("ip", "netns", "del", space), ("ip", "link", "del", link)):
            subprocess.run(command, check=False, capture_output=True)


SCENARIOS = (
    Scenario(name="node killed before training", script=kill_node("before"), checks=closed_without),
    Scenario(name="node killed during training", script=kill_node("during"), checks=started_again, settings=LONG),
    Scenario(name="node killed after training", script=kill_node("after"), checks=closed_without),
    Scenario(name="node stopped", script=stop_node, checks=came_back, settings=LONG),
    Scenario(name="client killed", script=hurt_client("kill"), checks=closed_without),
    Scenario(name="client stopped", script=hurt_client("suspend"), checks=closed_without),
    Scenario(name="client terminated", script=hurt_client("terminate"), checks=named("stopped")),
    Scenario(
        name="client wedging its node",
        script=hurt_client("terminate"),
        checks=closed_without,
        settings=LONG,
        unchecked=True,
    ),
    Scenario(name="server app killed", script=kill_app, checks=resumed),
    Scenario(name="SuperLink killed", script=kill_service("superlink")),
    Scenario(name="executor killed", script=kill_service("superexec")),
    Scenario(
        name="SuperLink of the default pair killed",
        script=kill_service("superlink"),
        checks=resumed,
        isolation="subprocess",
    ),
    Scenario(name="coordinator's disk full", script=fill_server, checks=resumed, stage=server_disk, mend=free_server),
    Scenario(name="node's disk full", script=fill_node, checks=named("disk"), stage=node_disk),
    Scenario(name="network cut", script=cut_network, checks=came_back, settings=LONG, stage=own_network),
    Scenario(name="network slow", script=slow_network, checks=closed_without, stage=own_network),
)


def _filler(scene: Scene) -> Path:
    return scene.folder.path.parent / "filler"


def _space() -> str:
    return f"trfmoe{os.getpid()}"


def _link() -> str:
    return f"trf{os.getpid()}"


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise ConfigError(f"{command[0]}: cannot be run ({error.strerror}), which this scenario needs") from error
    if done.returncode:
        raise ConfigError(f"{' '.join(command)}: {done.stderr.strip() or 'not permitted'}; this scenario needs it")
