#!/usr/bin/env bash
# The quickstart from end to end: a Ray cluster on this machine, the stages as a Ray job, Serve, questions over HTTP.
#   scripts/demo.sh ask     asks the demo's questions, prints answers with their sources, stops everything
#   scripts/demo.sh serve   keeps the page, the API and the dashboard up until interrupted
# PORT (8000) and DASHBOARD_PORT (8265) take other ports; READY_TIMEOUT_S (600) waits longer on a slow machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-ask}
config=configs/demo.yaml
port=${PORT:-8000}
dashboard_port=${DASHBOARD_PORT:-8265}
dashboard=http://127.0.0.1:$dashboard_port
endpoint=http://127.0.0.1:$port
logs=$COMEM_HOME/demo/logs
mkdir -p "$logs"

listener() {  # listener PORT: who listens there, where this machine has `ss` and this user may know
    ss -Hltnp "sport = :$1" 2>/dev/null | sed -nE 's/.*users:\(\("([^"]*)",pid=([0-9]+).*/\1, process \2/p' | head -n 1
}

check_free() {  # check_free VARIABLE PORT
    if [[ ! $2 =~ ^[0-9]+$ ]]; then
        echo "$1=$2 is not a port number" >&2
        exit 1
    fi
    if (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then
        who=$(listener "$2")
        echo "http://127.0.0.1:$2 is taken${who:+ by $who}:" \
            "stop what listens there (an earlier demo?), then run this again, or take another port: $1=$(($2 + 1))" >&2
        exit 1
    fi
}
check_free PORT "$port"
check_free DASHBOARD_PORT "$dashboard_port"

drain() {  # takes the application away: answers under way end. `serve shutdown` would cut them off.
    local api=("$dashboard/api/serve/applications/" --silent --max-time 10 --header "Authorization: Bearer $token")
    curl "${api[@]}" --request PUT --header 'Content-Type: application/json' --data '{"applications": []}' || return 0
    for _ in $(seq 70); do
        if curl "${api[@]}" | grep -q '"applications": {}'; then break; fi
        sleep 1
    done
}

children=()
stop() {
    if [ -n "${serving:-}" ]; then
        echo "stopping; answers under way may end (60 s at most)"
        drain
    fi
    # `ray start --block` takes its whole cluster down with it; no other Ray cluster of this machine is touched.
    for pid in "${children[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT TERM

wait_for() {  # wait_for WHAT PID LOG URL [curl options]: until the URL answers, or the process ends, or time is up
    local name=$1 pid=$2 log=$3 start=$SECONDS spent
    shift 3
    until curl --silent --fail --max-time 10 --output /dev/null "$@"; do
        spent=$((SECONDS - start))
        if ! kill -0 "$pid" 2>/dev/null || [ "$spent" -ge "${READY_TIMEOUT_S:-600}" ]; then
            echo "$name did not come up in $spent s; the end of its log, $log:" >&2
            tail -n 40 "$log" >&2
            exit 1
        fi
        if [ $((spent / 15)) -gt $((${reported:-0} / 15)) ]; then echo "   ... $spent s; its log is $log"; fi
        reported=$spent
        sleep 1
    done
    reported=0
}

without_client_log() {  # drops what the client of `ray job submit` logs about itself; its errors stay
    sed -u -E -e '/^[0-9-]+ [0-9:,]+\s+(INFO|SUCC) [a-z_]+\.py:[0-9]+ -- /d' \
        -e '/^[0-9-]+ [0-9:,]+\s+WARNING working_dir\.py:/d' -e '/^Running entrypoint for job /d'
}

free_ports() {  # free_ports N: different ones
    python -c 'import socket, sys; s = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(x.getsockname()[1] for x in s))' "$1"
}

echo "== 1. the demo's world: images, texts and models below $COMEM_HOME"
TQDM_DISABLE=1 python -m examples.countries.prepare

echo "== 2. a Ray cluster on this machine; dashboard $dashboard (it asks for the token: ray get-auth-token)"
export RAY_AUTH_MODE=token
token=$(ray get-auth-token --generate 2>/dev/null | tail -n 1)
set -a; . serve/ray.env; . serve/one_machine.env; set +a
# Free ports for what another Ray on this machine would hold the default ones of.
read -r gcs_port agent_port metrics_port client_port <<<"$(free_ports 4)"
ray start --head --port="$gcs_port" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" \
    --dashboard-agent-listen-port="$agent_port" --metrics-export-port="$metrics_port" \
    --ray-client-server-port="$client_port" --disable-usage-stats --block >"$logs/ray.log" 2>&1 &
ray_pid=$!
children+=("$ray_pid")
wait_for "Ray" "$ray_pid" "$logs/ray.log" "$dashboard/api/version" --header "Authorization: Bearer $token"

echo "== 3. the stages, as a Ray job: python -m jobs.quickstart --config $config"
ray job submit --address "$dashboard" --log-style record --working-dir . -- \
    python -m jobs.quickstart --config "$config" 2>&1 | without_client_log || {
    if ! kill -0 "$ray_pid" 2>/dev/null; then
        echo "Ray ended by itself; the end of its log, $logs/ray.log:" >&2
        tail -n 40 "$logs/ray.log" >&2
    fi
    exit 1
}

echo "== 4. the application: $endpoint/docs"
sed -E "s/^(http_options: .*port: )[0-9]+/\1$port/" serve/config.yaml >"$logs/serve.yaml"
serve run "$logs/serve.yaml" --address "127.0.0.1:$gcs_port" --working-dir . >"$logs/serve.log" 2>&1 &
children=($! "${children[@]}")
wait_for "Serve" $! "$logs/serve.log" "$endpoint/readyz"

if [ "$what" = serve ]; then
    cat <<TEXT
serving:
  page        $endpoint/
  API         $endpoint/v1 (described at $endpoint/docs)
  dashboard   $dashboard (token: RAY_AUTH_MODE=token $(command -v ray) get-auth-token)
  metrics     http://127.0.0.1:$metrics_port/metrics (for Prometheus; the dashboard for Grafana is docs/grafana/comem.json)
  logs        $logs and $(grep -om1 '/[^ ]*/session_[^/ ]*' "$logs/ray.log")/logs/serve
  try         $(command -v comem) ask 'What is the capital of this country?' --url $endpoint \\
                  --image $COMEM_HOME/demo/questions/TUN.png
stop with Ctrl-C
TEXT
    serving=yes
    wait "${children[0]}"
else
    echo "== 5. questions"
    python -m examples.countries.ask --url "$endpoint"
    echo
    echo "done. 'make serve' keeps the page ($endpoint/), the API and the dashboard up."
fi
