#!/bin/sh
# Semaphores: so many at once, in order, with a limit that can change.
set -eu
. "$(dirname "$0")/check.sh"
S=curl-example%2Fpool

# The first one says how many there are.
want '"code":"semaphore_not_found"' "$(curl -s "$A/v1/semaphores/$S/acquire?ttl=30s" -X POST)"
ann=$(curl -s "$A/v1/semaphores/$S/acquire?ttl=30s&limit=3&permits=2&owner=ann" -X POST)
want '"permits":2' "$ann"
anns=$(member session "$ann")
token=$(member token "$ann")
want '"code":"limit_mismatch"' "$(curl -s "$B/v1/semaphores/$S/acquire?ttl=30s&limit=4" -X POST)"

# Bob wants more than is left: all or none. Cid, who would fit, waits behind him.
want '"code":"permits_exhausted"' "$(curl -s "$B/v1/semaphores/$S/acquire?ttl=30s&permits=2" -X POST)"
bob=$(member session "$(curl -s "$B/v1/semaphores/$S/acquire?ttl=30s&permits=3&keep=true&owner=bob" -X POST)")
cid=$(member session "$(curl -s "$A/v1/semaphores/$S/acquire?ttl=30s&keep=true&owner=cid" -X POST)")
want '"position":2' "$(curl -s "$B/v1/semaphores/$S/acquire?session=$cid&keep=true" -X POST)"
want '"free":1' "$(curl -s "$A/v1/semaphores/$S")"

# A write is good while the permits are held.
guard="If-Held: semaphores/$S; token=$token"
want 20 "$(status "$A/v1/kv/curl-example/pool" -X PUT -d 1 -H "$guard")"
want "$bob" "$(curl -s "$B/v1/semaphores/$S/release?session=$anns" -X POST)"
want '"code":"fence_stale"' "$(curl -s "$A/v1/kv/curl-example/pool" -X PUT -d 2 -H "$guard")"

# A greater limit grants at once.
want '"limit":4' "$(curl -s "$A/v1/semaphores/$S" -X PUT -d '{"limit":4}')"
want '"token":' "$(curl -s "$B/v1/semaphores/$S/acquire?session=$cid" -X POST)"
for session in "$bob" "$cid"; do curl -s "$A/v1/sessions/$session" -X DELETE >/dev/null; done
want '"free":4' "$(curl -s "$A/v1/semaphores/$S")"
curl -s "$A/v1/semaphores/$S" -X DELETE >/dev/null
want 404 "$(status "$A/v1/semaphores/$S")"
