#!/usr/bin/env bash
# One process of a run, for schedulers: `scripts/launch/task.sh TRAIN_ARGUMENTS`, in the clone.
#
# Runs scripts/train.py with all arguments. SIGTERM and Ctrl-C make train.py save and exit 0, which a
# scheduler would take for the end of the training; so the exit code is then 75: start me again.
#
#   NKJAX_VENV  folder of the environment, default .venv; python3 where there is none (a container)
set -euo pipefail

python="${NKJAX_VENV:-.venv}/bin/python"
[ -x "$python" ] || python=python3

child="" stopped=0 interrupted=0
on_signal() {
    [ "$stopped" = 1 ] || [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || :
    stopped=1 interrupted=1
}
trap on_signal TERM INT

"$python" scripts/train.py "$@" &
child=$!
[ "$stopped" = 0 ] || kill -TERM "$child" 2>/dev/null || : # the signal came before there was a child

code=0 interrupted=1
while [ "$interrupted" = 1 ]; do # a signal ends `wait`, not the training
    interrupted=0 code=0
    wait "$child" || code=$?
done
# 143: the signal came before train.py listened to it.
if [ "$stopped" = 1 ] && { [ "$code" = 0 ] || [ "$code" = 143 ]; }; then
    exit 75
fi
exit "$code"
