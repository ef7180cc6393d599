"""`trfmoe watch`: the report as a page on this machine that follows the run."""

from typing import Annotated

import typer

from scripts.commands.generate import RunArgument


def watch(
    run: RunArgument = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0: a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser", help="Also open it in the browser.")] = False,
) -> None:
    """Show a run's report as a page that follows the run. Nobody outside this machine can open it."""
    import webbrowser

    from scripts.run.run_folders import run_folder
    from scripts.terminal.output import Output
    from server.report.live import LiveReport, LiveServer
    from trfmoe_core.errors import ConfigError

    folder = run_folder(run)
    report = LiveReport(folder.path)
    report.page()
    try:
        server = LiveServer(report, port)
    except OSError as error:
        raise ConfigError(f"--port {port}: cannot be used ({error.strerror}); leave it out for a free one") from error
    output = Output()
    output.line(f"{folder.path}: {server.url}    Ctrl-C ends it; the run goes on")
    if browser:
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        output.line("the page has ended; the run is left as it is")
    finally:
        server.server_close()
