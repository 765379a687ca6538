#!/bin/sh
set -e
# first arg is `-f` or `--some-option`
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then
	set -- redis-server "$@"
fi
if [ "$1" = redis-server -a "$(id -u)" = 0 ]; then
	find . \! -user redis -exec chown redis "{}" +
	exec gosu redis "$0" "$@"
fi
exec "$@"
