//! Samples: statements as they were run, on their way from the backend to the worker.
//!
//! A fixed number of slots; a full ring drops and counts. A message is a sequence of little-endian fields, texts with their length
//! before them. With `indexpilot.capture_literals` off no parameter value is written, and the message says that the text's
//! constants must be replaced: the worker does so as the first thing, so until it has read the slot shared memory holds them.

use super::entry::{Key, Template};
use crate::guc;
use crate::pg::encoding;
use crate::pg::shmem::{Region, Slot, SlotWriter, shared};
use crate::pg::statement::Value;
use indexpilot_core::statement::{Variable, stand_alone};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bytes of a slot, so that with its header it takes 16 kB.
pub const SLOT: usize = 16 * 1024 - 16;
/// Longest statement that is sampled, in bytes; the rest is for its parameters and search path.
pub const MAX_TEXT: usize = 12 * 1024;
/// Longest value of a parameter that is kept, in bytes.
pub const MAX_VALUE: usize = 256;
/// Parameters of a statement beyond these make it too long.
pub const MAX_PARAMETERS: usize = 100;
/// Longest search_path that is kept, in bytes.
pub const MAX_PATH: usize = 1024;
/// Slots that are looked at for a free one.
const PROBES: usize = 16;

shared! {
    struct Head {
        cursor: AtomicU32,
        dropped: AtomicU64,
        too_long: AtomicU64,
    }
}

static SLOTS: Region<Slot<SLOT>> = Region::new(c"indexpilot capture samples", guc::capture_max_samples, |_| ());
static HEAD: Region<Head> = Region::new(c"indexpilot capture sample head", || 1, |_| ());

/// Asks for the memory. From `_PG_init`.
pub fn init() {
    crate::pg::shmem::register(&[&SLOTS, &HEAD], &[]);
}

/// A parameter of a sampled statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// `pg_type.oid`, 0 when unknown.
    pub type_oid: u32,
    /// The value as its type's input function reads it; `None` when it is NULL or not known.
    pub value: Option<String>,
    /// The value was kept: `None` then means NULL.
    pub known: bool,
}

/// A statement as it was run.
#[derive(Clone, Debug)]
pub struct CapturedSample {
    /// OID of the role that ran it.
    pub role: u32,
    /// As in `workload_stats`; empty when the session had none.
    pub tenant: String,
    pub queryid: u64,
    pub relations_hash: u64,
    /// It ran inside a function, procedure or trigger.
    pub nested: bool,
    /// OIDs of the base tables, ascending, at most 16.
    pub relations: Vec<u32>,
    /// The statement alone, with its literals; variables of a function are `$n` in it. Of EXECUTE, COPY and the like it is the whole utility statement that contains it
    /// (`PREPARE p AS SELECT ...`).
    pub text: String,
    /// `search_path` as the session had it set, e.g. `"$user", public`.
    pub search_path: String,
    pub parameters: Vec<Parameter>,
    /// False: `indexpilot.capture_literals` was off, so the constants in `text` must be replaced before it is kept anywhere.
    pub literals: bool,
}

/// Why there is no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No slot is free now.
    Full,
    /// It never fits.
    TooLong,
}

/// Where a variable of a function stands in the text, and which parameter takes its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Use {
    pub offset: u32,
    /// From 1.
    pub parameter: u32,
    /// Fields that are selected from it.
    pub fields: u32,
}

/// The ring, when there is shared memory.
#[derive(Clone, Copy)]
pub struct Ring {
    slots: &'static [Slot<SLOT>],
    head: &'static Head,
}

/// Figures of the ring as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub waiting: u64,
    pub capacity: u64,
    pub dropped: u64,
    pub too_long: u64,
    pub bytes: u64,
}

/// A message that is being written.
pub struct Message {
    ring: Ring,
    writer: SlotWriter<'static, SLOT>,
    database: u32,
}

impl Ring {
    pub fn get() -> Option<Ring> {
        Some(Ring { slots: SLOTS.get()?, head: HEAD.get()?.first()? })
    }

