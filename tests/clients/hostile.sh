#!/usr/bin/env bash
# Proves that the registry goes on serving whatever is done to it: with a log that is full, broken or stalled, limits on
# file sizes, on open files and on threads, a clock before 1970, without its directory; and then under attack, by all at
# once that has been found to hurt (examples/attack), beside eight clients that behave well. Those have to be served
# throughout, in the slowest hundredth at most five times as slowly as alone, memory of the registry's own has to stay
# under 256 MiB, and nothing may be lost.
#
#   tests/clients/hostile.sh [SECONDS [ALONE]]     of the attack (300), and of the time before in which the clients are
#   alone (60)
#
# ATTACK_BIN  the attackers (target/release/examples/attack)
# SLOWER      how many times slower the clients may become (5)
# shellcheck source=tests/clients/lib.sh
. "$(dirname "$0")/lib.sh"

ATTACKED=${1:-300}
ALONE=${2:-60}
SLOWER=${SLOWER:-5}
ATTACK_BIN=${ATTACK_BIN:-$TARGET/release/examples/attack}
PORT=$(free_port)
URL=http://127.0.0.1:$PORT

# launch COMMAND...: starts a server as a command does that ends with the server's own.
launch() {
  rm -rf "$WORK/data"
  "$@" --data "$WORK/data" --listen "127.0.0.1:$PORT" &
  REGISTRY_PID=$!
  local end=$((SECONDS + 60))
  until curl -s -o "$WORK/null" --max-time 5 "$URL/v2/"; do
    kill -0 "$REGISTRY_PID" 2>/dev/null || { REGISTRY_PID=; fail "the server ended before it answered"; }
    [ "$SECONDS" -lt "$end" ] || fail "the server did not answer within 60 s"
    sleep 0.05
  done
}

status() { curl -s -o "$WORK/null" --max-time 20 -w '%{http_code}' "$@" || true; }
must() {
  local want=$1 got
  shift
  got=$(status "$@")
  [ "$got" = "$want" ] || fail "$*: answered with $got, not $want"
}
metric() { curl -sSf --max-time 20 "$URL/metrics" | sed -n "s/^$1 //p"; }

# serves WHAT: requests are answered, and the server ends when it is told to.
serves() {
  local all n=2000
  all=$(for _ in $(seq $n); do printf 'url = "%s/v2/"\noutput = "/dev/null"\n' "$URL"; done \
    | curl -s --max-time 120 -w '%{http_code}\n' -K - | grep -c '^200$' || true)
  [ "$all" = $n ] || fail "$1: $all of $n requests were answered"
  timeout 10 tail --pid="$REGISTRY_PID" -f /dev/null &
  local waiting=$!
  kill "$REGISTRY_PID"
  wait "$waiting" || fail "$1: the server does not end"
  local code=0
  wait "$REGISTRY_PID" || code=$?
  REGISTRY_PID=
  [ "$code" = 0 ] || fail "$1: the server exited with $code"
}

step "a log that is full"
full() { exec "$REGISTRY_BIN" "$@" 2>/dev/full; }
launch full
serves "full"

step "a log that nobody reads any more"
mkfifo "$WORK/broken"
head -n 1 "$WORK/broken" >"$WORK/null" &
broken() { exec "$REGISTRY_BIN" "$@" 2>"$WORK/broken"; }
launch broken
serves "broken"

step "a log whose reader stands still"
mkfifo "$WORK/stalled"
sleep 300 <"$WORK/stalled" &
SLEEPER=$!
stalled() { exec "$REGISTRY_BIN" "$@" 2>"$WORK/stalled"; }
RUST_LOG=debug launch stalled
for _ in 1 2 3 4; do
  for _ in $(seq 2000); do printf 'url = "%s/v2/"\noutput = "/dev/null"\n' "$URL"; done | curl -s --max-time 60 -K -
done
[ "$(metric registry_log_lines_lost_total)" -gt 0 ] || fail "no line of the log was lost"
serves "stalled"
kill "$SLEEPER"

step "a limit on file sizes"
limited() { ulimit -f 65536; exec "$REGISTRY_BIN" "$@" 2>>"$REGISTRY_LOG"; }
launch limited
head -c 100000000 /dev/zero >"$WORK/large"
LARGE=sha256:$(sha256sum "$WORK/large" | cut -d' ' -f1)
must 507 -X POST --data-binary "@$WORK/large" -H 'Expect:' "$URL/v2/some/thing/blobs/uploads/?digest=$LARGE"
EMPTY=sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
must 201 -X POST --data-binary '{}' "$URL/v2/some/thing/blobs/uploads/?digest=$EMPTY"
serves "limited"

step "a limit on open files"
few() { ulimit -n 48; exec "$REGISTRY_BIN" "$@" 2>>"$WORK/few.log"; }
launch few
for _ in 1 2 3 4 5 6; do
  for n in $(seq 40); do
    head -c 5000000 /dev/urandom >"$WORK/layer-$n"
    LAYER=sha256:$(sha256sum "$WORK/layer-$n" | cut -d' ' -f1)
    [ "$n" = 1 ] || echo next
    printf 'url = "%s/v2/few/files/blobs/uploads/?digest=%s"\nrequest = "POST"\n' "$URL" "$LAYER"
    printf 'data-binary = "@%s"\noutput = "/dev/null"\n' "$WORK/layer-$n"
    printf 'header = "Content-Type: application/octet-stream"\nwrite-out = "%%{http_code} %s\\n"\n' "$LAYER"
  done >"$WORK/pushes"
  curl -s --max-time 60 --parallel --parallel-immediate --parallel-max 40 -K "$WORK/pushes" \
    >>"$WORK/answers" 2>"$WORK/null" || true
