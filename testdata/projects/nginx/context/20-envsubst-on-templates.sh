#!/bin/sh
set -e
for t in /etc/nginx/templates/*.template; do [ -e "$t" ] || continue; envsubst < "$t" > "/etc/nginx/conf.d/$(basename "$t" .template)"; done
