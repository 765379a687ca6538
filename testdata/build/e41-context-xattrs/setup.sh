# Sourced by bash inside the copy of the context.
setfattr -n user.note -v text d/f
