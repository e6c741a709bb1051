#!/bin/sh
# Groups: members, waiting for enough of them, shares of the work.
set -eu
. "$(dirname "$0")/check.sh"
N=curl-example%2Fworkers

# Somebody waits until two are there.
curl -s "$B/v1/groups/$N?min=2&wait=30s" >"$scratch/enough" &
waiting=$!
one=$(curl -s "$A/v1/groups/$N/members/w1?ttl=30s" -X PUT -d 10.0.0.7)
want '"size":1' "$one"
want '"size":2' "$(curl -s "$B/v1/groups/$N/members/w2?ttl=30s" -X PUT -d 10.0.0.8)"
wait $waiting
want '"id":"w2"' "$(cat "$scratch/enough")"

# Something new needs no session, and is no new view.
view=$(member view "$(curl -s "$A/v1/groups/$N")")
want "\"view\":$view" "$(curl -s "$B/v1/groups/$N/members/w1?progress=40" -X PUT -d 10.0.0.7)"
want '"progress":40' "$(curl -s "$A/v1/groups/$N/members/w1")"

# Twelve slots of work: every node divides them alike.
shares=$(curl -s "$A/v1/groups/$N?slots=12" | grep -o '"slots":\[[^]]*\]')
want "$shares" "$(curl -s "$B/v1/groups/$N?slots=12" | grep -o '"slots":\[[^]]*\]')"

# A member that is a connection: it leaves when the curl does.
curl -sN "$A/v1/groups/$N/members/w3?hold=true&ttl=1s&on_disconnect=expire" -X PUT -d 10.0.0.9 >"$scratch/hold" &
hold=$!
eventually "$scratch/hold" '"type":"acquired"'
want '"size":3' "$(curl -s "$B/v1/groups/$N")"
kill $hold
until curl -s "$B/v1/groups/$N" | grep -q '"size":2'; do sleep 0.1; done

# The end of a session is the end of its members.
curl -s "$B/v1/sessions/$(member session "$one")" -X DELETE >/dev/null
want '"size":1' "$(curl -s "$A/v1/groups/$N")"
curl -s "$A/v1/groups/$N/members/w2" -X DELETE >/dev/null
want '"size":0' "$(curl -s "$B/v1/groups/$N")"
