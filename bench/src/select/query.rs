//! The queries of a benchmark, and which of them count.

use indexpilot_demo::analytic;
use indexpilot_tests::Result;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Query {
    pub name: String,
    pub sql: String,
}

/// Left out of the sum over TPC-H's own queries, because their cost without an index dwarfs all others.
const DWARFING: [&str; 3] = ["2", "17", "20"];

/// The queries about the TPC-H data: those of a directory, else TPC-H's own where they lie beside the checkout, else the demo's.
///
/// # Errors
/// When the directory cannot be read.
pub fn analytic(directory: Option<PathBuf>) -> Result<Vec<Query>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/bench/tpch/queries");
    let found = analytic::queries(directory.or(Some(beside).filter(|d| d.is_dir())).as_deref())?;
    Ok(found.into_iter().map(|q| Query { name: q.name, sql: q.sql }).collect())
}

/// Whether they are TPC-H's own 22, of which there are figures of others.
pub fn is_tpch(queries: &[Query]) -> bool {
    queries.len() == 22 && queries.iter().zip(1..).all(|(q, n): (_, usize)| q.name == n.to_string())
}

/// The queries whose costs are summed.
pub fn counted(queries: &[Query]) -> Vec<Query> {
    let all = !is_tpch(queries);
    queries.iter().filter(|q| all || !DWARFING.contains(&q.name.as_str())).cloned().collect()
}
