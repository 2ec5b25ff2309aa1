#!/usr/bin/env bash
# What the image does, without a container engine: the wheel in a bare environment that its user cannot write to, the
# image's own command as user 1000 with only /index and /tmp of its own, its health check, a document, an orderly end.
# Needs root (to be another user) and a package index.
#
#   docker/check.sh [EXTRAS]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
extras=${1:-qdrant,openai,server,mcp,office}
work=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then kill -KILL "$server" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

python3 -m venv "$work/opt"
"$work/opt/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" .
"$work/opt/bin/pip" install --quiet --disable-pip-version-check "$(echo "$work"/crossrag-*.whl)[$extras]"
"$work/opt/bin/python" -m compileall -q "$work/opt/lib"
install -d -o 1000 -g 1000 "$work/index" "$work/tmp"
install -d "$work/documents"
echo "The boiler is serviced every October by Anna." >"$work/documents/boiler.md"
chmod -R a+rX,go-w "$work/opt" "$work/documents"
chmod 755 "$work"

# As in the image: nothing of the caller's environment, no home that can be written to.
as_user() {
  env -i PATH="$work/opt/bin:/usr/bin:/bin" HOME=/nonexistent TMPDIR="$work/tmp" PYTHONDONTWRITEBYTECODE=1 \
    CROSSRAG_INDEX__PATH="$work/index" CROSSRAG_SERVER__PORT="$port" "$@"
}
port=$("$work/opt/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
user=(setpriv --reuid=1000 --regid=1000 --clear-groups --no-new-privs)
cd /

if as_user "${user[@]}" touch "$work/opt/lib/written" 2>/dev/null; then
  echo "the environment can be written to" >&2
  exit 1
fi
echo "1. without a key it does not start, and says why"
if as_user "${user[@]}" crossrag serve --host 0.0.0.0 2>"$work/refused"; then exit 1; fi
grep -q "crossrag key" "$work/refused"

echo "2. it reads documents"
as_user "${user[@]}" crossrag ingest "$work/documents" >/dev/null

echo "3. the image's command starts, and its health check passes"
# Without the function's own shell, so that signals reach the server.
env -i PATH="$work/opt/bin:/usr/bin:/bin" HOME=/nonexistent TMPDIR="$work/tmp" PYTHONDONTWRITEBYTECODE=1 \
  CROSSRAG_INDEX__PATH="$work/index" CROSSRAG_SERVER__PORT="$port" CROSSRAG_SERVER__API_KEY=a-key-for-this-check \
  "${user[@]}" crossrag serve --host 0.0.0.0 >"$work/log" 2>&1 &
server=$!
check=$(sed -n 's/^  CMD \["python", "-c", "\(.*\)"\]$/\1/p' "$root/docker/Dockerfile")
for try in $(seq 120); do
  if as_user "${user[@]}" python -c "$check" 2>/dev/null; then break; fi
  if [ "$try" = 120 ] || ! kill -0 "$server" 2>/dev/null; then cat "$work/log" >&2; exit 1; fi
  sleep 0.5
done

echo "4. it answers whoever has the key, and nobody else"
as_user "${user[@]}" python - "$port" <<'PYTHON'
import json, sys, urllib.error, urllib.request

url = f"http://127.0.0.1:{sys.argv[1]}/api/v1/search"
body = json.dumps({"query": "Who services the boiler?"}).encode()


def ask(key):
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    return urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=60)


assert "Anna" in ask("a-key-for-this-check").read().decode()
try:
    ask("another-key")
except urllib.error.HTTPError as refused:
    assert refused.code == 401
else:
    sys.exit("it answered without the key")
PYTHON

echo "5. SIGTERM ends it in order"
kill -TERM "$server"
wait "$server"
server=
if grep -q a-key-for-this-check "$work/log"; then
  echo "the log has the key" >&2
  exit 1
fi
echo "passed"
