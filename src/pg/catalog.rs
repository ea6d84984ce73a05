//! Snapshots of tables, indexes and statistics as values of the core crate.
