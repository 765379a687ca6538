# Sourced by bash inside the copy of the context.
mkdir e d/sub
