#!/usr/bin/env bash
set -Eeuo pipefail
[ -e index.php ] || tar -C /usr/src/wordpress -cf - . | tar -xf -
exec "$@"
