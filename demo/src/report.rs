//! The demo's findings in tables. Everything printed here was measured or said by the server in this run.

use crate::Side;
use crate::analytic::Query;
use crate::families::{Family, Role};
use crate::pilot::{Action, Decision, Mutation};
use crate::stats::{Latencies, times_lower};
use crate::table::{Table, bytes, grouped, ms};
use crate::ui::{heading, width};

fn print(table: &Table) {
    if table.is_empty() {
        println!("  (none)");
    } else {
        print!("{}", table.render(width()));
    }
}

fn maybe_bytes(value: Option<i64>) -> String {
    value.map_or_else(|| "–".to_owned(), bytes)
}

fn times(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| if v < 10.0 { format!("{v:.1}×") } else { format!("{v:.0}×") })
}

/// Seconds per hour, from milliseconds per hour.
fn per_hour(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{} s", grouped(v / 1000.0)))
}

/// What IndexPilot decided: first what it builds, then what it deliberately does not, and why.
pub fn decisions(all: &[Decision]) {
    heading("Decided: to be built");
    let mut chosen: Vec<&Decision> = all.iter().filter(|d| d.creates()).collect();
    chosen.sort_by(|a, b| b.saved_ms_per_hour.unwrap_or(0.0).total_cmp(&a.saved_ms_per_hour.unwrap_or(0.0)));
    let mut table = Table::new(&["index", ">size", ">saves/h", ">writes/h", "reason", "in words"]);
    for d in &chosen {
        table.row(vec![
            shape(&d.definition),
            maybe_bytes(d.estimated_bytes),
            per_hour(d.saved_ms_per_hour),
            per_hour(d.write_ms_per_hour),
            d.reason.clone(),
            d.detail.clone(),
        ]);
    }
    print(&table);
    let total: i64 = chosen.iter().filter_map(|d| d.estimated_bytes).sum();
    println!("  {} indexes, {} together", chosen.len(), bytes(total));

    heading("Decided: deliberately not built");
    let mut refused: Vec<&Decision> = all.iter().filter(|d| !d.creates()).collect();
    refused.sort_by_key(|d| (order(&d.reason), d.table.clone(), d.definition.clone()));
    let mut reasons: Vec<&str> = refused.iter().map(|d| d.reason.as_str()).collect();
    reasons.dedup();
    let mut table = Table::new(&["index", "reason", "in words"]);
    for reason in &reasons {
        let of_reason: Vec<_> = refused.iter().filter(|d| d.reason == *reason).collect();
        for d in of_reason.iter().take(PER_REASON) {
            table.row(vec![shape(&d.definition), d.reason.clone(), d.detail.clone()]);
        }
        if let Some(more) = of_reason.len().checked_sub(PER_REASON).filter(|&n| n > 0) {
            table.row(vec![format!("… and {more} more"), (*reason).to_owned(), String::new()]);
        }
    }
    print(&table);
}

/// Candidates shown for each reason; view indexpilot.recommendations has them all.
const PER_REASON: usize = 4;

/// What the schema and the tenants say comes before what only the planner's figures say.
fn order(reason: &str) -> (usize, String) {
    let known = ["not_expressed", "rarely_used", "table_small", "already_exists", "write_cost", "budget", "table_cap", "no_gain"];
    (known.iter().position(|k| *k == reason).unwrap_or(known.len()), reason.to_owned())
}

/// `crm.contacts (tenant_id, email)` from a whole CREATE INDEX statement; other text as it is.
fn shape(definition: &str) -> String {
    let on = definition.split_once(" ON ").map_or(definition, |(_, rest)| rest);
    on.replace(" USING btree", "")
}

pub fn families(families: &[Family], before: &Side, after: &Side) {
    heading("CRM: latency by family, in milliseconds, before | after");
    let mut table =
        Table::new(&["family", ">calls", ">p50", ">p95", ">p99", "│", ">calls", ">p50", ">p95", ">p99", "│", ">p95 lower", "note"]);
    for (i, family) in families.iter().enumerate() {
        let (b, a) = (&before.crm.latencies[i], &after.crm.latencies[i]);
        let mut cells = vec![family.name.to_owned()];
        for side in [b, a] {
            cells.push(side.calls().to_string());
            cells.extend([0.50, 0.95, 0.99].map(|q| ms(side.percentile(q))));
            cells.push("│".to_owned());
        }
        cells.push(times(times_lower(b.percentile(0.95), a.percentile(0.95))));
        cells.push(
            match family.role {
                Role::Heavy => "heavily used",
                Role::Read => "",
                Role::Write => "write",
                Role::Unindexed(..) => "must not be indexed",
            }
            .to_owned(),
        );
        table.row(cells);
    }
    print(&table);
    println!("  {:.0} calls per second before, {:.0} after", before.crm.calls_per_second(), after.crm.calls_per_second());
}

