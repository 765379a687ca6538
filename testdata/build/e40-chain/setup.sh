# Sourced by bash inside the copy of the context.
mkdir lib && echo end > end && ln -s end three && ln -s three two && ln -s two one && ln -s ../end lib/up && ln -s /end abs
