//! Plugins that appear, change, break and go while a worker runs.
