# Sourced by bash inside the copy of the context.
mkdir -p k/dir k/sticky k/setgid && echo 1 > k/644 && echo 2 > k/755 && echo 3 > k/6755 && echo 4 > k/1604
chmod 644 k/644 && chmod 755 k/755 k/dir && chmod 6755 k/6755 && chmod 1604 k/1604 && chmod 1777 k/sticky && chmod 2750 k/setgid
