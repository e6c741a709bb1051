#!/bin/sh
# Barriers: meet, begin and end together, gates.
set -eu
. "$(dirname "$0")/check.sh"
N=curl-example%2Fstep

# Three workers meet after each step; two of them wait, at different nodes.
curl -s "$A/v1/barriers/$N" -X DELETE >/dev/null
made=$(curl -s "$A/v1/barriers/$N" -X PUT -d '{"kind":"cyclic","parties":3}')
generation=$(member generation "$made")
curl -s "$A/v1/barriers/$N/enter?id=a&ttl=30s&wait=30s" -X POST >"$scratch/a" &
a=$!
kept=$(curl -s "$B/v1/barriers/$N/enter?id=b&keep=true" -X POST)
want "\"generation\":$generation" "$kept"
until curl -s "$A/v1/barriers/$N" | grep -q '"waiting":2'; do sleep 0.1; done
refused=$(curl -s "$B/v1/barriers/$N/enter?id=d" -X POST)
case $refused in *'"index":2'*) ;; *) want index "$refused" ;; esac

# The third one came: all pass, also the one that asks again later.
wait $a
want "\"generation\":$generation,\"index\"" "$(cat "$scratch/a")"
want "\"id\":\"b\",\"generation\":$generation" "$(curl -s "$A/v1/barriers/$N/enter?id=b&keep=true&generation=$generation" -X POST)"
want "\"generation\":$((generation + 1))" "$(curl -s "$B/v1/barriers/$N")"

# One gives up: the other is told that this time never comes.
curl -s "$A/v1/barriers/$N/enter?id=a&ttl=30s&wait=30s" -X POST >"$scratch/a" &
a=$!
until curl -s "$B/v1/barriers/$N" | grep -q '"waiting":1'; do sleep 0.1; done
want '"code":"barrier_waiting"' "$(curl -s "$B/v1/barriers/$N/enter?id=b&ttl=30s&wait=200ms" -X POST)"
wait $a
want '"code":"barrier_broken"' "$(cat "$scratch/a")"
curl -s "$A/v1/barriers/$N" -X DELETE >/dev/null

# A double barrier: begin together, end together.
J=curl-example%2Fjob
curl -s "$A/v1/barriers/$J" -X DELETE >/dev/null
curl -s "$A/v1/barriers/$J" -X PUT -d '{"kind":"double","parties":2}' >/dev/null
want '"waiting":1' "$(curl -s "$A/v1/barriers/$J/enter?id=a&keep=true" -X POST)"
want '"index":1' "$(curl -s "$B/v1/barriers/$J/enter?id=b&wait=10s" -X POST)"
want '"inside":1' "$(curl -s "$A/v1/barriers/$J/leave?id=a" -X POST)"
want '"inside":0' "$(curl -s "$B/v1/barriers/$J/leave?id=b" -X POST)"
curl -s "$A/v1/barriers/$J" -X DELETE >/dev/null

# A gate: closed, until somebody opens it.
G=curl-example%2Fgo
curl -s "$A/v1/barriers/$G/close" -X POST >/dev/null
want '"code":"barrier_waiting"' "$(curl -s "$B/v1/barriers/$G/await" -X POST)"
curl -s "$B/v1/barriers/$G/await?wait=30s" -X POST >"$scratch/gate" &
gate=$!
want '"open":true' "$(curl -s "$A/v1/barriers/$G/open" -X POST)"
wait $gate
want '"open":true' "$(cat "$scratch/gate")"
curl -s "$A/v1/barriers/$G" -X DELETE >/dev/null
