#!/usr/bin/env bash
# Writes docker.txt of the named cases of testdata/checks: what the machine's Docker finds, a line a finding.
# Needs docker with buildx, and jq. A case that Docker breaks off with an error gets none.
set -euo pipefail
cd "$(dirname "$0")/../testdata/checks"
for case in "$@"; do
    folder=$(mktemp -d)
    cp "$case/Dockerfile" "$folder/"
    if [[ -f $case/dockerignore ]]; then cp "$case/dockerignore" "$folder/.dockerignore"; fi
    answer=$(docker build --call=check,format=json,ignorestatus=true "$folder" 2>/dev/null || true)
    if jq -e '.buildError == null or (.buildError.message | startswith("lint violation"))' <<<"$answer" >/dev/null; then
        jq -r '.warnings // [] | .[] | "\(.location.ranges[0].start.line)-\(.location.ranges[-1].end.line) \(.ruleName): \(.detail)"' \
            <<<"$answer" | sort >"$case/docker.txt"
    else
        echo "$case: $(jq -r .buildError.message <<<"$answer")" >&2
    fi
    rm -r "$folder"
done
