//! From a selection to decisions: rows with reasons in words, for tables and for the caller.

use super::advisor::Weighed;
use super::estimate;
use crate::store::analysis::{Recommendation, Run};
use indexpilot_core::candidate::Candidate;
use indexpilot_core::model::{AttNum, Bytes, IndexDef, Query, QueryIdx, Reason, TableInfo};
use indexpilot_core::{ddl, select};
use serde_json::json;

/// A decision before it is stored.
pub struct Drawn {
    pub recommendation: Recommendation,
    pub action_id: Option<i64>,
    /// Numbers of the queries it is about.
    pub query_ids: Vec<i64>,
    /// First key column of the index.
    pub first: Option<AttNum>,
}

/// A decision as the caller of the main job sees it.
pub struct Decision {
    pub recommendation_id: Option<i64>,
    pub action_id: Option<i64>,
    pub table_name: String,
    pub index_name: Option<String>,
    pub definition: String,
    /// `create`, `propose`, `hold` (a guard forbids it) or `not_recommended`.
    pub decision: String,
    pub reason: String,
    pub reason_detail: String,
    pub estimated_bytes: i64,
    pub cost_before: Option<f64>,
    pub cost_after: Option<f64>,
    pub saved_ms_per_hour: Option<f64>,
    pub write_ms_per_hour: Option<f64>,
    pub query_ids: Vec<i64>,
}

impl From<Drawn> for Decision {
    fn from(d: Drawn) -> Self {
        let r = d.recommendation;
        let decision = match r.state.as_str() {
            "applied" => "create",
            "proposed" => "propose",
            "rejected" => "hold",
            other => other,
        };
        Decision {
            recommendation_id: (r.id > 0).then_some(r.id),
            action_id: d.action_id,
            table_name: format!("{}.{}", pgrx::spi::quote_identifier(&r.table_schema), pgrx::spi::quote_identifier(&r.table_name)),
            index_name: r.index_name,
            definition: r.definition,
            decision: decision.into(),
            reason: r.reason,
            reason_detail: r.reason_detail,
            estimated_bytes: r.estimated_bytes,
            cost_before: r.cost_before,
            cost_after: r.cost_after,
            saved_ms_per_hour: r.saved_ms_per_hour,
            write_ms_per_hour: r.write_ms_per_hour,
            query_ids: d.query_ids,
        }
    }
}

/// Every decision of a selection: chosen indexes in the order of their gain, then what was not chosen.
pub fn draw(weighed: &Weighed) -> Vec<Drawn> {
    // What a choice saves is in one unit for all; figures in milliseconds are there for those only whose queries were measured.
    let mut gains: Vec<(f64, Drawn)> =
        weighed.selection.chosen.iter().filter_map(|choice| Some((choice.saved, chosen(weighed, choice)?))).collect();
    gains.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.recommendation.index_name.cmp(&y.recommendation.index_name)));
    let mut drawn: Vec<Drawn> = gains.into_iter().map(|(_, d)| d).collect();
    drawn.extend(weighed.selection.rejected.iter().filter_map(|r| base(weighed, &r.def, r.reason, r.detail.clone(), &r.queries)));
    drawn
}

fn chosen(weighed: &Weighed, choice: &select::Choice) -> Option<Drawn> {
    let candidate = weighed.selection.candidates.get(choice.candidate)?;
    let mut drawn = base(weighed, &candidate.def, Reason::Gain, String::new(), &choice.queries)?;
    let measured = choice.queries.iter().filter_map(|q| weighed.queries.get(*q)).all(|q| q.ms_per_cost().is_some());
    let (before, after) = costs(weighed, &choice.queries);
    let r = &mut drawn.recommendation;
    r.state = "proposed".into();
    r.estimated_bytes = candidate.size.bytes as i64;
    r.estimated_build_ms = weighed
        .catalog
        .table(candidate.def.table)
        .map(|table| estimate::build_ms(&candidate.def, &candidate.size, table, weighed.build_rate));
    r.cost_before = Some(before);
    r.cost_after = Some(after);
    if measured {
        r.saved_ms_per_hour = Some(choice.saved);
        r.write_ms_per_hour = Some(choice.write_cost);
    }
    let writes = weighed.catalog.table(candidate.def.table).map(|table| writes(candidate, table));
    r.details = json!({
        "writes": writes,
        "queries": choice.queries.iter().filter_map(|q| detail(weighed, *q)).collect::<Vec<_>>(),
        "planner_calls": weighed.selection.planner_calls,
        "method": method(&weighed.selection),
        "gap": weighed.selection.gap,
        "storage_budget_bytes": weighed.budget,
    });
    r.reason_detail = in_words(r, choice.queries.len());
    Some(drawn)
}

/// What maintaining the index is made of, per hour and in units of planner cost; and what of it comes from updates that can no longer
/// be heap-only, as they are where no index holds what they set.
fn writes(candidate: &Candidate, table: &TableInfo) -> serde_json::Value {
    let cost = select::write_cost(&candidate.def, &candidate.size, table);
    let mut kept = table.clone();
    kept.writes.updated_columns.clear();
    let without_loss = select::write_cost(&candidate.def, &candidate.size, &kept);
    let w = &table.writes;
    let set: f64 = candidate.def.columns().filter_map(|c| w.updated_columns.get(&c)).sum();
    json!({
        "inserts_per_hour": w.inserts,
        "updates_per_hour": w.updates,
        "heap_only_updates_per_hour": w.hot_updates,
        "updates_of_its_columns_per_hour": set,
        "cost_per_hour": cost,
        "lost_heap_only_cost_per_hour": (cost - without_loss).max(0.0),
    })
}

