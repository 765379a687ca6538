chown 1000:1001 dir/a
chmod 4750 dir/a
ln -s a dir/link
find . -exec touch -h -d @1600000000 {} +
tar --sort=name -czf "$EXTRA/context.tar.gz" .
