"""No path, file name or word of an owner reaches the coordinator, whatever goes wrong on the node.

The node at fault lies in a folder with a tell-tale name and has tell-tale text. The needles are looked for in all that
it sends, in the whole run folder (journal, report, checkpoints) and in the coordinator's own log; they stand in the
node's log.
"""

import errno
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from flwr.app import ConfigRecord, Message
from safetensors import SafetensorError

from clients import training, worker
from clients.app import app as client_app
from clients.refusals import refusal_of
from clients.training import Trained
from scripts.experiments.in_process import InProcessGrid
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from strategies.exchange.messages import Description, TrainReply
from strategies.exchange.refusals import _SENTENCES, Refusal, sentence
from tests.conftest import TINY, words
from tests.federation import of_kind
from trfmoe_core.config import NodeLimits, Recipe
from trfmoe_core.training import local_state

NAME, TEXT = "Zebrafink", "Quastenflosser"
OWN_LOGS = ("trfmoe.node", "trfmoe.private")
ROUNDS = {"num_rounds": 1, "local_steps": 1, "nodes_deadline_s": 0.1, "reply_deadline_s": 60.0}
DATA = {"piece_bytes": 256, "evaluation_tokens": 64}
LAX = {"min_steps": 1, "min_batch": 1, "min_tokens": 1, "min_evaluation_tokens": 1}