/// "saves 41.2 s per hour in 3 queries (cost 12345 to 678), adds 0.6 s per hour to writes, 312 MB, built in about 50 s"
fn in_words(r: &Recommendation, queries: usize) -> String {
    let plural = if queries == 1 { "query" } else { "queries" };
    let cost = format!("planner cost {:.0} to {:.0}", r.cost_before.unwrap_or(0.0), r.cost_after.unwrap_or(0.0));
    let gain = match r.saved_ms_per_hour {
        Some(ms) => format!("saves about {} per hour in {queries} {plural} ({cost})", duration(ms)),
        None => format!("makes {queries} {plural} cheaper ({cost})"),
    };
    let writes = match r.write_ms_per_hour {
        Some(ms) if ms >= 0.5 => format!(", adds about {} per hour to writes", duration(ms)),
        _ => String::new(),
    };
    let build = r.estimated_build_ms.map_or_else(String::new, |ms| format!(", built in about {}", duration(ms)));
    format!("{gain}{writes}, {}{build}", bytes(r.estimated_bytes.max(0) as Bytes))
}

fn base(weighed: &Weighed, def: &IndexDef, reason: Reason, in_words: String, queries: &[QueryIdx]) -> Option<Drawn> {
    let table = weighed.catalog.table(def.table)?;
    // That the server's own tables get no index goes without saying.
    if matches!(table.schema.as_str(), "pg_catalog" | "information_schema" | "pg_toast" | "indexpilot") {
        return None;
    }
    let query_ids: Vec<i64> = queries.iter().filter_map(|q| weighed.queries.get(*q)).map(|q| q.id).filter(|id| *id > 0).collect();
    let recommendation = Recommendation {
        id: 0,
        analysis_id: 0,
        state: "not_recommended".into(),
        reason: reason.code().into(),
        reason_detail: in_words,
        table_id: def.table.0,
        table_schema: table.schema.clone(),
        table_name: table.name.clone(),
        index_name: Some(ddl::index_name(def, table)),
        columns: def.keys.iter().map(|k| table.column_name(k.column)).collect(),
        definition: ddl::create_index(def, table, &|name| pgrx::spi::quote_identifier(name), true),
        index_def: json!(def),
        estimated_bytes: indexpilot_core::size::of(def, table).bytes as i64,
        estimated_build_ms: None,
        cost_before: None,
        cost_after: None,
        saved_ms_per_hour: None,
        write_ms_per_hour: None,
        workload_ids: query_ids.clone(),
        details: json!({ "queries": queries.iter().filter_map(|q| detail(weighed, *q)).collect::<Vec<_>>() }),
        guard: json!([]),
        decided_by: None,
    };
    Some(Drawn { recommendation, action_id: None, query_ids, first: def.keys.first().map(|k| k.column) })
}

/// Cost before and after of some queries, each times its calls.
fn costs(weighed: &Weighed, queries: &[QueryIdx]) -> (f64, f64) {
    let mut sum = (0.0, 0.0);
    for q in queries {
        if let (Some(query), Some((before, after))) = (weighed.queries.get(*q), weighed.selection.costs.get(*q)) {
            sum.0 += query.calls * before;
            sum.1 += query.calls * after;
        }
    }
    sum
}

fn detail(weighed: &Weighed, q: QueryIdx) -> Option<serde_json::Value> {
    let query: &Query = weighed.queries.get(q)?;
    let (before, after) = weighed.selection.costs.get(q)?;
    let mut shown = json!({ "query": query.id, "calls": query.calls, "total_ms": query.total_ms, "cost_before": before, "cost_after": after,
        "ms_per_cost": query.ms_per_cost() });
    // No template has this number, so its name is here.
    if query.id < 0 {
        shown["text"] = json!(query.text);
    }
    Some(shown)
}

/// The figures of the run, for the table analyses.
pub fn figures(weighed: &Weighed) -> Run {
    let s = &weighed.selection;
    Run {
        queries: weighed.queries.len(),
        unplannable: weighed.unplannable.len(),
        candidates: s.candidates.len(),
        planner_calls: s.planner_calls,
        method: method(s),
        storage_budget_bytes: weighed.budget,
        cost_before: s.objective_before,
        cost_after: s.objective_after,
        gap: s.gap,
    }
}

fn method(selection: &select::Selection) -> &'static str {
    match selection.method {
        select::Method::Milp => "milp",
        select::Method::Greedy => "greedy",
    }
}

/// A duration for people.
pub fn duration(ms: f64) -> String {
    match ms {
        ms if ms >= 60_000.0 => format!("{:.1} min", ms / 60_000.0),
        ms if ms >= 1000.0 => format!("{:.1} s", ms / 1000.0),
        ms if ms >= 1.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.3} ms"),
    }
}

/// A size for people.
pub fn bytes(b: Bytes) -> String {
    match b {
        b if b >= 1 << 30 => format!("{:.1} GB", b as f64 / f64::from(1 << 30)),
        b if b >= 1 << 20 => format!("{:.1} MB", b as f64 / f64::from(1 << 20)),
        b => format!("{} kB", b.div_ceil(1024)),
    }
}
