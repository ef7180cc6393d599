"""One example for every command, shown at the end of its `--help` page."""

import typer
import typer.main

EXAMPLES = {
    "demo": "trfmoe demo",
    "simulate": "trfmoe simulate three_nodes --pdfs ~/papers",
    "train": "trfmoe train configs/single.yaml --pdfs ~/papers --set training.steps=200",
    "generate": 'trfmoe generate runs/demo-001 --prompt "The" --stream',
    "evaluate": "trfmoe evaluate runs/demo-001 --data ~/other-papers",
    "export": "trfmoe export runs/demo-001 my-model",
    "import": "trfmoe import my-model configs/three_nodes.yaml",
    "serve": "trfmoe serve runs/demo-001",
    "report": "trfmoe report runs/demo-001 runs/demo-002 --out both.html",
    "status": "trfmoe status runs/demo-001 --follow",
    "watch": "trfmoe watch runs/demo-001 --browser",
    "study": "trfmoe study as-one --json",
    "plan": "trfmoe plan nine_nodes --measure --bandwidth 100",
    "drill": "trfmoe drill configs/drill.yaml --quick",
    "verify": "trfmoe verify runs/demo-001",
    "sign": "trfmoe sign runs/demo-001",
    "doctor": "trfmoe doctor configs/three_nodes.yaml",
    "configs": "trfmoe configs cp three_nodes mine.yaml",
    "configs ls": "trfmoe configs ls",
    "configs show": "trfmoe configs show nine_nodes",
    "configs cp": "trfmoe configs cp three_nodes mine.yaml",
    "configs check": "trfmoe configs check mine.yaml --set rounds.num_rounds=20",
    "configs reference": "trfmoe configs reference",
    "data": "trfmoe data inspect ~/papers",
    "data sample": "trfmoe data sample data/sample",
    "data prepare": "trfmoe data prepare --config configs/three_nodes.yaml",
    "data inspect": "trfmoe data inspect ~/papers --rows 3",
    "data tokenizer": "trfmoe data tokenizer ~/public-text --out bpe --vocab-size 4096",
    "bench": "trfmoe bench wire",
    "bench vote": "trfmoe bench vote",
    "bench model": "trfmoe bench model",
    "bench memory": "trfmoe bench memory",
    "bench wire": "trfmoe bench wire",
    "bench federation": "trfmoe bench federation",
    "bench data": "trfmoe bench data",
    "bench scale": "trfmoe bench scale --quick",
    "bench witness": "trfmoe bench witness --quick",
    "bench pdf": "trfmoe bench pdf ~/papers",
    "deploy": "trfmoe deploy local configs/tiny.yaml",
    "deploy local": "trfmoe deploy local configs/tiny.yaml",
    "deploy init": "trfmoe deploy init kit --host trfmoe.example.org --nodes alice,bob,carol",
    "deploy run": "trfmoe deploy run kit/coordinator configs/three_nodes.yaml",
    "deploy status": "trfmoe deploy status kit/coordinator",
    "deploy attach": "trfmoe deploy attach kit/coordinator",
    "deploy stop": "trfmoe deploy stop kit/coordinator",
    "deploy logs": "trfmoe deploy logs kit/coordinator -f",
    "deploy add-node": "trfmoe deploy add-node kit dora --zone north",
    "deploy revoke": "trfmoe deploy revoke kit dora",
    "deploy rotate": "trfmoe deploy rotate kit --node dora --key next.pub",
    "deploy upgrade": "trfmoe deploy upgrade kit",
    "deploy refresh": "trfmoe deploy refresh kit",
    "deploy check": "trfmoe deploy check .",
    "deploy allow": "trfmoe deploy allow . --only",
    "deploy disallow": "trfmoe deploy disallow .",
    "deploy register": "trfmoe deploy register kit/coordinator",
    "node": "trfmoe node status .",
    "node rotate": "trfmoe node rotate .",
    "node trust": "trfmoe node trust . ca.crt",
    "node status": "trfmoe node status .",
    "node metrics": "trfmoe node metrics . --port 9465",
    "node clean": "trfmoe node clean . clinics-001",
    "runs": "trfmoe runs list",
    "runs list": "trfmoe runs list",
    "runs show": "trfmoe runs show runs/demo-001",
    "runs compare": "trfmoe runs compare runs/demo-001 runs/demo-002",
    "runs clean": "trfmoe runs clean runs/demo-001",
}
NEXT = """\
TR-FMoE trains one language model together, on text that stays with its owners.

  trfmoe demo                                          watch three owners train, one of whom lies: two minutes
  trfmoe train configs/three_nodes.yaml --pdfs FOLDER  train on a folder of your own
  trfmoe configs ls                                    see the recipes; trfmoe plan NAME says what one costs

trfmoe --help lists all commands, docs/ explains them, and trfmoe doctor looks for the usual troubles.
"""
"""What most people want next."""


def add_examples(app: typer.Typer, prefix: str = "") -> None:
    """Puts its example at the end of the help page of every command."""
    for command in app.registered_commands:
        name = command.name or typer.main.get_command_name(command.callback.__name__ if command.callback else "")
        command.epilog = _epilog(prefix + name)
    for group in app.registered_groups:
        group.epilog = _epilog(f"{prefix}{group.name}")
        if group.typer_instance is not None:
            add_examples(group.typer_instance, f"{prefix}{group.name} ")


def _epilog(command: str) -> str | None:
    return f"Example: {EXAMPLES[command]}" if command in EXAMPLES else None
