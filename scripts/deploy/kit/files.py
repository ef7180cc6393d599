"""The text files of a deployment kit: start scripts, systemd units, the proxy's configuration, short instructions."""

from scripts.deploy.flower_commands import STAND_INS, shell, superexec, superlink, supernode
from scripts.deploy.hosts import in_url, is_ipv6
from scripts.run.simulation import LOG_ENCODING
from trfmoe_core.config.yaml_text import quoted

NODE_PATHS = (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run", "get-fab",
    "push-object", "pull-object", "confirm-message-received",
)  # fmt: skip
"""What a registered node calls. Nodes that register themselves have no place behind this proxy."""

_HEAD = f"""#!/bin/sh
# Needs `trfmoe` on the PATH, or TRFMOE_VENV=the virtual environment it is installed in.
set -eu
umask 077
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
case $here in *[\\"\\\\]*) echo "$here: Flower takes no path with a quote or a backslash; move it" >&2; exit 2 ;; esac
programs=${{TRFMOE_VENV:-$(dirname "$(dirname "$(readlink -f "$(command -v trfmoe || echo /none/none)")")")}}/bin
[ -x "$programs/trfmoe" ] || {{ echo "no trfmoe in $programs; put it on the PATH or set TRFMOE_VENV" >&2; exit 2; }}
case $programs in *" "*) echo "$programs: Flower's database needs a path without spaces; move it" >&2; exit 2 ;; esac
export TRFMOE_PYTHON="$programs/python" FLWR_HOME="$here/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_SUPEREXEC_TASK_POLL_INTERVAL=0.25 PYTHONUNBUFFERED=1 PYTHONIOENCODING={LOG_ENCODING}
# What libraries keep at home goes here where the account has none.
{{ [ -d "${{HOME:-}}" ] && [ -w "$HOME" ]; }} || export HOME="$here"
proxies=$("$programs/python" -P -m scripts.processes.proxies)    # those that Flower can use, without loopback
eval "$proxies"
"""


def proxy(host: str, port: int, superlink_port: int, folder: str) -> str:
    """Returns nginx's server block: TLS for the nodes, and nothing but what nodes call gets through."""
    both = f"listen {port} ssl;\n    # listen [::]:{port} ssl;    where the name has an IPv6 address too"
    listen = f"listen [::]:{port} ssl;" if is_ipv6(host) else both
    return f"""# Include it in nginx's http block, for instance as /etc/nginx/conf.d/trfmoe.conf.
# Passes what registered nodes call. The SuperLink's control interface knows no authentication: whoever reaches it runs
# code on every node. So it stays on loopback, and everything else is refused here.
server {{
    {listen}
    server_name {in_url(host)};
    ssl_certificate "{folder}/server.pem";
    ssl_certificate_key "{folder}/server.key";
    ssl_protocols TLSv1.2 TLSv1.3;

    client_max_body_size 64m;       # objects travel in pieces of 5 MiB; the list of a message's objects is one piece
    client_body_buffer_size 8m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_read_timeout 60s;

    location ~ ^/v1/fleet/({"|".join(NODE_PATHS)})$ {{
        proxy_pass https://127.0.0.1:{superlink_port};
        proxy_ssl_trusted_certificate "{folder}/ca.crt";
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        proxy_ssl_server_name on;
    }}

    location / {{
        return 403;
    }}
}}
"""


def coordinator_start(superlink_port: int) -> str:
    """Returns the coordinator's start script: one of the two programs, or both and again whenever one ends."""
    return f"""{_HEAD}export PATH="$programs:$PATH"
mkdir -p "$here/empty" && cd "$here/empty"    # Flower imports apps from the working folder first
case "${{1:-all}}" in
superlink)
    "$programs/python" -P -m scripts.deploy.database "$here/state.db"
    exec {shell(superlink("$here", "127.0.0.1", superlink_port, "process"))}
    ;;
superexec) exec {shell(superexec("$here", f"127.0.0.1:{superlink_port}"))} ;;
all)
    keep() {{
        trap 'kill "$child" 2> /dev/null; wait "$child"; exit' TERM
        while :; do
            "$here/start.sh" "$1" & child=$!; wait "$child" || true
            sleep 5 & child=$!; wait "$child"
        done
    }}
    # By number: a plain sh knows no jobs in a command substitution.
    keep superlink & superlink=$!
    keep superexec & superexec=$!
    trfmoe deploy register "$here" & register=$!
    trap 'kill "$superlink" "$superexec" "$register" 2> /dev/null; wait' EXIT
    trap 'exit 130' INT TERM
    wait
    ;;
*) echo "usage: start.sh [superlink | superexec]" >&2; exit 2 ;;
esac
"""


def node_start(address: str) -> str:
    """Returns a node's start script; it runs in the foreground, and is for systemd to start again."""
    command = shell(supernode("$here", address, "${TRFMOE_NODE_PORT:-9094}"))
    return f"""{_HEAD}export PATH="$here/bin:$programs:$PATH" TRFMOE_NODE_FILE="$here/node.yaml"
mkdir -p "$here/empty" && cd "$here/empty"    # Flower imports apps from the working folder first
exec "$programs/python" -P -m scripts.deploy.lifecycle.supernode "$here" {command}
"""


