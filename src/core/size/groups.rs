//! How many groups of equal keys a table has and how large they are, from rows that came by the block.
//!
//! - A *unit* is a key within a block: a block of 60 rows that belong to 15 orders has 15. Units are what was drawn at random, rows
//!   were not.
//! - How many keys were met in one block, in two, in three ... tells how many groups there are and whether all are about as large. The
//!   sizes are taken to be log-normally distributed, as narrowly as fits; where no width fits, expectation maximisation goes on from the
//!   best of them (the mixture of Poisson distributions that makes what was met most likely). The estimator Duj1, which ANALYZE applies
//!   to rows [analyze.c], is about what this says of groups of one size.
//! - A key that was met in many blocks is no matter of estimation: its share of the sample is its share of the table.
//! - A group that goes on in the next block is two units. Where equal keys lie side by side, keys that come new in the later part of
//!   a block tell how often a group begins; the smaller of both figures counts.

use super::runs::Runs;
use super::sample::Place;

/// A key that was met in so many blocks has a share of its own.
const FREQUENT: usize = 20;
/// Where nearly all units are groups of their own, the sizes of units within blocks are those of the groups, unless that contradicts
/// how often groups begin.
const ALONE: f64 = 0.3;
const MOSTLY_ALONE: f64 = 0.95;
const SAME: f64 = 0.07;
/// From one size of group to the next that is tried.
const STEP: f64 = 1.35;
/// Cells of so few units are of one unit.
const SMALLEST: f64 = 0.02;
/// Share of the rows that is spread over all sizes at first: what is nowhere can never become more.
const SPREAD: f64 = 0.001;
/// Widths of the distributions that are tried first, as standard deviations of the logarithm of the size.
const WIDTHS: [f64; 8] = [0.15, 0.5, 1.0, 1.5, 2.0, 2.7, 3.5, 5.0];
/// A wider distribution must fit so much better, in units of chi square.
const CLEARLY: f64 = 2.0;
/// The final fit is this much better than a good one.
const WELL: f64 = 0.2;
const PACE: f64 = 1.8;
const MOST_ROUNDS: usize = 1000;

/// How rows fall into groups of equal keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Groups {
    /// Groups that were met often, or all of them when the sample is the whole table: their rows in the sample, and one of these.
    pub frequent: Vec<(u32, u32)>,
    /// All other rows: shares of them that add up to 1, in groups of so many rows on average.
    pub rare: Vec<(f64, f64)>,
    /// They are of exactly so many rows.
    pub exact: bool,
    /// A row of each of these groups that was met.
    pub met: Vec<u32>,
}

impl Groups {
    /// From the place and the hash of the key of each row. The table has `scale` rows for each that was met; `whole` when these are all.
    pub fn of(places: &[Place], key: impl Fn(usize) -> u64, scale: f64, whole: bool) -> Self {
        let mut seen = Seen::new(places.len());
        let keys: Vec<(u32, bool)> = places.iter().enumerate().map(|(row, place)| seen.add(key(row), place.block, row)).collect();
        let frequent = |m: &Met| whole || m.units as usize >= FREQUENT;
        let mut groups = Groups::default();
        let mut met = [0.0; FREQUENT];
        let mut rows = 0.0;
        for m in &seen.keys {
            if frequent(m) {
                groups.frequent.push((m.rows, m.row));
            } else {
                groups.met.push(m.row);
                met[m.units as usize] += 1.0;
                rows += f64::from(m.rows);
            }
        }
        if rows > 0.0 {
            let units: f64 = met.iter().enumerate().map(|(times, keys)| times as f64 * keys).sum();
            let cells = cells(&met, scale.max(1.0));
            let alone: f64 = cells.iter().filter(|(_, size)| *size < ALONE).map(|(share, _)| share).sum();
            let sizes: Vec<(f64, f64)> = cells.into_iter().map(|(share, s)| (share, s / -(-s).exp_m1())).collect();
            let number: f64 = sizes.iter().map(|(share, size)| share / size).sum();
            let rare = |key: u32| seen.keys.get(key as usize).is_some_and(|m| !frequent(m));
            let runs = Runs::of(places, &keys, seen.keys.len(), rare);
            // Groups for each unit as the blocks' ends do not disturb it, against those for each unit of the fit.
            let begun = runs.begun.map_or(1.0, |rate| (rate * rows / units / number).min(1.0)).max(1e-9);
            let mean = rows / (units * number * begun);
            groups.exact = alone > MOSTLY_ALONE && runs.mean().is_some_and(|m| (m / mean - 1.0).abs() < SAME);
            groups.rare = if groups.exact {
                runs.shares()
            } else {
                sizes.into_iter().map(|(share, size)| (share, size * rows / units / begun)).collect()
            };
        }
        groups
    }