done
grep -q ^201 "$WORK/answers" || fail "nothing was stored with few files"
must 201 -X POST --data-binary "@$WORK/layer-1" -H 'Expect:' \
  "$URL/v2/few/files/blobs/uploads/?digest=sha256:$(sha256sum "$WORK/layer-1" | cut -d' ' -f1)"
grep ^201 "$WORK/answers" | while read -r _ layer; do
  curl -s --max-time 60 "$URL/v2/few/files/blobs/$layer" | sha256sum | grep -q "^${layer#sha256:} " \
    || fail "$layer was acknowledged and is not there"
done
serves "few"
rm -f "$WORK"/layer-*

step "a limit on threads"
# Root has none, and a limit counts all threads of a user: so it is a user that has nothing else.
if [ "$(id -u)" != 0 ] || ! command -v setpriv >"$WORK/null" || ! command -v prlimit >"$WORK/null"; then
  echo "SKIPPED: it takes root, setpriv and prlimit"
else
  NOBODY=64917
  chmod 755 "$WORK"
  cp "$REGISTRY_BIN" "$WORK/registry"
  as_nobody() { setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups "$@"; }
  alone() {
    install -d -o "$NOBODY" "$WORK/data"
    exec setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups "$WORK/registry" "$@" 2>>"$WORK/threads.log"
  }
  launch alone
  push() { # push N: what is answered
    head -c $((5000 + 3000000 * ($1 % 2))) /dev/urandom >"$WORK/blob-$1"
    status -X POST --data-binary "@$WORK/blob-$1" -H 'Expect:' \
      "$URL/v2/no/threads/blobs/uploads/?digest=sha256:$(sha256sum "$WORK/blob-$1" | cut -d' ' -f1)"
  }
  [ "$(push 0)" = 201 ] && [ "$(push 1)" = 201 ] || fail "nothing was stored with threads"
  as_nobody prlimit --pid "$REGISTRY_PID" --nproc=1:
  sleep 11 # those without work end after 10 s
  : >"$WORK/answers"
  for n in $(seq 2 21); do echo "$n $(push "$n")" >>"$WORK/answers"; done
  grep -q ' 503$' "$WORK/answers" || fail "no request was refused without threads: $(cat "$WORK/answers")"
  ! grep -vE ' (201|503)$' "$WORK/answers" || fail "without threads requests were answered in another way"
  must 200 "$URL/v2/"
  as_nobody prlimit --pid "$REGISTRY_PID" --nproc=4096:
  for n in $(seq 22 31); do
    answer=$(push "$n")
    [ "$answer" = 201 ] || fail "with threads again a push was answered with $answer"
    echo "$n $answer" >>"$WORK/answers"
  done
  while read -r n answer; do
    [ "$answer" = 201 ] || continue
    digest=$(sha256sum "$WORK/blob-$n" | cut -d' ' -f1)
    found=$(curl -sSf --max-time 20 "$URL/v2/no/threads/blobs/sha256:$digest" | sha256sum | cut -d' ' -f1)
    [ "$found" = "$digest" ] || fail "blob $n was stored and is lost"
  done <"$WORK/answers"
  ! grep -i panicked "$WORK/threads.log" || fail "a thread has panicked"
  serves "threads"
  rm -rf "$WORK"/blob-* "$WORK/registry" "$WORK/data"
fi

step "a directory that is gone"
gone() { exec "$REGISTRY_BIN" "$@" 2>>"$REGISTRY_LOG"; }
launch gone
must 200 "$URL/healthz"
mv "$WORK/data" "$WORK/away"
sleep 1.1
must 503 "$URL/healthz"
rm -rf "$WORK/data"
mv "$WORK/away" "$WORK/data"
sleep 1.1
must 200 "$URL/healthz"
kill_registry

step "a clock before 1970"
if (install_debian faketime faketime) | grep '^SKIPPED'; then :; else
  early() { exec faketime -f '1960-01-01 00:00:00' "$REGISTRY_BIN" "$@" 2>"$WORK/early.log"; }
  run="$(declare -f early); WORK=$WORK REGISTRY_BIN=$REGISTRY_BIN; early \"\$@\""
  launch env DONT_FAKE_MONOTONIC=1 bash -c "$run" early
  must 503 "$URL/v2/"
  must 503 "$URL/healthz"
  ! grep -i panic "$WORK/early.log" || fail "a thread has panicked"
  pkill -P "$REGISTRY_PID" 2>/dev/null || kill "$REGISTRY_PID"
  wait "$REGISTRY_PID" || true
  REGISTRY_PID=
fi

step "an attack of $ATTACKED s"
if [ ! -x "$ATTACK_BIN" ]; then
  step "building the attackers"
  (cd "$ROOT" && cargo build --quiet --release --example attack)
fi
rm -rf "$WORK/data"
: >"$REGISTRY_LOG"
start_registry "$WORK/data" "$PORT"
"$ATTACK_BIN" "$REGISTRY" --pid "$REGISTRY_PID" --alone "$ALONE" --attacked "$ATTACKED" --slower "$SLOWER"
! grep -E ' ERROR |panicked' "$REGISTRY_LOG" || fail "the attack has left errors in the log"
stop_registry
