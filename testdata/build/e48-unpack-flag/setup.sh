# Sourced by bash inside the copy of the context.
mkdir t u && echo 1 > t/one && echo 2 > u/two && chmod 4755 t/one && T="tar --sort=name --mtime=@1500000000 --owner=21 --group=22 --numeric-owner" && $T -C t -cf a.tar . && $T -C u -cf b.tar two && gzip -nk a.tar && ln -s a.tar ltar && $T -cf empty.tar -T /dev/null
