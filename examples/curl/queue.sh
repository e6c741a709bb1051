#!/bin/sh
# Queues: send, receive, acknowledge; waiting in line; retries, dead letters, groups.
set -eu
. "$(dirname "$0")/check.sh"
Q=$A/v1/queues/curl-example-mail
R=$B/v1/queues/curl-example-mail
for name in mail mail.dead jobs; do curl -s "$A/v1/queues/curl-example-$name" -X DELETE >/dev/null; done

# A message is a body. The answer means that it is committed.
want '"id":' "$(curl -s "$Q/messages" -d 'hello')"

# Whoever receives it has it alone, for the visibility of the queue or as long as it asks for.
one=$(curl -s "$R/receive?visibility=1m" -X POST)
want '"value":"hello"' "$one"
want '"items":[]' "$(curl -s "$Q/receive" -X POST)"

# Given back it is at its old place, before anything newer.
curl -s "$Q/messages" -d 'later' >/dev/null
want '"ok":true' "$(curl -s "$R/nack?receipt=$(member receipt "$one")" -X POST)"
again=$(curl -s "$Q/receive" -X POST)
want '"value":"hello"' "$again"
want '"deliveries":2' "$again"

# Acknowledged it is gone, for good; the old receipt is worth nothing.
want '"ok":true' "$(curl -s "$Q/ack?receipt=$(member receipt "$again")" -X POST)"
want '"code":"receipt_stale"' "$(curl -s "$R/ack?receipt=$(member receipt "$one")" -X POST)"

# A busy worker acknowledges with its next receive: one request a message. Raw, the body is the message.
last=$(curl -s "$Q/receive?format=raw" -X POST)
want later "$last"
want '"in_flight":1' "$(curl -s "$Q")"
curl -s "$R/purge?in_flight=true" -X POST >/dev/null

# A worker that waits is woken by the entry that sends; two of them get one each.
curl -s "$A/v1/queues/curl-example-jobs/receive?wait=20s" -X POST >"$scratch/ann" &
ann=$!
curl -s "$B/v1/queues/curl-example-jobs/receive?wait=20s" -X POST >"$scratch/bob" &
bob=$!
curl -s "$A/v1/queues/curl-example-jobs/messages?batch=true" -d '{"items":[{"value":"1"},{"value":"2"}]}' >/dev/null
wait $ann $bob
want 2 "$(cat "$scratch/ann" "$scratch/bob" | grep -o '"value":"[12]"' | sort -u | wc -l)"

# What cannot be done goes to the dead letters, which are a queue, and comes back from there.
curl -s "$Q/messages" -d 'broken' >/dev/null
job=$(curl -s "$R/receive" -X POST)
want '"ok":true' "$(curl -s "$Q/nack?receipt=$(member receipt "$job")&fatal=true&reason=malformed" -X POST)"
want '"reason":"malformed"' "$(curl -s "$R/messages?state=dead")"
want '"count":1' "$(curl -s "$Q/redrive" -X POST)"
want '"state":"ready"' "$(curl -s "$R/messages")"
curl -s "$Q/purge" -X POST >/dev/null

# Of a group one is in flight at a time; other groups go on. The same dedup id is the same message.
for text in a1 a2; do curl -s "$Q/messages?group=a" -d $text >/dev/null; done
curl -s "$Q/messages?group=b&dedup_id=b$$" -d b1 >/dev/null
want '"duplicate":true' "$(curl -s "$R/messages?group=b&dedup_id=b$$" -d b1)"
both=$(curl -s "$Q/receive?max=10" -X POST)
want '"value":"a1"' "$both"
want '"value":"b1"' "$both"
want '"blocked":1' "$(curl -s "$R")"

# With a session the delivery lasts as long as the session: a worker that dies gives it back.
session=$(member id "$(curl -s "$A/v1/sessions" -d '{"ttl":"1m"}')")
curl -s "$Q/messages?priority=0" -d long >/dev/null
want "\"session\":\"$session\"" "$(curl -s "$Q/receive?session=$session" -X POST)"
curl -s "$A/v1/sessions/$session" -X DELETE >/dev/null
want '"value":"long"' "$(curl -s "$R/messages?state=ready")"

# A stream of deliveries, for as long as this curl lives.
curl -sN "$Q/receive?hold=true&ttl=5s&on_disconnect=expire" -X POST >"$scratch/hold" &
hold=$!
eventually "$scratch/hold" '"value":"long"'
kill $hold

# How it behaves is configured; a queue that is deleted is a queue that nobody configured.
want '"max_deliveries":3' "$(curl -s "$Q" -X PUT -d '{"max_deliveries":3,"max_length":5,"retry":{"min":"1s","max":"1m"}}')"
want '"deleted":' "$(curl -s "$Q" -X DELETE)"
want '"code":"queue_not_found"' "$(curl -s "$R")"
