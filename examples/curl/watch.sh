#!/bin/sh
# Watching: long-poll, a stream of lines, server-sent events, resuming.
set -eu
. "$(dirname "$0")/check.sh"
D=curl-example/watch

curl -s "$A/v1/kv?prefix=$D/" -X DELETE >/dev/null
start=$(member revision "$(curl -s "$A/v1/kv/$D/color" -X PUT -d blue)")

# Long-poll: nothing new is 304, something new is the new state.
want 304 "$(status "$B/v1/kv/$D/color?wait=200ms&after=$start")"
curl -s "$B/v1/kv/$D/color?wait=20s&after=$start" >"$scratch/poll" &
poll=$!
# A stream, through another node: one JSON object a line, one line a revision.
curl -sN "$B/v1/kv?prefix=$D/&watch=true" >"$scratch/lines" &
stream=$!
curl -sN "$A/v1/kv?prefix=$D/&watch=true&initial=false" -H 'Accept: text/event-stream' >"$scratch/sse" &
sse=$!
trap 'kill $stream $sse 2>/dev/null || true; rm -rf "$scratch"' EXIT
eventually "$scratch/lines" '"type":"snapshot"'
eventually "$scratch/lines" '"type":"synced"'
eventually "$scratch/sse" 'event: synced'

second=$(member revision "$(curl -s "$A/v1/kv/$D/color" -X PUT -d red)")
wait $poll
want red "$(cat "$scratch/poll")"
eventually "$scratch/lines" "\"type\":\"change\",\"revision\":$second"
eventually "$scratch/lines" '"value":"red"'
eventually "$scratch/sse" 'event: change'
eventually "$scratch/sse" "id: $second"

# A transaction is one frame.
curl -s "$A/v1/txn" -d "{\"then\":[{\"op\":\"put\",\"key\":\"$D/x\",\"value\":\"1\"},{\"op\":\"put\",\"key\":\"$D/y\",\"value\":\"2\"}]}" >/dev/null
eventually "$scratch/lines" "$D/x.*$D/y"

# Resuming after the first revision tells everything since, and ends when told so.
lines=$(curl -sN "$B/v1/kv?prefix=$D/&watch=true&after=$start&limit=2")
want "\"revision\":$second" "$lines"
want '"type":"bye"' "$lines"

# All families on one stream.
want '"family":"kv"' "$(curl -sN "$A/v1/events?family=kv&prefix=$D/&after=$start&limit=1")"
