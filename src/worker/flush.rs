//! From shared memory to the tables: what capture counted and sampled.

use crate::pg::database::current;
use crate::pg::error::Result;
use crate::pg::{bgworker, text};
use crate::store::workload::{self, Counted, SampleRow};
use crate::{capture, guc};
use std::time::Duration;

/// Samples kept of each template: enough to see skew (of tenants with power-law sizes, three samples often miss every large one),
/// few enough to plan all of them.
const SAMPLES_KEPT: usize = 12;

/// How long a caller of `capture_flush()` waits for other sessions to hand in what they have counted. Idle ones take a millisecond;
/// those in a transaction hand in at its end.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Moves what was captured in this database to the tables; returns the number of templates that had run. Other sessions are asked to
/// hand in, and waited for at most `patience`. When another session is just doing it, nothing is taken and nothing is lost.
pub fn flush(patience: Duration) -> Result<usize> {
    if !workload::try_flush_lock()? {
        return Ok(0);
    }
    let database = current();
    capture::collect(database, patience);
    let counted: Vec<Counted> = capture::take_stats(database).into_iter().map(counted).collect();
    workload::record(&counted, guc::capture_bucket())?;
    let samples: Vec<SampleRow> = capture::take_samples(database).into_iter().filter_map(sample).collect();
    workload::add_samples(&samples, SAMPLES_KEPT)?;
    Ok(counted.len())
}

/// The same for the worker and the builder, outside a transaction; also deletes what is older than the retention.
pub fn by_itself() -> Result<()> {
    bgworker::transaction("indexpilot: writing what was captured", || {
        flush(Duration::ZERO)?;
        workload::retain(guc::capture_retention())
    })
}

/// Forgets what was captured in this database.
pub fn reset() -> Result<()> {
    capture::collect(current(), PATIENCE);
    capture::clear(current());
    workload::reset()
}

fn counted(c: capture::Captured) -> Counted {
    Counted {
        queryid: c.queryid.cast_signed(),
        role_id: c.role,
        relations_hash: c.relations_hash.cast_signed(),
        nested: c.nested,
        relations: c.relations,
        relations_complete: !c.relations_truncated,
        command: c.command,
        tenant_id: c.tenant,
        calls: c.calls,
        errors: c.errors,
        error_ms: c.error_ms,
        rows: c.rows,
        total_ms: c.total_ms,
        sum_squares_ms: c.sum_squares_ms,
        min_ms: c.min_ms,
        max_ms: c.max_ms,
        histogram: c.histogram.to_vec(),
        planner_cost: c.planner_cost,
        shared_blocks_hit: c.shared_blocks_hit,
        shared_blocks_read: c.shared_blocks_read,
        temp_blocks: c.temp_blocks,
        wal_bytes: c.wal_bytes,
    }
}

/// Where literals must not be kept, only the normal form reaches the tables.
fn sample(s: capture::CapturedSample) -> Option<SampleRow> {
    let normalised = text::normalise(&s.text);
    let query = if s.literals { s.text } else { normalised.clone()? };
    Some(SampleRow {
        queryid: s.queryid.cast_signed(),
        role_id: s.role,
        relations_hash: s.relations_hash.cast_signed(),
        nested: s.nested,
        tenant_id: s.tenant,
        fingerprint: text::fingerprint(&query),
        normalised,
        query,
        search_path: s.search_path,
        parameter_types: s.parameters.iter().map(|p| p.type_oid).collect(),
        parameter_values: s.parameters.into_iter().map(|p| p.value).collect(),
    })
}
