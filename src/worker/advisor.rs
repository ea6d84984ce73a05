//! The chain workload → candidate → whatif → select → guard → store → apply, composed. Reads like the picture in ARCHITECTURE.md.

use super::decision::{self, Decision, Drawn};
use super::{advice, decide, estimate, flush, profile, references, rows};
use crate::pg::error::{Error, Kind, Result};
use crate::pg::{bgworker, catalog, planner, role, solver};
use crate::store::action::NOBODY;
use crate::store::workload::{Filter, StoredSample, Template};
use crate::whatif::cache::{self, Surroundings};
use crate::whatif::{self, Expressions, Parameter, Sample};
use crate::{guc, store};
use indexpilot_core::effort::Rate;
use indexpilot_core::guard::SKEW_S;
use indexpilot_core::model::{Bytes, Catalog, Query, RelId, WriteRates};
use indexpilot_core::profile::failure_text;
use indexpilot_core::{candidate, ddl, select, workload};
use pgrx::pg_sys;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Templates that one analysis weighs at most: the heaviest. What is beyond has next to no share of the time, as a rule.
const MAX_QUERIES: usize = 500;

/// Cause of the analyses that the worker makes by itself.
const WORKER: &str = "worker";

/// What the caller of the main job asked for.
pub struct Request {
    /// `call` or `worker`.
    pub cause: &'static str,
    pub dry_run: bool,
    /// OIDs; empty for all tables.
    pub tables: Vec<u32>,
    pub tenant_id: Option<String>,
    /// Bytes; `None` for the setting.
    pub storage_budget: Option<Bytes>,
    pub concurrently: bool,
}

/// A query on its way through the chain.
struct Study {
    id: i64,
    text: String,
    calls: f64,
    total_ms: f64,
    samples: Vec<Sample>,
    /// It was not captured: its one sample is the statement itself.
    given: bool,
}

impl Study {
    /// The check of a foreign key, which the server runs itself.
    fn of_check(check: references::Check, id: i64, hours: f64) -> Self {
        let calls = check.checks_per_hour * hours;
        Study {
            id,
            text: format!("check of foreign key {}", check.name),
            calls,
            total_ms: 0.0,
            samples: vec![check.sample],
            given: true,
        }
    }
}

/// What the chain found, before anything is stored.
pub struct Weighed {
    pub queries: Vec<Query>,
    pub catalog: Catalog,
    pub selection: select::Selection,
    /// Templates that could not be planned again: number and error.
    pub unplannable: Vec<(i64, String)>,
    /// Templates that were not looked at, as lighter than the `looked_at` that were.
    pub left_out: Vec<i64>,
    pub looked_at: usize,
    /// Share of the time that these have.
    pub covered: f64,
    pub budget: Bytes,
    pub build_rate: Rate,
}

/// Limits of one run.
struct Limits {
    budget: Option<Bytes>,
    max_columns: usize,
    time_limit_s: f64,
    hours: f64,
    /// Only indexes on these tables; empty for all.
    tables: Vec<u32>,
    /// The weights are calls, so that what the writes of `hours` cost can be set against them.
    weigh_writes: bool,
}

/// Analyses the captured workload and queues what pays. Returns every decision, recommended ones first.
pub fn analyze(request: &Request) -> Result<Vec<Decision>> {
    let _work = crate::pg::own::work();
    // The worker has just done both, in transactions of their own: here it would hold rows of the workload while it looks at tables,
    // and deadlock with whoever has a table locked and flushes.
    if request.cause != WORKER {
        flush::after_others()?;
        profile::refresh()?;
    }
    let weighed = captured(request)?;
    let planned: Vec<(i64, f64)> = weighed.queries.iter().map(|q| (q.id, q.shape.base_cost)).collect();
    store::workload::set_plan_states(&planned, &weighed.unplannable)?;

    let run = store::analysis::begin(request.cause)?;
    let mut drawn = decision::draw(&weighed);
    decide::guard(&mut drawn)?;
    let ids = store::analysis::add(run, &drawn.iter().map(|d| d.recommendation.clone()).collect::<Vec<_>>())?;
    for (d, id) in drawn.iter_mut().zip(ids) {
        d.recommendation.id = id;
    }
    // What a tenant alone needs says nothing of the proposals and answers for everybody's executions.
    if request.tenant_id.is_none() {
        store::analysis::retire_proposals(run, &request.tables)?;
        store::advice::save(run, &advice::of_queries(&weighed, &drawn, !request.tables.is_empty()))?;
    }
    store::analysis::finish(run, &decision::figures(&weighed))?;
    if !request.dry_run {
        for d in drawn.iter_mut().filter(|d| d.recommendation.state == "proposed") {
            carry_out(d, request)?;
        }
    }
    Ok(drawn.into_iter().map(Decision::from).collect())
}

