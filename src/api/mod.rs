//! The SQL functions, thin.
