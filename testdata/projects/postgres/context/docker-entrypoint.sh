#!/usr/bin/env bash
set -Eeo pipefail
if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA"; chmod 00700 "$PGDATA" || :
	exec gosu postgres "$BASH_SOURCE" "$@"
fi
[ -s "$PGDATA/PG_VERSION" ] || initdb --username="${POSTGRES_USER:-postgres}" >/dev/null
exec "$@"
