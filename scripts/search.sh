#!/usr/bin/env bash
# mlflow run, into an MLflow experiment named after the search unless the arguments name one.
# usage: scripts/search.sh [ARGUMENTS OF mlflow run]
set -euo pipefail
cd "$(dirname "$0")/.."

# The name in the experiment file; nothing where tuner itself is to say what is wrong with that.
name_in() {
    python -c 'import sys, yaml; print(yaml.safe_load(open(sys.argv[1], encoding="utf-8"))["name"])' "$1" \
        2>/dev/null || true
}

file=experiments/digits.yaml named=
for argument in "$@"; do
    case $argument in
        *experiment=*) file=${argument##*experiment=} ;;
        --experiment-name* | --experiment-id* | -e | --entry-point* | *resume=*) named=yes ;;
    esac
done
options=()
if [ -z "$named" ] && [ -z "${MLFLOW_EXPERIMENT_NAME:-}${MLFLOW_EXPERIMENT_ID:-}" ]; then
    name=$(name_in "$file")
    options=(${name:+--experiment-name "$name"})
fi
exec mlflow run . --env-manager local "${options[@]}" "$@"
