# Sourced by bash inside the copy of the context.
ln -s /etc/hostname outside
