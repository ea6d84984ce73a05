//! From what the server says of scans to what the core crate reasons with.

use crate::pg::access;
use indexpilot_core::whatif::{Access, Leaf};
use pgrx::pg_sys;

/// The position of a hypothetical index; `None` for any other.
type Position<'a> = &'a dyn Fn(pg_sys::Oid) -> Option<usize>;

/// All ways to read each relation.
pub fn accesses(relations: &[Vec<access::Scan>], position: Position<'_>) -> Vec<Access> {
    let all = relations.iter().zip(0..).flat_map(|(scans, relation)| scans.iter().map(move |scan| (relation, scan)));
    all.map(|(relation, scan)| Access {
        relation,
        index: position(scan.index),
        outer: scan.outer,
        parallel: scan.parallel,
        order: scan.order.clone(),
        cost: scan.total,
    })
    .collect()
}

/// The scans of a plan, each found again among those that were priced. The plan's own figure may hold a little more than the scan:
/// what the query computes of its rows.
pub fn leaves(leaves: &[access::Leaf], relations: &[Vec<access::Scan>], position: Position<'_>) -> Vec<Leaf> {
    let mut taken: Vec<usize> = Vec::new();
    leaves
        .iter()
        .map(|leaf| {
            let mut best: Option<(f64, usize, &access::Scan)> = None;
            if leaf.indexes.len() < 2 {
                let index = leaf.indexes.first().copied().unwrap_or(pg_sys::InvalidOid);
                for (relation, scans) in relations.iter().enumerate() {
                    let alike = |s: &&access::Scan| {
                        (s.table, s.index, s.bitmap, s.parallel) == (leaf.table, index, leaf.bitmap, leaf.parallel)
                    };
                    for scan in scans.iter().filter(alike) {
                        // Of two relations that look the same, each is one leaf.
                        let again = f64::from(u8::from(taken.contains(&relation))) * 1e-6;
                        let distance = (leaf.total - scan.total).abs() + again;
                        if best.as_ref().is_none_or(|(d, ..)| distance < *d) {
                            best = Some((distance, relation, scan));
                        }
                    }
                }
            }
            let found = best.filter(|(distance, ..)| *distance <= leaf.total.abs() * 0.25 + 1.0);
            if let Some((_, relation, _)) = found {
                taken.push(relation);
            }
            Leaf {
                relation: found.map(|(_, relation, _)| relation as u32),
                indexes: leaf.indexes.iter().filter_map(|oid| position(*oid)).collect(),
                outer: found.map_or(0, |(.., scan)| scan.outer),
                parallel: leaf.parallel,
                order: match found {
                    Some((.., scan)) if leaf.ordered => scan.order.clone(),
                    _ => Vec::new(),
                },
                times: leaf.times,
                cost: found.map_or(leaf.total, |(.., scan)| scan.total),
            }
        })
        .collect()
}