def checking_clientapp() -> str:
    """Returns the program that stands before Flower's own of the same name on a SuperNode's PATH."""
    return """#!/bin/sh
# Runs an app's code only when the owner has allowed its hash (allowed_apps.txt), within the owner's limits.
exec "$TRFMOE_PYTHON" -P -m scripts.deploy.hand_over "$@"
"""


def prompt_supernode() -> str:
    """Returns the program that stands before Flower's SuperNode on a node's PATH."""
    return """#!/bin/sh
# Flower's own, which asks for its next message sooner in short rounds.
exec "$TRFMOE_PYTHON" -Pm scripts.deploy.prompt_supernode "$@"
"""


def refusing(program: str) -> str:
    """Returns a program that refuses to run. It replaces a program of Flower's that would run unchecked code."""
    return f"""#!/bin/sh
echo "refused: {program} has no business on a node of this federation" >&2
exit 1
"""


def node_programs() -> dict[str, str]:
    """Returns what lies in a node's `bin`, first on its SuperNode's PATH: file name -> text."""
    refusals = {name: refusing(name) for name in STAND_INS}
    return {"flwr-clientapp": checking_clientapp(), "flower-supernode": prompt_supernode(), **refusals}


NO_APPS = """# SHA-256 of the app bundles whose code may run on this node, one a line; what is not listed is refused.
# `trfmoe deploy allow .` adds the release that is installed on this machine.
"""


def node_settings(name: str, zone: str | None) -> str:
    """Returns a node's settings file, for its owner to fill in."""
    return f"""# What this node is and where its text lies. The owner's own: no coordinator reads or changes it.
name: {quoted(name)}
zone: {quoted(zone)}
data: [data]                  # files and folders, relative to this file: PDF, parquet, JSONL, text
state_dir: state              # optimizer moments and the place in the data, a run
cache_dir: cache              # tokens, keyed by content
# device: cuda                # default: what the recipe says
# stay_minutes: 10            # how long the trainer process waits for the next round; 0: a new one every time
limits: {{}}                    # what is beyond them is refused, and said so in both logs:
#  experts: 40                  at most so many experts in this node's hands
#  memory_mb: 16000             no more memory than that
#  disk_mb: 50000               state and cache stay below
#  min_tokens: 20000            refuses smaller rounds, which show more of the text; so do min_steps, min_batch
#  network: false               no run makes this node ask the Hugging Face hub for anything
#  hours: "20:00-06:00"         works for a run only then, by this machine's clock
#  data_sets: {{a-run: [data]}}   only these runs, each on these entries of `data`
"""


def coordinator_readme(host: str, port: int) -> str:
    """Returns the coordinator's instructions."""
    return f"""# The coordinator ({host})

    sudo cp nginx.conf /etc/nginx/conf.d/trfmoe.conf && sudo nginx -s reload
    ./start.sh                        # SuperLink and executor; registers the nodes of coordinator.yaml
    trfmoe deploy run . RECIPE.yaml   # one run, on whatever nodes are there

`nginx.conf` and the units (`*.service`, for systemd) name the folder in which they lie. If this folder lies elsewhere,
or moves, `trfmoe deploy refresh .` writes them anew, and `trfmoe deploy check .` says when that is needed. In the
units, fill in the account and the virtual environment.

Start runs in this folder and as the account of the units: run folders are made where `trfmoe deploy run` is started,
and the units write nowhere else. Open port {port} to the nodes, and nothing else: the SuperLink listens on loopback.
`trfmoe deploy status|attach|stop|logs .` show, follow and end a run.

`deploy run`, `attach` and `stop` sign the journal with `sign.key` when a run ends; `trfmoe verify RUN --key sign.pub`
checks the signature, here or at a node's owner. Back up this whole folder with its runs, and the folder `authority`;
docs/operating.md says how to restore them, here or on another machine.
`trfmoe deploy check .` and `trfmoe doctor .` find faults.
"""


def node_readme(name: str, address: str) -> str:
    """Returns a node owner's instructions."""
    return f"""# The node {name}, for the coordinator {address}

    trfmoe deploy allow . --only   # this machine's release of trfmoe is the code that may run here, and no other
    trfmoe deploy check .          # after naming your data in node.yaml
    ./start.sh                     # or trfmoe-node.service for systemd, which starts it again

`node.key` is this node's identity: keep it at mode 600 and never send it on. Your data and limits stand in `node.yaml`,
the hashes of the code that you allow in `allowed_apps.txt`; nobody else can change them. Nothing needs to reach this
machine: it calls the coordinator. If this folder moves, `trfmoe deploy refresh .` mends the paths in the unit.

`trfmoe node status .` shows what this node did in each run, what left it, and where it noted what the coordinator's
journal said in each round: `state/RUN/{name}/heads.jsonl`, where RUN is the run's id. `sign.pub` is the key by which
the coordinator signs its journals. `trfmoe verify RUN_FOLDER --key sign.pub --heads FILE` compares a journal with both.
"""
