# Sourced by bash inside the copy of the context.
ln d/f d/h
mkfifo d/p
ln -s f d/l
