//! One query before and after, and how much everything else changed.

use super::stats;
use super::{Comparison, Effect, MIN_GAIN, MIN_LOSS_MS, Measured, Role, Window};
use crate::histogram::{BUCKETS, Histogram};

/// Failures after the change that a verdict for failing needs at least, and the least rise of their share.
const MIN_ERRORS: u64 = 5;
const MIN_ERROR_RISE: f64 = 0.01;
/// Probability below which a rise of failures elsewhere is none of chance.
const SURE: f64 = 0.01;

/// Probability below which a query that seems slower, or faster, is worth more calls.
const SUSPICIOUS: f64 = 0.3;

/// Queries of other tables that are needed to tell how the server as a whole changed.
const MIN_CONTROLS: usize = 3;
/// What is taken for a change of the server as a whole at most.
const MOST_DRIFT: f64 = 4.0;
/// What is taken for none.
const LEAST_DRIFT: f64 = 0.05;

/// How many times as long as before queries take that have nothing to do with the table: the median of the changes of their medians,
/// so that neither an outlier nor a query that changed for reasons of its own matters. 1 when there are too few of them.
pub fn drift(controls: &[(Window, Window)], min_calls: u64) -> f64 {
    let mut changes: Vec<f64> = controls
        .iter()
        .filter(|(before, after)| before.calls >= min_calls && after.calls >= min_calls)
        .filter_map(|(before, after)| Some(after.histogram.quantile_ms(0.5)? / before.histogram.quantile_ms(0.5)?))
        .filter(|change| change.is_finite() && *change > 0.0)
        .collect();
    if changes.len() < MIN_CONTROLS {
        return 1.0;
    }
    changes.sort_by(f64::total_cmp);
    let middle = changes.len() / 2;
    let median = match changes.len() % 2 {
        1 => changes[middle],
        _ => (changes[middle - 1] * changes[middle]).sqrt(),
    };
    match (median - 1.0).abs() < LEAST_DRIFT {
        true => 1.0,
        false => median.clamp(1.0 / MOST_DRIFT, MOST_DRIFT),
    }
}

/// The window as it would be if everything took so many times as long.
fn stretched(w: &Window, times: f64) -> Window {
    if times == 1.0 {
        return w.clone();
    }
    // Four buckets to each doubling; what falls between two is shared out.
    let shift = 4.0 * times.log2();
    let (whole, part) = (shift.floor() as i64, shift - shift.floor());
    let mut histogram = Histogram::default();
    for (bucket, count) in w.histogram.0.iter().enumerate().filter(|(_, c)| **c > 0) {
        let upper = (*count as f64 * part).round() as u64;
        for (at, n) in [(bucket as i64 + whole, count.saturating_sub(upper)), (bucket as i64 + whole + 1, upper)] {
            let to = at.clamp(0, BUCKETS as i64 - 1) as usize;
            histogram.0[to] = histogram.0[to].saturating_add(n);
        }
    }
    Window { total_ms: w.total_ms * times, sum_squares_ms: w.sum_squares_ms * times * times, histogram, ..w.clone() }
}

/// Queries that have nothing to do with the table fail more often than before.
pub fn fails_more_elsewhere(controls: &[(Window, Window)]) -> bool {
    let sum = |side: fn(&(Window, Window)) -> &Window| {
        controls.iter().map(side).fold(Window::default(), |sum, w| Window {
            calls: sum.calls + w.calls,
            errors: sum.errors + w.errors,
            ..Window::default()
        })
    };
    let (before, after) = (sum(|c| &c.0), sum(|c| &c.1));
    fails_more(&before, &after, 1, SURE)
}

