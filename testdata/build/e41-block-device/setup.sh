# Sourced by bash inside the copy of the context.
mkdir d && mknod -m 640 d/block b 7 9
