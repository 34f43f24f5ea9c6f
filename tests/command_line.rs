//! The commands as a user types them: what they print and how they exit.
