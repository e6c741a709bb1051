#!/bin/sh
# Counters: add within bounds, reserve ids, compare and set.
set -eu
. "$(dirname "$0")/check.sh"
N=curl-example%2Fsold

# Many add at once and none is lost: each addition is one entry of the log.
curl -s "$A/v1/counters/$N" -X DELETE >/dev/null
want '"value":1,"previous":0' "$(curl -s "$A/v1/counters/$N/add" -X POST)"
want '"value":5,"previous":1' "$(curl -s "$B/v1/counters/$N/add?delta=4" -X POST)"
want 5 "$(curl -s "$B/v1/counters/$N?format=raw")"

# The last seat is sold once; whoever is late is told how many are taken.
want '"value":6' "$(curl -s "$A/v1/counters/$N/add?max=6" -X POST)"
late=$(curl -s "$B/v1/counters/$N/add?max=6" -X POST)
want '"code":"out_of_range"' "$late"
want '"value":6' "$late"

# A block of a hundred ids, 7 to 106, is ours alone.
block=$(curl -s "$B/v1/counters/$N/add?delta=100" -X POST)
want '"value":106,"previous":6' "$block"
revision=$(member revision "$block")

# Compare and set, by the revision of the last change.
want 200 "$(status "$A/v1/counters/$N?if_match=$revision" -X PUT -d 0)"
want '"code":"revision_mismatch"' "$(curl -s "$A/v1/counters/$N?if_match=$revision" -X PUT -d 1)"

# A stream of the values, and an end.
want '"value":0' "$(curl -s "$B/v1/counters/$N?watch=true&after=$revision&limit=1")"
curl -s "$A/v1/counters/$N" -X DELETE >/dev/null
