"""The `trfmoe` command: subcommands, and errors as one line and an exit code."""

import contextlib
import errno
import os
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from scripts.commands.bench import bench
from scripts.commands.configs import configs
from scripts.commands.data import data
from scripts.commands.demo import demo
from scripts.commands.deploy import deploy
from scripts.commands.doctor import doctor
from scripts.commands.drill import drill
from scripts.commands.evaluate import evaluate
from scripts.commands.export import export
from scripts.commands.generate import generate
from scripts.commands.import_model import import_model
from scripts.commands.node import node
from scripts.commands.plan import plan
from scripts.commands.report import report
from scripts.commands.runs import runs
from scripts.commands.serve import serve
from scripts.commands.sign import sign
from scripts.commands.simulate import simulate
from scripts.commands.status import status
from scripts.commands.study import study
from scripts.commands.train import train
from scripts.commands.verify import verify
from scripts.commands.watch import watch
from scripts.examples import NEXT, add_examples
from scripts.processes.proxies import REMEDY, mend_environment
from scripts.terminal.output import INTERRUPTED, Output
from scripts.terminal.streams import READER_GONE, end_streams, open_streams, reader_gone, write_error
from scripts.terminal.typer_mends import keep_argument_help, suggest_once
from trfmoe_core.errors import MachineError, TRFMoEError
from trfmoe_core.places import APP_FOLDER, expand

_STALE = f"if {APP_FOLDER} was updated since its .venv was made, run make install there"
NO_HOME = "/nonexistent"
"""What Debian calls the home of an account without one."""
_FOLDERS = "what is written goes to run_root, TRFMOE_CACHE and TMPDIR, and each can be another folder"
REMEDIES = {
    errno.ENOSPC: f"; free space there; {_FOLDERS}",
    errno.EDQUOT: f"; free space there; {_FOLDERS}",
    errno.EROFS: f"; {_FOLDERS}",
    errno.EACCES: f"; give this account the right to it; {_FOLDERS}",
}

keep_argument_help()
app = typer.Typer(
    name="trfmoe",
    help="Tri-redundant federated mixture of experts: train one language model together, on text that stays at home.",
    epilog="Exit codes: 0 done, 1 the run failed, 2 wrong input, 3 this machine lacks something, 130 interrupted, with "
    "what was reached saved.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        found = {name: metadata.version(name) for name in ("trfmoe", "flwr", "torch")}
        Output().line("trfmoe {trfmoe} with flwr {flwr} and torch {torch}".format(**found))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the versions and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        Output().line(NEXT.rstrip())


app.command()(demo)
app.command()(simulate)
app.command()(train)
app.command()(generate)
app.command()(evaluate)
app.command()(export)
app.command("import")(import_model)
app.command()(serve)
app.command()(status)
app.command()(watch)
app.command()(report)
app.command()(plan)
app.command()(drill)
app.command()(study)
app.command()(verify)
app.command()(sign)
app.command()(doctor)
app.add_typer(configs, name="configs")
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
app.add_typer(deploy, name="deploy")
app.add_typer(node, name="node")
app.add_typer(runs, name="runs")
suggest_once(app)
add_examples(app)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits.

    Exit codes: 0 done, 1 the run failed, 2 wrong input, 3 this machine lacks something, 130 interrupted, 141 nobody
    reads standard output any more.
    """
    given = sys.argv[1:] if arguments is None else arguments
    open_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):  # what was started is stopped as on Ctrl-C
        if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        code = _run(given)
    except OSError:
        if not reader_gone() and write_error() is None:
            raise
        code = READER_GONE if reader_gone() else MachineError.exit_code
    sys.exit(end_streams(code))


def _run(given: list[str]) -> int:
    """Returns the exit code of a command whose errors have been shown."""
    output = Output("--json" in given)
    try:
        _look_around()
        # standalone_mode=False returns the code of typer.Exit instead of raising it; Ctrl-C is 130 there
        code = app(given, standalone_mode=False, prog_name="trfmoe") or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return int(code)
    except SystemExit as ending:
        if reader_gone():
            return READER_GONE
        return ending.code if isinstance(ending.code, int) else 1
    except TRFMoEError as error:
        return _fail(output, str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(output)
    except OSError as error:
        if reader_gone() or write_error():
            raise  # it is standard output's, and is told where that ends
        remedy = REMEDIES.get(error.errno or 0, "")
        place = error.filename or ("a file or standard output" if remedy else "system")
        return _fail(output, f"{place}: {error.strerror or error}{remedy}", MachineError.exit_code)
    except UnicodeEncodeError as error:
        return _fail(output, _unwritable(error), 2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or (APP_FOLDER / package).exists():
            raise  # a module of this project: a defect
        return _fail(output, f"the package {package} is not installed; {_STALE}", MachineError.exit_code)
    except Exception as error:
        # click's own usage errors, which only it can show; everything else is a defect and keeps its traceback
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        output.result({"outcome": "error", "error": str(error), "exit_code": 2})
        return int(getattr(error, "exit_code", 2))


def _look_around() -> None:
    """Makes the process's surroundings fit to work in.

    Raises:
        MachineError: the working folder does not exist.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise MachineError(f"the working folder is gone ({error.strerror}); cd to a folder that exists") from error
    if expand("~") == Path("~"):  # no HOME, and no entry for this user: Flower does not get past its import
        os.environ.setdefault("FLWR_HOME", NO_HOME)
    for line in mend_environment():
        Output.warning(f"{line}; {REMEDY}")


def _unwritable(error: UnicodeEncodeError) -> str:
    """Returns what to say of a text that cannot be a file's name or content here."""
    shown = ascii(error.object if len(error.object) <= 80 else f"{error.object[:77]}...")
    if error.encoding.replace("-", "").lower() == "utf8":
        return f"{shown}: holds bytes that are no UTF-8; give or rename it without them"
    return f"{shown}: cannot be written in this locale's encoding, {error.encoding}; set PYTHONUTF8=1 or LC_ALL=C.UTF-8"


def _interrupted(output: Output) -> int:
    """Returns the exit code of a command that was interrupted and has nothing of its own to say about that."""
    text = "interrupted by Ctrl-C or a signal; the same command does it again"
    output.note(text)
    output.result({"outcome": "interrupted", "reason": text, "exit_code": INTERRUPTED})
    return INTERRUPTED


def _fail(output: Output, message: str, code: int) -> int:
    write_error()
    output.error(message)
    with contextlib.suppress(OSError):  # standard output itself may be what failed, and the line above has said so
        output.result({"outcome": "error", "error": message, "exit_code": code})
    return code
