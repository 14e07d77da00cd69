#!/bin/sh
# The "bootstrap" of a function that `sam build` made: it has the binary for
# both architectures beside it, since SAM does not tell its build which one the
# template asks for. Lambda's own variable LAMBDA_TASK_ROOT is where they are.
here=${LAMBDA_TASK_ROOT:-$(dirname "$0")}
case $(uname -m) in
aarch64 | arm64) exec "$here/bootstrap-arm64" "$@" ;;
x86_64 | amd64) exec "$here/bootstrap-amd64" "$@" ;;
esac
echo "bootstrap: no binary for the architecture $(uname -m)" >&2
exit 1
