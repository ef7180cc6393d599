"""Runs a recipe on real processes, and lets a scenario harm one of them at a chosen moment."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from clients.kept.progress import Progress, read_progress
from clients.settings import state_folder
from scripts.deploy.deployment import Deployment
from scripts.deploy.flower_commands import Isolation
from scripts.processes.guard import processes_of
from scripts.run.run_folders import new_run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import Event, follow_events, read_events
from server.run_folder.verify import verify_run
from trfmoe_core.config import Recipe

VICTIM = -1
"""Index of the node that is harmed: the last of the recipe."""
END_DEADLINE_S = 900.0
Check = tuple[str, bool]
Script = Iterator[None]


@dataclass
class Scene:
    """What a scenario sees: the deployment, the journal so far, and the processes of the harmed node.

    Attributes:
        events: The journal so far.
        marks: When the scenario did something, by the clock of the journal.
    """

    deployment: Deployment
    folder: RunFolder
    events: list[Event] = field(default_factory=list)
    marks: dict[str, float] = field(default_factory=dict)

    @property
    def victim(self) -> str:
        """The name of the node that is harmed."""
        return self.folder.recipe.nodes[VICTIM].name

    def mark(self, name: str) -> None:
        """Notes that something has been done now."""
        self.marks[name] = time.time()

    def of_kind(self, kind: str, **fields: object) -> list[Event]:
        """Returns the events of a kind whose fields have these values."""
        return [e for e in self.events if e["event"] == kind and all(e.get(k) == v for k, v in fields.items())]

    def until(self, there: Callable[[], object]) -> Script:
        """Waits until a condition holds."""
        while not there():
            yield

    def until_event(self, kind: str, **fields: object) -> Script:
        """Waits for an event."""
        yield from self.until(lambda: self.of_kind(kind, **fields))

    def until_training(self) -> Script:
        """Waits until the victim trains in round 2 or later."""
        yield from self.until(lambda: (progress := self.training(self.victim)) and progress.round >= 2)

    def until_free(self) -> Script:
        """Waits until all nodes that train now have ended their training."""
        names = [node.name for node in self.folder.recipe.nodes if self.training(node.name)]
        yield from self.until(lambda: not any(self.training(name) for name in names))

    def training(self, name: str) -> Progress | None:
        """How far a node is in the training of a round; None while it does not train.

        A client stays for the next messages, so a client that runs is not always at work.
        """
        started = self.of_kind("run_started")
        if not started or not self.clients(name):
            return None
        node = next(node for node in self.folder.recipe.nodes if node.name == name)
        progress = read_progress(state_folder(node, started[-1]["run_id"]))
        return progress if progress and progress.step < progress.steps else None

    def supernode(self) -> psutil.Process:
        """The victim's SuperNode."""
        return psutil.Process(self.deployment.services[self.victim].pid)

    def clients(self, name: str | None = None) -> list[psutil.Process]:
        """The running client processes of a node, the victim if none is named. They stay between messages."""
        with contextlib.suppress(psutil.Error):
            supernode = psutil.Process(self.deployment.services[name or self.victim].pid)
            return _called(supernode.children(recursive=True), "clientapp")
        return []

    def server_apps(self) -> list[psutil.Process]:
        """The server app's processes."""
        return _called(self.deployment.processes(), "flwr-serverapp")

    def service(self, name: str) -> psutil.Process:
        """The process of a service."""
        return psutil.Process(self.deployment.services[name].pid)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way to harm a run.

    Attributes:
        name: Of the scenario, for `--attacks`.
        script: A generator that harms the run. It is resumed ten times a second, and yields while it waits.
        checks: What must hold at the end besides what every scenario checks.
        isolation: How SuperLink and executor are started.
        settings: Overrides of the recipe, as `a.b=c`.
        unchecked: Whether the victim runs Flower's own client instead of ours.
        stage: Sets the machine up for it: a small disk, a network of its own.
        mend: Repairs the cause of a run that is meant to end early; the run is then started again in its folder.
    """

    name: str
    script: Callable[[Scene], Script]
    checks: Callable[[Scene], list[Check]] = lambda scene: []
    isolation: Isolation = "process"
    settings: Sequence[str] = ()
    unchecked: bool = False
    stage: "Callable[[Recipe], contextlib.AbstractContextManager[Stage]] | None" = None
    mend: Callable[[Scene], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a scenario has set up: a recipe with other folders, the coordinator's address, the victim's launcher."""

    recipe: Recipe
    host: str = "127.0.0.1"
    launcher: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Played:
    """What came of a scenario."""

    name: str
    checks: list[Check]
    numbers: dict[str, float]
    seconds: float

    @property
    def well(self) -> bool:
        """True if every check holds."""
        return all(kept for _, kept in self.checks)


