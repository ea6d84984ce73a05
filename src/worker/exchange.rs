//! Executions that come from elsewhere: what applications report, what pg_stat_statements has counted, what standbys send.

use super::flush::{self, Taken};
use crate::pg::error::{Error, Kind, Result};
use crate::pg::planner::{self, Identity, Sample};
use crate::pg::{database, encoding, role, spi, text, time};
use crate::store::exchange::{self as table, Advanced, Known, Reported, Statement};
use crate::store::workload::{self, Counted, SampleRow};
use crate::{capture, guc};
use indexpilot_core::exchange::{
    self as core, Document, FORMAT, Refusal, SAMPLE, Stat, TENANT, Template, VERSION, spread, take_over,
};
use indexpilot_core::histogram::Histogram;
use indexpilot_core::workload::{mix, relations_hash};
use pgrx::pg_sys::Oid;
use std::collections::HashMap;
use std::time::Duration;

/// Base tables that a template names.
const RELATIONS: usize = 16;
/// Parts that history is spread over.
const PARTS: u64 = 7;

/// What an application says of a statement.
#[derive(Clone, Debug)]
pub struct Report {
    pub query: String,
    pub duration_ms: f64,
    pub rows: u64,
    pub calls: u64,
    /// `None` for the session's tenant.
    pub tenant_id: Option<String>,
}

/// Keeps a report for the next flush, under the template of the same query if there is one.
///
/// # Errors
/// The server's own when the statement cannot be parsed or names what does not exist.
pub fn report(report: &Report) -> Result<()> {
    let caller = role::current();
    let own_tenant = session_tenant();
    if let Some(other) = report.tenant_id.as_ref().filter(|t| !own_tenant.is_empty() && **t != own_tenant)
        && !role::reads_all_stats()
    {
        return Err(Error::new(Kind::Privilege, format!("permission denied to report for tenant \"{other}\""))
            .detail(format!("This session works for tenant \"{own_tenant}\" (indexpilot.tenant_id).")));
    }
    let sample = Sample { text: report.query.clone(), search_path: planner::search_path(), role: caller, parameters: Vec::new() };
    let (identity, cost) = planner::with_statement(&sample, guc::whatif_timeout(), |statement| {
        let plan = statement.plan();
        Ok((plan.identity(), plan.cost()))
    })?;
    let (normalised, fingerprint) = (text::normalise(&report.query), text::fingerprint(&report.query));
    let found = table::known_template(caller.to_u32(), named(&identity), identity.queryid.cast_signed(), fingerprint.as_deref())?;
    let (queryid, hash) = found.unwrap_or_else(|| new_key(&identity, fingerprint.as_deref()));
    let tenant_id = report.tenant_id.clone().unwrap_or(own_tenant);
    let mut histogram = Histogram::default();
    histogram.add((report.duration_ms * 1000.0) as u64);
    let calls = report.calls as f64;
    let counted = Counted {
        queryid,
        role_id: caller.to_u32(),
        relations_hash: hash,
        relations: named(&identity).to_vec(),
        relations_complete: identity.tables.len() <= RELATIONS,
        command: identity.command.into(),
        tenant_id: tenant_id.clone(),
        calls: report.calls,
        rows: report.rows.saturating_mul(report.calls),
        total_ms: report.duration_ms * calls,
        sum_squares_ms: report.duration_ms * report.duration_ms * calls,
        min_ms: report.duration_ms,
        max_ms: report.duration_ms,
        histogram: flush::trimmed(&histogram.0).into_iter().map(|n| n * report.calls).collect(),
        planner_cost: cost * calls,
        ..Counted::default()
    };
    let query = if guc::capture_literals() { Some(report.query.clone()) } else { normalised.clone() };
    let sample = query.filter(|_| report.query.len() <= SAMPLE).map(|query| SampleRow {
        queryid,
        role_id: caller.to_u32(),
        relations_hash: hash,
        nested: false,
        relations: named(&identity).to_vec(),
        tenant_id,
        query,
        normalised,
        fingerprint,
        search_path: sample.search_path,
        parameter_types: Vec::new(),
        parameter_values: Vec::new(),
    });
    table::report(&Reported { counted, sample })
}

/// The tables that a template names.
fn named(identity: &Identity) -> &[u32] {
    identity.tables.get(..RELATIONS).unwrap_or(&identity.tables)
}

/// Key of a template that capture has not met. Where the server computes no query identifiers, the fingerprint stands for one.
fn new_key(identity: &Identity, fingerprint: Option<&str>) -> (i64, i64) {
    let hash = relations_hash(named(identity)).cast_signed();
    let queryid = match identity.queryid {
        0 => fingerprint.unwrap_or_default().bytes().fold(1, |h, b| mix(h ^ u64::from(b))),
        queryid => queryid,
    };
    (queryid.cast_signed(), hash)
}