/// `failing`: calls that are needed before to tell that it fails more often; `None` when that would say nothing. `chances`: below which probability it is faster, and below which it is slower.
pub(super) fn compare(
    m: &Measured,
    counts: bool,
    failing: Option<u64>,
    chances: [f64; 2],
    drift: f64,
    max_regression: f64,
) -> Comparison {
    let (before, after) = (m.before.mean_ms(), m.after.mean_ms());
    let mut row = Comparison {
        workload_id: m.workload_id,
        role: m.role,
        effect: Effect::TooFewCalls,
        calls_before: m.before.calls,
        calls_after: m.after.calls,
        mean_ms_before: before,
        mean_ms_after: after,
        p95_ms_before: m.before.histogram.quantile_ms(0.95),
        p95_ms_after: m.after.histogram.quantile_ms(0.95),
        change_ratio: before.zip(after).and_then(|(b, a)| (b > 0.0).then(|| a / b)),
        p_value: None,
        expected_ms: before,
        slower_at_all: false,
        unsettled: false,
    };
    let [chance_faster, chance_slower] = chances;
    if failing.is_some_and(|least| fails_more(&m.before, &m.after, least, chance_slower)) {
        row.effect = Effect::Failing;
        return row;
    }
    let (true, Some(before), Some(after)) = (counts, before, after) else { return row };
    // Slower than everything else became, or faster than everything else became.
    let rises = after > before;
    let times = if rises { drift.max(1.0) } else { drift.min(1.0) };
    let expected = before * times;
    let p = stats::p_value(&stretched(&m.before, times), &m.after);
    row.p_value = Some(p);
    row.expected_ms = Some(expected);
    // What takes no longer than before is not blamed because everything else takes even less, and what takes longer is not praised
    // because everything else takes even longer.
    row.slower_at_all = rises && p < chance_slower && after > expected;
    let too_slow = rises && after > expected * (1.0 + max_regression) && after - expected >= MIN_LOSS_MS;
    let gains = !rises && after <= expected * (1.0 - MIN_GAIN);
    row.effect = if row.slower_at_all && too_slow {
        Effect::Slower
    } else if p < chance_faster && gains {
        Effect::Faster
    } else {
        Effect::Same
    };
    row.unsettled = row.effect == Effect::Same && p < SUSPICIOUS && (too_slow || (gains && m.role == Role::Cited));
    row
}

pub(super) fn error_share(w: &Window) -> f64 {
    let runs = w.calls + w.errors;
    if runs == 0 { 0.0 } else { w.errors as f64 / runs as f64 }
}

/// Compares shares of failures, where there were at least so many runs before.
fn fails_more(before: &Window, after: &Window, least: u64, chance: f64) -> bool {
    let runs = |w: &Window| w.calls + w.errors;
    runs(before) >= least.max(1)
        && after.errors >= MIN_ERRORS
        && error_share(after) - error_share(before) >= MIN_ERROR_RISE
        && stats::proportions(before.errors, runs(before), after.errors, runs(after)) < chance
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::window;

    fn about(us: u64) -> Window {
        window(&(0..50).map(|i| us + i * us / 500).collect::<Vec<_>>())
    }

    #[test]
    fn what_everything_does_is_drift() {
        let slower = |times: u64| (about(1000), about(1000 * times));
        assert!((drift(&[slower(2), slower(2), slower(2)], 20) - 2.0).abs() < 0.1);
        // One that changed for its own reasons does not matter.
        assert!((drift(&[slower(2), slower(2), slower(50)], 20) - 2.0).abs() < 0.1);
        assert_eq!(drift(&[slower(2), slower(2)], 20), 1.0, "two are too few");
        assert_eq!(drift(&[slower(9), slower(9), slower(9)], 20), MOST_DRIFT);
        assert_eq!(drift(&[slower(2), slower(2), slower(2)], 51), 1.0, "too few calls");
        assert_eq!(drift(&[slower(1), slower(1), slower(1)], 20), 1.0);
    }

    #[test]
    fn stretching_moves_mean_and_ranks_alike() {
        let (w, s) = (about(1000), stretched(&about(1000), 1.3));
        assert!((s.mean_ms().unwrap() / w.mean_ms().unwrap() - 1.3).abs() < 1e-9);
        let (p, q) = (w.histogram.quantile_ms(0.5).unwrap(), s.histogram.quantile_ms(0.5).unwrap());
        assert!((q / p - 1.3).abs() < 0.15, "{p} {q}");
        assert_eq!((s.calls, s.histogram.total()), (50, 50));
        // Out of the scale nothing is lost.
        assert_eq!(stretched(&about(1), 0.25).histogram.total(), 50);
    }
}
