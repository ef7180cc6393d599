"""Writes a run's report: one HTML file made from the journal alone, readable in light and dark, without scripts."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from server.report.federation import federation_sections
from server.report.sections import Section, next_steps
from server.report.single_machine import training_sections
from server.run_folder.history import RunHistory
from server.run_folder.journal import read_events
from server.run_folder.journal_entries import complete_entries
from trfmoe_core.atomic import write_text

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 20%, Canvas); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-size: .85rem; }
.scroll { overflow-x: auto; background: linear-gradient(to left, Canvas 30%, transparent) right / 2.5rem 100% no-repeat
  local, linear-gradient(to left, color-mix(in srgb, CanvasText 35%, Canvas), transparent) right / 1rem 100% no-repeat;
  }
th, td { border: 1px solid var(--line); padding: .2rem .5rem; text-align: left; white-space: nowrap; }
th { white-space: normal; } td.num { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; color: CanvasText; } svg text { font-size: 12px; fill: CanvasText; }
.grid { stroke: var(--line); } svg.narrow { display: none; }
@media (max-width: 600px) { svg.wide { display: none; } svg.narrow { display: block; }
  body { margin: .5rem auto; } table { font-size: .78rem; } th, td { padding: .15rem .35rem; }
  td:not(.num) { white-space: normal; } td.long { overflow-wrap: anywhere; } }
.say { font-size: 1.1rem; } .say strong { white-space: nowrap; } code { overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figcaption span { margin-left: 1rem; white-space: nowrap; }
figcaption i { display: inline-block; width: .8em; height: .8em; margin-right: .3em; }
.agreed { background: rgba(89,161,79,.28); } .outvoted { background: rgba(225,87,89,.45); }
.missing { background: rgba(140,140,140,.35); } .invalid { background: rgba(242,142,43,.45); }
.kept { background: rgba(237,201,72,.45); } .median { background: rgba(86,180,233,.35); }
.short { color: #c0392b; font-weight: bold; }
pre { white-space: pre-wrap; border: 1px solid var(--line); padding: .7rem; }
@page { margin: 14mm; }
@media print { :root { color-scheme: light; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  svg.wide { display: block; max-height: 45vh; } svg.narrow { display: none; }
  .scroll { overflow: visible; background: none; } table { font-size: 7.5pt; }
  th, td, td.num { white-space: normal; padding: .1rem .25rem; overflow-wrap: break-word; }
  h2, p:has(+ pre) { break-after: avoid; } figure, tr, pre, li { break-inside: avoid; } }
"""


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into a run folder, finished or not, and returns its path.

    Raises:
        RunFolderError: the journal cannot be read, or an entry lacks what its kind has.
    """
    events, path = read_events(run_dir / "events.jsonl"), run_dir / "report.html"
    with complete_entries(f"{run_dir}: no report can be made of its journal, an entry"):
        page = render(RunHistory(events), run_dir)
    write_text(path, page)
    return path


def render(history: RunHistory, run_dir: Path) -> str:
    """Returns the report as one HTML document. All text from nodes is escaped."""
    sections = training_sections(history) if history.unit == "step" else federation_sections(history)
    (first, summary), *others = sections
    sections = [(first, summary + (next_steps(run_dir) if history.committed else "")), *others]
    return page_of(run_dir.name, sections)


def page_of(title: str, sections: Iterable[Section]) -> str:
    """Returns sections as one HTML document."""
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )
