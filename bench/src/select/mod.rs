//! What the choice of indexes is worth, in bytes and costs of indexes that are really built: on TPC-H beside published advisors
//! (`tpch`, `anchors`), on a larger warehouse (`stars`), each also beside a rival that is run here (`extend`); in time
//! (`real`); and what choosing takes for thousands of queries (`scale`).

mod advice;
mod anchors;
mod built;
mod contest;
mod data;
mod extend;
mod query;
pub mod real;
pub mod scale;
pub mod stars;
pub mod tpch;
