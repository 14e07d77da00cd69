#!/bin/sh
# The "bootstrap" of a function that `sam build` made: it has the binary for
# both architectures beside it, since SAM does not tell its build which one the
# template asks for. It needs no program but sh.
here=${LAMBDA_TASK_ROOT:-${0%/*}}
machine=$(uname -m 2>/dev/null)
if [ -z "$machine" ] && [ -e /lib/ld-linux-aarch64.so.1 ]; then
    machine=aarch64
fi
case $machine in
aarch64 | arm64) exec "$here/bootstrap-arm64" "$@" ;;
*) exec "$here/bootstrap-amd64" "$@" ;;
esac
