#!/usr/bin/env bash
# The quickstart from end to end: a Ray cluster on this machine, the stages as a Ray job, Serve, questions over HTTP.
#   scripts/demo.sh ask     asks the demo's questions, prints answers with their sources, stops everything
#   scripts/demo.sh serve   keeps the endpoint and the dashboard up until interrupted
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-ask}
config=configs/demo.yaml
dashboard=http://127.0.0.1:${DASHBOARD_PORT:-8265}
endpoint=http://127.0.0.1:8000
logs=$COMEM_HOME/demo/logs
mkdir -p "$logs"

for url in "$dashboard" "$endpoint"; do
    if (exec 3<>"/dev/tcp/127.0.0.1/${url##*:}") 2>/dev/null; then
        echo "$url is taken: stop what listens there (an earlier demo?), then run this again" >&2
        exit 1
    fi
done

children=()
stop() {
    # `ray start --block` takes its whole cluster down with it; no other Ray cluster of this machine is touched.
    for pid in "${children[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT TERM

wait_for() {  # wait_for WHAT URL LOG SECONDS
    for _ in $(seq "$4"); do
        if curl --silent --fail --output /dev/null --header "Authorization: Bearer $token" "$2"; then return; fi
        sleep 1
    done
    echo "$1 did not come up in $4 s; the end of its log, $3:" >&2
    tail -n 40 "$3" >&2
    exit 1
}

without_client_log() {  # drops what the client of `ray job submit` logs about itself; its errors stay
    sed -u -E -e '/^[0-9-]+ [0-9:,]+\s+(INFO|SUCC) [a-z_]+\.py:[0-9]+ -- /d' \
        -e '/^[0-9-]+ [0-9:,]+\s+WARNING working_dir\.py:/d' -e '/^Running entrypoint for job /d'
}

echo "== 1. the demo's world: images, texts and models below $COMEM_HOME"
TQDM_DISABLE=1 python -m examples.countries.prepare

echo "== 2. a Ray cluster on this machine; dashboard $dashboard (it asks for the token: ray get-auth-token)"
export RAY_AUTH_MODE=token
token=$(ray get-auth-token --generate 2>/dev/null | tail -n 1)
free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
gcs_port=$(free_port)
set -a; . serve/ray.env; set +a  # cheaper requests
# The job agent gets a free port too: another Ray on this machine would hold the default one.
ray start --head --port="$gcs_port" --dashboard-host=127.0.0.1 --dashboard-port="${dashboard##*:}" \
    --dashboard-agent-listen-port="$(free_port)" --disable-usage-stats --block >"$logs/ray.log" 2>&1 &
children+=($!)
wait_for "Ray" "$dashboard/api/version" "$logs/ray.log" 90

echo "== 3. the stages, as a Ray job: python -m jobs.quickstart --config $config"
ray job submit --address "$dashboard" --log-style record --working-dir . -- \
    python -m jobs.quickstart --config "$config" 2>&1 | without_client_log

echo "== 4. the application: $endpoint/docs"
serve run serve/config.yaml --address "127.0.0.1:$gcs_port" --working-dir . >"$logs/serve.log" 2>&1 &
children=($! "${children[@]}")
wait_for "Serve" "$endpoint/readyz" "$logs/serve.log" 180

if [ "$what" = serve ]; then
    echo "serving; try:  comem ask 'What is the capital of this country?' --image $COMEM_HOME/demo/questions/TUN.png"
    echo "stop with Ctrl-C"
    wait "${children[0]}"
else
    echo "== 5. questions"
    python -m examples.countries.ask --url "$endpoint"
    echo
    echo "done. 'make serve' keeps the endpoint and the dashboard up."
fi
