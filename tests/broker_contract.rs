//! What every broker promises, tested on each of them.
