#!/usr/bin/env bash
# Compares, comments, and ends as the conditions say. All inputs come in TRACEQ_* variables.
set -euo pipefail

folder=$(mktemp -d "${RUNNER_TEMP:-/tmp}/traceq.XXXXXX") # one for each use in a job
checkout=$(cd "$GITHUB_ACTION_PATH/../../.." && pwd)
token=${GITHUB_TOKEN:-}
unset GITHUB_TOKEN # what is installed, and what reads the captures, does not need it

if [ -n "${TRACEQ_COMMAND:-}" ]; then
  traceq=$TRACEQ_COMMAND
else
  "$TRACEQ_PYTHON" -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet "$checkout"
  traceq=$folder/venv/bin/traceq
fi

words=()
add() { # OPTION LINES: the option with each line that is not empty
  while IFS= read -r line; do
    line=${line%$'\r'}
    if [ -n "${line//[[:space:]]/}" ]; then words+=("$1" "$line"); fi
  done <<<"$2"
}
add --before "$TRACEQ_BEFORE"
add --after "$TRACEQ_AFTER"
add --under "$TRACEQ_UNDER"
add --fail-if "$TRACEQ_FAIL_IF"

report=$folder/report.md
outcome=0
"$traceq" diff "${words[@]}" --inconclusive "$TRACEQ_INCONCLUSIVE" --format markdown \
  --output "$report" || outcome=$?
if [ ! -s "$report" ]; then exit "$outcome"; fi # an error, which has been told
echo "report=$report" >>"$GITHUB_OUTPUT"
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$report" >>"$GITHUB_STEP_SUMMARY"; fi

if [ "$TRACEQ_COMMENT" = true ]; then
  number=()
  if [ -n "$TRACEQ_PR" ]; then number=(--pr "$TRACEQ_PR"); fi
  # The command prints the report where it cannot post it. (An empty list is unset to old shells.)
  GITHUB_TOKEN=$token "$traceq" comment "$report" --no-summary --key "$TRACEQ_KEY" \
    ${number[@]+"${number[@]}"} || {
    echo "::warning::The report could not be posted: it stands in the job's summary."
  }
fi
exit "$outcome"
