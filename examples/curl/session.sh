#!/bin/sh
# Sessions: keys that live as long as somebody says so.
set -eu
. "$(dirname "$0")/check.sh"
D=curl-example/session
L=curl-example%2Fsession

session=$(member id "$(curl -s "$A/v1/sessions" -d '{"ttl":"30s","name":"worker-3","meta":{"zone":"a"}}')")
want '"valid_for":"30s"' "$(curl -s "$B/v1/sessions/$session/renew" -X POST)"
curl -s "$A/v1/kv/$D/worker-3?session=$session" -X PUT -d 10.0.0.7 >/dev/null
shown=$(curl -s "$B/v1/sessions/$session")
want worker-3 "$shown"
want "$D/worker-3" "$shown"

# Progress travels with a renewal.
curl -s "$A/v1/sessions/$session/renew" -d '{"progress":{"percent":40,"note":"copying"}}' >/dev/null
want '"percent":40' "$(curl -s "$B/v1/sessions/$session")"

# What is taken from it meanwhile, the next renewal tells; the revision of an answer is the next after.
seen=$(member revision "$(curl -s "$A/v1/sessions/$session/renew" -X POST)")
curl -s "$A/v1/locks/$L/acquire?session=$session" -X POST >/dev/null
curl -s "$B/v1/locks/$L?reason=maintenance" -X DELETE >/dev/null
renewed=$(curl -s "$A/v1/sessions/$session/renew?after=$seen" -X POST)
want '"reason":"broken"' "$renewed"
want '"lost":[]' "$(curl -s "$B/v1/sessions/$session/renew?after=$(member revision "$renewed")" -X POST)"

# Work that stands still is seen by whoever looks.
slow=$(member id "$(curl -s "$A/v1/sessions" -d '{"name":"worker-4","stall_after":"1s"}')")
curl -sN "$B/v1/sessions/$slow?watch=true" >"$scratch/slow" &
watch=$!
eventually "$scratch/slow" '"op":"stalled"'
kill $watch
want '"state":"stalled"' "$(curl -s "$A/v1/sessions/$slow")"
curl -s "$A/v1/sessions/$slow" -X DELETE >/dev/null

# The end of the session is the end of its keys.
want "$D/worker-3" "$(curl -s "$A/v1/sessions/$session" -X DELETE)"
want 404 "$(status "$B/v1/kv/$D/worker-3")"
want '"code":"session_expired"' "$(curl -s "$A/v1/kv/$D/worker-3?session=$session" -X PUT -d late)"

# A ttl alone is a session of its own; nobody renews this one.
put=$(curl -s "$A/v1/kv/$D/short?ttl=1s" -X PUT -d gone-soon)
want '"session":"' "$put"
want 304 "$(status "$B/v1/kv/$D/short?wait=100ms&after=$(member revision "$put")")"
want 404 "$(status "$B/v1/kv/$D/short?wait=10s&after=$(member revision "$put")")"

# A session that lives as long as this curl.
curl -sN "$A/v1/sessions?hold=true&ttl=1s&on_disconnect=expire" -X POST >"$scratch/hold" &
hold=$!
eventually "$scratch/hold" '"type":"opened"'
held=$(member session "$(head -n 1 "$scratch/hold")")
want 200 "$(status "$B/v1/sessions/$held")"
kill $hold
for _ in $(seq 100); do
	[ "$(status "$B/v1/sessions/$held")" = 200 ] || break
	sleep 0.1
done
want '"code":"session_' "$(curl -s "$B/v1/sessions/$held")"
