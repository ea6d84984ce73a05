//! profile: plans the samples of new templates, and notes what their statements do: tables, fields, operators, and where they name
//! their tenant. Bounded for each visit; what is left waits for the next one.

use super::advisor::stored;
use crate::capture::tenants;
use crate::pg::error::{Error, Result};
use crate::pg::{bgworker, database, own};
use crate::store;
use crate::store::profile::{self, Pending, Profiled};
use crate::whatif::{self, TenantKeys};
use indexpilot_core::profile::{failure_class, failure_text, summarise};
use indexpilot_core::tenant::TenantSource;
use pgrx::pg_sys;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Templates of one transaction.
const BATCH: usize = 20;
/// Longest time that one visit, or one analysis, spends on it.
const TIME: Duration = Duration::from_secs(5);
/// The worker leaves a profile that worked alone for this long: samples come all the time, and most say the same again.
const MIN_AGE_S: f64 = 600.0;
/// Templates whose tenants capture is told of: as many as it has room for.
const TAUGHT: usize = 4096;

/// The worker's step, outside a transaction.
pub fn by_itself() -> Result<()> {
    let mut visit = Visit::new(MIN_AGE_S);
    while bgworker::transaction("indexpilot: profiling the workload", || visit.batch())? {}
    bgworker::transaction("indexpilot: teaching capture the tenants", teach)
}

/// Before an analysis, inside its transaction: what it needs to know of new templates.
pub fn refresh() -> Result<()> {
    let mut visit = Visit::new(0.0);
    while visit.batch()? {}
    teach()
}

struct Visit {
    start: Instant,
    min_age_s: f64,
    seen: BTreeSet<i64>,
}

impl Visit {
    fn new(min_age_s: f64) -> Self {
        Visit { start: Instant::now(), min_age_s, seen: BTreeSet::new() }
    }

    /// Profiles some templates; false when there are no more, or no more time.
    fn batch(&mut self) -> Result<bool> {
        let _work = own::work();
        let keys = profile::tenant_keys()?;
        let pending = profile::pending(BATCH, self.min_age_s, &self.seen)?;
        let mut profiles = Vec::with_capacity(pending.len());
        for template in &pending {
            if self.start.elapsed() > TIME {
                break;
            }
            self.seen.insert(template.id);
            profiles.push(study(template, &keys));
        }
        profile::save(&profiles)?;
        Ok(profiles.len() == BATCH)
    }
}

fn study(template: &Pending, keys: &TenantKeys) -> Profiled {
    let role = pg_sys::Oid::from(template.role_id);
    let (mut statements, mut failed) = (Vec::new(), None::<Error>);
    for sample in &template.samples {
        pgrx::check_for_interrupts!();
        match whatif::profile(&stored(sample.clone(), role), keys) {
            Ok(statement) => statements.push(statement),
            Err(e) => failed = Some(e),
        }
    }
    let known = summarise(&statements);
    let failed = failed.filter(|_| statements.is_empty());
    let tenant = known.as_ref().and_then(|p| p.tenant);
    // Statements of functions have the tenant of what called them.
    if tenant.is_none() && !template.nested {
        tenants::learn(
            database::current().to_u32(),
            template.queryid.cast_unsigned(),
            template.relations_hash.cast_unsigned(),
            None,
        );
    }
    Profiled {
        id: template.id,
        last_sample: template.last_sample,
        samples: template.samples.len(),
        planned: statements.len(),
        cost: known.as_ref().map(|p| p.cost),
        error: failed.as_ref().map(|e| failure_text(&e.sqlstate(), &e.message)),
        failure: failed.as_ref().map(|e| failure_class(&e.sqlstate())),
        tenant_source: tenant.map(TenantSource::name),
        tables: known.as_ref().map(|p| p.tables.iter().map(|(rel, written)| (*rel, *written)).collect()).unwrap_or_default(),
        fields: known.map(|p| p.fields).unwrap_or_default(),
    }
}

/// Tells capture where statements name their tenant: after a start it knows nothing, and of templates that share a place in its memory
/// the one that was seen last is to have it.
fn teach() -> Result<()> {
    let database = database::current().to_u32();
    for taught in store::profile::tenant_sources(TAUGHT)? {
        let source = TenantSource::from_name(&taught.tenant_source);
        tenants::learn(database, taught.queryid.cast_unsigned(), taught.relations_hash.cast_unsigned(), source);
    }
    Ok(())
}