fn session_tenant() -> String {
    let mut bytes = [0; TENANT];
    let length = guc::tenant_bytes(&mut bytes);
    encoding::to_utf8(bytes.get(..length).unwrap_or_default())
}

/// Takes over what pg_stat_statements counted and nobody captured here; returns the number of templates that gained executions.
///
/// # Errors
/// When pg_stat_statements is not there; `InUse` when the workload cannot be written now.
pub fn import_statements() -> Result<u64> {
    workload::wait_flush_lock()?;
    // First their totals, then ours: an execution in between is left out this time rather than counted twice.
    let statements = table::statements()?;
    flush::flush(flush::PATIENCE)?;
    let mut known: HashMap<_, Vec<Known>> = HashMap::new();
    for template in table::known()? {
        known.entry((template.queryid, template.role_id, template.nested)).or_default().push(template);
    }
    let before: HashMap<_, Advanced> = table::advanced()?.into_iter().map(|a| ((a.queryid, a.role_id, a.nested), a)).collect();
    let mut paths = HashMap::new();
    let (mut taken, mut progress, mut gained) = (Taken::default(), Vec::new(), 0);
    let (now, keep) = (time::now(), guc::capture_retention().as_secs_f64());
    for statement in &statements {
        pgrx::check_for_interrupts!();
        let key = (statement.queryid, statement.role_id, statement.nested);
        let templates = known.get(&key).map_or(&[][..], Vec::as_slice);
        let before = before.get(&key);
        let captured_gone = before.map_or(0, |b| b.captured_gone);
        let captured = templates.iter().fold(captured_gone, |sum, t| sum.saturating_add(t.captured_calls));
        let template = templates.first();
        let (new, reached) = take_over(&statement.totals, before.map(|b| &b.progress), captured);
        let advanced = Advanced { queryid: key.0, role_id: key.1, nested: key.2, captured_gone, progress: reached };
        if new.calls == 0 && template.is_none() {
            progress.push(advanced);
            continue;
        }
        let path = match paths.get(&statement.role_id) {
            Some(path) => path,
            None => paths.entry(statement.role_id).or_insert(table::search_path(statement.role_id)?),
        };
        let Some(base) = template.map(of_template).or_else(|| analysed(statement, path)) else { continue };
        if new.calls > 0 {
            gained += 1;
        }
        if template.is_none_or(|t| !t.sampled) {
            taken.samples.push(history_sample(statement, &base, path));
        }
        progress.push(advanced);
        let since = statement.since.unwrap_or(now - keep);
        taken.counted.extend(spread(&new, since, now, keep, PARTS).into_iter().map(|(at, part)| Counted {
            at: Some(at),
            calls: part.calls,
            rows: part.rows,
            total_ms: part.total_ms,
            sum_squares_ms: part.sum_squares_ms,
            min_ms: statement.min_ms,
            max_ms: statement.max_ms,
            shared_blocks_hit: part.shared_blocks_hit,
            shared_blocks_read: part.shared_blocks_read,
            temp_blocks: part.temp_blocks,
            wal_bytes: part.wal_bytes,
            ..base.clone()
        }));
    }
    flush::keep(taken)?;
    for rows in progress.chunks(2000) {
        table::advance(rows)?;
    }
    table::forget_others(&statements)?;
    workload::prune(guc::capture_max_templates())?;
    Ok(gained)
}

fn of_template(t: &Known) -> Counted {
    Counted {
        queryid: t.queryid,
        role_id: t.role_id,
        relations_hash: t.relations_hash,
        nested: t.nested,
        relations: t.relations.clone(),
        relations_complete: t.relations_complete,
        command: t.command.clone().into(),
        ..Counted::default()
    }
}

/// Its tables, as its role would find them at the start of a session; `None` for what has no plan, reads no table of a user, or is
/// IndexPilot's own.
fn analysed(statement: &Statement, path: &str) -> Option<Counted> {
    let sample = Sample {
        text: statement.query.clone(),
        search_path: path.to_owned(),
        role: Oid::from(statement.role_id),
        parameters: Vec::new(),
    };
    let identity = planner::with_statement(&sample, guc::whatif_timeout(), |s| Ok(s.plan().identity())).ok()?;
    if identity.tables.is_empty() || database::all_own(&identity.tables) {
        return None;
    }
    Some(Counted {
        queryid: statement.queryid,
        role_id: statement.role_id,
        relations_hash: relations_hash(named(&identity)).cast_signed(),
        nested: statement.nested,
        relations: named(&identity).to_vec(),
        relations_complete: identity.tables.len() <= RELATIONS,
        command: identity.command.into(),
        ..Counted::default()
    })
}

