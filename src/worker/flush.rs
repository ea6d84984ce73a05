//! From shared memory to the tables: what capture counted and sampled.

use super::state;
use crate::pg::database::current;
use crate::pg::error::Result;
use crate::pg::{bgworker, text};
use crate::store::workload::{self, Counted, Limits, SampleRow};
use crate::store::{comparison, exchange};
use crate::{capture, guc};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

/// Samples kept of each template: enough to see skew (of tenants with power-law sizes, three samples often miss every large one),
/// few enough to plan all of them.
const SAMPLES_KEPT: usize = 12;

/// Rows that are written in one statement.
const ROWS_AT_A_TIME: usize = 2000;
/// Reports of applications that one flush takes; more wait for the next.
const REPORTS_AT_A_TIME: usize = 20_000;

/// How long a caller of `capture_flush()` waits for other sessions to hand in what they have counted. Idle ones take a millisecond;
/// those in a transaction hand in at its end.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Moves what was captured in this database to the tables; returns the number of templates that had run. Other sessions are asked to
/// hand in, and waited for at most `patience`. `None` when another session is just doing it: then nothing is taken, and nothing is lost.
pub fn flush(patience: Duration) -> Result<Option<usize>> {
    if !workload::try_flush_lock() {
        return Ok(None);
    }
    let taken = take(patience);
    let templates = taken.counted.len();
    keep(taken)?;
    keep(reported()?)?;
    workload::prune(guc::capture_max_templates())?;
    Ok(Some(templates))
}

/// As [`flush`], after whoever is doing so now: for a caller who wants to see all that ran until now. Who does not end his transaction is
/// waited for a little; then what he has taken is not seen.
pub fn after_others() -> Result<()> {
    let _ = workload::wait_flush_lock();
    flush(PATIENCE).map(drop)
}

/// What is on its way to the tables.
#[derive(Default)]
pub struct Taken {
    pub counted: Vec<Counted>,
    pub samples: Vec<SampleRow>,
}

/// Takes what shared memory has of this database, once other sessions have handed in: whoever takes it must keep it.
pub fn take(patience: Duration) -> Taken {
    let database = current();
    capture::collect(database, patience);
    Taken {
        counted: capture::take_stats(database).into_iter().map(counted).collect(),
        samples: capture::take_samples(database).into_iter().filter_map(sample).collect(),
    }
}

/// Writes it to the tables. The caller has the right to flush.
pub fn keep(taken: Taken) -> Result<()> {
    let limits = Limits { bucket: guc::capture_bucket(), tenants: guc::capture_max_tenants() };
    // One statement for each so many rows, as documents have a largest size.
    for rows in taken.counted.chunks(ROWS_AT_A_TIME) {
        workload::record(rows, limits)?;
        let on_trial: Vec<&Counted> = rows.iter().filter(|c| c.arm != 0).collect();
        if !on_trial.is_empty() {
            comparison::record(&on_trial)?;
        }
    }
    for rows in taken.samples.chunks(ROWS_AT_A_TIME) {
        workload::add_samples(rows, SAMPLES_KEPT)?;
    }
    Ok(())
}

/// What applications reported since the last time, summed up by template and tenant.
fn reported() -> Result<Taken> {
    let mut sums: HashMap<_, Counted> = HashMap::new();
    let mut samples = Vec::new();
    for report in exchange::take_reported(REPORTS_AT_A_TIME)? {
        let c = report.counted;
        match sums.entry((c.queryid, c.role_id, c.relations_hash, c.nested, c.tenant_id.clone())) {
            Entry::Occupied(mut sum) => sum.get_mut().add(&c),
            Entry::Vacant(place) => {
                place.insert(c);
                // One of each is enough: the next flush brings another.
                samples.extend(report.sample);
            }
        }
    }
    Ok(Taken { counted: sums.into_values().collect(), samples })
}

/// The same for the worker and the builder, outside a transaction; also deletes what is older than the retention. Each step is a
/// transaction of its own, so that one that fails takes nothing back of another.
pub fn by_itself() -> Result<()> {
    let flushed = bgworker::transaction("indexpilot: writing what was captured", || flush(Duration::ZERO).map(drop));
    let joined = bgworker::transaction("indexpilot: joining old spans of the workload", || {
        // Whoever holds the lock may have touched the same rows.
        if workload::try_flush_lock() { workload::join_hours(guc::capture_max_tenants()) } else { Ok(()) }
    });
    let retained = bgworker::transaction("indexpilot: deleting old parts of the workload", || {
        if workload::try_flush_lock() { workload::retain(guc::capture_retention()) } else { Ok(()) }
    });
    if flushed.is_ok() {
        state::flushed(current());
    }
    flushed.and(joined).and(retained)
}

/// Forgets what was captured in this database.
///
/// # Errors
/// `InUse` when the workload cannot be written now.
pub fn reset() -> Result<()> {
    workload::wait_flush_lock()?;
    // What was captured must be known as such, or import_pg_stat_statements() would take it for history.
    let taken = take(PATIENCE);
    keep(Taken { samples: Vec::new(), ..taken })?;
    capture::clear(current());
    workload::reset()
}

fn counted(c: capture::Captured) -> Counted {
    Counted {
        at: None,
        own: true,
        queryid: c.queryid.cast_signed(),
        role_id: c.role,
        relations_hash: c.relations_hash.cast_signed(),
        nested: c.nested,
        arm: c.arm.number(),
        relations: c.relations,
        relations_complete: !c.relations_truncated,
        command: c.command.into(),
        tenant_id: c.tenant,
        calls: c.calls,
        errors: c.errors,
        error_ms: c.error_ms,
        rows: c.rows,
        total_ms: c.total_ms,
        sum_squares_ms: c.sum_squares_ms,
        min_ms: c.min_ms,
        max_ms: c.max_ms,
        histogram: trimmed(&c.histogram),
        planner_cost: c.planner_cost,
        shared_blocks_hit: c.shared_blocks_hit,
        shared_blocks_read: c.shared_blocks_read,
        temp_blocks: c.temp_blocks,
        wal_bytes: c.wal_bytes,
    }
}

/// Without the empty buckets at its end: most statements are far from the longest durations.
pub fn trimmed(histogram: &[u64]) -> Vec<u64> {
    let used = histogram.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
    histogram.iter().take(used).copied().collect()
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
        relations: s.relations,
        tenant_id: s.tenant,
        fingerprint: text::fingerprint(&query),
        normalised,
        query,
        search_path: s.search_path,
        parameter_types: s.parameters.iter().map(|p| p.type_oid).collect(),
        parameter_values: s.parameters.into_iter().map(|p| p.value).collect(),
    })
}
