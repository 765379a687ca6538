tar -cf "$EXTRA/context.tar" .
