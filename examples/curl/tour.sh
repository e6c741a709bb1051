#!/bin/sh
# A line of curl for each thing one comes here for; then all of them in one transaction.
set -eu
. "$(dirname "$0")/check.sh"
N=curl-example-tour

# A value, read, changed if nobody was faster, and followed.
put=$(curl -s "$A/v1/kv/$N/color" -X PUT -d blue)
revision=$(member revision "$put")
want blue "$(curl -s "$B/v1/kv/$N/color")"
curl -sN "$A/v1/kv?prefix=$N/&watch=true" >"$scratch/watch" &
watch=$!
eventually "$scratch/watch" '"type":"synced"'
want '"version":' "$(curl -s "$A/v1/kv/$N/color" -X PUT -d red -H "If-Match: $revision")"
want '"code":"revision_mismatch"' "$(curl -s "$B/v1/kv/$N/color" -X PUT -d green -H "If-Match: $revision")"
eventually "$scratch/watch" '"value":"red"'
kill $watch

# A lock for half a minute, waited for.
lock=$(curl -s "$A/v1/locks/$N/acquire?ttl=30s&wait=1m" -X POST)
want '"valid_for":"30s"' "$lock"
token=$(member token "$lock")

# A message, received by one for a minute.
want '"id":"' "$(curl -s "$B/v1/queues/$N/messages" -d hello)"
message=$(curl -s "$A/v1/queues/$N/receive?wait=20s&visibility=1m" -X POST)
want '"value":"hello"' "$message"
receipt=$(member receipt "$message")

# An instance of a service.
curl -s "$A/v1/services/$N/instances/a" -X PUT -d '{"address":"10.0.0.7","port":8080}' >/dev/null
want 10.0.0.7:8080 "$(curl -s "$B/v1/services/$N/pick?format=raw")"

# Leader for as long as this curl lives.
curl -sN "$A/v1/elections/$N/campaign?hold=true&ttl=1s" -d "$(hostname 2>/dev/null || echo me)" >"$scratch/leads" &
leads=$!
eventually "$scratch/leads" '"type":"acquired"'
kill $leads

# Paid, acknowledged, sent on, told, counted: in one entry, under the lock, once.
curl -s "$A/v1/kv/$N/order" -X DELETE >/dev/null
curl -s "$A/v1/kv/$N/stock" -X PUT -d 3 >/dev/null
order='{"if":   [{"key":"'$N'/stock","value":"3"}, {"key":"'$N'/order","exists":false}, {"held":"locks/'$N'","token":'$token'}],
        "then": [{"op":"put","key":"'$N'/order","value":"paid"}, {"op":"ack","queue":"'$N'","receipt":"'$receipt'"},
                 {"op":"send","queue":"'$N'-ship","value":"order/1"}, {"op":"publish","topic":"'$N'.paid","value":"1"},
                 {"op":"add","counter":"'$N'-sold","delta":1}],
        "else": [{"op":"get","key":"'$N'/stock"}]}'
want '"succeeded":true' "$(curl -s "$B/v1/txn" -d "$order")"
want '"succeeded":false' "$(curl -s "$A/v1/txn" -d "$order")"
want paid "$(curl -s "$A/v1/kv/$N/order")"
want '"value":"order/1"' "$(curl -s "$B/v1/queues/$N-ship/receive?wait=20s" -X POST)"

curl -s "$A/v1/sessions/$(member session "$lock")" -X DELETE >/dev/null
curl -s "$A/v1/services/$N/instances/a" -X DELETE >/dev/null
for queue in "$N" "$N-ship"; do curl -s "$A/v1/queues/$queue/purge" -X POST >/dev/null; done
