//! What only the embedded queue can do or get wrong.
