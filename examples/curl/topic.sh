#!/bin/sh
# Topics: publish, read on, follow, patterns, a table of settings, a durable subscription.
set -eu
. "$(dirname "$0")/check.sh"
run=$(cat /proc/sys/kernel/random/uuid)
T=curl-example.$run

# A message is a body. It has a seq in its topic, and a revision: one order over all topics.
first=$(curl -s "$A/v1/topics/$T.paid/messages" -d 'order 1')
want '"seq":' "$first"
seq=$(member seq "$first")
begun=$(member revision "$first")
curl -s "$B/v1/topics/$T.sent/messages" -d 'order 1' -H 'Coracle-Meta-Carrier: pigeon' >/dev/null
batch=$(curl -s "$A/v1/topics/$T.paid/messages?batch=true" -d '{"items":[{"value":"order 2"},{"value":"order 3"}]}')
want '"first_seq":' "$batch"

# Read on from a position, on any node.
want '"value":"order 2"' "$(curl -s "$B/v1/topics/$T.paid/messages?after=$seq&limit=1")"
want '"value":"order 3"' "$(curl -s "$B/v1/topics/$T.paid/messages?from=last")"
want '"carrier":"pigeon"' "$(curl -s "$A/v1/topics/$T.*/messages")"

# Insist on the topic one knows.
want '"code":"seq_mismatch"' "$(curl -s "$A/v1/topics/$T.paid/messages?expect_last_seq=$seq" -d late)"

# Follow a pattern: one JSON object a line, Ctrl-C to stop. Positions of a pattern are revisions.
curl -sN "$B/v1/topics/$T.*/messages?watch=true&after=$begun" >"$scratch/stream" &
stream=$!
eventually "$scratch/stream" '"type":"synced"'
curl -s "$A/v1/topics/$T.sent/messages" -d 'order 3' >/dev/null
eventually "$scratch/stream" '"value":"order 3","content_type":"text/plain; charset=utf-8"}]}'
kill $stream

# What is beyond the bounds goes, and whoever comes later is told.
want '"max_messages":1' "$(curl -s "$A/v1/topics/$T.paid" -X PUT -d '{"max_messages":1}')"
want '"gap":{"from":'"$seq" "$(curl -s "$B/v1/topics/$T.paid/messages?after=$seq")"

# A table of current values: configuration that is pushed. A late reader gets the values first.
curl -s "$A/v1/topics/$T.settings" -X PUT -d '{"max_per_key":1}' >/dev/null
for color in blue green red; do curl -s "$A/v1/topics/$T.settings/messages?key=color" -d $color >/dev/null; done
settings=$(curl -s "$B/v1/topics/$T.settings/messages")
want '"value":"red"' "$settings"
case $settings in *blue*) echo "FAIL  an old value is kept"; exit 1 ;; esac

# A durable subscription keeps its place; what is not acknowledged comes back.
S=$T.jobs/subscriptions/worker
want '"lag":0' "$(curl -s "$A/v1/topics/$S" -X PUT -d '{"max_deliveries":2}')"
curl -s "$B/v1/topics/$S/receive?wait=20s" -X POST >"$scratch/one" &
waiting=$!
curl -s "$A/v1/topics/$T.jobs/messages" -d 'job 1' >/dev/null
wait $waiting
one=$(cat "$scratch/one")
want '"value":"job 1"' "$one"
receipt=$(member receipt "$one")
want '"ok":true' "$(curl -s "$A/v1/topics/$S/ack?receipt=$receipt" -X POST)"
want '"code":"receipt_stale"' "$(curl -s "$A/v1/topics/$S/ack?receipt=$receipt" -X POST)"

# Twice given back is dead: it is in a topic of the dead, with why.
curl -s "$A/v1/topics/$T.jobs/messages" -d 'job 2' >/dev/null
for try in 1 2; do
	receipt=$(member receipt "$(curl -s "$B/v1/topics/$S/receive" -X POST)")
	want '"ok":true' "$(curl -s "$B/v1/topics/$S/nack?receipt=$receipt&reason=no+paper" -X POST)"
done
want '"reason":"no paper"' "$(curl -s "$A/v1/topics/$T.jobs.dead/messages")"

# Go back to the beginning, receive the bare body.
want '"lag":2' "$(curl -s "$A/v1/topics/$S/seek?to=first" -X POST)"
want 'job 1' "$(curl -s "$B/v1/topics/$S/receive?format=raw" -X POST)"

for topic in paid sent settings jobs jobs.dead; do curl -s "$A/v1/topics/$T.$topic" -X DELETE >/dev/null; done
want '"code":"topic_not_found"' "$(curl -s "$B/v1/topics/$T.jobs")"
