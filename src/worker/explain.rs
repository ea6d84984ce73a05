//! A decision in words, as markdown.

use super::decision::{bytes, duration};
use crate::pg::error::{Error, Kind, Result};
use crate::store::analysis::{self, Recommendation};
use serde_json::Value;
use std::fmt::Write;

/// Explains a decision.
pub fn decision(id: i64) -> Result<String> {
    let Some(r) = analysis::get(id)? else { return Err(unknown(id)) };
    let texts = analysis::query_texts(&r.workload_ids)?;
    Ok(markdown(&r, &texts))
}

/// The error for a number that no decision has.
pub fn unknown(id: i64) -> Error {
    Error::new(Kind::UndefinedObject, format!("decision {id} does not exist"))
        .hint("SELECT id, state, reason, definition FROM indexpilot.recommendations ORDER BY id DESC.")
}

fn markdown(r: &Recommendation, texts: &[(i64, String)]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = (|| -> std::fmt::Result {
        writeln!(out, "# Decision {}: {}\n", r.id, r.reason)?;
        writeln!(out, "`{}`\n", r.definition)?;
        writeln!(out, "State: {}. {}\n", r.state, r.reason_detail)?;
        if r.state != "not_recommended" {
            writeln!(out, "| | |\n|---|---|")?;
            writeln!(out, "| table | {}.{} |", r.table_schema, r.table_name)?;
            writeln!(out, "| estimated size | {} |", bytes(r.estimated_bytes.max(0) as u64))?;
            if let Some(ms) = r.estimated_build_ms {
                writeln!(out, "| estimated build | {} |", duration(ms))?;
            }
            if let Some(ms) = r.saved_ms_per_hour {
                writeln!(out, "| saves per hour | {} |", duration(ms))?;
            }
            if let Some(ms) = r.write_ms_per_hour {
                writeln!(out, "| adds to writes per hour | {} |", duration(ms))?;
            }
            for (key, name) in [("method", "chosen by"), ("gap", "proven gap"), ("planner_calls", "planner calls")] {
                if let Some(value) = r.details.get(key).filter(|v| !v.is_null()) {
                    writeln!(out, "| {name} | {} |", value.as_str().map_or_else(|| value.to_string(), str::to_owned))?;
                }
            }
            writeln!(out)?;
        }
        queries(&mut out, r, texts)?;
        findings(&mut out, &r.guard)
    })();
    out
}

fn queries(out: &mut String, r: &Recommendation, texts: &[(i64, String)]) -> std::fmt::Result {
    let Some(queries) = r.details.get("queries").and_then(Value::as_array).filter(|q| !q.is_empty()) else { return Ok(()) };
    writeln!(out, "## Queries\n\n| query | calls | cost before | cost after |\n|---|---|---|---|")?;
    let figure = |q: &Value, key: &str| q.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    for q in queries {
        writeln!(
            out,
            "| {} | {:.0} | {:.2} | {:.2} |",
            q.get("query").and_then(Value::as_i64).unwrap_or(0),
            figure(q, "calls"),
            figure(q, "cost_before"),
            figure(q, "cost_after")
        )?;
    }
    writeln!(out)?;
    for (id, text) in texts {
        writeln!(out, "Query {id}:\n\n```sql\n{text}\n```\n")?;
    }
    Ok(())
}

fn findings(out: &mut String, guard: &Value) -> std::fmt::Result {
    let Some(findings) = guard.as_array().filter(|f| !f.is_empty()) else { return Ok(()) };
    writeln!(out, "## Guard\n\n| rule | verdict | detail |\n|---|---|---|")?;
    let text = |f: &Value, key: &str| f.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    for f in findings {
        writeln!(out, "| {} | {} | {} |", text(f, "rule"), text(f, "verdict"), text(f, "detail"))?;
    }
    Ok(())
}
