//! What this machine's kernel gives, for `kiln info`.