pub fn analytic(queries: &[Query], before: &Side, after: &Side) {
    heading("Analytic queries: planner cost and time (ms, mean), before | after");
    let mut table = Table::new(&["query", ">cost", ">cost", ">of it", "│", ">ms", ">ms", ">faster", "note"]);
    let mean = |side: &Side, i: usize| {
        let l = &side.analytic[i].latencies;
        (l.calls() > 0).then(|| l.total_ms() / l.calls() as f64)
    };
    for (i, query) in queries.iter().enumerate() {
        let cancelled = [before, after].map(|side| side.analytic[i].cancelled);
        table.row(vec![
            query.name.clone(),
            grouped(before.costs[i]),
            grouped(after.costs[i]),
            format!("{:.1} %", 100.0 * after.costs[i] / before.costs[i]),
            "│".to_owned(),
            ms(mean(before, i)),
            ms(mean(after, i)),
            times(times_lower(mean(before, i), mean(after, i))),
            if cancelled == [0, 0] { String::new() } else { format!("cancelled {} before, {} after", cancelled[0], cancelled[1]) },
        ]);
    }
    print(&table);
    let (b, a) = (before.total_cost(), after.total_cost());
    println!(
        "  total cost {} before, {} after: {:.1} % of it, {:.1} % lower",
        grouped(b),
        grouped(a),
        100.0 * a / b,
        100.0 * (1.0 - a / b)
    );
    // A sum can be the story of one query; the median is not.
    let ratios = Latencies::new(before.costs.iter().zip(&after.costs).map(|(b, a)| a / b).collect());
    println!("  the median query's cost is {:.1} % of what it was", 100.0 * ratios.percentile(0.5).unwrap_or(1.0));
}

pub fn sizes(actions: &[Action]) {
    heading("Sizes: as estimated before, as built");
    let mut table = Table::new(&["index", "state", ">estimated", ">built", ">built/estimated", "trouble"]);
    for action in actions.iter().filter(|a| a.kind == "create") {
        let ratio = action.estimated_bytes.zip(action.built_bytes).filter(|(e, _)| *e > 0);
        table.row(vec![
            action.index.clone(),
            action.state.clone(),
            maybe_bytes(action.estimated_bytes),
            maybe_bytes(action.built_bytes),
            ratio.map_or_else(|| "–".to_owned(), |(e, b)| format!("{:.2}", b as f64 / e as f64)),
            action.trouble.clone().unwrap_or_default(),
        ]);
    }
    print(&table);
}

pub fn verdicts(all: &[(String, String, String)]) {
    heading("Verdicts: what was measured on each index");
    let mut table = Table::new(&["index", "verdict", "reason"]);
    for (index, verdict, reason) in all {
        table.row(vec![index.clone(), verdict.clone(), reason.clone()]);
    }
    print(&table);
}

pub fn log(title: &str, mutations: &[Mutation]) {
    heading(title);
    let mut table = Table::new(&[">id", "at", "mutation", "index", "actor", "cause"]);
    for m in mutations {
        table.row(vec![
            m.id.to_string(),
            m.at.clone(),
            m.what.clone(),
            m.index.clone().unwrap_or_default(),
            m.actor.clone(),
            m.cause.clone(),
        ]);
    }
    print(&table);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_shortened() {
        assert_eq!(
            shape("CREATE INDEX CONCURRENTLY x ON crm.contacts USING btree (tenant_id, email)"),
            "crm.contacts (tenant_id, email)"
        );
        assert_eq!(shape("crm.contacts (email)"), "crm.contacts (email)");
    }

    #[test]
    fn figures() {
        assert_eq!(times(Some(5.25)), "5.2×");
        assert_eq!(times(Some(123.4)), "123×");
        assert_eq!(per_hour(Some(41_000.0)), "41 s");
    }
}
