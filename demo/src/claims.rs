//! What the demo claims, checked against what this run measured. A claim that does not hold fails the demo.

use crate::Side;
use crate::families::{Family, Role};
use crate::stats::times_lower;
use crate::table::ms;

/// The 95th percentile of each heavily used filter must be this many times lower.
const TIMES_LOWER: f64 = 5.0;
/// The analytic queries' total planner cost must be lower by this share.
const COST_LOWER: f64 = 0.30;

/// A claim and whether it held, in words with figures.
pub struct Claim {
    pub holds: bool,
    pub text: String,
}

impl Claim {
    pub fn new(holds: bool, text: String) -> Self {
        Claim { holds, text }
    }
}

/// One claim for each heavily used filter.
pub fn heavy_filters(families: &[Family], before: &Side, after: &Side) -> Vec<Claim> {
    let heavy = families.iter().enumerate().filter(|(_, f)| f.role == Role::Heavy);
    heavy
        .map(|(i, family)| {
            let p95 = [before, after].map(|side| side.crm.latencies[i].percentile(0.95));
            let times = times_lower(p95[0], p95[1]);
            Claim::new(
                times.is_some_and(|t| t >= TIMES_LOWER),
                format!(
                    "p95 of \"{}\" at least {TIMES_LOWER:.0}× lower: {} ms before, {} ms after, {}",
                    family.name,
                    ms(p95[0]),
                    ms(p95[1]),
                    times.map_or_else(|| "unknown".to_owned(), |t| format!("{t:.1}×"))
                ),
            )
        })
        .collect()
}

pub fn analytic_cost(before: f64, after: f64) -> Claim {
    let lower = 1.0 - after / before;
    Claim::new(
        lower >= COST_LOWER,
        format!("planner cost of the analytic queries at least {:.0} % lower: {:.1} %", 100.0 * COST_LOWER, 100.0 * lower),
    )
}

/// No index may mention the field.
pub fn no_index(table: &str, column: &str, indexes: &[String]) -> Claim {
    let found = if indexes.is_empty() { "none".to_owned() } else { indexes.join(", ") };
    Claim::new(indexes.is_empty(), format!("no index on crm.{table}.{column}: {found}"))
}

/// Prints all claims; true when every one holds.
pub fn print(claims: &[Claim]) -> bool {
    for claim in claims {
        println!("  {} {}", if claim.holds { "✓" } else { "✗" }, claim.text);
    }
    claims.iter().all(|c| c.holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_must_fall_by_the_claimed_share() {
        assert!(analytic_cost(100.0, 70.0).holds);
        assert!(!analytic_cost(100.0, 71.0).holds);
        assert!(!analytic_cost(0.0, 0.0).holds);
    }

    #[test]
    fn any_index_on_the_field_breaks_the_claim() {
        assert!(no_index("contacts", "custom_score", &[]).holds);
        assert!(!no_index("contacts", "custom_score", &["crm.x".to_owned()]).holds);
    }
}
