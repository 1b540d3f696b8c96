#!/usr/bin/env bash
# A conversion step for CI: fails when no verified bundle comes out.
#   convert.sh CHECKPOINT OUT [distillc convert options ...]
set -euo pipefail
checkpoint=$1 out=$2
shift 2
summary="${out%.distillc}.json"
distillc convert "$checkpoint" --out "$out" --overwrite --json "$@" >"$summary"
distillc verify "$out" --json >"${out%.distillc}.verify.json"
echo "verified bundle: $out (figures in $summary)"
