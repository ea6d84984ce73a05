//! The tests of significance, from what is kept of a query: number, sum, sum of squares, histogram.

use super::Window;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// The larger of the probabilities of Welch's test and the Mann–Whitney test; 1 when they see the change in opposite directions.
pub(super) fn p_value(before: &Window, after: &Window) -> f64 {
    let (welch, mean_rises) = welch(before, after);
    let (ranks, ranks_rise) = mann_whitney(&before.histogram.0, &after.histogram.0);
    match mean_rises == ranks_rise {
        true => welch.max(ranks),
        false => 1.0,
    }
}

/// Welch's t-test, two-sided, and whether the mean rises. Without variance, means that differ at all differ for certain.
fn welch(before: &Window, after: &Window) -> (f64, bool) {
    let (Some((mean_a, error_a, n_a)), Some((mean_b, error_b, n_b))) = (moments(before), moments(after)) else {
        return (1.0, false);
    };
    let rises = mean_b > mean_a;
    let error = error_a + error_b;
    if error <= 0.0 {
        return (if mean_a == mean_b { 1.0 } else { 0.0 }, rises);
    }
    let t = (mean_b - mean_a) / error.sqrt();
    let freedom = error * error / (error_a * error_a / (n_a - 1.0) + error_b * error_b / (n_b - 1.0));
    let p = StudentsT::new(0.0, 1.0, freedom.max(1.0)).map_or(1.0, |d| 2.0 * d.cdf(-t.abs()));
    (clean(p), rises)
}

/// Mean, squared standard error of the mean, number; `None` below two calls.
fn moments(w: &Window) -> Option<(f64, f64, f64)> {
    if w.calls < 2 {
        return None;
    }
    let n = w.calls as f64;
    let mean = w.total_ms / n;
    // The difference of large sums can come out slightly negative.
    let variance = ((w.sum_squares_ms - n * mean * mean) / (n - 1.0)).max(0.0);
    Some((mean, variance / n, n))
}

/// The Mann–Whitney test on bucketed durations, two-sided, and whether the ranks rise. All executions of one bucket are ties,
/// for which the variance is corrected; with the numbers that a verdict needs, the normal approximation holds.
fn mann_whitney(before: &[u64], after: &[u64]) -> (f64, bool) {
    let n_a: f64 = before.iter().map(|c| *c as f64).sum();
    let n_b: f64 = after.iter().map(|c| *c as f64).sum();
    let n = n_a + n_b;
    if n_a < 1.0 || n_b < 1.0 || n < 3.0 {
        return (1.0, false);
    }
    let (mut below_a, mut u, mut ties) = (0.0, 0.0, 0.0);
    for (a, b) in before.iter().zip(after) {
        let (a, b) = (*a as f64, *b as f64);
        u += b * (below_a + a / 2.0);
        ties += (a + b).powi(3) - (a + b);
        below_a += a;
    }
    let expected = n_a * n_b / 2.0;
    let variance = n_a * n_b / 12.0 * ((n + 1.0) - ties / (n * (n - 1.0)));
    let rises = u > expected;
    if variance <= 0.0 {
        return (1.0, rises);
    }
    // The correction for continuity: u moves in steps of one half, never past what is expected.
    let z = ((u - expected).abs() - 0.5).max(0.0) / variance.sqrt();
    (two_sided(z), rises)
}

/// Compares two shares (failures of executions), two-sided, by the normal approximation with pooled variance.
pub(super) fn proportions(hits_a: u64, n_a: u64, hits_b: u64, n_b: u64) -> f64 {
    if n_a == 0 || n_b == 0 {
        return 1.0;
    }
    let (a, b) = (n_a as f64, n_b as f64);
    let pooled = (hits_a + hits_b) as f64 / (a + b);
    let variance = pooled * (1.0 - pooled) * (1.0 / a + 1.0 / b);
    if variance <= 0.0 {
        return 1.0;
    }
    two_sided((hits_b as f64 / b - hits_a as f64 / a).abs() / variance.sqrt())
}

fn two_sided(z: f64) -> f64 {
    Normal::new(0.0, 1.0).map_or(1.0, |d| clean(2.0 * d.cdf(-z)))
}

/// A probability; what is none proves nothing.
fn clean(p: f64) -> f64 {
    if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::window;

    #[test]
    fn welch_agrees_with_a_worked_example() {
        // a = 3 4 1 2.1, b = 490.2 340 433.9 t = -9.56 at 2.0 degrees of freedom, p = 0.0107.
        let of = |list: &[f64]| Window {
            calls: list.len() as u64,
            total_ms: list.iter().sum(),
            sum_squares_ms: list.iter().map(|x| x * x).sum(),
            ..Window::default()
        };
        let (p, rises) = welch(&of(&[3.0, 4.0, 1.0, 2.1]), &of(&[490.2, 340.0, 433.9]));
        assert!((p - 0.0107).abs() < 0.0005 && rises, "{p}");
    }

    #[test]
    fn ranks_agree_with_a_worked_example() {
        // Five and five, wholly apart, no ties: u = 25, z = (12.5 - 0.5) / sqrt(25 * 11 / 12) = 2.507, p = 0.0122.
        let (mut a, mut b) = ([0u64; 10], [0u64; 10]);
        a[..5].fill(1);
        b[5..].fill(1);
        let (p, rises) = mann_whitney(&a, &b);
        assert!((p - 0.0122).abs() < 0.0002 && rises, "{p}");
        assert!(!mann_whitney(&b, &a).1);
    }

    #[test]
    fn ties_alone_prove_nothing() {
        assert_eq!(mann_whitney(&[50, 0], &[70, 0]).0, 1.0);
        assert_eq!(mann_whitney(&[0, 0], &[70, 0]).0, 1.0);
    }

    #[test]
    fn tests_that_disagree_about_the_direction_prove_nothing() {
        // Nearly everything is faster, but a few outliers raise the mean.
        let before = window(&[10_000; 200]);
        let after = window(&[vec![5_000; 190], vec![900_000; 10]].concat());
        assert_eq!(p_value(&before, &after), 1.0);
    }

    #[test]
    fn equal_shares_prove_nothing() {
        assert_eq!(proportions(0, 100, 0, 100), 1.0);
        assert!(proportions(1, 1000, 300, 1000) < 1e-6);
        assert!(proportions(10, 1000, 12, 1000) > 0.5);
    }
}