    /// Number of groups in a table of so many rows, `frequent` of which are in the groups that were met often.
    pub fn count(&self, rows: f64, frequent: f64) -> f64 {
        let others = (rows - frequent).max(0.0);
        self.frequent.len() as f64 + self.rare.iter().map(|(share, size)| share * others / size.max(1.0)).sum::<f64>()
    }
}

/// The sizes of groups: what share of the units is in cells of how many units on average. A cell is a value that rows take by chance, so
/// that the units of a cell have a Poisson distribution; cells of far less than one unit are unique keys. `met[i]` is the number of keys
/// that were met in `i` blocks; of `scale` units in the table one was met.
fn cells(met: &[f64; FREQUENT], scale: f64) -> Vec<(f64, f64)> {
    let (mut units, mut keys) = (0.0, 0.0);
    for (times, number) in met.iter().enumerate() {
        units += times as f64 * number;
        keys += number;
    }
    if met[1] >= keys {
        return vec![(1.0, 1e-6)];
    }
    let largest = FREQUENT as f64 * scale;
    let sizes: Vec<f64> = std::iter::successors(Some(SMALLEST), |s| Some(s * STEP)).take_while(|s| *s < largest).collect();
    let chances: Vec<[f64; FREQUENT]> = sizes.iter().map(|s| poisson(s / scale)).collect();
    let mut number = guess(met, units / keys, &sizes, &chances);
    let spread = SPREAD * units * scale / sizes.len() as f64;
    number.iter_mut().zip(&sizes).for_each(|(n, s)| *n += spread / s);
    for _ in 0..MOST_ROUNDS {
        let expected = expected(&number, &chances);
        if misfit(met, &expected) <= WELL * fits(met) {
            break;
        }
        for (n, c) in number.iter_mut().zip(&chances) {
            let (mut more, mut seen) = (0.0, 0.0);
            for times in 1..FREQUENT {
                more += c[times] * met[times] / expected[times].max(1e-9);
                seen += c[times];
            }
            // Further than expectation maximisation goes, which is slow (over-relaxation).
            *n *= (1.0 + PACE * (more / seen.max(1e-12) - 1.0)).max(0.1);
        }
    }
    // Of large cells, those that were met more often are counted elsewhere.
    let mut shares: Vec<(f64, f64)> =
        sizes.iter().zip(&number).zip(&chances).map(|((s, n), c)| (s * n * c.iter().sum::<f64>(), *s)).collect();
    let sum: f64 = shares.iter().map(|(share, _)| share).sum();
    shares.iter_mut().for_each(|(share, _)| *share /= sum);
    shares.retain(|(share, _)| *share > 1e-6);
    shares
}