/// The text has its constants replaced already, so it is planned for any value.
fn history_sample(statement: &Statement, base: &Counted, path: &str) -> SampleRow {
    SampleRow {
        queryid: base.queryid,
        role_id: base.role_id,
        relations_hash: base.relations_hash,
        nested: base.nested,
        relations: base.relations.clone(),
        tenant_id: String::new(),
        query: statement.query.clone(),
        normalised: Some(statement.query.clone()),
        fingerprint: text::fingerprint(&statement.query),
        search_path: path.to_owned(),
        parameter_types: Vec::new(),
        parameter_values: Vec::new(),
    }
}

/// The workload as a document: on a standby what shared memory has, which is taken; elsewhere what the caller may see of the tables.
///
/// # Errors
/// On a standby `Prerequisite` without preload, and `Privilege` for those who may not see everything: it would be lost.
pub fn export(since: Option<Duration>) -> Result<Document> {
    let (all, literals) = (role::reads_all_stats(), guc::capture_literals());
    let source = table::source()?;
    let now = time::now();
    let mut templates = if source.standby {
        if !all {
            return Err(Error::new(Kind::Privilege, "permission denied to export the workload of a standby")
                .detail("Only roles with privileges of role \"pg_read_all_stats\" may take it.")
                .hint("GRANT pg_read_all_stats TO the role on the primary server."));
        }
        taken_templates(now)?
    } else {
        if spi::require_writable("export_workload()").is_ok() && capture::status().active {
            flush::flush(flush::PATIENCE)?;
        }
        visible(table::templates(since, guc::capture_bucket())?, all)
    };
    if !literals {
        templates.iter_mut().for_each(without_literals);
    }
    Ok(Document { format: FORMAT.into(), version: VERSION, id: table::new_id()?, exported_at: now, source, literals, templates })
}

/// What ran on this standby since the last call.
fn taken_templates(now: f64) -> Result<Vec<Template>> {
    // No worker comes by on a standby, so nobody else registers the database or empties its counters.
    capture::register_database(database::current());
    let taken = flush::take(flush::PATIENCE);
    let mut found: HashMap<(i64, u32, i64, bool), Template> = HashMap::new();
    for c in taken.counted {
        let key = (c.queryid, c.role_id, c.relations_hash, c.nested);
        let template = found.entry(key).or_insert_with(|| empty_template(key, &c.relations));
        template.relations_complete = c.relations_complete;
        template.command = c.command.into_owned();
        template.stats.push(Stat {
            tenant_id: c.tenant_id,
            at: now,
            calls: c.calls,
            errors: c.errors,
            error_ms: c.error_ms,
            rows: c.rows,
            total_ms: c.total_ms,
            sum_squares_ms: c.sum_squares_ms,
            min_ms: c.min_ms,
            max_ms: c.max_ms,
            histogram: c.histogram,
            planner_cost: c.planner_cost,
            shared_blocks_hit: c.shared_blocks_hit,
            shared_blocks_read: c.shared_blocks_read,
            temp_blocks: c.temp_blocks,
            wal_bytes: c.wal_bytes,
        });
    }
    for s in taken.samples {
        let key = (s.queryid, s.role_id, s.relations_hash, s.nested);
        let template = found.entry(key).or_insert_with(|| empty_template(key, &s.relations));
        template.query = template.query.take().or(s.normalised);
        template.fingerprint = template.fingerprint.take().or(s.fingerprint);
        template.samples.push(core::Sample {
            tenant_id: s.tenant_id,
            query: s.query,
            search_path: s.search_path,
            parameter_types: s.parameter_types,
            parameter_values: s.parameter_values,
        });
    }
    let mut templates: Vec<Template> = found.into_values().collect();
    templates.sort_by_key(|t| (t.queryid, t.role_id, t.relations_hash, t.nested));
    for template in &mut templates {
        template.tables = table::table_names(&template.relations)?;
    }
    Ok(templates)
}

fn empty_template((queryid, role_id, relations_hash, nested): (i64, u32, i64, bool), relations: &[u32]) -> Template {
    Template {
        queryid,
        role_id,
        relations_hash,
        nested,
        relations: relations.to_vec(),
        relations_complete: true,
        command: "unknown".into(),
        ..Template::default()
    }
}

/// What the caller may see, as in the views: what its own roles ran, and in a tenant's session what is this tenant's.
fn visible(templates: Vec<Template>, all: bool) -> Vec<Template> {
    if all {
        return templates;
    }
    let tenant = session_tenant();
    let own = |other: &str| tenant.is_empty() || tenant == other;
    templates
        .into_iter()
        .filter(|t| role::has_privileges_of(Oid::from(t.role_id)))
        .map(|mut t| {
            t.stats.retain(|s| own(&s.tenant_id));
            t.samples.retain(|s| own(&s.tenant_id));
            t
        })
        .filter(|t| !t.stats.is_empty())
        .collect()
}

