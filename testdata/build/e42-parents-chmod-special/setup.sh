# Sourced by bash inside the copy of the context.
mkdir t && echo m > t/m && tar --sort=name --mtime=@1500000000 --owner=21 --group=22 --numeric-owner -C t -cf a.tar m
