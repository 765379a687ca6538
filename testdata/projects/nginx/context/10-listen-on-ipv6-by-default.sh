#!/bin/sh
set -e
sed -i "s,listen       80;,listen       80;\n    listen  [::]:80;," /etc/nginx/conf.d/default.conf
