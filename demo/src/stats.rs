//! Percentiles of latencies, and of other figures.

/// Figures, sorted; in most cases the latencies of one family in one run, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<f64>);

impl Latencies {
    pub fn new(mut ms: Vec<f64>) -> Self {
        ms.sort_by(f64::total_cmp);
        Latencies(ms)
    }

    pub fn calls(&self) -> usize {
        self.0.len()
    }

    pub fn total_ms(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The smallest latency that at least the share `q` of the calls did not exceed (nearest rank); `None` without calls.
    pub fn percentile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).or(self.0.last()).copied()
    }
}

/// How many times lower `after` is; `None` when one of them is unknown.
pub fn times_lower(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    match (before, after) {
        (Some(b), Some(a)) if a > 0.0 => Some(b / a),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let l = Latencies::new((1..=100).rev().map(f64::from).collect());
        assert_eq!(l.percentile(0.50), Some(50.0));
        assert_eq!(l.percentile(0.95), Some(95.0));
        assert_eq!(l.percentile(0.99), Some(99.0));
        assert_eq!(l.percentile(1.0), Some(100.0));
        assert_eq!(l.percentile(0.0), Some(1.0));
    }

    #[test]
    fn few_calls_and_none() {
        assert_eq!(Latencies::new(vec![7.0]).percentile(0.95), Some(7.0));
        assert_eq!(Latencies::default().percentile(0.95), None);
    }

    #[test]
    fn ratios() {
        assert_eq!(times_lower(Some(10.0), Some(2.0)), Some(5.0));
        assert_eq!(times_lower(Some(10.0), None), None);
        assert_eq!(times_lower(Some(10.0), Some(0.0)), None);
    }
}