/// Weighs the captured workload as far as it is asked for.
fn captured(request: &Request) -> Result<Weighed> {
    let filter = Filter { tables: request.tables.clone(), tenant_id: request.tenant_id.clone() };
    let (templates, hours) = store::workload::templates(&filter)?;
    let (templates, left_out, covered) = heaviest(templates);
    let looked_at = templates.len();
    let limits = Limits {
        budget: request.storage_budget.or_else(guc::select_storage_budget),
        max_columns: guc::candidate_max_columns(),
        time_limit_s: guc::select_time_limit().as_secs_f64(),
        hours,
        tables: request.tables.clone(),
        weigh_writes: true,
    };
    let mut studies: Vec<Study> = templates.into_iter().map(Study::from).collect();
    if request.tenant_id.is_none() {
        let texts: Vec<&str> = studies.iter().map(|s| s.text.as_str()).collect();
        let checks = references::checks(&references::keys()?, &texts, &request.tables)?;
        // No template has such a number.
        studies.extend(checks.into_iter().zip(1..).map(|(check, n)| Study::of_check(check, -n, hours)));
    }
    let weighed = weigh(studies, &limits)?;
    Ok(Weighed { left_out, looked_at, covered, ..weighed })
}

/// Weighs what was captured on one table. Stores nothing.
pub fn consider(table: RelId) -> Result<Weighed> {
    captured(&Request {
        cause: "call",
        dry_run: true,
        tables: vec![table.0],
        tenant_id: None,
        storage_budget: None,
        concurrently: true,
    })
}

/// The templates that are worth their planning time, the numbers of the others, and the share of the time that the first have.
fn heaviest(templates: Vec<Template>) -> (Vec<Template>, Vec<i64>, f64) {
    let stats = templates.iter().map(|t| workload::Stat { workload_id: t.id, calls: t.calls, total_ms: t.total_ms });
    let kept = workload::build(stats, &workload::Config { max_queries: MAX_QUERIES });
    if kept.left_out > 0 {
        pgrx::log!(
            "indexpilot: workload: {} templates left out; the others have {:.1} % of the time",
            kept.left_out,
            100.0 * kept.covered
        );
    }
    let mut by_id: BTreeMap<i64, Template> = templates.into_iter().map(|t| (t.id, t)).collect();
    let worth = kept.stats.iter().filter_map(|s| by_id.remove(&s.workload_id)).collect();
    (worth, by_id.into_keys().collect(), if kept.left_out > 0 { kept.covered } else { 1.0 })
}

/// Which indexes would pay for these texts. Nothing is stored. `weights` are calls per hour; without them nobody knows how the reads
/// compare with the writes of the tables, so writes are left out.
pub fn advise(
    texts: &[String],
    weights: Option<&[f64]>,
    budget: Option<Bytes>,
    max_columns: Option<usize>,
    time_limit_s: Option<f64>,
) -> Result<Vec<Decision>> {
    let _work = crate::pg::own::work();
    let (studies, limits) = asked(texts, weights, budget, max_columns, time_limit_s)?;
    let weighed = weigh(studies, &limits)?;
    let s = &weighed.selection;
    pgrx::debug1!("indexpilot: select: planner calls {}, candidates {}, gap {:.5}", s.planner_calls, s.candidates.len(), s.gap);
    Ok(decision::draw(&weighed).into_iter().map(Decision::from).collect())
}

/// The queries that a caller gives, each checked, and the limits he gives with them.
fn asked(
    texts: &[String],
    weights: Option<&[f64]>,
    budget: Option<Bytes>,
    max_columns: Option<usize>,
    time_limit_s: Option<f64>,
) -> Result<(Vec<Study>, Limits)> {
    let search_path = caller_search_path();
    let studies: Vec<Study> = texts
        .iter()
        .zip(1..)
        .map(|(text, id)| Study {
            id,
            text: text.clone(),
            calls: weights.and_then(|w| w.get(id as usize - 1)).copied().unwrap_or(1.0),
            total_ms: 0.0,
            samples: vec![Sample {
                text: text.clone(),
                search_path: search_path.clone(),
                role: role::current(),
                parameters: Vec::new(),
            }],
            given: true,
        })
        .collect();
    for study in &studies {
        // A mistake in a given query is the caller's to know, not a figure in a report.
        for sample in &study.samples {
            whatif::shape(sample).map_err(|e| in_query(e, study))?;
        }
    }
    let limits = Limits {
        budget: budget.or_else(guc::select_storage_budget),
        max_columns: max_columns.unwrap_or_else(guc::candidate_max_columns),
        time_limit_s: time_limit_s.unwrap_or_else(|| guc::select_time_limit().as_secs_f64()),
        hours: 1.0,
        tables: Vec::new(),
        weigh_writes: weights.is_some(),
    };
    Ok((studies, limits))
}

