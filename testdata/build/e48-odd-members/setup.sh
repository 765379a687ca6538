# Sourced by bash inside the copy of the context.
mkdir t && echo x > t/x && ln t/x t/h && echo z > z
tar --mtime=@1500000000 --owner=0 --group=0 --numeric-owner -C t -cf a.tar ./x ./h && tar --mtime=@1500000000 --owner=0 --group=0 --numeric-owner -P -rf a.tar --transform "s,^z,/abs/z," z && rm -r t z
