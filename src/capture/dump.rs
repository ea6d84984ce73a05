//! The counters over a clean restart: a file in `pg_stat`, written when the server stops and read, and removed, when it starts.
//!
//! Only counters are in it: samples hold literals, which belong in no file. After a crash there is no file, and what was counted since
//! the worker's last visit is lost. A file that is damaged, or from another version, is put aside, and counting begins anew.
//!
//! Layout, little-endian: magic, version of the server, number of databases and their OIDs, number of entries and the entries,
//! checksum of all that.

use super::entry::{Counts, Key, Known, RELATIONS, TENANT, Taken, Template};
use super::table::Table;
use super::{databases, hooks};
use crate::pg::{session, shmem, startup};
use indexpilot_core::histogram::BUCKETS;
use indexpilot_core::workload::mix;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Below the data directory, which is the server's working directory.
const FILE: &str = "pg_stat/indexpilot.stat";
const DIRECTORY: &str = "pg_stat";
/// The last digit counts the changes of the layout.
const MAGIC: &[u8; 8] = b"IPCAPT 2";

/// Has the file read when shared memory was made. From `_PG_init`.
pub fn init() {
    shmem::after_startup(|made| {
        session::at_server_exit(hooks::at_server_exit);
        if made {
            load();
        }
    });
}

/// Reads the file and removes it, so that a crash later on cannot bring back old figures.
fn load() {
    let path = Path::new(FILE);
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return,
        Err(e) => return pgrx::log!("indexpilot: could not read file \"{FILE}\": {e}"),
    };
    match read(&bytes) {
        Some((oids, mut entries)) => {
            // A file that stayed would be read again after a crash, and count everything twice.
            let gone = fs::remove_file(path).and_then(|()| File::open(DIRECTORY)?.sync_all());
            if let Err(e) = gone {
                return pgrx::log!("indexpilot: could not remove file \"{FILE}\", so it is not used: {e}");
            }
            for oid in oids {
                databases::register(oid);
            }
            // Entries with a tenant are counted in the one without.
            entries.sort_by_key(|e| e.key.tenant_len > 0);
            let restored = Table::get().map_or(0, |table| entries.iter().filter(|e| table.restore(e)).count());
            if restored < entries.len() {
                pgrx::log!(
                    "indexpilot: {} of {} query templates found no room in shared memory",
                    entries.len() - restored,
                    entries.len()
                );
            }
        }
        None => {
            pgrx::log!(
                "indexpilot: ignoring file \"{FILE}\", which is damaged or of another version; it is kept as \"{FILE}.bad\""
            );
            let _ = fs::rename(path, format!("{FILE}.bad"));
        }
    }
}

/// Writes the file when the server stops cleanly.
pub fn save() {
    let Some(table) = Table::get() else { return };
    let bytes = write(&databases::all(), &table.peek(0));
    let store = || -> io::Result<()> {
        let new = format!("{FILE}.tmp");
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, FILE)?;
        File::open(DIRECTORY)?.sync_all()
    };
    if let Err(e) = store() {
        pgrx::log!("indexpilot: could not write file \"{FILE}\": {e}");
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |h, chunk| mix(h ^ chunk.iter().rev().fold(0, |word, b| word << 8 | u64::from(*b))))
}

fn write(oids: &[u32], entries: &[Taken]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    let mut number = |n: u64| out.extend_from_slice(&n.to_le_bytes());
    number(startup::server_version().into());
    number(oids.len() as u64);
    oids.iter().for_each(|oid| number(u64::from(*oid)));
    number(entries.len() as u64);
    for Taken { key, template, known, counts: c, histogram } in entries {
        number(u64::from(key.database));
        number(u64::from(key.role));
        number(key.queryid);
        number(key.relations_hash);
        number(u64::from(key.nested));
        number(u64::from(key.arm));
        number(u64::from(key.tenant_len));
        key.tenant.iter().for_each(|b| number(u64::from(*b)));
        number(u64::from(template.command));
        number(u64::from(template.relation_count));
        number(u64::from(template.truncated));
        template.relations.iter().for_each(|oid| number(u64::from(*oid)));
        number(known.lifetime);
        for n in [c.calls, c.errors, c.error_ns, c.rows, c.ns, c.min_ns, c.max_ns] {
            number(n);
        }
        number(c.sum_squares_us.to_bits());
        number(c.planner_cost.to_bits());
        for n in [c.blocks_hit, c.blocks_read, c.blocks_temp, c.wal_bytes] {
            number(n);
        }
        histogram.iter().for_each(|n| number(*n));
    }
    let sum = checksum(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// `None` when anything is not as `write` makes it.
fn read(bytes: &[u8]) -> Option<(Vec<u32>, Vec<Taken>)> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    if checksum(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut number = || {
        let (first, others) = rest.split_first_chunk::<8>()?;
        rest = others;
        Some(u64::from_le_bytes(*first))
    };
    if number()? != u64::from(startup::server_version()) {
        return None;
    }
    let mut oids = Vec::new();
    for _ in 0..number()? {
        oids.push(u32::try_from(number()?).ok()?);
    }
    let mut entries = Vec::new();
    for _ in 0..number()? {
        let mut key = Key {
            database: u32::try_from(number()?).ok()?,
            role: u32::try_from(number()?).ok()?,
            queryid: number()?,
            relations_hash: number()?,
            nested: number()? != 0,
            arm: u8::try_from(number()?).ok()?,
            tenant_len: u8::try_from(number()?).ok().filter(|n| *n as usize <= TENANT)?,
            tenant: [0; TENANT],
        };
        for b in &mut key.tenant {
            *b = u8::try_from(number()?).ok()?;
        }
        let mut template = Template {
            command: u32::try_from(number()?).ok()?,
            relation_count: u8::try_from(number()?).ok().filter(|n| *n as usize <= RELATIONS)?,
            truncated: number()? != 0,
            relations: [0; RELATIONS],
        };
        for oid in &mut template.relations {
            *oid = u32::try_from(number()?).ok()?;
        }
        // The samples that were in the ring are gone.
        let known = Known { lifetime: number()?, sampled: 0 };
        let counts = Counts {
            calls: number()?,
            errors: number()?,
            error_ns: number()?,
            rows: number()?,
            ns: number()?,
            min_ns: number()?,
            max_ns: number()?,
            sum_squares_us: f64::from_bits(number()?),
            planner_cost: f64::from_bits(number()?),
            blocks_hit: number()?,
            blocks_read: number()?,
            blocks_temp: number()?,
            wal_bytes: number()?,
        };
        let mut histogram = [0; BUCKETS];
        for n in &mut histogram {
            *n = number()?;
        }
        entries.push(Taken { key, template, known, counts, histogram });
    }
    rest.is_empty().then_some((oids, entries))
}
