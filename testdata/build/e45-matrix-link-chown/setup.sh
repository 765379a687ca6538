# Sourced by bash inside the copy of the context.
mkdir -p all/sub/empty && echo f > all/file && echo s > all/sub/x && chmod 750 all/sub && chmod 1777 all/sub/empty
ln -s file all/tofile && ln -s sub all/todir && ln -s /none/such all/dangling
mkfifo -m 640 all/fifo && ln all/file all/zhard && truncate -s 100000 all/sparse
echo u > all/setuid && chmod 6755 all/setuid
mknod -m 620 all/null c 1 3
touch -d @1400000000 all/* all/sub/* && touch -h -d @1400000000 all/tofile all/todir all/dangling
cp -a all/. .
