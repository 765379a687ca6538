# Sourced by bash inside the copy of the context.
chmod 750 d/sub && chmod 705 d/sub/deep && ln -s d dlink && ln -s a.txt d/l.txt