def play(scenario: Scenario, recipe: Recipe, tell: Callable[[str], None]) -> Played:
    """Runs a recipe on real processes under a scenario, and returns what came of it.

    Raises:
        TRFMoEError: the deployment does not start at all.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        staged = stack.enter_context(scenario.stage(recipe)) if scenario.stage else Stage(recipe=recipe)
        folder = new_run(staged.recipe)
        victim = folder.recipe.nodes[VICTIM].name

        def deployment() -> Deployment:
            return Deployment(
                folder,
                scenario.isolation,
                lambda line: tell(f"  {line}"),
                host=staged.host,
                launchers={victim: staged.launcher} if staged.launcher else {},
                unchecked=[victim] if scenario.unchecked else [],
            )

        scene = Scene(deployment(), folder)
        scratches = [scene.deployment.scratch]
        was_played, status = _run_to_end(scene, scenario.script(scene))
        if scenario.mend is not None:
            tell(f"  ended: {status[0]} {status[1]}")
            scenario.mend(scene)
            scene.deployment = deployment()
            scratches.append(scene.deployment.scratch)
            _, status = _run_to_end(scene, iter(()))
        left = [process for scratch in scratches for process in _orphans(scratch)]
        checks = [
            ("the fault was played", was_played),
            (f"the run completed ({status[0]} {status[1]})", _completed(scene)),
            ("every round was committed once, in order", _rounds_whole(scene)),
            ("journal and checkpoints verify", not verify_run(folder).problems),
            (f"no process is left {[process.pid for process in left] or ''}", not left),
            *scenario.checks(scene),
        ]
        numbers = _numbers(scene)
    for process in left:
        process.kill()
    return Played(name=scenario.name, checks=checks, numbers=numbers, seconds=time.monotonic() - started)


def _run_to_end(scene: Scene, script: Script) -> tuple[bool, tuple[str, str]]:
    """Runs the deployment to the end of the run, and resumes the script meanwhile.

    Returns:
        Whether the script came to its end, and the run's status.
    """
    seen = len(scene.events)
    over = False
    end = time.monotonic() + END_DEADLINE_S

    def stop() -> bool:
        nonlocal over
        if not over:
            try:
                next(script)
            except StopIteration:
                over = True
            except psutil.NoSuchProcess:
                pass  # the process ended before it could be harmed; the next try finds another
        return scene.deployment.finished() or time.monotonic() > end

    with scene.deployment as deployment:
        deployment.start()
        deployment.submit()
        for number, event in enumerate(follow_events(scene.folder.events_path, stop, poll_s=0.1)):
            if number >= seen:
                scene.events.append(event)
        return over, deployment.status()


def _completed(scene: Scene) -> bool:
    finished = scene.of_kind("run_finished")
    return bool(finished) and finished[-1]["outcome"] == "completed"


def _rounds_whole(scene: Scene) -> bool:
    rounds = [event["round"] for event in read_events(scene.folder.events_path) if event["event"] == "round_committed"]
    return rounds == list(range(1, scene.folder.recipe.rounds.num_rounds + 1))


def _numbers(scene: Scene) -> dict[str, float]:
    """Returns how many server apps the run took, and the seconds from the harm to what followed it."""
    # A SuperLink that is back within Flower's 60 s finds its server app alive; after that a new one has gone on.
    numbers: dict[str, float] = {"server_apps": len(scene.of_kind("run_started"))}
    hurt = scene.marks.get("hurt")
    if hurt is None:
        return numbers
    commits = [event for event in scene.of_kind("round_committed") if event["time"] > hurt]
    if commits:
        numbers["to_commit_s"] = commits[0]["time"] - hurt
        numbers |= _closing(scene, commits[0])
    restarts = [event["time"] for event in scene.of_kind("run_started") if event["time"] > hurt]
    plans = [event["time"] for event in scene.of_kind("round_planned") if restarts and event["time"] > restarts[0]]
    if plans:
        numbers["training_again_s"] = plans[0] - scene.marks.get("free", hurt)
    back = [
        event["time"]
        for event in scene.of_kind("node_reply", node=scene.victim, status="accepted")
        if event["time"] > scene.marks.get("healed", hurt)
    ]
    if back:
        numbers["victim_back_s"] = back[0] - hurt
    return numbers


def _closing(scene: Scene, commit: Event) -> dict[str, float]:
    """Returns how long the harmed round waited after its last reply, and how long it was allowed to: its grace."""
    number = commit["round"]
    plans = [event["time"] for event in scene.of_kind("round_planned", round=number) if event["time"] < commit["time"]]
    replies = [event["time"] for event in scene.of_kind("node_reply", round=number, status="accepted")]
    replies = [moment for moment in replies if plans and plans[-1] < moment < commit["time"]]
    if not replies:
        return {}
    grace = scene.folder.recipe.rounds.grace * (max(replies) - plans[-1])
    return {"waited_for_others_s": commit["time"] - max(replies), "grace_s": grace}


def _orphans(scratch: Path) -> list[psutil.Process]:
    end = time.monotonic() + 10
    while (left := processes_of(scratch)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def _called(processes: list[psutil.Process], name: str) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if any(name in part for part in process.cmdline()[:5]) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