    /// Begins a message; parameters follow, then [`Message::publish`]. `parameters` is their number, `uses` are the variables of
    /// the text.
    #[allow(clippy::too_many_arguments)]
    pub fn begin(
        self,
        key: &Key,
        template: &Template,
        text: &[u8],
        search_path: &[u8],
        literals: bool,
        uses: &[Use],
        parameters: usize,
    ) -> Result<Message, Refused> {
        if text.len() > MAX_TEXT || parameters > MAX_PARAMETERS {
            return Err(self.too_long());
        }
        let start = self.head.cursor.fetch_add(1, Relaxed) as usize;
        let free = (0..PROBES.min(self.slots.len())).find_map(|i| self.slots.get((start + i) % self.slots.len())?.claim());
        let Some(writer) = free else {
            self.head.dropped.fetch_add(1, Relaxed);
            return Err(Refused::Full);
        };
        let mut message = Message { ring: self, writer, database: key.database };
        let relations = template.relations.get(..template.relation_count as usize).unwrap_or_default();
        let fits = message.number(key.role)
            && message.number(u32::from(key.nested))
            && message.writer.put(&key.queryid.to_le_bytes())
            && message.writer.put(&key.relations_hash.to_le_bytes())
            && message.number(relations.len() as u32)
            && relations.iter().all(|r| message.number(*r))
            && message.text(key.tenant())
            && message.text(text)
            && message.text(search_path)
            && message.number(u32::from(literals))
            && message.number(uses.len() as u32)
            && uses.iter().all(|u| message.number(u.offset) && message.number(u.parameter) && message.number(u.fields))
            && message.number(parameters as u32);
        if fits { Ok(message) } else { Err(self.too_long()) }
    }

    /// Counts a statement that never fits.
    pub fn too_long(self) -> Refused {
        self.head.too_long.fetch_add(1, Relaxed);
        Refused::TooLong
    }

    /// Empties the slots of a database. For the worker.
    pub fn take(&self, database: u32) -> Vec<CapturedSample> {
        let copies: Vec<Vec<u8>> = self.slots.iter().filter_map(|s| s.take(database, <[u8]>::to_vec)).collect();
        copies.iter().filter_map(|bytes| read(&mut Reader(bytes))).collect()
    }

    /// Throws the samples of a database away.
    pub fn clear(&self, database: u32) {
        for slot in self.slots {
            slot.take(database, |_| ());
        }
    }

    pub fn usage(&self) -> Usage {
        Usage {
            waiting: self.slots.iter().filter(|s| s.is_full()).count() as u64,
            capacity: self.slots.len() as u64,
            dropped: self.head.dropped.load(Relaxed),
            too_long: self.head.too_long.load(Relaxed),
            bytes: (size_of_val(self.slots) + size_of::<Head>()) as u64,
        }
    }
}

impl Message {
    /// The next parameter; `buffer` has its text. False when it does not fit.
    #[must_use]
    pub fn parameter(&mut self, type_oid: u32, value: &Value, buffer: &[u8]) -> bool {
        self.number(type_oid)
            && match value {
                Value::Unknown => self.number(0),
                Value::Null => self.number(1),
                Value::Text(length) => self.number(2) && self.text(buffer.get(..*length).unwrap_or_default()),
            }
    }

    /// Hands it to the worker.
    pub fn publish(self) {
        self.writer.publish(self.database);
    }

    /// Gives the slot back: a parameter did not fit.
    pub fn give_up(self) -> Refused {
        self.ring.too_long()
    }

    fn number(&mut self, n: u32) -> bool {
        self.writer.put(&n.to_le_bytes())
    }

    fn text(&mut self, bytes: &[u8]) -> bool {
        self.number(bytes.len() as u32) && self.writer.put(bytes)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> Option<&[u8]> {
        let (first, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(first)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn raw(&mut self) -> Option<&[u8]> {
        let length = self.number()? as usize;
        self.bytes(length)
    }

    fn text(&mut self) -> Option<String> {
        self.raw().map(encoding::to_utf8)
    }
}

/// The places of variables in a text that was converted.
fn moved(mut variables: Vec<Variable>, raw: &[u8], text: &str) -> Vec<Variable> {
    if raw != text.as_bytes() {
        for variable in &mut variables {
            variable.offset = encoding::to_utf8(raw.get(..variable.offset).unwrap_or_default()).len();
        }
    }
    variables
}

fn read(from: &mut Reader<'_>) -> Option<CapturedSample> {
    let role = from.number()?;
    let nested = from.number()? != 0;
    let (queryid, relations_hash) = (from.long()?, from.long()?);
    let relations = (0..from.number()?).map(|_| from.number()).collect::<Option<Vec<_>>>()?;
    let (tenant, raw, search_path) = (from.text()?, from.raw()?.to_vec(), from.text()?);
    let literals = from.number()? != 0;
    let variables = (0..from.number()?)
        .map(|_| {
            let (offset, parameter, fields) = (from.number()? as usize, from.number()? as usize, from.number()? as usize);
            Some(Variable { offset, parameter, fields })
        })
        .collect::<Option<Vec<_>>>()?;
    let text = encoding::to_utf8(&raw);
    let text = if nested { stand_alone(&text, &moved(variables, &raw, &text))? } else { text };
    let parameters = (0..from.number()?)
        .map(|_| {
            let type_oid = from.number()?;
            let (known, value) = match from.number()? {
                0 => (false, None),
                1 => (true, None),
                _ => (true, Some(from.text()?)),
            };
            Some(Parameter { type_oid, value, known })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(CapturedSample { role, tenant, queryid, relations_hash, nested, relations, text, search_path, parameters, literals })
}
