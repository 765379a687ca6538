# Sourced by bash inside the copy of the context.
head -c 300000 /dev/urandom > x && tar -czf b.tar.gz x && head -c 100000 b.tar.gz > a.tar.gz && rm x b.tar.gz
