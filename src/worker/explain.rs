//! A decision in words, as markdown: what it is about, what it brings and costs, plans before and after, what else was weighed.

use super::decision::{bytes, duration};
use super::{advisor, exchange};
use crate::pg::error::{Error, Kind, Result};
use crate::pg::indexes;
use crate::store::analysis::{self, Alternative, Recommendation};
use crate::store::workload::newest_samples;
use crate::whatif::{self, Hypothetical};
use indexpilot_core::model::RelId;
use pgrx::pg_sys;
use serde_json::Value;
use std::fmt::Write;

/// Queries whose plans are shown: those that gain most.
const PLANS: usize = 3;
/// Other decisions on the table that are shown.
const ALTERNATIVES: usize = 20;

/// A query before and after.
struct Plans {
    query: i64,
    before: String,
    after: String,
}

/// Explains a decision.
///
/// # Errors
/// `UndefinedObject` when there is none of that number; of the queries on IndexPilot's own tables.
pub fn decision(id: i64) -> Result<String> {
    let _work = crate::pg::own::work();
    let Some(r) = analysis::read(id)? else { return Err(unknown(id)) };
    let texts = analysis::query_texts(&r.workload_ids)?;
    let alternatives = analysis::alternatives(&r, ALTERNATIVES)?;
    let plans = if r.state == "not_recommended" { Vec::new() } else { plans(&r)? };
    Ok(markdown(&r, &texts, &plans, &alternatives))
}

/// The error for a number that no decision has.
pub fn unknown(id: i64) -> Error {
    Error::new(Kind::UndefinedObject, format!("decision {id} does not exist"))
        .hint("SELECT id, state, reason, definition FROM indexpilot.recommendations ORDER BY id DESC.")
}

/// Plans of the queries that gain most, of those that the caller may see: without the index and with it, hypothetical or built. What
/// cannot be planned any more has none.
fn plans(r: &Recommendation) -> Result<Vec<Plans>> {
    let built = analysis::built_indexes(r.id)?;
    let mut cited = queries(r);
    cited.sort_by(|a, b| saved(b).total_cmp(&saved(a)));
    let ids: Vec<i64> =
        cited.iter().filter_map(|q| q.get("query").and_then(Value::as_i64)).filter(|id| *id > 0).take(PLANS).collect();
    let samples = newest_samples(&ids)?;
    let mut plans = Vec::new();
    for id in ids {
        let Some(newest) = samples.iter().find(|s| s.workload_id == id) else { continue };
        let role = pg_sys::Oid::from(newest.role_id);
        // The constants of a plan are those of the statement.
        if !exchange::may_see(role, &newest.tenant_id) {
            continue;
        }
        let sample = advisor::stored(newest.sample.clone(), role);
        let both = match &built[..] {
            [_, ..] => {
                let mut hidden = Vec::new();
                for index in &built {
                    hidden.extend(indexes::index_with_partitions(*index)?);
                }
                whatif::plan(&sample, &[], &hidden, true).and_then(|before| Ok((before, whatif::plan(&sample, &[], &[], true)?)))
            }
            [] => Hypothetical::decided(&r.definition, RelId(r.table_id)).and_then(|index| {
                let before = whatif::plan(&sample, &[], &[], true)?;
                Ok((before, whatif::plan(&sample, &[index], &[], true)?))
            }),
        };
        if let Ok((before, after)) = both {
            plans.push(Plans { query: id, before: before.explain.unwrap_or_default(), after: after.explain.unwrap_or_default() });
        }
    }
    Ok(plans)
}

