//! The SQL functions, thin.

mod capture;