fn in_query(error: Error, study: &Study) -> Error {
    let hint = error.hint.clone().unwrap_or_else(|| "Names are looked up in the caller's search_path.".into());
    let mut detail = format!("In query {}: {}", study.id, study.text.chars().take(200).collect::<String>());
    if let Some(more) = &error.detail {
        detail = format!("{more} {detail}");
    }
    Error { detail: Some(detail), hint: Some(hint), ..error }
}

/// What select is given.
struct Prepared {
    queries: Vec<Query>,
    samples: Vec<Vec<Sample>>,
    catalog: Catalog,
    sampler: whatif::Sampler,
    generated: candidate::Generated,
    unplannable: Vec<(i64, String)>,
    /// Size of the tables that may get indexes.
    table_bytes: Bytes,
}

/// workload, candidate: shapes from the planner, a snapshot of the tables, and what is worth a question.
fn prepare(studies: Vec<Study>, limits: &Limits) -> Result<Prepared> {
    let (mut queries, mut samples, mut unplannable) = (Vec::new(), Vec::new(), Vec::new());
    let mut expressions = Expressions::default();
    for study in studies {
        match measure(&study, &mut expressions) {
            Ok((shape, plannable)) => {
                queries.push(Query { id: study.id, text: study.text, calls: study.calls, total_ms: study.total_ms, shape });
                samples.push(plannable);
            }
            Err(e) => unplannable.push((study.id, failure_text(&e.sqlstate(), &e.message))),
        }
    }
    let tables: BTreeSet<RelId> = queries.iter().flat_map(|q| q.shape.relations.iter().map(|r| r.rel)).collect();
    let mut catalog = catalog::snapshot_with(&tables.into_iter().collect::<Vec<_>>(), &expressions)?;
    candidate::note_conditions(&queries, &mut catalog);
    express(&mut catalog)?;
    count_updates(&mut catalog)?;
    if limits.weigh_writes {
        references::note(&mut catalog, &references::keys()?);
    }
    if !limits.weigh_writes {
        catalog.tables.values_mut().for_each(|t| t.writes = WriteRates::default());
    }
    let wanted: BTreeSet<u32> = limits.tables.iter().copied().collect();
    for table in catalog.tables.values_mut().filter(|t| !wanted.is_empty() && !wanted.contains(&t.rel.0)) {
        table.refused = Some("the caller asked for other tables".into());
    }
    let mut sampler = whatif::Sampler::default();
    sampler.measure(&mut catalog, &queries);
    rows::of_queries(&mut catalog, &queries, guc::candidate_min_table_size());
    let table_bytes = catalog.tables.values().filter(|t| t.refused.is_none()).map(|t| t.bytes).sum();
    let generated = candidate::generate(
        &queries,
        &catalog,
        &candidate::Config {
            max_columns: limits.max_columns,
            min_table_bytes: guc::candidate_min_table_size(),
            min_usage: guc::candidate_min_usage(),
            min_expression: guc::candidate_min_expression(),
        },
    );
    Ok(Prepared { queries, samples, catalog, sampler, generated, unplannable, table_bytes })
}

fn select_config(limits: &Limits, budget: Bytes) -> select::Config {
    let budget = with_margin(budget);
    select::Config {
        budget,
        time_limit_s: limits.time_limit_s,
        min_gain: guc::select_min_gain(),
        max_regression: guc::select_max_regression(),
        max_indexes_per_table: guc::guard_max_indexes_per_table(),
        hours: limits.hours,
    }
}

fn interrupted(e: select::SelectError) -> Error {
    pgrx::check_for_interrupts!();
    Error::new(Kind::Cancelled, format!("choosing indexes was interrupted: {e}"))
}

/// The pure part of the chain, fed by the planner.
fn weigh(studies: Vec<Study>, limits: &Limits) -> Result<Weighed> {
    let Prepared { mut queries, samples, catalog, mut sampler, generated, unplannable, table_bytes } = prepare(studies, limits)?;
    let budget = limits.budget.unwrap_or((table_bytes as f64 * guc::select_storage_share()) as Bytes);
    let mut oracle = whatif::Oracle::new(samples, &generated.candidates, &catalog, &mut sampler);
    oracle.rebase(&mut queries);
    let start = Instant::now();
    let selection = select::solve(
        &queries,
        &catalog,
        generated,
        &mut oracle,
        &mut solver::Interruptible,
        &mut || start.elapsed().as_secs_f64(),
        &select_config(limits, budget),
    )
    .map_err(interrupted)?;
    Ok(Weighed {
        looked_at: queries.len(),
        queries,
        catalog,
        selection,
        unplannable,
        left_out: Vec::new(),
        covered: 1.0,
        budget,
        build_rate: estimate::build_rate()?,
    })
}

