//! When an index is looked at, and for how long it is observed.

/// Each look comes this many times as long after the change as the one before.
const STEP: f64 = 1.5;

/// A query must have had the time for this many times the calls that a verdict needs, since calls do not come evenly.
const AMPLE: f64 = 2.0;

/// How many looks there have been after `watched_s` seconds, when the first comes after `first_s`: 0 before it. Whoever looks when
/// this number has grown looks at growing distances, so that the looks are few.
pub fn look_number(watched_s: f64, first_s: f64) -> u32 {
    let first = first_s.max(1.0);
    if watched_s.is_nan() || watched_s < first {
        return 0;
    }
    1 + ((watched_s / first).ln() / STEP.ln() + 1e-9).floor().clamp(0.0, 1000.0) as u32
}

/// Seconds within which all of the queries, of which so many calls a second are known, should have been called often enough; from
/// `least_s` to `most_s`. A query that was never called, or none at all, takes as long as there is.
pub fn observation_s(calls_per_s: &[f64], min_calls: u64, least_s: f64, most_s: f64) -> f64 {
    let rarest = calls_per_s.iter().copied().fold(f64::INFINITY, f64::min);
    if calls_per_s.is_empty() || rarest.is_nan() || rarest <= 0.0 {
        return most_s;
    }
    (AMPLE * min_calls as f64 / rarest).clamp(least_s.min(most_s), most_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn looks_come_at_growing_distances() {
        let looks: Vec<u32> =
            [0.0, 1799.0, 1800.0, 2699.0, 2700.0, 4050.0, 259_200.0].iter().map(|s| look_number(*s, 1800.0)).collect();
        assert_eq!(looks, [0, 0, 1, 1, 2, 3, 13]);
        // Without a delay they begin after a second.
        assert_eq!(look_number(0.5, 0.0), 0);
        assert_eq!(look_number(1.0, 0.0), 1);
        assert_eq!(look_number(f64::NAN, 1.0), 0);
    }

    #[test]
    fn rare_queries_are_observed_for_longer() {
        let hours = |per_s: &[f64]| observation_s(per_s, 20, 1800.0, 72.0 * 3600.0) / 3600.0;
        assert_eq!(hours(&[100.0]), 0.5);
        assert!((hours(&[100.0, 10.0 / 3600.0]) - 4.0).abs() < 1e-9, "ten calls an hour: forty calls in four hours");
        assert_eq!(hours(&[1.0 / 86_400.0]), 72.0);
        assert_eq!(hours(&[]), 72.0);
        assert_eq!(hours(&[0.0, 5.0]), 72.0);
        // Down to seconds, where the settings say so, also the wrong way round.
        assert_eq!(observation_s(&[100.0], 5, 1.0, 60.0), 1.0);
        assert_eq!(observation_s(&[100.0], 5, 100.0, 60.0), 60.0);
    }

    proptest! {
        #[test]
        fn looks_are_few(first in 0.0..7200.0f64, watched in 0.0..1e7f64) {
            prop_assert!(look_number(watched, first) <= 42);
            prop_assert!(look_number(watched * 2.0, first) >= look_number(watched, first));
        }
    }
}
