//! The analytic workload: some twenty questions about the TPC-H data, each a file in `queries/`, or a directory of others.
//!
//! A query that takes longer than the timeout is cancelled and counted as cancelled, and after two such times it is not tried again
//! in that run; its planner cost counts all the same.

use crate::failure::{Failure, Result};
use crate::stats::Latencies;
use crate::ui::Bar;
use postgres::error::SqlState;
use postgres::{Client, Config, NoTls, SimpleQueryMessage};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The built-in queries; a test compares the list with the directory.
const BUILT_IN: [(&str, &str); 24] = [
    ("01_revenue_by_ship_mode", include_str!("../queries/01_revenue_by_ship_mode.sql")),
    ("02_largest_orders", include_str!("../queries/02_largest_orders.sql")),
    ("03_wealthy_builders", include_str!("../queries/03_wealthy_builders.sql")),
    ("04_late_deliveries", include_str!("../queries/04_late_deliveries.sql")),
    ("05_part_family_demand", include_str!("../queries/05_part_family_demand.sql")),
    ("06_stock_value", include_str!("../queries/06_stock_value.sql")),
    ("07_lost_customers", include_str!("../queries/07_lost_customers.sql")),
    ("08_trade_between_nations", include_str!("../queries/08_trade_between_nations.sql")),
    ("09_frequent_buyers", include_str!("../queries/09_frequent_buyers.sql")),
    ("10_returns_by_brand", include_str!("../queries/10_returns_by_brand.sql")),
    ("11_scattered_shipments", include_str!("../queries/11_scattered_shipments.sql")),
    ("12_urgent_by_air", include_str!("../queries/12_urgent_by_air.sql")),
    ("13_cheapest_source", include_str!("../queries/13_cheapest_source.sql")),
    ("14_clerk_record", include_str!("../queries/14_clerk_record.sql")),
    ("15_latest_orders", include_str!("../queries/15_latest_orders.sql")),
    ("16_order_details", include_str!("../queries/16_order_details.sql")),
    ("17_bulk_lines", include_str!("../queries/17_bulk_lines.sql")),
    ("18_discount_effect", include_str!("../queries/18_discount_effect.sql")),
    ("19_unsold_parts", include_str!("../queries/19_unsold_parts.sql")),
    ("20_balances_by_nation", include_str!("../queries/20_balances_by_nation.sql")),
    ("21_dear_offers", include_str!("../queries/21_dear_offers.sql")),
    ("22_bought_together", include_str!("../queries/22_bought_together.sql")),
    ("23_regional_growth", include_str!("../queries/23_regional_growth.sql")),
    ("24_half_shipped", include_str!("../queries/24_half_shipped.sql")),
];

pub struct Query {
    pub name: String,
    pub sql: String,
}

/// What one run measured of one query.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub latencies: Latencies,
    pub cancelled: usize,
}

/// The built-in queries, or those of a directory in the order of their names (numbers by value).
pub fn queries(directory: Option<&Path>) -> Result<Vec<Query>> {
    let Some(directory) = directory else {
        return Ok(BUILT_IN.iter().map(|(name, sql)| Query { name: (*name).to_owned(), sql: statement(sql) }).collect());
    };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|e| Failure::from(e).during(&directory.display().to_string()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "sql") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            all.push(Query { name, sql: statement(&std::fs::read_to_string(&path)?) });
        }
    }
    if all.is_empty() {
        return Err(Failure::new(format!("no *.sql file in {}", directory.display())));
    }
    all.sort_by_key(|q| (q.name.parse::<u32>().unwrap_or(u32::MAX), q.name.clone()));
    Ok(all)
}

/// A file's one statement without the final semicolon.
fn statement(text: &str) -> String {
    text.trim().trim_end_matches(';').trim_end().to_owned()
}

/// So many cancelled executions are enough to know that a query takes too long.
const CANCELS: usize = 2;

