//! Power-law sizes: a few tenants are large, most are small.

use rand::{Rng, RngExt};

/// Ranks `0..n`, rank `k` being drawn with a probability proportional to `1 / (k + 1)^exponent`.
pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub fn new(n: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (0..n.max(1))
            .map(|k| {
                sum += ((k + 1) as f64).powf(-exponent);
                sum
            })
            .collect();
        for c in &mut cumulative {
            *c /= sum;
        }
        Zipf { cumulative }
    }

    /// Draws a rank.
    pub fn draw(&self, rng: &mut impl Rng) -> usize {
        self.rank(rng.random::<f64>())
    }

    /// The rank at a point of the unit interval.
    fn rank(&self, point: f64) -> usize {
        self.cumulative.partition_point(|&c| c <= point).min(self.cumulative.len() - 1)
    }

    /// Probability of a rank.
    pub fn share(&self, rank: usize) -> f64 {
        let below = if rank == 0 { 0.0 } else { self.cumulative[rank - 1] };
        self.cumulative[rank] - below
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn shares_fall_by_the_power_law_and_sum_to_one() {
        let zipf = Zipf::new(200, 1.0);
        assert!((zipf.share(0) / zipf.share(9) - 10.0).abs() < 1e-9);
        assert!(((0..200).map(|k| zipf.share(k)).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_ends_of_the_interval_are_ranks() {
        let zipf = Zipf::new(3, 1.0);
        assert_eq!(zipf.rank(0.0), 0);
        assert_eq!(zipf.rank(1.0), 2);
        assert_eq!(Zipf::new(0, 1.0).rank(0.5), 0);
    }

    #[test]
    fn draws_follow_the_shares() {
        let zipf = Zipf::new(50, 1.0);
        let mut rng = StdRng::seed_from_u64(1);
        let first = (0..20_000).filter(|_| zipf.draw(&mut rng) == 0).count() as f64 / 20_000.0;
        assert!((first - zipf.share(0)).abs() < 0.02, "{first} against {}", zipf.share(0));
    }
}
