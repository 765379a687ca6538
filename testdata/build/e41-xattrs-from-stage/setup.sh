# Sourced by bash inside the copy of the context.
mkdir -p t/d && echo f > t/f && echo g > t/d/g
tar --sort=name --mtime=@1500000000 --owner=21 --group=22 --numeric-owner --format=pax --pax-option=SCHILY.xattr.user.note:=text -C t -cf a.tar f d
