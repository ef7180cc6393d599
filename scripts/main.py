"""The `trfmoe` command: subcommands, and errors as one line and an exit code."""

import signal
import sys

import typer

from scripts.bench.commands import bench
from scripts.data import data
from scripts.demo import demo
from scripts.deploy import deploy
from scripts.doctor import doctor
from scripts.drill.commands import drill
from scripts.export import export
from scripts.generate import generate
from scripts.import_model import import_model
from scripts.output import Output
from scripts.plan import plan
from scripts.report import report
from scripts.serve import serve
from scripts.simulate import simulate
from scripts.train import train
from scripts.verify import verify
from trfmoe_core.errors import TRFMoEError

INTERRUPTED = 130

app = typer.Typer(
    name="trfmoe",
    help="Tri-redundant federated mixture of experts: train one language model together, on text that stays at home.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(simulate)
app.command()(train)
app.command()(generate)
app.command()(export)
app.command("import")(import_model)
app.command()(serve)
app.command()(report)
app.command()(plan)
app.command()(drill)
app.command()(verify)
app.command()(doctor)
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
app.add_typer(deploy, name="deploy")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits: 0 done, 1 the run failed, 2 wrong input, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped as on Ctrl-C
    output = Output("--json" in given)
    try:
        # standalone_mode=False returns the code of typer.Exit instead of raising it; Ctrl-C is 130 there
        code = app(given, standalone_mode=False, prog_name="trfmoe") or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except TRFMoEError as error:
        _fail(output, str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail(output, "interrupted", INTERRUPTED, outcome="interrupted")
    except OSError as error:
        _fail(output, f"{error.filename or 'system'}: {error.strerror or error}", 1)
    except Exception as error:
        # click's own usage errors, which only it can show; everything else is a defect and keeps its traceback
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        output.result({"outcome": "error", "error": str(error), "exit_code": 2})
        sys.exit(getattr(error, "exit_code", 2))


def _fail(output: Output, message: str, code: int, outcome: str = "error") -> None:
    output.error(message)
    output.result({"outcome": outcome, "error": message, "exit_code": code})
    sys.exit(code)
