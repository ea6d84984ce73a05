//! control and switch: the database's clocks, and its own switch.

use crate::pg::error::Result;
use crate::pg::spi;
use serde::Deserialize;
use serde_json::json;

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Control {
    pub disabled: bool,
    pub disabled_reason: Option<String>,
    /// Seconds since the worker last analysed the workload; `None` when it never did.
    pub analysed_s_ago: Option<f64>,
}

pub fn get() -> Result<Control> {
    let control = spi::row(
        "SELECT COALESCE(s.disabled, false) AS disabled, s.disabled_reason,
                EXTRACT(epoch FROM pg_catalog.clock_timestamp() - c.last_analysis_at)::float8 AS analysed_s_ago
           FROM indexpilot.control c LEFT JOIN indexpilot.switch s ON true",
        json!({}),
    )?;
    Ok(control.unwrap_or_default())
}

/// Stops or allows actions in this database.
pub fn set_disabled(disabled: bool, reason: Option<&str>) -> Result<()> {
    spi::execute(
        "INSERT INTO indexpilot.switch (disabled, disabled_reason) VALUES (($1->>'disabled')::boolean, $1->>'reason')
         ON CONFLICT (only_row) DO UPDATE SET disabled = excluded.disabled, disabled_reason = excluded.disabled_reason,
                changed_by = excluded.changed_by, changed_at = excluded.changed_at",
        json!({ "disabled": disabled, "reason": reason }),
    )?;
    Ok(())
}
