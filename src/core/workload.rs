//! workload: from measured statistics to the templates that are worth an analysis.
//!
//! Time is what indexes save, so the heaviest templates by time come first. The tail is cut: it makes the integer program large
//! and holds next to no time. What was cut is reported, never hidden.

use std::collections::BTreeMap;

/// Statistics of one template. Several rows of one template (tenants, spans of time) are summed.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat {
    pub workload_id: i64,
    pub calls: f64,
    /// Execution time of these calls, milliseconds.
    pub total_ms: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Templates to keep.
    pub max_queries: usize,
}

/// The templates to analyse.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// Heaviest first; equals by calls, then by number, so that equal input gives equal output.
    pub stats: Vec<Stat>,
    /// Templates that were cut.
    pub left_out: usize,
    /// Share (0 to 1) of the measured time that the kept templates cover; of the calls when no time was measured.
    pub covered: f64,
}

/// Sums the rows of each template and keeps the heaviest. Templates without calls, and figures that are no finite positive
/// numbers, are dropped.
pub fn build(rows: impl IntoIterator<Item = Stat>, config: &Config) -> Workload {
    let mut by_template: BTreeMap<i64, Stat> = BTreeMap::new();
    for row in rows {
        let sum = by_template.entry(row.workload_id).or_insert(Stat { workload_id: row.workload_id, calls: 0.0, total_ms: 0.0 });
        sum.calls += positive(row.calls);
        sum.total_ms += positive(row.total_ms);
    }
    let mut stats: Vec<Stat> = by_template.into_values().filter(|s| s.calls > 0.0).collect();
    stats.sort_by(|a, b| {
        b.total_ms.total_cmp(&a.total_ms).then(b.calls.total_cmp(&a.calls)).then(a.workload_id.cmp(&b.workload_id))
    });
    let timed = stats.iter().any(|s| s.total_ms > 0.0);
    let weight = |list: &[Stat]| -> f64 { list.iter().map(|s| if timed { s.total_ms } else { s.calls }).sum() };
    let all = weight(&stats);
    let left_out = stats.len().saturating_sub(config.max_queries);
    stats.truncate(config.max_queries);
    let covered = if all > 0.0 { (weight(&stats) / all).min(1.0) } else { 0.0 };
    Workload { stats, left_out, covered }
}

/// Hash of the OIDs of a statement's base tables, ascending: with the query identifier it names a template.
#[inline]
pub fn relations_hash(oids: &[u32]) -> u64 {
    oids.iter().fold(0, |h, oid| mix(h ^ u64::from(*oid)))
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output.
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn positive(figure: f64) -> f64 {
    if figure.is_finite() && figure > 0.0 { figure } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stat(workload_id: i64, calls: f64, total_ms: f64) -> Stat {
        Stat { workload_id, calls, total_ms }
    }

    #[test]
    fn the_heaviest_templates_are_kept_and_their_share_is_told() {
        let w = build(
            vec![stat(1, 10.0, 10.0), stat(2, 1.0, 60.0), stat(1, 10.0, 20.0), stat(3, 5.0, 10.0)],
            &Config { max_queries: 2 },
        );
        assert_eq!(w.stats, vec![stat(2, 1.0, 60.0), stat(1, 20.0, 30.0)]);
        assert_eq!(w.left_out, 1);
        assert!((w.covered - 0.9).abs() < 1e-9);
    }

    #[test]
    fn without_time_the_calls_count() {
        let w = build(vec![stat(1, 1.0, 0.0), stat(2, 3.0, 0.0)], &Config { max_queries: 1 });
        assert_eq!(w.stats, vec![stat(2, 3.0, 0.0)]);
        assert!((w.covered - 0.75).abs() < 1e-9);
    }

    #[test]
    fn an_empty_workload_covers_nothing() {
        assert_eq!(build(vec![stat(1, 0.0, 5.0), stat(2, f64::NAN, 1.0)], &Config { max_queries: 5 }), Workload::default());
    }

    proptest! {
        #[test]
        fn the_order_of_the_rows_is_of_no_account(rows in prop::collection::vec((0i64..20, 0u32..50, 0u32..50), 0..60), max in 0usize..25) {
            let rows: Vec<Stat> = rows.iter().map(|(id, c, t)| stat(*id, f64::from(*c), f64::from(*t))).collect();
            let reversed: Vec<Stat> = rows.iter().rev().cloned().collect();
            let w = build(rows, &Config { max_queries: max });
            prop_assert!(w.stats.len() <= max && (0.0..=1.0).contains(&w.covered));
            prop_assert_eq!(w, build(reversed, &Config { max_queries: max }));
        }
    }
}
