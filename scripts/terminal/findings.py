"""The findings of a check: what is well, what is wrong, and the remedy."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scripts.terminal.output import Output

Kind = Literal[
    "versions", "clock", "port", "certificate", "registration", "disk", "gpu", "data", "leftovers", "keys", "reach",
    "apps", "settings",
]  # fmt: skip

EXIT_CODES: dict[Kind, int] = {
    "versions": 10,
    "clock": 11,
    "port": 12,
    "certificate": 13,
    "registration": 14,
    "disk": 15,
    "gpu": 16,
    "data": 17,
    "leftovers": 18,
    "keys": 19,
    "reach": 20,
    "apps": 21,
    "settings": 22,
}
"""The exit code of `trfmoe doctor` and `trfmoe deploy check`: that of the first trouble that is listed."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check's result. A warning is no reason to stop."""

    kind: Kind
    level: Literal["ok", "warning", "trouble"]
    text: str
    remedy: str = ""


def well(kind: Kind, text: str) -> Finding:
    """Returns a finding that all is well."""
    return Finding(kind=kind, level="ok", text=text)


def warning(kind: Kind, text: str, remedy: str) -> Finding:
    """Returns a finding that somebody should look at."""
    return Finding(kind=kind, level="warning", text=text, remedy=remedy)


def trouble(kind: Kind, text: str, remedy: str) -> Finding:
    """Returns a finding that will stop a run."""
    return Finding(kind=kind, level="trouble", text=text, remedy=remedy)


def report(findings: Iterable[Finding], output: Output) -> int:
    """Writes findings as they come, then the result; returns the exit code."""
    listed = []
    for finding in findings:
        listed.append(finding)
        mark = {"ok": "ok      ", "warning": "warning ", "trouble": "TROUBLE "}[finding.level]
        style = "bold red" if finding.level == "trouble" else None
        output.line(f"{mark}{finding.kind}: {finding.text}", style=style)
        if finding.remedy:
            output.line(f"        remedy: {finding.remedy}")
    code = next((EXIT_CODES[finding.kind] for finding in listed if finding.level == "trouble"), 0)
    output.result({"outcome": "trouble" if code else "ok", "findings": _as_values(listed), "exit_code": code})
    return code


def _as_values(findings: list[Finding]) -> list[dict[str, Any]]:
    return [{**asdict(finding), "exit_code": EXIT_CODES[finding.kind]} for finding in findings]
