//! A histogram of durations on a logarithmic scale: what capture keeps of every query, and what verify compares.
//!
//! Four buckets to each doubling, from one microsecond to 2^28 µs (about four and a half minutes): a quantile is at most 19 % off
//! before interpolation, and 112 counters cover everything from a primary key look-up to a report.

/// Number of buckets.
pub const BUCKETS: usize = 112;

/// Buckets to each doubling of the duration.
const PER_DOUBLING: usize = 4;

/// 2^(1/4), 2^(2/4) and 2^(3/4), scaled by 2^63 and rounded up: where the quarters of a doubling begin for a duration whose
/// highest bit was shifted to bit 63.
const QUARTERS: [u64; 3] = [0x9837_F051_8DB8_A970, 0xB504_F333_F9DE_6485, 0xD744_FCCA_D69D_6AF5];

/// The bucket of a duration in microseconds. What is shorter than one microsecond falls into the first bucket, what is longer
/// than the scale into the last. Integer arithmetic only: capture calls this for every execution.
#[inline]
pub fn bucket(us: u64) -> usize {
    if us < 2 {
        return 0;
    }
    let doublings = us.ilog2();
    let shifted = us << (63 - doublings);
    let quarter = QUARTERS.iter().take_while(|q| shifted >= **q).count();
    (doublings as usize * PER_DOUBLING + quarter).min(BUCKETS - 1)
}

/// Lower (inclusive) and upper (exclusive) bound of a bucket in microseconds. The first begins at 0; the last also holds whatever
/// is longer than its upper bound.
pub fn bounds_us(bucket: usize) -> (f64, f64) {
    let bound = |b: usize| (b as f64 / PER_DOUBLING as f64).exp2();
    (if bucket == 0 { 0.0 } else { bound(bucket) }, bound(bucket + 1))
}

/// Numbers of executions by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram(pub [u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram([0; BUCKETS])
    }
}

impl Histogram {
    /// A histogram from stored counts. A shorter list leaves the remaining buckets empty, a longer one is cut, and a negative
    /// count is zero: a damaged row must not stop the worker.
    pub fn from_counts(counts: &[i64]) -> Self {
        let mut histogram = Histogram::default();
        for (to, from) in histogram.0.iter_mut().zip(counts) {
            *to = u64::try_from(*from).unwrap_or(0);
        }
        histogram
    }

    /// The counts as they are stored (`workload_stats.histogram`).
    pub fn to_counts(&self) -> Vec<i64> {
        self.0.iter().map(|c| i64::try_from(*c).unwrap_or(i64::MAX)).collect()
    }

    /// Counts one execution of that many microseconds.
    pub fn add(&mut self, us: u64) {
        let count = &mut self.0[bucket(us)];
        *count = count.saturating_add(1);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            *to = to.saturating_add(*from);
        }
    }

    /// Number of executions.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, c| sum.saturating_add(*c))
    }

    /// The quantile `q` (0 to 1) in milliseconds, to within 9 percent: the middle of its bucket on the logarithmic scale; `None` when
    /// nothing was counted.
    pub fn percentile_ms(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 || q.is_nan() {
            return None;
        }
        let wanted = q.clamp(0.0, 1.0) * total as f64;
        let mut upto = 0.0;
        let reaches = |(_, count): &(usize, &u64)| {
            upto += **count as f64;
            **count > 0 && upto >= wanted
        };
        let bucket = self.0.iter().enumerate().find(reaches).map(|(bucket, _)| bucket)?;
        Some(((bucket as f64 + 0.5) / PER_DOUBLING as f64).exp2() / 1000.0)
    }

    /// The quantile `q` (0 to 1) in milliseconds, interpolated within its bucket; `None` when nothing was counted.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 || q.is_nan() {
            return None;
        }
        let wanted = q.clamp(0.0, 1.0) * total as f64;
        let mut below = 0.0;
        let mut last = None;
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, c)| **c > 0) {
            let (low, high) = bounds_us(bucket);
            if below + *count as f64 >= wanted {
                let share = ((wanted - below) / *count as f64).clamp(0.0, 1.0);
                return Some((low + share * (high - low)) / 1000.0);
            }
            below += *count as f64;
            last = Some(high / 1000.0);
        }
        // Only rounding of the running sum leads here.
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_scale_has_four_buckets_to_a_doubling() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(1), 0);
        assert_eq!(bucket(2), 4);
        assert_eq!(bucket(4), 8);
        assert_eq!(bucket(1000), 39);
        assert_eq!(bucket(1 << 27), 108);
        assert_eq!(bucket((1 << 28) - 1), 111);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Histogram::default().quantile_ms(0.5), None);
    }

    #[test]
    fn a_quantile_lies_near_the_truth() {
        let mut h = Histogram::default();
        for us in 1..=10_000 {
            h.add(us);
        }
        let p50 = h.quantile_ms(0.5).unwrap();
        let p99 = h.quantile_ms(0.99).unwrap();
        assert!((p50 - 5.0).abs() < 0.05, "{p50}");
        // The highest bucket is only partly used, so the interpolation overshoots, by less than a bucket.
        assert!((9.74..11.59).contains(&p99), "{p99}");
    }

    #[test]
    fn damaged_counts_are_tolerated() {
        assert_eq!(Histogram::from_counts(&[-5, 3]).total(), 3);
        assert_eq!(Histogram::from_counts(&[1; 200]).total(), BUCKETS as u64);
    }

    proptest! {
        #[test]
        fn a_duration_lies_within_the_bounds_of_its_bucket(us in 2u64..1 << 28) {
            let (low, high) = bounds_us(bucket(us));
            prop_assert!(low * (1.0 - 1e-12) <= us as f64 && (us as f64) < high * (1.0 + 1e-12));
        }

        #[test]
        fn buckets_grow_with_the_duration(a: u64, b: u64) {
            prop_assert_eq!(a.min(b) == a, a <= b);
            prop_assert!(bucket(a.min(b)) <= bucket(a.max(b)));
        }

        #[test]
        fn merging_is_adding(a in prop::collection::vec(0u64..1 << 30, 0..50), b in prop::collection::vec(0u64..1 << 30, 0..50)) {
            let of = |list: &[u64]| { let mut h = Histogram::default(); list.iter().for_each(|us| h.add(*us)); h };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(&merged, &of(&[a, b].concat()));
            prop_assert_eq!(Histogram::from_counts(&merged.to_counts()), merged);
        }

        #[test]
        fn a_percentile_is_near_a_duration_that_was_counted(us in 2u64..1 << 28, others in prop::collection::vec(2u64..1 << 28, 0..9)) {
            let mut h = Histogram::default();
            others.iter().chain([&us]).for_each(|us| h.add(*us));
            let p = h.percentile_ms(0.5).unwrap() * 1000.0;
            let near = |us: &u64| (p / *us as f64).ln().abs() < 2f64.ln() / 8.0 + 1e-9;
            prop_assert!(others.iter().chain([&us]).any(near), "{}", p);
        }

        #[test]
        fn quantiles_never_fall(list in prop::collection::vec(0u64..1 << 30, 1..50), p in 0.0..1.0f64, q in 0.0..1.0f64) {
            let mut h = Histogram::default();
            list.iter().for_each(|us| h.add(*us));
            prop_assert!(h.quantile_ms(p.min(q)) <= h.quantile_ms(p.max(q)));
        }
    }
}
