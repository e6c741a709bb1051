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
		grep -q -- "$2" "$1" && echo "ok    $2" && return
		sleep 0.1
	done
	want "$2" "$(cat "$1")"
}

# status ARGUMENTS: only the HTTP status.
status() {
	curl -s -o /dev/null -w '%{http_code}' "$@"
}
