"""`trfmoe report`: writes a run's HTML report again from its journal."""

from scripts.commands.generate import RunArgument
from scripts.terminal.options import JsonOption


def report(run: RunArgument = None, as_json: JsonOption = False) -> None:
    """Write a run's report.html again, finished or not."""
    from scripts.run.run_folders import run_folder
    from scripts.terminal.output import Output
    from server.report.page import write_report

    output = Output(as_json)
    path = write_report(run_folder(run).path)
    output.line(str(path))
    output.result({"outcome": "completed", "report": str(path), "exit_code": 0})