/// The log-normal distribution of the rows over sizes that fits best: of those that make a key be met so many times on average as it
/// was, the narrowest that no other fits clearly better than. Returns the number of cells of each size.
fn guess(met: &[f64; FREQUENT], mean: f64, sizes: &[f64], chances: &[[f64; FREQUENT]]) -> Vec<f64> {
    let keys: f64 = met.iter().sum();
    let of = |center: f64, width: f64| -> (Vec<f64>, [f64; FREQUENT]) {
        let cells = |s: &f64| (-((s.ln() - center) / width).powi(2) / 2.0).exp() / s;
        let mut number: Vec<f64> = sizes.iter().map(cells).collect();
        let found = expected(&number, chances);
        let factor = keys / found.iter().skip(1).sum::<f64>().max(1e-300);
        number.iter_mut().for_each(|n| *n *= factor);
        (number, found.map(|e| e * factor))
    };
    let mut best: Option<(f64, Vec<f64>)> = None;
    for width in WIDTHS {
        let (mut low, mut high) = (SMALLEST.ln() - 3.0 * width, sizes.last().map_or(0.0, |s| s.ln()) + 3.0 * width);
        for _ in 0..25 {
            let center = (low + high) / 2.0;
            let (_, found) = of(center, width);
            let times: f64 = found.iter().enumerate().map(|(times, e)| times as f64 * e).sum();
            if times < mean * keys { low = center } else { high = center }
        }
        let (number, found) = of((low + high) / 2.0, width);
        let off = misfit(met, &found);
        if best.as_ref().is_none_or(|(least, _)| off < least - CLEARLY) {
            best = Some((off, number));
        }
        if off <= fits(met) {
            break;
        }
    }
    best.map(|(_, number)| number).unwrap_or_default()
}

/// How many keys would be met 0, 1, 2 ... times.
fn expected(number: &[f64], chances: &[[f64; FREQUENT]]) -> [f64; FREQUENT] {
    let mut sums = [0.0; FREQUENT];
    for (n, c) in number.iter().zip(chances) {
        sums.iter_mut().zip(c).for_each(|(sum, chance)| *sum += n * chance);
    }
    sums
}

/// The chi square of a good fit: 1 for each figure that is to be fitted.
fn fits(met: &[f64; FREQUENT]) -> f64 {
    met.iter().skip(1).filter(|m| **m > 0.0).count() as f64
}

/// Chi square of the keys that were met.
fn misfit(met: &[f64; FREQUENT], expected: &[f64; FREQUENT]) -> f64 {
    met.iter().zip(expected).skip(1).map(|(m, e)| (m - e).powi(2) / e.max(1.0)).sum()
}

/// The parameter of a Poisson distribution that has this mean when zeros are left out: x / (1 - exp(-x)) = mean.
pub(super) fn poisson_mean(mean: f64) -> f64 {
    let (mut low, mut high) = (0.0, mean);
    for _ in 0..50 {
        let x: f64 = (low + high) / 2.0;
        if x / -(-x).exp_m1().min(-1e-300) < mean { low = x } else { high = x }
    }
    (low + high) / 2.0
}

fn poisson(mean: f64) -> [f64; FREQUENT] {
    let mut p = (-mean).exp();
    std::array::from_fn(|times| {
        let this = p;
        p *= mean / (times as f64 + 1.0);
        this
    })
}

/// A key that was met.
struct Met {
    hash: u64,
    /// Blocks that have it, and the last of them.
    units: u32,
    block: u32,
    rows: u32,
    /// The first row that has it.
    row: u32,
}

/// The keys that were met, found by their hashes (open addressing; a hash spreads evenly).
struct Seen {
    slots: Vec<u32>,
    keys: Vec<Met>,
}

const FREE: u32 = u32::MAX;

impl Seen {
    fn new(rows: usize) -> Self {
        Seen { slots: vec![FREE; (rows * 2).next_power_of_two().max(16)], keys: Vec::new() }
    }

    /// The number of the key, and whether it was not met in this block before.
    fn add(&mut self, hash: u64, block: u32, row: usize) -> (u32, bool) {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let Some(place) = self.slots.get_mut(slot) else { return (FREE, false) };
            match self.keys.get_mut(*place as usize) {
                None => {
                    *place = self.keys.len() as u32;
                    self.keys.push(Met { hash, units: 1, block, rows: 1, row: row as u32 });
                    return (*place, true);
                }
                Some(key) if key.hash == hash => {
                    let new = key.block != block;
                    key.rows += 1;
                    key.units += u32::from(new);
                    key.block = block;
                    return (*place, new);
                }
                Some(_) => slot = (slot + 1) & mask,
            }
        }
    }
}
