# Sourced by bash inside the copy of the context.
chmod 640 f
mkdir -m 750 d
touch d/suid && chmod 4711 d/suid
mkdir -m 1777 sticky
chown -R 1000:1000 d 2>/dev/null || true
chmod 4711 d/suid
