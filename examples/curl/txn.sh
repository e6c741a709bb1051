#!/bin/sh
# Transactions: several keys in one revision, or none.
set -eu
. "$(dirname "$0")/check.sh"
D=curl-example/txn

curl -s "$A/v1/kv?prefix=$D/" -X DELETE >/dev/null
curl -s "$A/v1/kv/$D/stock" -X PUT -d 3 >/dev/null

order='{"if":   [{"key":"'$D'/stock","value":"3"}, {"key":"'$D'/order","exists":false}],
        "then": [{"op":"put","key":"'$D'/stock","value":"2"}, {"op":"put","key":"'$D'/order","value":"paid"}],
        "else": [{"op":"get","key":"'$D'/stock"}]}'
done=$(curl -s "$A/v1/txn" -H 'Content-Type: application/json' -d "$order")
want '"succeeded":true' "$done"
revision=$(member revision "$done")
want 2 "$(curl -s "$B/v1/kv/$D/stock")"
want "\"mod_revision\":$revision" "$(curl -s "$B/v1/kv/$D/stock?format=json")"
want "\"mod_revision\":$revision" "$(curl -s "$B/v1/kv/$D/order?format=json")"

# The second time the condition does not hold: the other branch, still a 200.
again=$(curl -s "$B/v1/txn" -d "$order")
want '"succeeded":false' "$again"
want '"value":"2"' "$again"

# Nothing happens by halves.
want '"code":"duplicate_key"' "$(curl -s "$A/v1/txn" -d '{"then":[{"op":"put","key":"'$D'/a","value":"1"},{"op":"delete","key":"'$D'/a"}]}')"
want 404 "$(status "$A/v1/kv/$D/a")"
want '"code":"invalid_argument"' "$(curl -s "$A/v1/txn" -d '{"then":[{"op":"put","key":"'$D'/a","value":"1","colour":"red"}]}')"

# Under a lock: the claim is a condition like any other.
lock=$(curl -s "$A/v1/locks/curl-example%2Ftxn/acquire?ttl=30s" -X POST)
token=$(member token "$lock")
held() { echo '{"if":[{"held":"locks/curl-example/txn","token":'"$1"'}],"then":[{"op":"put","key":"'$D'/b","value":"1"}]}'; }
want '"succeeded":true' "$(curl -s "$B/v1/txn" -d "$(held "$token")")"
curl -s "$A/v1/sessions/$(member session "$lock")" -X DELETE >/dev/null
want '"succeeded":false' "$(curl -s "$B/v1/txn" -d "$(held "$token")")"

# Recipes and keys in one entry: paid, sent to be shipped, told, counted. Again: nothing, because it was paid.
pay='{"if":[{"key":"curl-example/paid/7","exists":false}],
 "then":[{"op":"put","key":"curl-example/paid/7","value":"yes"}, {"op":"send","queue":"curl-example-ship","value":"7"},
         {"op":"publish","topic":"curl-example.paid","value":"7"}, {"op":"add","counter":"curl-example-sold","delta":1}],
 "else":[{"op":"get","key":"curl-example/paid/7"}]}'
curl -s "$A/v1/kv/curl-example/paid/7" -X DELETE >/dev/null
want '"op":"send","id":"' "$(curl -s "$A/v1/txn" -d "$pay")"
want '"succeeded":false' "$(curl -s "$B/v1/txn" -d "$pay")"
