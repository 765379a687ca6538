# Sourced by bash inside the copy of the context.
ln -s loop loop
