//! From delivery to settlement: the whole worker on a real queue.
