#!/bin/sh
# Elections: lead, follow, say something else, hand over.
set -eu
. "$(dirname "$0")/check.sh"
E=curl-example%2Fcron

want '"leader":null' "$(curl -s "$A/v1/elections/$E")"
want '"code":"election_vacant"' "$(curl -s "$A/v1/elections/$E?format=raw")"

# The body is what the leader says.
ann=$(curl -s "$A/v1/elections/$E/campaign?ttl=30s&owner=ann" -d 10.0.0.1:80)
want '"token":' "$ann"
anns=$(member leader "$ann")
token=$(member token "$ann")
want 10.0.0.1:80 "$(curl -s "$B/v1/elections/$E?format=raw")"

# Others follow in order; a higher priority goes ahead of them, not of the leader.
want '"code":"not_elected"' "$(curl -s "$B/v1/elections/$E/campaign?ttl=30s" -d 10.0.0.2:80)"
bob=$(member session "$(curl -s "$B/v1/elections/$E/campaign?ttl=30s&keep=true&owner=bob" -d 10.0.0.2:80)")
cid=$(member session "$(curl -s "$B/v1/elections/$E/campaign?ttl=30s&keep=true&owner=cid&priority=5" -d 10.0.0.3:80)")
want '"position":2' "$(curl -s "$A/v1/elections/$E/campaign?session=$bob&keep=true" -d 10.0.0.2:80)"

# Only the present leader says something else, and writes.
want '"token":' "$(curl -s "$A/v1/elections/$E/proclaim?session=$anns&token=$token" -d 10.0.0.1:81)"
want 10.0.0.1:81 "$(curl -s "$B/v1/elections/$E?format=raw")"
guard="If-Held: elections/$E; token=$token"
want 20 "$(status "$A/v1/kv/curl-example/plan" -X PUT -d 1 -H "$guard")"
want "$cid" "$(curl -s "$B/v1/elections/$E/resign?session=$anns" -X POST)"
want '"code":"fence_stale"' "$(curl -s "$A/v1/kv/curl-example/plan" -X PUT -d 2 -H "$guard")"
want '"code":"not_leader"' "$(curl -s "$A/v1/elections/$E/proclaim?session=$anns&token=$token" -d late)"

# Handed over; then the session of the leader ends, and nobody is left.
want '"token":' "$(curl -s "$A/v1/elections/$E/transfer?session=$cid&to=$bob" -X POST)"
want 10.0.0.2:80 "$(curl -s "$A/v1/elections/$E?format=raw")"
for session in "$bob" "$cid" "$anns"; do curl -s "$A/v1/sessions/$session" -X DELETE >/dev/null; done
want '"leader":null' "$(curl -s "$B/v1/elections/$E")"
