#!/usr/bin/env bash
# One SuperLink and three SuperNodes as processes of their own on this machine, one run, everything stopped again.
#   scripts/real_nodes.sh [RECIPE]         TRFMOE_PORT: first of four free ports on loopback (default 9500)
set -euo pipefail
RECIPE=${1:-configs/tiny.yaml}
APP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PORT=${TRFMOE_PORT:-9500}
export PATH="$APP/.venv/bin:$PATH"
export TRFMOE_HOME="${TRFMOE_HOME:-$PWD}"
export FLWR_HOME="${FLWR_HOME:-$TRFMOE_HOME/.flwr/nodes}"
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
LOGS="$FLWR_HOME/logs"
mkdir -p "$LOGS"
cd "$TRFMOE_HOME"
# Flower's programs have programs of their own, which end some seconds after them: stop the whole tree.
stop() {
  local pid
  for pid in "$@"; do
    stop $(cat "/proc/$pid/task/$pid/children" 2> /dev/null)
    kill "$pid" 2> /dev/null || true
  done
}
trap 'stop $(jobs -p); wait' EXIT

cat > "$FLWR_HOME/config.toml" <<TOML
[superlink]
default = "here"
[superlink.here]
address = "127.0.0.1:$PORT"
insecure = true
TOML

flower-superlink --insecure --host 127.0.0.1 --port "$PORT" --disable-runtime-dependency-installation \
  > "$LOGS/superlink.log" 2>&1 &
until (exec 3<> "/dev/tcp/127.0.0.1/$PORT") 2> /dev/null; do
  kill -0 $! || { cat "$LOGS/superlink.log"; exit 1; }
  sleep 0.5
done

number=0
for node in alice:language bob:network carol:numbers; do
  name=${node%:*} owner=data/sample/${node#*:} number=$((number + 1))
  flower-supernode --insecure --superlink "127.0.0.1:$PORT" --host 127.0.0.1 --port $((PORT + number)) \
    --node-config "name=\"$name\" data=\"$owner/pdfs:$owner/shard.parquet\" state-dir=\"$FLWR_HOME/$name\"" \
    > "$LOGS/$name.log" 2>&1 &
done

flwr run "$APP" here --stream --run-config "recipe=\"$RECIPE\""

# flwr run ends with 0 whatever happened; the journal knows.
RUN=$(ls -td runs/*/ | head -n 1)
tail -n 1 "${RUN}events.jsonl"
tail -n 1 "${RUN}events.jsonl" | grep -q '"outcome":"completed"'
