//! The analytic workload of `make demo`, which `make bench-select` uses too: TPC-H data (`tpch`), queries and their costs (`analytic`);
//! and what shows figures to a person (`ui`, `table`, `stats`).

pub mod analytic;
pub mod failure;
pub mod stats;
pub mod table;
pub mod tpch;
pub mod ui;
