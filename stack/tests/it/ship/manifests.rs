//! What is written for others to read: its schemas, and what must hold in it.
