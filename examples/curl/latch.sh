#!/bin/sh
# Latches: wait until all have counted down.
set -eu
. "$(dirname "$0")/check.sh"
N=curl-example%2Fnightly

curl -s "$A/v1/latches/$N" -X DELETE >/dev/null
want '"left":3' "$(curl -s "$A/v1/latches/$N" -X PUT -d '{"members":["backup","mail","report"]}')"

# Somebody waits for all three, at another node.
curl -s "$B/v1/latches/$N/await?wait=30s" -X POST >"$scratch/waiter" &
waiting=$!

# Each counts once, however often it says so.
want '"left":2,"counted":true' "$(curl -s "$A/v1/latches/$N/count_down?id=backup" -X POST)"
want '"left":2,"counted":false' "$(curl -s "$B/v1/latches/$N/count_down?id=backup" -X POST)"
want '"left":1' "$(curl -s "$A/v1/latches/$N/count_down?id=report" -X POST)"

# Whoever does not want to wait is told who is missing.
closed=$(curl -s "$B/v1/latches/$N/await" -X POST)
want '"code":"latch_closed"' "$closed"
want '"missing":["mail"]' "$closed"

# The last one opens it, for good.
want '"left":0' "$(curl -s "$A/v1/latches/$N/count_down?id=mail" -X POST)"
wait $waiting
want '"open":true' "$(cat "$scratch/waiter")"
want '"open":true' "$(curl -s "$A/v1/latches/$N/await" -X POST)"
curl -s "$A/v1/latches/$N" -X DELETE >/dev/null
