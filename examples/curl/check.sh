# Sourced by the scripts: where to send requests, and what must be in the answers.

C=${CORACLE_URL:-http://127.0.0.1:7070}
# Several nodes: each script picks others than the one before, with the same result.
node() {
	echo "$C" | tr ',' '\n' | sed -n "$((($1 % $(echo "$C" | tr ',' '\n' | wc -l)) + 1))p"
}
A=$(node 0)
B=$(node 1)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# CORACLE_KILLS is a process to kill before the fourth request: the leader. From then on an answer may be "not now": the same request again, under the same
# Idempotency-Key, so that it has one effect. Streams and everything else go straight to curl.
curl() {
	case " $* " in
	# Always in the background or in a pipe: the process that is killed there shall be curl itself.
	*" -sN "* | *" -N "*) exec curl "$@" ;;
	*) if [ -n "${CORACLE_KILLS:-}" ]; then patient "$@"; else command curl "$@"; fi ;;
	esac
}

patient() {
	echo . >>"$scratch/requests"
	# Of two requests at once both may be the fourth; it is killed once.
	[ "$(wc -l <"$scratch/requests")" -ne 4 ] || kill -9 "$CORACLE_KILLS" 2>/dev/null || true
	key=$(cat /proc/sys/kernel/random/uuid)
	for _ in $(seq 20); do
		case " $* " in
		*dempotency* | *" -G "*) said=$(command curl --max-time 60 "$@") && code=0 || code=$? ;;
		*) said=$(command curl --max-time 60 -H "Idempotency-Key: $key" "$@") && code=0 || code=$? ;;
		esac
		case "$code $said" in
		"7 "* | "52 "* | "56 "*) ;;
		*'"code":"no_leader"'* | *'"code":"commit_timeout"'* | *'"code":"not_ready"'* | *'"code":"shutting_down"'*) ;;
		"0 503" | "0 504") ;;
		*) break ;;
		esac
		sleep 0.5
	done
	[ -z "$said" ] || printf '%s\n' "$said"
	return "$code"
}

# want TEXT ACTUAL: the answer has this text in it.
want() {
	case $2 in
	*"$1"*) echo "ok    $1" ;;
	*)
		echo "FAIL  wanted: $1"
		echo "      got:    $2"
		exit 1
		;;
	esac
}

# member NAME JSON: the value of the first member of that name, a string or a number.
member() {
	echo "$2" | tr ',{' '\n\n' | sed -n "s/^\"$1\":\"\{0,1\}\([^\"}]*\).*/\1/p" | head -n 1
}

# eventually FILE TEXT: the text appears in the file within 10 s.
eventually() {
	for _ in $(seq 100); do
		grep -qs -- "$2" "$1" && echo "ok    $2" && return
		sleep 0.1
	done
	want "$2" "$(cat "$1")"
}

# status ARGUMENTS: only the HTTP status.
status() {
	curl -s -o /dev/null -w '%{http_code}' "$@"
}
