//! The house: the directions between modules hold.
