//! control: the database's own switch and clocks.

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
        "SELECT disabled, disabled_reason, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - last_analysis_at)::float8 AS analysed_s_ago
           FROM indexpilot.control",
        json!({}),
    )?;
    Ok(control.unwrap_or_default())
}

/// Stops or allows actions in this database.
pub fn set_disabled(disabled: bool, reason: Option<&str>) -> Result<()> {
    spi::execute(
        "UPDATE indexpilot.control SET disabled = ($1->>'disabled')::boolean, disabled_reason = $1->>'reason',
                changed_by = session_user, changed_at = pg_catalog.now()",
        json!({ "disabled": disabled, "reason": reason }),
    )?;
    Ok(())
}