fn queries(r: &Recommendation) -> Vec<Value> {
    r.details.get("queries").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn figure(from: &Value, key: &str) -> f64 {
    from.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

/// What a query saves in all, in milliseconds where they were measured.
fn saved(q: &Value) -> f64 {
    let per_cost = q.get("ms_per_cost").and_then(Value::as_f64).unwrap_or(1.0);
    figure(q, "calls") * per_cost * (figure(q, "cost_before") - figure(q, "cost_after"))
}

fn markdown(r: &Recommendation, texts: &[(i64, String)], plans: &[Plans], alternatives: &[Alternative]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = (|| -> std::fmt::Result {
        writeln!(out, "# Decision {}: {}\n", r.id, r.reason)?;
        writeln!(out, "```sql\n{}\n```\n", r.definition)?;
        writeln!(out, "State: {}. {}\n", r.state, r.reason_detail)?;
        if r.state != "not_recommended" {
            summary(&mut out, r)?;
            writes(&mut out, r)?;
        }
        query_table(&mut out, r, texts)?;
        plan_texts(&mut out, plans)?;
        others(&mut out, alternatives)?;
        findings(&mut out, &r.guard)
    })();
    out
}

fn summary(out: &mut String, r: &Recommendation) -> std::fmt::Result {
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| table | {}.{} |", r.table_schema, r.table_name)?;
    writeln!(out, "| estimated size | {} |", bytes(r.estimated_bytes.max(0) as u64))?;
    if let Some(ms) = r.estimated_build_ms {
        writeln!(out, "| estimated build | {} |", duration(ms))?;
    }
    if let (Some(before), Some(after)) = (r.cost_before, r.cost_after) {
        writeln!(out, "| planner cost of its queries, times their calls | {before:.0} to {after:.0} |")?;
    }
    if let Some(ms) = r.saved_ms_per_hour {
        writeln!(out, "| saves per hour | {} |", duration(ms))?;
    }
    if let Some(ms) = r.write_ms_per_hour {
        writeln!(out, "| adds to writes per hour | {} |", duration(ms))?;
    }
    if let Some(budget) = r.details.get("storage_budget_bytes").and_then(Value::as_u64) {
        writeln!(out, "| storage budget of all chosen indexes | {} |", bytes(budget))?;
    }
    if let Some(method) = r.details.get("method").and_then(Value::as_str) {
        writeln!(out, "| chosen by | {} |", if method == "milp" { "integer program" } else { "greedy search" })?;
    }
    if let Some(gap) = r.details.get("gap").and_then(Value::as_f64) {
        writeln!(out, "| proven distance to the optimum | {:.2} % |", gap * 100.0)?;
    }
    if let Some(calls) = r.details.get("planner_calls").and_then(Value::as_u64) {
        writeln!(out, "| planner calls of the analysis | {calls} |")?;
    }
    writeln!(out)
}

/// What it costs in writes, and how much of that is lost heap-only updates.
fn writes(out: &mut String, r: &Recommendation) -> std::fmt::Result {
    let Some(w) = r.details.get("writes").filter(|w| w.is_object()) else { return Ok(()) };
    let (cost, lost) = (figure(w, "cost_per_hour"), figure(w, "lost_heap_only_cost_per_hour"));
    let (updates, heap_only) = (figure(w, "updates_per_hour"), figure(w, "heap_only_updates_per_hour"));
    writeln!(out, "## What writes pay\n\n| per hour | |\n|---|---|")?;
    writeln!(out, "| inserts into the table | {:.0} |", figure(w, "inserts_per_hour"))?;
    writeln!(out, "| updates, of which heap-only | {updates:.0}, {heap_only:.0} |")?;
    writeln!(out, "| updates that set its columns | {:.0} |", figure(w, "updates_of_its_columns_per_hour"))?;
    writeln!(out, "| planner cost of maintaining it | {cost:.1} |")?;
    let share = if cost > 0.0 { lost / cost } else { 0.0 };
    let in_ms = r.write_ms_per_hour.map_or_else(String::new, |ms| format!(", {}", duration(ms * share)));
    writeln!(out, "| of that: updates that can no longer be heap-only | {lost:.1}{in_ms} |\n")
}

fn query_table(out: &mut String, r: &Recommendation, texts: &[(i64, String)]) -> std::fmt::Result {
    let queries = queries(r);
    if queries.is_empty() {
        return Ok(());
    }
    writeln!(out, "## Queries\n")?;
    writeln!(
        out,
        "| query | calls | measured ms | cost before | cost after | ms before | ms after |\n|---|---|---|---|---|---|---|"
    )?;
    for q in &queries {
        let (calls, before, after) = (figure(q, "calls"), figure(q, "cost_before"), figure(q, "cost_after"));
        let number = |n: f64| if n >= 10.0 { format!("{n:.1}") } else { format!("{n:.3}") };
        let per_cost = q.get("ms_per_cost").and_then(Value::as_f64);
        let measured =
            if calls > 0.0 && figure(q, "total_ms") > 0.0 { number(figure(q, "total_ms") / calls) } else { "–".into() };
        let ms = |cost: f64| per_cost.map_or_else(|| "–".into(), |p| number(p * cost));
        let id = q.get("query").and_then(Value::as_i64).unwrap_or(0);
        let name = q.get("text").and_then(Value::as_str).map_or_else(|| id.to_string(), cell);
        writeln!(out, "| {name} | {calls:.0} | {measured} | {before:.2} | {after:.2} | {} | {} |", ms(before), ms(after))?;
    }
    writeln!(out, "\nCosts and times are those of one execution; \"after\" is with all indexes that were chosen together.\n")?;
    for (id, text) in texts {
        writeln!(out, "Query {id}:\n\n```sql\n{text}\n```\n")?;
    }
    Ok(())
}

fn plan_texts(out: &mut String, plans: &[Plans]) -> std::fmt::Result {
    if plans.is_empty() {
        return Ok(());
    }
    writeln!(out, "## Plans\n\nAs the planner sees them now, without this index and with it.\n")?;
    for p in plans {
        writeln!(out, "Query {} before:\n\n```\n{}\n```\n\nafter:\n\n```\n{}\n```\n", p.query, p.before, p.after)?;
    }
    Ok(())
}

fn others(out: &mut String, alternatives: &[Alternative]) -> std::fmt::Result {
    if alternatives.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "## What else was weighed on the table\n\n| decision | index | state | reason | detail |\n|---|---|---|---|---|"
    )?;
    for a in alternatives {
        // What stands before ON is the same for all but for the name.
        let index = a.definition.split_once(" ON ").map_or(a.definition.as_str(), |(_, rest)| rest);
        writeln!(out, "| {} | {} | {} | {} | {} |", a.id, cell(index), a.state, a.reason, cell(&a.reason_detail))?;
    }
    writeln!(out)
}

/// A text within a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn findings(out: &mut String, guard: &Value) -> std::fmt::Result {
    let Some(findings) = guard.as_array().filter(|f| !f.is_empty()) else { return Ok(()) };
    writeln!(out, "## Guard\n\n| rule | verdict | detail |\n|---|---|---|")?;
    let text = |f: &Value, key: &str| cell(f.get(key).and_then(Value::as_str).unwrap_or(""));
    for f in findings {
        writeln!(out, "| {} | {} | {} |", text(f, "rule"), text(f, "verdict"), text(f, "detail"))?;
    }
    Ok(())
}
