//! One run: outcomes, limits and neighbours.
