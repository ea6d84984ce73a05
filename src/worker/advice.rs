//! The answers for queries and for fields: which index is proposed, or why none is.

use super::advisor::{self, Weighed};
use super::decision::{self, Drawn};
use super::{decide, estimate};
use crate::pg::error::Result;
use crate::store::advice::Advice;
use indexpilot_core::model::{AttNum, Query, RelId};
use indexpilot_core::profile::{failure_class, failure_text};
use indexpilot_core::why::{self, Why};

/// The answer for every template of a run. `drawn` are its decisions, reviewed and numbered. A run on some tables only says nothing of
/// templates on others.
pub fn of_queries(weighed: &Weighed, drawn: &[Drawn], some_tables: bool) -> Vec<Advice> {
    let refused = &weighed.selection.unplannable;
    let planned = (0..weighed.queries.len()).filter(|q| refused.iter().all(|(r, _)| r != q)).filter_map(|q| {
        // Checks of foreign keys are no templates.
        let query = weighed.queries.get(q).filter(|query| query.id > 0)?;
        let mut verdict = why::of_query(q, &weighed.queries, &weighed.catalog, &weighed.selection);
        if some_tables && verdict.why == Why::Refused {
            return None;
        }
        let cited: Vec<&Drawn> =
            drawn.iter().filter(|d| d.recommendation.state != "not_recommended" && d.query_ids.contains(&query.id)).collect();
        // What only a guard forbids is no proposal.
        let open: Vec<i64> = cited
            .iter()
            .filter(|d| d.recommendation.state != "rejected")
            .map(|d| d.recommendation.id)
            .filter(|id| *id > 0)
            .collect();
        if verdict.why == Why::Gain && !cited.is_empty() && cited.iter().all(|d| d.recommendation.state == "rejected") {
            verdict.why = Why::Guard;
            verdict.detail = cited
                .iter()
                .map(|d| format!("{}: {}", d.recommendation.reason, d.recommendation.reason_detail))
                .collect::<Vec<_>>()
                .join("; ");
        }
        let (before, after) = weighed.selection.costs.get(q).copied().unwrap_or((query.shape.base_cost, query.shape.base_cost));
        Some(Advice {
            workload_id: query.id,
            reason: verdict.why.code().into(),
            reason_detail: verdict.detail,
            cost_before: Some(before),
            cost_after: Some(after),
            ms_per_cost: query.ms_per_cost(),
            recommendation_ids: open,
        })
    });
    let without_figures = |workload_id: i64, reason: String, reason_detail: String| Advice {
        workload_id,
        reason,
        reason_detail,
        cost_before: None,
        cost_after: None,
        ms_per_cost: None,
        recommendation_ids: Vec::new(),
    };
    let later = refused.iter().filter_map(|(q, e)| Some((weighed.queries.get(*q)?.id, failure_text(&e.sqlstate, &e.message))));
    let failed = weighed.unplannable.iter().cloned().chain(later).filter(|(id, _)| *id > 0).map(|(id, failure)| {
        let class = failure_class(failure.get(..5).unwrap_or_default());
        without_figures(id, format!("unplannable:{class}"), format!("It could not be planned: {failure}."))
    });
    let light = weighed.left_out.iter().map(|id| {
        let said = why::not_looked_at(weighed.looked_at, weighed.covered);
        without_figures(*id, said.why.code().into(), said.detail)
    });
    planned.chain(failed).chain(light).collect()
}

/// The answer for a field.
pub struct FieldAdvice {
    pub decision: String,
    pub reason: String,
    pub reason_detail: String,
    pub definition: Option<String>,
    pub estimated_bytes: Option<i64>,
    pub estimated_build_ms: Option<f64>,
    pub cost_before: Option<f64>,
    pub cost_after: Option<f64>,
    pub saved_ms_per_hour: Option<f64>,
    pub write_ms_per_hour: Option<f64>,
    pub templates: i64,
    pub calls: i64,
}

/// Whether the captured workload of a table wants an index that begins with the field.
///
/// # Errors
/// Those of names that are not there, and of an analysis.
pub fn of_field(table: RelId, field: &str) -> Result<FieldAdvice> {
    let _work = crate::pg::own::work();
    let attnum = estimate::field_number(table, field)?;
    let weighed = advisor::consider(table)?;
    let users: Vec<&Query> = weighed.queries.iter().filter(|q| searches(q, table, attnum)).collect();
    let (templates, calls) = (users.len() as i64, users.iter().map(|q| q.calls).sum::<f64>() as i64);
    let mut drawn = decision::draw(&weighed);
    decide::guard(&mut drawn)?;
    let first = |d: &&Drawn| d.recommendation.table_id == table.0 && d.first == Some(attnum);
    let of = |decision: &str, d: &Drawn| {
        let r = d.recommendation.clone();
        FieldAdvice {
            decision: decision.into(),
            reason: r.reason,
            reason_detail: r.reason_detail,
            definition: Some(r.definition),
            estimated_bytes: Some(r.estimated_bytes),
            estimated_build_ms: r.estimated_build_ms,
            cost_before: r.cost_before,
            cost_after: r.cost_after,
            saved_ms_per_hour: r.saved_ms_per_hour,
            write_ms_per_hour: r.write_ms_per_hour,
            templates,
            calls,
        }
    };
    for (state, decision) in [("proposed", "create"), ("rejected", "hold")] {
        if let Some(d) = drawn.iter().filter(first).find(|d| d.recommendation.state == state) {
            return Ok(of(decision, d));
        }
    }
    if let Some(d) = drawn.iter().find(first) {
        return Ok(of(if d.recommendation.reason == "already_exists" { "exists" } else { "not_recommended" }, d));
    }
    let none = |reason: &str, reason_detail: String| FieldAdvice {
        decision: "not_recommended".into(),
        reason: reason.into(),
        reason_detail,
        definition: None,
        estimated_bytes: None,
        estimated_build_ms: None,
        cost_before: None,
        cost_after: None,
        saved_ms_per_hour: None,
        write_ms_per_hour: None,
        templates,
        calls,
    };
    if users.is_empty() {
        let detail = match weighed.queries.len() {
            0 => "No captured query that could be planned uses the table.".into(),
            n => format!("None of the {n} captured queries on the table searches, joins, sorts or groups by the field."),
        };
        return Ok(none("not_used", detail));
    }
    // It is part of a chosen index, behind other columns.
    if let Some(d) =
        drawn.iter().find(|d| d.recommendation.state == "proposed" && d.recommendation.columns.iter().any(|c| c == field))
    {
        let detail =
            format!("An index in which it stands behind other columns serves its queries better: {}.", d.recommendation.definition);
        return Ok(none("covered_by_chosen", detail));
    }
    let heaviest = users.iter().max_by(|a, b| (a.calls * a.shape.base_cost).total_cmp(&(b.calls * b.shape.base_cost)));
    let position = heaviest.and_then(|h| weighed.queries.iter().position(|q| q.id == h.id));
    let said = position.map(|q| why::of_query_on(q, table, &weighed.queries, &weighed.catalog, &weighed.selection));
    Ok(said.map_or_else(|| none("not_used", String::new()), |v| none(v.why.code(), format!("Of its heaviest query: {}", v.detail))))
}

/// The query has a condition on the field, joins, sorts or groups by it.
fn searches(query: &Query, table: RelId, column: AttNum) -> bool {
    query.shape.relations.iter().filter(|r| r.rel == table).any(|r| {
        r.predicates.iter().any(|p| p.column == column) || r.order.iter().any(|k| k.column == column) || r.group.contains(&column)
    })
}
