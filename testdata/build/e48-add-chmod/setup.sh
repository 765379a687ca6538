# Sourced by bash inside the copy of the context.
mkdir -p t/sub && echo x > t/x && echo y > t/sub/y && ln -s x t/l && chmod 750 t/sub
T="tar --sort=name --mtime=@1500000000 --owner=21 --group=22 --numeric-owner -C t -cf"
$T a.tar .
