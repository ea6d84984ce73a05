//! The hidden indexes on disk: read when the server starts, also after a crash, so that the first plan knows them already.
//!
//! The table `index_trial` is the truth; a worker compares on its next visit. A file that is damaged is passed over. So is one that lies
//! in the data directory of a standby or of a server that recovers to a point in time: it was copied there with a base backup, and says
//! what was hidden then, elsewhere.
//!
//! Layout, little-endian: magic, number of entries, the entries (five numbers each), checksum of all that.

use super::Entry;
use crate::pg::disk;
use indexpilot_core::trial::{Arm, Share};
use indexpilot_core::workload::mix;
use std::fs::{self, File};
use std::io::{self, Write};

/// Below the data directory, which is the server's working directory.
const DIRECTORY: &str = "pg_stat";
const FILE: &str = "pg_stat/indexpilot.hidden";
/// The last digit counts the changes of the layout.
const MAGIC: &[u8; 8] = b"IPHIDE 1";

/// What the file says, at most so many.
pub fn load(most: usize) -> Vec<Entry> {
    clear_up();
    if ["standby.signal", "recovery.signal"].iter().any(|signal| fs::exists(signal).unwrap_or(false)) {
        if let Err(e) = fs::remove_file(FILE)
            && e.kind() != io::ErrorKind::NotFound
        {
            pgrx::log!("indexpilot: could not remove file \"{FILE}\": {e}");
        }
        return Vec::new();
    }
    let bytes = match fs::read(FILE) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            pgrx::log!("indexpilot: could not read file \"{FILE}\", so hidden indexes are seen until a worker looks: {e}");
            return Vec::new();
        }
    };
    let mut entries = read(&bytes).unwrap_or_else(|| {
        pgrx::log!("indexpilot: file \"{FILE}\" is damaged or of another version, so hidden indexes are seen until a worker looks");
        Vec::new()
    });
    entries.truncate(most);
    entries
}

/// Files that a crash left half written.
fn clear_up() {
    for found in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let name = found.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("indexpilot.hidden.") && name.ends_with(".tmp") {
            let _ = fs::remove_file(found.path());
        }
    }
}

/// Replaces the file.
pub fn save(entries: &[Entry]) -> io::Result<()> {
    let new = format!("{FILE}.{}.tmp", std::process::id());
    let put = || {
        let mut file = File::create(&new)?;
        file.write_all(&write(entries))?;
        if disk::must_sync() {
            file.sync_all()?;
        }
        fs::rename(&new, FILE)?;
        if disk::must_sync() {
            File::open(DIRECTORY)?.sync_all()?;
        }
        Ok(())
    };
    put().inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |h, chunk| mix(h ^ chunk.iter().rev().fold(0, |word, b| word << 8 | u64::from(*b))))
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    for e in entries {
        for n in [e.database, e.index, e.table, e.share.pack(), e.arm.number()] {
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
    let sum = checksum(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// `None` when anything is not as `write` makes it.
fn read(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    if checksum(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (count, mut rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    let mut number = || {
        let (first, others) = rest.split_first_chunk::<4>()?;
        rest = others;
        Some(u32::from_le_bytes(*first))
    };
    let mut entries = Vec::new();
    for _ in 0..u64::from_le_bytes(*count) {
        let (database, index, table) = (number()?, number()?, number()?);
        entries.push(Entry { database, index, table, share: Share::unpack(number()?), arm: Arm::of(number()?) });
    }
    rest.is_empty().then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<Entry> {
        (1..=3)
            .map(|n| Entry { database: n, index: n + 10, table: n + 20, share: Share { from: 0, until: 100 }, arm: Arm::A })
            .collect()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&write(&example())), Some(example()));
        assert_eq!(read(&write(&[])), Some(vec![]));
    }

    #[test]
    fn damage_is_noticed() {
        let good = write(&example());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(read(&bad), None, "byte {at}");
            assert_eq!(read(&good[..at]), None, "cut at {at}");
        }
    }
}
