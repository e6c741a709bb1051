#!/bin/sh
# Fences: a store that knows no locks turns stale holders away.
set -eu
. "$(dirname "$0")/check.sh"
N=curl-example%2Fprinter
L=curl-example%2Ffenced

# Ann holds a lock, and the printer lets her token pass.
curl -s "$A/v1/fences/$N" -X DELETE >/dev/null
ann=$(curl -s "$A/v1/locks/$L/acquire?ttl=30s&owner=ann" -X POST)
token=$(member token "$ann")
want "\"token\":$token" "$(curl -s "$B/v1/fences/$N/check?token=$token" -X POST)"

# She falls asleep, her session ends, and Bob gets the lock and prints.
curl -s "$B/v1/sessions/$(member session "$ann")" -X DELETE >/dev/null
bob=$(curl -s "$B/v1/locks/$L/acquire?ttl=30s&owner=bob" -X POST)
newer=$(member token "$bob")
want "\"token\":$newer,\"previous\":$token" "$(curl -s "$A/v1/fences/$N/check?token=$newer" -X POST)"

# Ann wakes up. The printer does not print for her.
stale=$(curl -s "$B/v1/fences/$N/check?token=$token" -X POST)
want '"code":"fence_stale"' "$stale"
want "\"current_token\":$newer" "$stale"
curl -s "$A/v1/sessions/$(member session "$bob")" -X DELETE >/dev/null
curl -s "$A/v1/fences/$N" -X DELETE >/dev/null
