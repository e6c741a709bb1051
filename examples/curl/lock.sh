#!/bin/sh
# Locks: try, wait in line, release, fence.
set -eu
. "$(dirname "$0")/check.sh"
L=curl-example%2Fdeploy
D=curl-example/lock

# One curl is a complete lock: it has a session of its own.
ann=$(curl -s "$A/v1/locks/$L/acquire?ttl=30s&owner=ann" -X POST)
want '"token":' "$ann"
session=$(member session "$ann")
token=$(member token "$ann")

# Others are told who has it.
refused=$(curl -s "$B/v1/locks/$L/acquire?ttl=30s&owner=bob" -X POST)
want '"code":"lock_held"' "$refused"
want '"owner":"ann"' "$refused"

# Waiting for a moment, keeping the place: 202 and a position. The place lives with the session.
bob=$(curl -s -w ' %{http_code}' "$B/v1/locks/$L/acquire?ttl=30s&owner=bob&wait=100ms&keep=true" -X POST)
want ' 202' "$bob"
want '"position":1' "$bob"
bobs=$(member session "$bob")

# What Ann writes is good while she holds it.
guard="If-Held: locks/$L; token=$token"
want 20 "$(status "$A/v1/kv/$D/version" -X PUT -d 1 -H "$guard")"

# Bob waits on; the entry that releases grants.
curl -s "$A/v1/locks/$L/acquire?session=$bobs&wait=20s" -X POST >"$scratch/bob" &
waiting=$!
want "$bobs" "$(curl -s "$B/v1/locks/$L/release?session=$session" -X POST)"
wait $waiting
want "\"session\":\"$bobs\"" "$(cat "$scratch/bob")"
[ "$(member token "$(cat "$scratch/bob")")" -gt "$token" ] && echo "ok    the token rises"

# Ann does not know it yet. Her late write is refused.
late=$(curl -s "$A/v1/kv/$D/version" -X PUT -d 2 -H "$guard")
want '"code":"fence_stale"' "$late"
want 1 "$(curl -s "$B/v1/kv/$D/version")"
want '"code":"not_holder"' "$(curl -s "$A/v1/locks/$L/release?session=$session" -X POST)"
want '"owner":"bob"' "$(curl -s "$A/v1/locks/$L")"
curl -s "$A/v1/sessions/$bobs" -X DELETE >/dev/null

# A lock that is held for as long as this curl lives.
curl -sN "$A/v1/locks/$L/acquire?hold=true&ttl=1s&owner=cyd" -X POST >"$scratch/hold" &
hold=$!
eventually "$scratch/hold" '"type":"acquired"'
want '"code":"lock_held"' "$(curl -s "$B/v1/locks/$L/acquire?ttl=1s" -X POST)"
kill $hold
next=$(curl -s "$B/v1/locks/$L/acquire?ttl=30s&wait=15s" -X POST)
want '"token":' "$next"
curl -s "$A/v1/sessions/$(member session "$next")" -X DELETE >/dev/null

# Readers share, a writer waits for all of them.
one=$(member session "$(curl -s "$A/v1/locks/$L/acquire?ttl=30s&mode=shared" -X POST)")
two=$(member session "$(curl -s "$B/v1/locks/$L/acquire?ttl=30s&mode=shared" -X POST)")
want 409 "$(status "$A/v1/locks/$L/acquire?ttl=30s" -X POST)"
for reader in "$one" "$two"; do curl -s "$A/v1/sessions/$reader" -X DELETE >/dev/null; done