/// Sizes are estimates: so much of the budget stays free that what is built keeps it.
fn with_margin(budget: Bytes) -> Bytes {
    budget - budget / 200
}

/// What a budget buys.
pub struct FrontierPoint {
    pub storage_budget: Bytes,
    pub estimated_bytes: Bytes,
    pub cost_before: f64,
    pub cost_after: f64,
    /// CREATE INDEX statements.
    pub indexes: Vec<String>,
    pub gap: f64,
    pub planner_calls: u64,
}

/// Budgets of a frontier when the caller names none: shares of the size of the tables.
const FRONTIER: [f64; 10] = [0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5];

/// The best choice for these texts for each of several budgets, ascending. Nothing is stored.
pub fn advise_frontier(
    texts: &[String],
    weights: Option<&[f64]>,
    budgets: Option<Vec<Bytes>>,
    max_columns: Option<usize>,
    time_limit_s: Option<f64>,
) -> Result<Vec<FrontierPoint>> {
    let _work = crate::pg::own::work();
    let (studies, limits) = asked(texts, weights, None, max_columns, time_limit_s)?;
    let Prepared { mut queries, samples, catalog, mut sampler, generated, table_bytes, .. } = prepare(studies, &limits)?;
    let budgets = budgets.unwrap_or_else(|| FRONTIER.iter().map(|share| (table_bytes as f64 * share) as Bytes).collect());
    let candidates = generated.candidates;
    let mut oracle = whatif::Oracle::new(samples, &candidates, &catalog, &mut sampler);
    oracle.rebase(&mut queries);
    let start = Instant::now();
    let points = select::frontier(
        &queries,
        &catalog,
        &candidates,
        &mut oracle,
        &mut solver::Interruptible,
        &mut || start.elapsed().as_secs_f64(),
        &select_config(&limits, 0),
        &budgets.iter().map(|b| with_margin(*b)).collect::<Vec<_>>(),
    )
    .map_err(interrupted)?;
    let statement = |c: &usize| {
        let def = &candidates.get(*c)?.def;
        Some(ddl::create_index(def, catalog.table(def.table)?, &|name| pgrx::spi::quote_identifier(name), true))
    };
    Ok(points
        .into_iter()
        .map(|p| FrontierPoint {
            storage_budget: budgets.iter().copied().find(|b| with_margin(*b) == p.budget).unwrap_or(p.budget),
            estimated_bytes: p.bytes,
            cost_before: p.cost_before,
            cost_after: p.cost_after,
            indexes: p.chosen.iter().filter_map(statement).collect(),
            gap: p.gap,
            planner_calls: p.planner_calls,
        })
        .collect())
}

/// Shape and cost of a template, from those of its samples that can be planned.
fn measure(study: &Study, expressions: &mut Expressions) -> Result<(indexpilot_core::model::QueryShape, Vec<Sample>)> {
    let mut shapes = Vec::new();
    let mut plannable = Vec::new();
    let mut failure = Error::internal("template has no sample");
    for sample in &study.samples {
        pgrx::check_for_interrupts!();
        match whatif::study(sample, expressions) {
            Ok(shape) => {
                shapes.push(shape);
                plannable.push(sample.clone());
            }
            Err(e) => failure = e,
        }
    }
    whatif::common(shapes, study.given, expressions).map(|shape| (shape, plannable)).ok_or(failure)
}

/// Writes into the snapshot what the genome knows of each field.
fn express(catalog: &mut Catalog) -> Result<()> {
    let expressed = store::genome::expressed()?;
    let tenants = store::profile::tenant_keys()?;
    for table in catalog.tables.values_mut() {
        for column in &mut table.columns {
            column.expressed = expressed.get(&(table.rel.0, column.attnum)).copied();
            column.tenant = tenants.get(&table.rel).is_some_and(|keys| keys.contains(&column.attnum));
        }
    }
    Ok(())
}

/// Writes into the snapshot how often updates set each column.
fn count_updates(catalog: &mut Catalog) -> Result<()> {
    for ((table, column), rate) in store::profile::updates_per_hour()? {
        if let Some(table) = catalog.tables.get_mut(&table) {
            table.writes.updated_columns.insert(column, rate);
        }
    }
    Ok(())
}

