#!/bin/bash
# Stops and removes every cluster that checks or the scratch server left behind (a killed test cannot clean up after itself).
. "$(dirname "$0")/env.sh"
. tools/cluster.sh
for dir in "$CARGO_TARGET_DIR"/cluster/* "$CARGO_TARGET_DIR"/server/scratch; do
  # One whose owner still runs is in use: names end in -<process>-<number>, or -<process>.
  owner=$(sed -E 's/.*-([0-9]+)-[0-9]+$/\1/; t; s/.*-([0-9]+)$/\1/; t; s/.*//' <<<"$dir")
  if [ -d "$dir" ] && { [ -z "$owner" ] || ! [ -d "/proc/$owner" ]; }; then cluster_remove "$dir"; fi
done
