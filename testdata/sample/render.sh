#!/bin/bash
# render PAGE GREETING: a text page as HTML; its first line is the title.
set -eu
{
  read -r title
  printf '<html><title>%s</title><body><h1>%s</h1><p>%s!</p>\n' "$title" "$title" "$2"
  while read -r line; do printf '<p>%s</p>\n' "$line"; done
  printf '</body></html>\n'
} < "$1"
