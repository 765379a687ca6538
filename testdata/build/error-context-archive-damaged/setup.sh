printf '\037\213\010 and nothing of gzip' >"$EXTRA/bad.gz"
