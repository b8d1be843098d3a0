#!/usr/bin/env bash
# Runs make targets one after the other and ends with their times, and with nextest's summary where it ran.
#
#   scripts/run-steps.sh TARGET...
#
# Stops at the first that fails, except under CI=true, where all of them run.
set -u -o pipefail
cd "$(dirname "$0")/.."

logs="${CARGO_TARGET_DIR:-target}/steps"
mkdir -p "$logs"
[ -t 1 ] && export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-always}"

table=""
failed=""
summary=""
begin=$SECONDS
for step in "$@"; do
    start=$SECONDS
    if "${MAKE:-make}" --no-print-directory "$step" 2>&1 | tee "$logs/$step.log"; then
        result=ok
    else
        result=FAILED
        failed="$failed $step"
    fi
    table+=$(printf '  %-12s %-6s %5d s' "$step" "$result" $((SECONDS - start)))$'\n'
    found=$(grep -a 'Summary.* run:' "$logs/$step.log" | tail -n 1)
    [ -n "$found" ] && summary="$found"
    if [ "$result" = FAILED ] && [ "${CI:-}" != true ]; then
        break
    fi
done

echo
printf '%s' "$table"
[ -n "$summary" ] && echo "$summary"
if [ -n "$failed" ]; then
    echo "FAILED after $((SECONDS - begin)) s:$failed (output in $logs)"
    exit 1
fi
echo "all passed in $((SECONDS - begin)) s"