/// Connects with the settings that the analytic workload runs under.
fn connect(server: &Config, timeout: Duration) -> Result<Client> {
    let mut client = server.connect(NoTls)?;
    client.batch_execute(&format!("SET search_path = tpch; SET statement_timeout = {}", timeout.as_millis()))?;
    Ok(client)
}

/// Runs every query the given number of times over two connections, less often those that take too long.
pub fn run(server: &Config, queries: &[Query], rounds: usize, timeout: Duration, bar: &Bar) -> Result<Vec<Outcome>> {
    let next = AtomicUsize::new(0);
    let cancels: Vec<AtomicUsize> = queries.iter().map(|_| AtomicUsize::new(0)).collect();
    let (next, cancels) = (&next, &cancels);
    let work = || -> Result<Vec<(usize, Option<f64>)>> {
        let mut client = connect(server, timeout)?;
        let mut measured = Vec::new();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= rounds * queries.len() {
                return Ok(measured);
            }
            let query = turn % queries.len();
            bar.note(&queries[query].name);
            bar.advance(1);
            if cancels[query].load(Ordering::Relaxed) >= CANCELS {
                continue;
            }
            let started = Instant::now();
            let result = client.query(&queries[query].sql, &[]);
            let ms = started.elapsed().as_secs_f64() * 1000.0;
            match result {
                Ok(_) => measured.push((query, Some(ms))),
                Err(e) if e.code() == Some(&SqlState::QUERY_CANCELED) => {
                    cancels[query].fetch_add(1, Ordering::Relaxed);
                    measured.push((query, None));
                }
                Err(e) => return Err(Failure::from(e).during(&queries[query].name)),
            }
        }
    };
    let parts = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.map(|t| t.join().unwrap_or_else(|_| Err(Failure::new("a connection's thread panicked"))))
    });
    let mut latencies = vec![Vec::new(); queries.len()];
    let mut cancelled = vec![0; queries.len()];
    for part in parts {
        for (query, ms) in part? {
            match ms {
                Some(ms) => latencies[query].push(ms),
                None => cancelled[query] += 1,
            }
        }
    }
    let latencies = latencies.into_iter().map(Latencies::new);
    Ok(latencies.zip(cancelled).map(|(latencies, cancelled)| Outcome { latencies, cancelled }).collect())
}

/// The planner's cost of every query as the database is now.
pub fn costs(server: &Config, queries: &[Query]) -> Result<Vec<f64>> {
    let mut client = connect(server, Duration::from_secs(60))?;
    let mut costs = Vec::new();
    for query in queries {
        let plan = client.simple_query(&format!("EXPLAIN {}", query.sql)).map_err(|e| Failure::from(e).during(&query.name))?;
        let first = plan.iter().find_map(|m| if let SimpleQueryMessage::Row(row) = m { row.get(0) } else { None });
        costs.push(first.and_then(total_cost).ok_or_else(|| Failure::new(format!("no cost in the plan of {}", query.name)))?);
    }
    Ok(costs)
}

/// The total cost in the first line of a plan: `Sort  (cost=12.34..56.78 rows=9 width=8)`.
fn total_cost(line: &str) -> Option<f64> {
    line.split_once("(cost=")?.1.split_once("..")?.1.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_directory() -> Result<()> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
        let names = |queries: Vec<Query>| queries.into_iter().map(|q| q.name).collect::<Vec<_>>();
        assert_eq!(names(queries(Some(&directory))?), names(queries(None)?));
        Ok(())
    }

    #[test]
    fn every_query_says_what_it_answers() {
        assert!(BUILT_IN.iter().all(|(_, sql)| sql.starts_with("-- ") && sql.lines().next().is_some_and(|l| l.ends_with('?'))));
    }

    #[test]
    fn costs_are_read_from_plans() {
        assert_eq!(total_cost("Limit  (cost=10.5..2054.25 rows=1 width=44)"), Some(2054.25));
        assert_eq!(total_cost("Result"), None);
    }
}
