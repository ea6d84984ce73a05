//! Composes the stages.

use crate::pg::error::Result;

/// Writes what was captured into the tables.
pub fn flush() -> Result<()> {
    Ok(())
}

/// Judges built indexes.
pub fn verify() -> Result<()> {
    Ok(())
}

/// Analyses the workload when it is time.
pub fn tick() -> Result<()> {
    Ok(())
}
