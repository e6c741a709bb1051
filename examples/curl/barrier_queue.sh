#!/bin/sh
# Barrier queues: items wait until a condition holds, then all of them run, in order; and then the big task.
set -eu
. "$(dirname "$0")/check.sh"
Q=$A/v1/queues/curl-example-nightly
R=$B/v1/queues/curl-example-nightly
S=$A/v1/queues/curl-example-start
for name in nightly start; do curl -s "$A/v1/queues/curl-example-$name" -X DELETE >/dev/null; done

# Three regions report; when the last is there, their reports are worked on in order, and then the summary is due.
want 20 "$(status "$Q" -X PUT -d '{"kind":"barrier","barrier":{"contains":["north","south","west"],"strict":true,"finalizer":{"value":"summary"}}}')"
want '"generation":1' "$(curl -s "$Q/messages?id=north" -d 1)"
want '"duplicate":true' "$(curl -s "$R/messages?id=north" -d 1)"
curl -s "$Q/messages?id=west" -d 3 >/dev/null

# Who is missing? Until it is there, nobody gets anything.
want '"missing":["south"]' "$(curl -s "$R")"
want '"items":[]' "$(curl -s "$Q/receive?max=10" -X POST)"

# The entry of the last one releases all of them at once; a later one is of the next generation.
curl -s "$Q/messages?id=south" -d 2 >/dev/null
want '"generation":2' "$(curl -s "$R/messages?id=north" -d 4)"
want '"size":3' "$(curl -s "$Q")"

# One after the other, each when the one before is done.
receipt=
for ordinal in 0 1 2; do
	item=$(curl -s "$R/receive?max=10${receipt:+&acks=$receipt}" -X POST)
	want "\"ordinal\":$ordinal" "$item"
	receipt=$(echo "$item" | sed 's/.*"receipt":"\([^"]*\)","value".*/\1/')
done
want '"items":[]' "$(curl -s "$Q/receive" -X POST)"
big=$(curl -s "$Q/receive?acks=$receipt" -X POST)
want '"value":"summary"' "$big"
want '"acked":"3"' "$big"
want '"ok":true' "$(curl -s "$R/ack?receipt=$(echo "$big" | sed 's/.*"receipt":"\([^"]*\)","value".*/\1/')" -X POST)"

# A control program can open it, change what it waits for, or break it.
want '"released":true' "$(curl -s "$Q/open?now=true" -X POST)"
curl -s "$Q/purge?in_flight=true" -X POST >/dev/null
curl -s "$Q/messages?id=north" -d 5 >/dev/null
want '"released":false' "$(curl -s "$Q/break?reason=wrong+day" -X POST)"
want '"broken":"wrong day"' "$(curl -s "$R")"
want '"progress":"1/2"' "$(curl -s "$Q" -X PUT -d '{"kind":"barrier","barrier":{"size":2,"strict":true}}')"

# All start together, and each knows which it is: its own wait answers its ordinal.
want 20 "$(status "$S" -X PUT -d '{"kind":"barrier","barrier":{"size":2,"delivery":"self"}}')"
curl -s "$S/messages?id=ann&wait=20s" -d x >"$scratch/ann" &
ann=$!
bob=$(curl -s "$B/v1/queues/curl-example-start/messages?id=bob&wait=20s" -d x)
wait $ann
want '"size":2' "$bob"
want 2 "$(echo "$bob" | cat - "$scratch/ann" | grep -o '"ordinal":[01]' | sort -u | wc -l)"
for name in nightly start; do curl -s "$A/v1/queues/curl-example-$name" -X DELETE >/dev/null; done
