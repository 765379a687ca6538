//! Reading and writing of tar streams: headers through the `tar` crate, everything else bounded.
