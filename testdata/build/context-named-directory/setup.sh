chown -R 1000:1001 "$EXTRA/one"
ln -s target "$EXTRA/two/d/link"
