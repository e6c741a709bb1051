#!/bin/sh
# Keys and values.
set -eu
. "$(dirname "$0")/check.sh"
D=curl-example/kv

curl -s "$A/v1/kv?prefix=$D/" -X DELETE >/dev/null

# Put says which revision it made; the body is the value, nothing around it.
put=$(curl -s "$A/v1/kv/$D/color" -X PUT -d blue)
want '"version":1' "$put"
revision=$(member revision "$put")
want blue "$(curl -s "$B/v1/kv/$D/color")"
want "$revision" "$(curl -s -D - -o /dev/null "$B/v1/kv/$D/color" | grep -i '^etag')"

# Only if nobody was faster.
want '"version":2' "$(curl -s "$A/v1/kv/$D/color" -X PUT -d red -H "If-Match: $revision")"
late=$(curl -s "$A/v1/kv/$D/color" -X PUT -d green -H "If-Match: $revision")
want '"code":"revision_mismatch"' "$late"
want '"effect":"none"' "$late"
want 412 "$(status "$A/v1/kv/$D/color" -X PUT -d green -H 'If-None-Match: *')"

# A retry with the same key has one effect.
key="retry-$$-$revision"
first=$(curl -s "$A/v1/kv/$D/counted" -X PUT -d one -H "Idempotency-Key: $key")
want "$first" "$(curl -s "$B/v1/kv/$D/counted" -X PUT -d one -H "Idempotency-Key: $key")"
want '"code":"idempotency_key_reused"' "$(curl -s "$B/v1/kv/$D/counted" -X PUT -d two -H "Idempotency-Key: $key")"

# Bytes are bytes.
printf '\000\377\n' >"$scratch/bytes"
curl -s "$A/v1/kv/$D/bytes" -T "$scratch/bytes" >/dev/null
curl -s "$B/v1/kv/$D/bytes" -o "$scratch/back"
cmp "$scratch/bytes" "$scratch/back" && echo "ok    three bytes came back as they were"
want '"value_base64":"AP8K"' "$(curl -s "$A/v1/kv/$D/bytes?format=json")"

# Lists: folders, pages at one revision.
curl -s "$A/v1/kv/$D/a/1" -X PUT -d 1 >/dev/null
curl -s "$A/v1/kv/$D/a/2" -X PUT -d 2 >/dev/null
want "\"prefix\":\"$D/a/\"" "$(curl -s "$B/v1/kv?prefix=$D/&delimiter=/")"
page=$(curl -s "$B/v1/kv?prefix=$D/a/&limit=1")
want "$D/a/1" "$page"
want "$D/a/2" "$(curl -s "$A/v1/kv?prefix=$D/a/&limit=1&cursor=$(member next_cursor "$page")")"
want '"count":2' "$(curl -s "$A/v1/kv?prefix=$D/a/&count_only=true")"

# Keys that the server names, in order.
want "$D/log/" "$(curl -s "$A/v1/kv/$D/log/" -X POST -d first)"
want 201 "$(status "$A/v1/kv/$D/log/" -X POST -d second)"

# The past.
want blue "$(curl -s "$A/v1/kv/$D/color?revision=$revision")"
want '"version":1' "$(curl -s "$A/v1/kv?key=$D/color&history=true")"

want '"deleted":1' "$(curl -s "$A/v1/kv/$D/color" -X DELETE)"
want '"code":"key_not_found"' "$(curl -s "$B/v1/kv/$D/color")"
want 400 "$(status "$A/v1/kv/$D/color?whatch=true")"