@dataclass
class Told:
    """What came to the coordinator's side, and what stayed in the node's log."""

    events: list[dict[str, Any]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    own_log: str = ""


class House:
    """A federation of four; the first node's house has a tell-tale name."""

    def __init__(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.tmp_path, self._caplog = tmp_path, caplog
        self.home = tmp_path / f"{NAME}-home"
        self.text = self.home / f"{NAME} records" / f"{NAME}.txt"
        self.put(self.text, f"{TEXT} {words(0, 700)}")

    def put(self, path: Path, content: str | bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def settings(self, **changes: Any) -> dict[str, Any]:
        raw = {"name": "ada", "data": [str(self.text.parent)], "state_dir": str(self.home / "state")}
        return {**raw, "cache_dir": str(self.home / "cache"), "limits": LAX, **changes}

    def run(self, own: str | dict[str, Any], **recipe: Any) -> Told:
        configs: list[dict[str, Any]] = []
        for number, name in enumerate(("ada", "bob", "cyd", "dan")):
            data = self.put(self.tmp_path / name / "text.txt", words(number, 700))
            others = {"name": name, "data": [str(data)], "state_dir": str(self.tmp_path / "state"), "limits": LAX}
            settings = own if not number else others
            text = settings if isinstance(settings, str) else yaml.safe_dump(settings)
            place = (self.home if not number else self.tmp_path) / f"{name}.yaml"
            configs.append({"settings": str(self.put(place, text))})
        made = Recipe.model_validate(
            {
                **TINY,
                "data": DATA,
                "rounds": ROUNDS,
                "num_nodes": 4,
                "run_root": str(self.tmp_path / "runs"),
                **recipe,
            }
        )
        folder = RunFolder.create(Path(made.run_root), made)
        told = Told()

        def listen(node_id: int, message: Message) -> Message:
            if node_id == 1:
                told.sent.append(_heard(message))
            return message

        with self._caplog.at_level(logging.DEBUG):
            run(InProcessGrid(client_app, configs, {}, listen), folder)
        told.events = read_events(folder.events_path)
        told.reasons = [
            event["reason"]
            for event in told.events
            if event["event"] in ("node_refused", "node_reply")
            and event.get("node") in ("ada", "unknown")
            and event["reason"]
        ]
        told.own_log = "\n".join(r.getMessage() for r in self._caplog.records if r.name in OWN_LOGS)
        theirs = "\n".join(r.getMessage() for r in self._caplog.records if r.name not in OWN_LOGS)
        places = [path for path in folder.path.rglob("*") if path.is_file()]
        assert any(path.name == "report.html" for path in places) and told.sent
        for needle in (NAME, TEXT, str(self.home)):
            for what in (*told.sent, theirs, *(path.read_bytes().decode("latin-1") for path in places)):
                at = what.lower().find(needle.lower())
                assert at < 0, what[max(0, at - 200) : at + 200]
        assert of_kind(told.events, "run_finished")[0]["outcome"] == "completed"
        return told


def _heard(message: Message) -> str:
    if message.has_error():
        return f"{message.error.code} {message.error.reason}"
    records = [record for record in message.content.values() if isinstance(record, ConfigRecord)]
    return json.dumps([dict(record) for record in records], default=str)


@pytest.fixture
def house(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> House:
    return House(tmp_path, caplog)


def _broken_files(house: House) -> None:
    place = house.text.parent
    house.put(place / f"{NAME}.pdf", f"%PDF-1.7 {TEXT}")
    house.put(place / f"{NAME}.parquet", f"PAR1 {TEXT} PAR1")
    house.put(place / f"{NAME}.jsonl", f'{{"text": "{TEXT}\n')
    house.put(place / f"{NAME}.jsonl.gz", f"{TEXT}")
    house.put(place / f"{NAME}\x1b]0;{TEXT}\x07.docx", TEXT)
    (place / f"{NAME}-loop").symlink_to(place)
    (place / f"{NAME}-gone.txt").symlink_to(place / "nowhere")


def test_a_good_node_with_bad_files_says_counts_only(house: House) -> None:
    _broken_files(house)
    house.put(house.text.with_name("again.txt"), house.text.read_bytes())
    told = house.run(house.settings())
    (joined,) = [event for event in of_kind(told.events, "node_joined") if event["node"] == "ada"]
    assert sum(joined["files"].values()) >= 5 and joined["files"]["ok"] == 1
    assert told.reasons == []


CASES: dict[str, tuple[Callable[[House], Any], str]] = {
    "folder is missing": (lambda h: h.settings(data=[str(h.home / "missing")]), "data"),
    "two of them are": (lambda h: h.settings(data=[str(h.text), str(h.home / "x"), str(h.home / "y")]), "data"),
    "no text at all": (lambda h: (_broken_files(h), h.text.unlink(), h.settings())[2], "data"),
    "passwords are missing": (
        lambda h: h.settings(
            data=[
                {
                    "source": "files",
                    "path": str(h.put(h.text.with_suffix(".pdf"), "%PDF-1.7")),
                    "passwords": str(h.home / "words"),
                }
            ]
        ),
        "data",
    ),
    "text below a file": (lambda h: h.settings(data=[str(h.text / TEXT)]), "data"),
    "tokenizer is missing": (lambda h: h.settings(tokenizer=str(h.home / "none")), "tokenizer"),
    "tokenizer is broken": (
        lambda h: h.settings(tokenizer=str(h.put(h.home / "words" / "tokenizer.json", f'{{"{TEXT}"').parent)),
        "tokenizer",
    ),
    "cache below a file": (lambda h: h.settings(cache_dir=str(h.text / "cache")), "data"),
    "state below a file": (lambda h: h.settings(state_dir=str(h.text / "state")), "state"),
    "settings are no mapping": (lambda h: f"[{NAME}, {TEXT}]", "settings"),
    "settings have another key": (lambda h: h.settings(**{TEXT: NAME}), "settings"),
    "settings are no YAML": (lambda h: f"name: [{TEXT}", "settings"),
    "no such device": (lambda h: h.settings(device="cuda:77"), "device"),
    "limits: run": (
        lambda h: h.settings(limits={**LAX, "data_sets": {TEXT: [str(h.text.parent)]}}),
        "limits-data-sets",
    ),
    "limits: disk": (lambda h: h.settings(limits={**LAX, "disk_mb": 1}), "limits-disk"),
    "limits: experts": (lambda h: h.settings(limits={**LAX, "experts": 1}), "limits-experts"),
    "limits: tokens": (lambda h: h.settings(limits={**LAX, "min_tokens": 10**6}), "limits-tokens"),
    "limits: hub": (
        lambda h: h.settings(
            data=[{"source": "fineweb", "repo": f"{NAME}/{TEXT}", "max_documents": 5}],
            limits={**LAX, "network": False},
        ),
        "limits-network",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_node_that_cannot_take_part(house: House, case: str) -> None:
    own, code = CASES[case]
    told = house.run(own(house))
    assert told.reasons, "it took part"
    fixed = max(_SENTENCES[code].split("{"), key=len).partition("}")[2] or _SENTENCES[code].split("{")[0]
    assert fixed.strip("; ") in told.reasons[0], told.reasons
    if not case.startswith("limits") and "device" not in case:
        assert NAME in told.own_log, "the details stay at home"


class _SelfNamedError(Exception):
    pass


_SelfNamedError.__name__ = f"{NAME}Error"
_SelfNamedError.__qualname__ = f"{TEXT}Error"

FAULTS: dict[str, tuple[Callable[[str], BaseException], str]] = {
    "torch": (lambda path: RuntimeError(f"[enforce fail at {path}] {TEXT}"), "internal"),
    "file": (lambda path: FileNotFoundError(errno.ENOENT, TEXT, path), "internal"),
    "key": (lambda path: KeyError(TEXT), "internal"),
    "own class": (lambda path: _SelfNamedError(path), "internal"),
    "decode": (lambda path: UnicodeDecodeError("utf-8", TEXT.encode(), 0, 1, path), "internal"),
    "memory": (lambda path: MemoryError(path), "memory"),
    "torch memory": (lambda path: torch.OutOfMemoryError(f"Tried to allocate {path}"), "memory"),
    "disk": (lambda path: OSError(errno.ENOSPC, TEXT, path), "disk"),
    "tensors": (lambda path: SafetensorError(f"{path}: No space left on device (os error 28)"), "disk"),
    "recursion": (lambda path: RecursionError(TEXT), "internal"),
    "group": (lambda path: ExceptionGroup(TEXT, [ValueError(path)]), "internal"),
}


def test_whatever_is_raised_in_the_training(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another fault each round of one run."""
    faults = list(FAULTS.values())
    real = worker.train_round

    def train(*arguments: Any) -> Trained:
        if arguments[2].name == "ada":
            raise faults[arguments[4].round - 1][0](str(house.text))
        return real(*arguments)

    monkeypatch.setattr(worker, "train_round", train)
    told = house.run(house.settings(), rounds={**ROUNDS, "num_rounds": len(faults)}, reputation={"strikes": 99})
    assert len(told.reasons) == len(faults)
    for reason, (fault, (_, code)) in zip(told.reasons, FAULTS.items(), strict=True):
        refusal = Refusal(code=code, kind="other" if code == "internal" else None)  # type: ignore[arg-type]
        assert sentence(refusal).partition("(")[0] in reason, fault
    assert told.own_log.count(NAME) >= len(faults) and TEXT in told.own_log


def test_a_loss_that_is_not_finite(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.Trainer.train

    def diverged(self: Any, *arguments: Any) -> Any:
        metrics = real(self, *arguments)
        return replace(metrics, loss=float("nan")) if next(turns) == 0 else metrics

    turns = iter(range(100))
    monkeypatch.setattr(training.Trainer, "train", diverged)
    told = house.run(house.settings())
    assert "not a finite number" in told.reasons[0]
    assert "loss nan" in told.own_log


def test_a_full_disk_when_the_state_is_written(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = local_state.save_file

    def full(tensors: Any, path: Path, metadata: Any = None) -> None:
        if NAME in str(path):
            raise SafetensorError(f"Error while serializing: I/O error: No space left on device (os error 28) {path}")
        real(tensors, path, metadata)

    monkeypatch.setattr(local_state, "save_file", full)
    told = house.run(house.settings())
    assert "disk is full" in told.reasons[0]


@pytest.mark.parametrize("run_id", ["x/../other", "../other", "/etc", "..", "", ".hidden", "a\x00b", "a" * 300, "con"])
def test_a_run_id_that_leads_elsewhere_is_refused_by_the_node_itself(house: House, run_id: str) -> None:
    """Even if the message were let in: code that an owner pinned once meets whatever a later coordinator sends."""
    other = house.put(house.home / "state" / "other" / "ada" / "round-000001.safetensors", b"moments")
    settings = worker.NodeSettings.model_validate(house.settings())
    sent = Recipe.model_validate(TINY).for_nodes().model_dump(mode="json")
    with pytest.raises(Exception, match=r"cannot be a file's name|out of") as caught:
        worker.Worker(settings, sent).describe(run_id)
    assert refusal_of(caught.value).code == "name"
    assert other.read_bytes() == b"moments"


@pytest.fixture
def description() -> dict[str, Any]:
    versions = {"python": "3.11.7", "torch": "2.13.0+cpu"}
    return {"name": "ada", "code_fingerprint": "0" * 64, "versions": versions}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "/home/Erika"}, {"name": "a b"}, {"zone": "../x"}, {"device": "/dev/nvidia0"},
        {"device": "cpu x Erika"}, {"versions": {"path": "1"}}, {"versions": {"python": "/usr/bin"}},
        {"files": {"Erika.pdf": 1}}, {"refusal": "no such file /home/Erika"},
        {"refusal": {"code": "data", "path": "/home/Erika"}}, {"refusal": {"code": "Erika"}},
        {"refusal": {"code": "internal", "kind": "ErikaError"}}, {"notes": ["Erika"]}, {"num_notes": "Erika"},
    ],
)  # fmt: skip
def test_no_field_of_a_description_can_carry_words(description: dict[str, Any], change: dict[str, Any]) -> None:
    Description.model_validate(description)
    with pytest.raises(ValueError, match=next(iter(change))):
        Description.model_validate({**description, **change})


def test_the_page_on_privacy_lists_every_field_that_leaves() -> None:
    page = Path("docs/privacy.md").read_text(encoding="utf-8").partition("## What updates show")[0]
    named = set(re.findall(r"`([a-z_]+)`", page))
    assert {*Description.model_fields, *TrainReply.model_fields} - {"protocol"} <= named
    assert NodeLimits.model_fields.keys() <= set(re.findall(r"`([a-z_]+)`", Path("docs/privacy.md").read_text()))


def test_every_code_has_a_sentence_without_a_gap() -> None:
    for code in _SENTENCES:
        text = sentence(Refusal(code=code, asked=7, granted=5, count=2, kind="OSError"))  # type: ignore[arg-type]
        assert "{" not in text and "?" not in text
