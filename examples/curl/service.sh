#!/bin/sh
# Services: register, find, pick, drain; who dies is critical at once.
set -eu
. "$(dirname "$0")/check.sh"
S=curl-example%2Fweb
at() { echo "{\"address\":\"10.0.0.$1\",\"port\":8080,\"zone\":\"$2\",\"tags\":[\"blue\"]}"; }

# One lives as long as it is renewed, one until it is deregistered.
a=$(curl -s "$A/v1/services/$S/instances/a?ttl=30s" -X PUT -d "$(at 1 east)")
want '"liveness":"ttl"' "$a"
generation=$(member generation "$a")
want '"liveness":"permanent"' "$(curl -s "$B/v1/services/$S/instances/b" -X PUT -d "$(at 2 west)")"
want '"valid_for":' "$(curl -s "$A/v1/services/$S/instances/a/renew?status=passing&load=0.7" -X POST)"

# Both are found, by any node; filters narrow that.
want '"healthy":2' "$(curl -s "$B/v1/services/$S")"
want '"id":"b"' "$(curl -s "$A/v1/services/$S?zone=west&tag=blue&healthy=true")"
want '[{"targets":["10.0.0.1:8080"]' "$(curl -s "$B/v1/services/$S?format=prometheus")"

# Whom to call: a bare host:port. The zone first, the less loaded, the same for the same key.
want 10.0.0.2:8080 "$(curl -s "$A/v1/services/$S/pick?format=raw&zone=west")"
want 10.0.0.2:8080 "$(curl -s "$B/v1/services/$S/pick?format=raw&strategy=least")"
one=$(curl -s "$A/v1/services/$S/pick?format=raw&strategy=sticky&key=ann")
want "$one" "$(curl -s "$B/v1/services/$S/pick?format=raw&strategy=sticky&key=ann")"

# Errors in a row eject, whoever reports them.
curl -s "$A/v1/services/$S/instances/b/report?result=error" -X POST >/dev/null
want '"ejected_until":' "$(curl -s "$B/v1/services/$S/instances/b/report?result=error" -X POST)"
want 10.0.0.1:8080 "$(curl -s "$A/v1/services/$S/pick?format=raw&n=5")"

# Registered again, it is another generation. The farewell of the former one is refused.
want '"generation":' "$(curl -s "$B/v1/services/$S/instances/a" -X PUT -d "$(at 3 east)")"
want '"code":"instance_replaced"' "$(curl -s "$A/v1/services/$S/instances/a?generation=$generation" -X DELETE)"

# Drained, it is picked no more. With nobody left there is a problem.
want '"status":"draining"' "$(curl -s "$A/v1/services/$S/instances/a/drain?deadline=1h" -X POST)"
curl -s "$B/v1/services/$S/instances/b" -X DELETE >/dev/null
want '"code":"no_healthy_instance"' "$(curl -s "$A/v1/services/$S/pick")"

# Wait until somebody is there: one that lives for as long as this curl.
curl -s "$A/v1/services/$S?wait=20s&min=1" >"$scratch/waiting" &
waiting=$!
curl -sN "$B/v1/services/$S/instances/c?hold=true&ttl=1s" -X PUT -d "$(at 4 east)" >"$scratch/hold" &
hold=$!
wait $waiting
want '"id":"c"' "$(cat "$scratch/waiting")"

# It dies: critical at once, gone when the service says so.
curl -s "$A/v1/services/$S" -X PUT -d '{"deregister_after":"500ms"}' >/dev/null
curl -sN "$A/v1/services/$S?watch=true&initial=false" >"$scratch/watch" &
watch=$!
eventually "$scratch/watch" '"type":"synced"'
kill $hold
eventually "$scratch/watch" '"status":"critical"'
eventually "$scratch/watch" '"op":"expired"'
kill $watch
curl -s "$A/v1/services/$S" -X DELETE >/dev/null
curl -s "$A/v1/services/$S/instances/a" -X DELETE >/dev/null
want 404 "$(status "$B/v1/services/$S")"
