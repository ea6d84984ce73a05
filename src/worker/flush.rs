//! From shared memory to the tables: what capture counted and sampled.

use crate::pg::error::Result;
use crate::pg::text;
use crate::store::workload::{self, Counted, SampleRow};
use crate::{capture, guc};
use pgrx::pg_sys;

/// Samples kept of each template: enough to see skew, few enough to plan all of them.
const SAMPLES_KEPT: usize = 3;

/// Moves what was captured in this database to the tables; returns the number of templates that had run. When another session is
/// just doing it, nothing is taken and nothing is lost.
pub fn flush() -> Result<usize> {
    if !workload::try_flush_lock()? {
        return Ok(0);
    }
    let database = database();
    let counted: Vec<Counted> = capture::take_stats(database).into_iter().map(counted).collect();
    workload::record(&counted, guc::capture_bucket())?;
    let samples: Vec<SampleRow> = capture::take_samples(database).into_iter().map(sample).collect();
    workload::add_samples(&samples, SAMPLES_KEPT)?;
    Ok(counted.len())
}

/// Forgets what was captured in this database.
pub fn reset() -> Result<()> {
    let database = database();
    drop(capture::take_stats(database));
    drop(capture::take_samples(database));
    workload::reset()
}

fn database() -> pg_sys::Oid {
    // SAFETY: set once, when the backend connects.
    unsafe { pg_sys::MyDatabaseId }
}

fn counted(c: capture::Captured) -> Counted {
    todo_map(c)
}
