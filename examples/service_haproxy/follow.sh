#!/bin/sh
# Run by `coracle service watch` at each change: the backends as they are now, then a reload without a lost connection.
set -eu
cd "$HAPROXY_FOLDER"
{
	cat head.cfg
	for address in $CORACLE_SERVICE_ADDRESSES; do
		echo "    server $(echo "$address" | tr -c 'a-zA-Z0-9\n' _) $address"
	done
} >new.cfg
mv new.cfg haproxy.cfg
echo "$(date +%T) backends: $CORACLE_SERVICE_ADDRESSES"

# A signal that comes while HAProxy still reloads gets lost: done is only what has a new worker.
worker() { pgrep -n -P "$HAPROXY_PID" || true; }
before=$(worker)
for _ in $(seq 10); do
	kill -USR2 "$HAPROXY_PID"
	for _ in $(seq 10); do
		[ "$(worker)" = "$before" ] || exit 0
		sleep 0.1
	done
done
echo "HAProxy does not reload"
exit 1
