# Sourced by bash inside the copy of the context.
chmod 750 x && chmod 701 x/y && chmod 2755 y/b
