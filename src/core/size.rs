//! temporary
use crate::model::*;
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size { pub pages: u64, pub bytes: Bytes, pub tuples: f64, pub height: u32 }
/// temporary
pub fn btree(def: &IndexDef, table: &TableInfo) -> Size {
    let mut w = 8.0;
    for c in def.columns() {
        if let Some(c) = table.column(c) { let a = f64::from(c.align); w = (w / a).ceil() * a + f64::from(c.avg_width); }
    }
    let w = (w / 8.0).ceil() * 8.0 + 4.0;
    let fan = ((8192.0 - 40.0) * 0.9 / w).floor();
    let leaf = (table.rows / fan).ceil().max(1.0);
    let (mut pages, mut level, mut height) = (leaf, leaf, 0);
    while level > 1.0 { level = (level / (8192.0 - 40.0) * w / 0.7).ceil(); pages += level; height += 1; }
    Size { pages: pages as u64 + 1, bytes: (pages as u64 + 1) * PAGE, tuples: table.rows, height }
}