/// Queues a proposed index, or builds it at once inside the caller's transaction.
fn carry_out(drawn: &mut Drawn, request: &Request) -> Result<()> {
    if request.concurrently {
        let actor = if request.cause == WORKER { NOBODY.to_owned() } else { role::session() };
        let cause = format!("recommendation {}", drawn.recommendation.id);
        drawn.action_id = decide::enqueue(&drawn.recommendation, &cause, &actor)?.first().copied();
    } else {
        drawn.action_id = decide::build_now(&drawn.recommendation)?;
    }
    drawn.recommendation.state = "applied".into();
    Ok(())
}

/// One query, before and after.
pub struct WhatIf {
    pub cost_before: f64,
    pub cost_after: f64,
    pub indexes_used: Vec<String>,
    pub estimated_bytes: i64,
    pub plan_before: String,
    pub plan_after: String,
}

/// Plans a text as the database is and as it would be.
pub fn what_if(text: &str, create: &[String], hide: &[pg_sys::Oid]) -> Result<WhatIf> {
    let sample = Sample { text: text.into(), search_path: caller_search_path(), role: role::current(), parameters: Vec::new() };
    let _work = crate::pg::own::work();
    let mut with = Vec::with_capacity(create.len());
    let mut names = Vec::with_capacity(create.len());
    let mut bytes = 0;
    for statement in create {
        let index = whatif::Hypothetical::parse(statement)?;
        bytes += index.size.bytes;
        names.push(index.description.clone());
        with.push(index);
    }
    for index in hide {
        if !catalog::is_index(index.to_u32()) {
            return Err(Error::new(Kind::WrongObject, "hide_indexes names an object that is not an index")
                .detail(format!("It is {}.", catalog::shown(index.to_u32())?))
                .hint("Give names of indexes, such as ARRAY['orders_pkey'::regclass]."));
        }
    }
    let around = Surroundings::now();
    let identities: Vec<u64> = with.iter().map(|index| cache::identity(index)).collect();
    let before = cache::plan(&around, &sample, &[], &[], &[], true)?;
    let after = cache::plan(&around, &sample, &with, &identities, hide, true)?;
    Ok(WhatIf {
        cost_before: before.cost,
        cost_after: after.cost,
        indexes_used: after.used.iter().filter_map(|i| names.get(*i).cloned()).collect(),
        estimated_bytes: bytes as i64,
        plan_before: before.explain.unwrap_or_default(),
        plan_after: after.explain.unwrap_or_default(),
    })
}

/// What the worker does by itself at each visit of a database, in modes advise and apply: an analysis when one is due. Called
/// outside a transaction.
pub fn tick() -> Result<()> {
    if guc::mode() < guc::Mode::Advise || !guc::select() {
        return Ok(());
    }
    bgworker::transaction("indexpilot: analysing the workload", || {
        let control = store::control::get()?;
        let due = control.analysed_s_ago.is_none_or(|s| s >= guc::select_interval().as_secs_f64() || s < -SKEW_S);
        if control.disabled || !due { Ok(()) } else { analyze_by_itself() }
    })
}

fn analyze_by_itself() -> Result<()> {
    let request = Request {
        cause: WORKER,
        dry_run: guc::mode() != guc::Mode::Apply,
        tables: Vec::new(),
        tenant_id: None,
        storage_budget: None,
        concurrently: true,
    };
    let decisions = analyze(&request)?;
    let queued = decisions.iter().filter(|d| d.action_id.is_some()).count();
    pgrx::log!("indexpilot: select: {} decisions, {queued} queued", decisions.len());
    Ok(())
}

/// `search_path` of whoever calls us.
pub fn caller_search_path() -> String {
    planner::search_path()
}

impl From<Template> for Study {
    fn from(t: Template) -> Self {
        let role = pg_sys::Oid::from(t.role_id);
        let samples = t.samples.into_iter().map(|s| stored(s, role)).collect();
        Study { id: t.id, text: t.query, calls: t.calls, total_ms: t.total_ms, samples, given: false }
    }
}

/// A sample of the tables, as the planner takes it.
pub fn stored(s: StoredSample, role: pg_sys::Oid) -> Sample {
    let parameters = s
        .parameter_types
        .iter()
        .enumerate()
        .map(|(i, oid)| {
            let value = s.parameter_values.get(i).cloned().flatten();
            Parameter { type_oid: pg_sys::Oid::from(*oid), known: value.is_some(), value }
        })
        .collect();
    Sample { text: s.query, search_path: s.search_path, role, parameters }
}
