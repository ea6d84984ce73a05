//! What the order of the rows in their blocks tells of groups of equal keys that lie side by side.

use super::sample::Place;

/// When so few keys begin in the later part of a block, on average, blocks say nothing of groups that go on in the next one.
const FEW_BEGIN: f64 = 0.05;
/// Nor do blocks of so few rows.
const FEW_ROWS: f64 = 8.0;

/// A *unit* is a key within a block.
pub(super) struct Runs {
    /// Groups that begin, for each row: of the keys that were met for the first time in their block, those in its later part. What began
    /// in the block before has mostly ended there. `None` where that says nothing.
    pub begun: Option<f64>,
    /// Units that touch no end of their block, by their rows; large ones weigh more, since fewer of them lie so.
    within: Vec<f64>,
}

impl Runs {
    /// `keys` has the number of each row's key, below `most`, and whether it is new in its block; only those that count are looked at.
    pub fn of(places: &[Place], keys: &[(u32, bool)], most: usize, counts: impl Fn(u32) -> bool) -> Self {
        let (mut begun, mut rows, mut number, mut start, mut in_blocks) = (0.0, 0.0, 0.0, 0, 0.0);
        let mut within: Vec<f64> = Vec::new();
        // Of each key in the block: where it was met last, and its rows.
        let mut met_at = vec![(0_usize, 0_usize); most];
        for block in places.chunk_by(|a, b| a.block == b.block) {
            let length = block.len();
            let here = || keys.iter().skip(start).zip(block).enumerate().filter(|(_, ((key, _), _))| counts(*key));
            for (at, ((key, new), place)) in here() {
                let later = (f64::from(place.at) + 0.5) / f64::from(place.of);
                let weight = (2.0 * later - 0.5).clamp(0.0, 1.0);
                rows += weight;
                begun += if *new { weight } else { 0.0 };
                if let Some((last, met)) = met_at.get_mut(*key as usize) {
                    *met = if *new { 1 } else { *met + 1 };
                    *last = at;
                }
            }
            for (at, ((key, _), _)) in here().filter(|(at, ((_, new), _))| *new && *at > 0) {
                let (last, met) = met_at.get(*key as usize).copied().unwrap_or_default();
                if last + 1 < length {
                    within.resize(within.len().max(met + 1), 0.0);
                    if let Some(weight) = within.get_mut(met) {
                        *weight += length as f64 / (length - 1 - (last + 1 - at)).max(1) as f64;
                    }
                }
            }
            number += 1.0;
            in_blocks += block.first().map_or(0.0, |p| f64::from(p.of));
            start += length;
        }
        let tells = begun >= FEW_BEGIN * number && in_blocks >= FEW_ROWS * number;
        Runs { begun: tells.then(|| begun / rows), within }
    }

    /// Rows of a unit within a block, on average.
    pub fn mean(&self) -> Option<f64> {
        let units: f64 = self.within.iter().sum();
        (units > 0.0).then(|| self.rows() / units)
    }

    /// The share of the rows that is in units of each size.
    pub fn shares(&self) -> Vec<(f64, f64)> {
        let all = self.rows();
        let share = |(size, weight): (usize, &f64)| (size as f64 * weight / all, size as f64);
        self.within.iter().enumerate().filter(|(_, weight)| **weight > 0.0).map(share).collect()
    }

    fn rows(&self) -> f64 {
        self.within.iter().enumerate().map(|(size, weight)| size as f64 * weight).sum()
    }
}
