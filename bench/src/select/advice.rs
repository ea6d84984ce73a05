//! What IndexPilot advises, and what asking it takes.

use super::data::Session;
use super::query::Query;
use indexpilot_tests::Result;
use std::time::{Duration, Instant};

/// A set of indexes under a budget, and how it was found.
#[derive(Clone, Debug, Default)]
pub struct Advice {
    /// Statements, with the sizes that were foreseen.
    pub indexes: Vec<(String, i64)>,
    pub cpu_s: f64,
    pub wall_s: f64,
    pub planner_calls: u64,
    /// How far it may be from the best, as far as that is known.
    pub gap: Option<f64>,
}

impl Advice {
    pub fn statements(&self) -> Vec<String> {
        self.indexes.iter().map(|(statement, _)| statement.clone()).collect()
    }

    pub fn bytes(&self) -> i64 {
        self.indexes.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Asks `advise()`; settings are the defaults unless others are given.
///
/// # Errors
/// When the server refuses.
pub fn ask(session: &mut Session, queries: &[Query], budget: i64, columns: Option<i32>, limit: Option<Duration>) -> Result<Advice> {
    let texts: Vec<&str> = queries.iter().map(|q| q.sql.as_str()).collect();
    let seconds = limit.map(|l| l.as_secs_f64());
    session.notices();
    session.client.batch_execute("SET client_min_messages = debug1")?;
    let (start, cpu) = (Instant::now(), session.cpu()?);
    let rows = session.client.query(
        "SELECT definition, estimated_bytes FROM indexpilot.advise($1, storage_budget => $2, max_columns => $3, \
            time_limit => make_interval(secs => $4)) WHERE decision = 'propose'",
        &[&texts, &budget, &columns, &seconds],
    )?;
    let (wall_s, cpu_s) = (start.elapsed().as_secs_f64(), session.cpu()? - cpu);
    session.client.batch_execute("RESET client_min_messages")?;
    let said = session.notices();
    let told = said.iter().find_map(|n| n.strip_prefix("indexpilot: select: ")).ok_or("advise() does not say how it chose")?;
    let number = |name: &str| -> Result<f64> {
        let part = told.split(", ").find(|part| part.contains(name)).ok_or_else(|| format!("no {name} in: {told}"))?;
        Ok(part.replace(name, "").trim().parse()?)
    };
    Ok(Advice {
        indexes: rows.iter().map(|r| (r.get(0), r.get(1))).collect(),
        cpu_s,
        wall_s,
        planner_calls: number("planner calls")? as u64,
        gap: Some(number("gap")?),
    })
}

/// The sets that `advise_frontier()` finds for the budgets in one go; what it took is told with the last.
///
/// # Errors
/// When the server refuses.
pub fn frontier(
    session: &mut Session,
    queries: &[Query],
    budgets: &[i64],
    columns: Option<i32>,
    limit: Option<Duration>,
) -> Result<Vec<(i64, Advice)>> {
    let texts: Vec<&str> = queries.iter().map(|q| q.sql.as_str()).collect();
    let seconds = limit.map(|l| l.as_secs_f64());
    let (start, cpu) = (Instant::now(), session.cpu()?);
    let rows = session.client.query(
        "SELECT storage_budget, indexes, gap, planner_calls FROM indexpilot.advise_frontier($1, budgets => $2, max_columns => $3, \
            time_limit => make_interval(secs => $4)) ORDER BY storage_budget",
        &[&texts, &budgets, &columns, &seconds],
    )?;
    let (wall_s, cpu_s) = (start.elapsed().as_secs_f64(), session.cpu()? - cpu);
    let mut points: Vec<(i64, Advice)> = rows
        .iter()
        .map(|r| {
            let indexes = r.get::<_, Vec<String>>(1).into_iter().map(|statement| (statement, 0)).collect();
            let advice = Advice { indexes, gap: Some(r.get(2)), planner_calls: r.get::<_, i64>(3) as u64, ..Advice::default() };
            (r.get(0), advice)
        })
        .collect();
    if let Some((_, last)) = points.last_mut() {
        (last.cpu_s, last.wall_s) = (cpu_s, wall_s);
    }
    Ok(points)
}

/// Planner cost of each query as the indexes would make it, by `what_if()`.
///
/// # Errors
/// When the server refuses.
pub fn what_if(session: &mut Session, queries: &[Query], statements: &[String]) -> Result<Vec<f64>> {
    let mut costs = Vec::new();
    for query in queries {
        let row = session.client.query_one("SELECT cost_after FROM indexpilot.what_if($1, $2)", &[&query.sql, &statements])?;
        costs.push(row.get(0));
    }
    Ok(costs)
}