/// Whether the caller may see what a role ran for a tenant.
pub fn may_see(role_id: Oid, tenant_id: &str) -> bool {
    if role::reads_all_stats() {
        return true;
    }
    let tenant = session_tenant();
    (tenant.is_empty() || tenant == tenant_id) && role::has_privileges_of(role_id)
}

fn without_literals(template: &mut Template) {
    let samples = std::mem::take(&mut template.samples);
    template.samples = samples
        .into_iter()
        .filter_map(|s| {
            let parameter_values = vec![None; s.parameter_types.len()];
            Some(core::Sample { query: text::normalise(&s.query)?, parameter_values, ..s })
        })
        .collect();
}

/// Counts a document of a standby; returns the number of its templates, 0 when it was counted before. A sample is planned as the role
/// that ran it, so those of roles whose privileges the caller does not have are left out, and so are those that are too long.
///
/// # Errors
/// `InvalidParameter` when it is no such document, `Prerequisite` when it belongs elsewhere; then nothing is changed.
pub fn import(document: serde_json::Value) -> Result<u64> {
    let mut document = Document::read(document, &table::source()?).map_err(refused)?;
    workload::wait_flush_lock()?;
    if !table::begin_import(&document)? {
        return Ok(0);
    }
    if !guc::capture_literals() {
        document.templates.iter_mut().for_each(without_literals);
    }
    let templates = document.templates.len() as u64;
    let mut taken = Taken::default();
    for mut template in document.templates {
        if role::has_privileges_of(Oid::from(template.role_id)) {
            template.samples.retain(|s| s.bytes() <= SAMPLE);
        } else {
            template.samples.clear();
        }
        unpack(template, &mut taken);
    }
    flush::keep(taken)?;
    workload::prune(guc::capture_max_templates())?;
    Ok(templates)
}

fn unpack(t: Template, into: &mut Taken) {
    let base = Counted {
        queryid: t.queryid,
        role_id: t.role_id,
        relations_hash: t.relations_hash,
        nested: t.nested,
        relations: t.relations,
        relations_complete: t.relations_complete,
        command: t.command.into(),
        ..Counted::default()
    };
    into.samples.extend(t.samples.into_iter().map(|s| SampleRow {
        queryid: base.queryid,
        role_id: base.role_id,
        relations_hash: base.relations_hash,
        nested: base.nested,
        relations: base.relations.clone(),
        tenant_id: s.tenant_id,
        query: s.query,
        normalised: t.query.clone(),
        fingerprint: t.fingerprint.clone(),
        search_path: s.search_path,
        parameter_types: s.parameter_types,
        parameter_values: s.parameter_values,
    }));
    into.counted.extend(t.stats.into_iter().map(|s| Counted {
        at: Some(s.at),
        tenant_id: s.tenant_id,
        calls: s.calls,
        errors: s.errors,
        error_ms: s.error_ms,
        rows: s.rows,
        total_ms: s.total_ms,
        sum_squares_ms: s.sum_squares_ms,
        min_ms: s.min_ms,
        max_ms: s.max_ms,
        histogram: flush::trimmed(&s.histogram),
        planner_cost: s.planner_cost,
        shared_blocks_hit: s.shared_blocks_hit,
        shared_blocks_read: s.shared_blocks_read,
        temp_blocks: s.temp_blocks,
        wal_bytes: s.wal_bytes,
        ..base.clone()
    }));
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::NotOne(detail) => Error::new(Kind::InvalidParameter, "document is not a workload")
            .detail(detail)
            .hint("Give what SELECT indexpilot.export_workload() returned on a standby of this server."),
        Refusal::Version(version) => {
            Error::new(Kind::NotSupported, format!("version {version} of workload documents is not supported"))
                .detail(format!("This version of IndexPilot reads version {VERSION}."))
                .hint("Install the same version of IndexPilot on both servers.")
        }
        Refusal::Foreign(detail) => Error::new(Kind::Prerequisite, "workload was not exported by a standby of this server")
            .detail(detail)
            .hint("OIDs of tables and roles mean other things there, so it cannot be counted here."),
        Refusal::Own => Error::new(Kind::Prerequisite, "workload was exported by a primary server")
            .detail("What runs on the primary server is counted in its own tables already.")
            .hint("Call SELECT indexpilot.export_workload() on a standby."),
        Refusal::Figure(detail) => Error::new(Kind::InvalidParameter, "workload has a figure that cannot be").detail(detail),
    }
}
