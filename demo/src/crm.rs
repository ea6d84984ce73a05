//! A small multi-tenant CRM: its schema, its data, and what the load generator must know of the data.
//!
//! Tenants have power-law sizes, rows of all tenants lie mixed in the order in which they arrived (as in a real shared table),
//! and nothing is indexed but the primary keys. Everything follows from the seed, so two runs load the same rows, and the load
//! generator can name real e-mail addresses and domains without asking the server.
//!
//! Optional custom fields, which only some tenants use:
//! - `contacts.custom_region`: used by many tenants, and asked for regularly;
//! - `contacts.custom_score`: used by many tenants, hardly ever asked for;
//! - `contacts.custom_segment`: filled by some, never asked for;
//! - `interactions.custom_channel_detail`: a feature that was withdrawn from almost all tenants, though queries still filter on it.

use crate::failure::{Failure, Result};
use crate::ui::Bar;
use crate::zipf::Zipf;
use postgres::{Client, CopyInWriter};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io::Write;
use std::time::{Duration, SystemTime};

const SCHEMA: &str = "
CREATE SCHEMA crm;
CREATE TABLE crm.tenants (
    tenant_id integer NOT NULL, name text NOT NULL, plan text NOT NULL, created_at timestamptz NOT NULL);
CREATE TABLE crm.organizations (
    organization_id bigint NOT NULL, tenant_id integer NOT NULL, name text NOT NULL, domain text NOT NULL, industry text,
    updated_at timestamptz NOT NULL);
CREATE TABLE crm.contacts (
    contact_id bigint NOT NULL, tenant_id integer NOT NULL, organization_id bigint, email text NOT NULL, full_name text NOT NULL,
    phone text, created_at timestamptz NOT NULL, last_seen_at timestamptz,
    custom_region text, custom_score integer, custom_segment text);
CREATE TABLE crm.interactions (
    interaction_id bigint NOT NULL, tenant_id integer NOT NULL, contact_id bigint NOT NULL, kind text NOT NULL,
    status text NOT NULL, occurred_at timestamptz NOT NULL, due_at timestamptz, subject text NOT NULL, notes text,
    custom_channel_detail text);
";

const KEYS: &str = "
ALTER TABLE crm.tenants ADD PRIMARY KEY (tenant_id);
ALTER TABLE crm.organizations ADD PRIMARY KEY (organization_id);
ALTER TABLE crm.contacts ADD PRIMARY KEY (contact_id);
ALTER TABLE crm.interactions ADD PRIMARY KEY (interaction_id);
";

/// End of the history, and the load generator's present: 2026-01-01 00:00 UTC, in seconds since the Unix epoch.
const PRESENT: u64 = 1_767_225_600;
const HISTORY_DAYS: u64 = 730;
const DAY: u64 = 86_400;

pub const KINDS: [&str; 6] = ["email", "email", "email", "call", "meeting", "note"];
pub const REGIONS: [&str; 12] =
    ["north", "south", "east", "west", "centre", "coast", "islands", "alps", "lakes", "border", "harbour", "valley"];
pub const CHANNELS: [&str; 8] = ["web form", "chat", "trade fair", "referral", "newsletter", "partner", "hotline", "walk-in"];
pub const INDUSTRIES: [&str; 8] = ["retail", "energy", "health", "media", "transport", "banking", "farming", "software"];
const FIRST: [&str; 16] = [
    "ada", "ben", "clara", "david", "elif", "farid", "grace", "hugo", "ines", "jonas", "kira", "liam", "mona", "noah", "olga",
    "pavel",
];
const LAST: [&str; 16] = [
    "abel", "brandt", "costa", "dietz", "evans", "fischer", "gomez", "hansen", "ivanov", "jensen", "koch", "lopez", "meyer",
    "novak", "okafor", "price",
];
const WORDS: [&str; 24] = [
    "offer",
    "contract",
    "renewal",
    "invoice",
    "question",
    "delivery",
    "support",
    "demo",
    "pricing",
    "meeting",
    "follow-up",
    "feedback",
    "order",
    "return",
    "training",
    "migration",
    "budget",
    "deadline",
    "partner",
    "complaint",
    "thanks",
    "reminder",
    "update",
    "plan",
];

/// How much to load.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub tenants: usize,
    pub organizations: usize,
    pub contacts: usize,
    pub interactions: usize,
}

/// What the load generator knows of the loaded data. Tenants, contacts and organizations are numbered from 1.
pub struct Crm {
    pub size: Size,
    seed: u64,
    zipf: Zipf,
    contacts: Vec<Vec<i64>>,
    organizations: Vec<Vec<i64>>,
    /// Of each contact; 0 for those without one.
    organization_of: Vec<i64>,
}

impl Crm {
    /// Decides which tenant owns what. No data is made yet.
    pub fn new(size: Size, seed: u64) -> Self {
        let zipf = Zipf::new(size.tenants, 1.0);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut owners = |n: usize| -> Vec<Vec<i64>> {
            let mut of_tenant = vec![Vec::new(); size.tenants];
            for i in 0..n.max(size.tenants) {
                // The first ones go round, so that no tenant stays empty.
                let tenant = if i < size.tenants { i } else { zipf.draw(&mut rng) };
                of_tenant[tenant].push(i as i64 + 1);
            }
            of_tenant
        };
        let (organizations, contacts) = (owners(size.organizations), owners(size.contacts));
        let mut organization_of = vec![0; size.contacts.max(size.tenants) + 1];
        for (of, own) in organizations.iter().zip(&contacts) {
            for &contact in own {
                if rng.random_bool(0.95) {
                    organization_of[contact as usize] = of[rng.random_range(0..of.len())];
                }
            }
        }
        Crm { size, seed, zipf, contacts, organizations, organization_of }
    }

    /// A tenant, large ones more often; from 1.
    pub fn tenant(&self, rng: &mut StdRng) -> i32 {
        self.zipf.draw(rng) as i32 + 1
    }

    /// Share of the rows and of the calls that belong to the largest tenant.
    pub fn largest_share(&self) -> f64 {
        self.zipf.share(0)
    }

    pub fn contact_of(&self, tenant: i32, rng: &mut StdRng) -> i64 {
        one_of(&self.contacts[tenant as usize - 1], rng)
    }

    pub fn organization_of(&self, tenant: i32, rng: &mut StdRng) -> i64 {
        one_of(&self.organizations[tenant as usize - 1], rng)
    }

    pub fn email(&self, contact: i64) -> String {
        let h = mix(self.seed, contact as u64);
        let name = format!("{}.{}", pick(&FIRST, h), pick(&LAST, h >> 8));
        match self.organization_of[contact as usize] {
            0 => format!("{name}.{contact}@mail.example"),
            organization => format!("{name}.{contact}@{}", self.domain(organization)),
        }
    }

    pub fn domain(&self, organization: i64) -> String {
        let h = mix(self.seed, !(organization as u64));
        format!("{}{}-{organization}.example", pick(&LAST, h), pick(&INDUSTRIES, h >> 8))
    }

    /// Whether the tenant fills `contacts.custom_region`.
    pub fn uses_region(tenant: i32) -> bool {
        tenant % 3 != 0
    }

    /// The load generator's present, moved by some seconds.
    pub fn present(offset_s: i64) -> SystemTime {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(PRESENT);
        if offset_s < 0 { now - Duration::from_secs(offset_s.unsigned_abs()) } else { now + Duration::from_secs(offset_s as u64) }
    }

    /// A moment of the last `days` days of the history, in seconds before the present (negative).
    pub fn some_time_ago(days: u64, rng: &mut StdRng) -> i64 {
        -(rng.random_range(0..(days.min(HISTORY_DAYS) * DAY)) as i64)
    }

    /// Creates and fills the schema in one transaction, adds the primary keys, and calls the bar for each row.
    pub fn load(&self, client: &mut Client, bar: &Bar) -> Result<()> {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(SCHEMA)?;
        let mut rng = StdRng::seed_from_u64(mix(self.seed, 1));
        let mut line = String::with_capacity(512);
        for table in [Self::tenants, Self::organizations, Self::contacts, Self::interactions] {
            let (name, rows) = table(self);
            let mut writer: CopyInWriter<'_> = transaction.copy_in(&format!("COPY crm.{name} FROM STDIN WITH (FREEZE)"))?;
            for row in 0..rows.count {
                line.clear();
                (rows.write)(self, row, &mut rng, &mut line)?;
                line.push('\n');
                writer.write_all(line.as_bytes())?;
                bar.advance(1);
            }
            writer.finish()?;
        }
        transaction.batch_execute(KEYS)?;
        transaction.batch_execute(&format!(
            "ALTER TABLE crm.interactions ALTER interaction_id ADD GENERATED ALWAYS AS IDENTITY (START {})",
            self.size.interactions + 1
        ))?;
        transaction.commit()?;
        Ok(())
    }

    /// Rows that `load` will write.
    pub fn rows(&self) -> u64 {
        (self.size.tenants + self.size.organizations + self.organization_of.len() - 1 + self.size.interactions) as u64
    }
}

/// Writes one row of a table as a line of COPY's text format.
type WriteRow = fn(&Crm, usize, &mut StdRng, &mut String) -> Result<()>;

struct Rows {
    count: usize,
    write: WriteRow,
}

/// One function per table: its name, and how its rows are written.
impl Crm {
    fn tenants(&self) -> (&'static str, Rows) {
        let write: WriteRow = |_, i, rng, out| {
            let plan = ["free", "team", "business"][rng.random_range(0..3)];
            append(out, format_args!("{}\t{} {}\t{plan}\t", i + 1, pick(&LAST, i as u64), pick(&INDUSTRIES, i as u64 / 16)))?;
            time(out, PRESENT - HISTORY_DAYS * DAY)
        };
        ("tenants", Rows { count: self.size.tenants, write })
    }

    fn organizations(&self) -> (&'static str, Rows) {
        let write: WriteRow = |crm, i, rng, out| {
            let id = i as i64 + 1;
            let tenant = owner(&crm.organizations, id);
            let domain = crm.domain(id);
            append(
                out,
                format_args!("{id}\t{tenant}\t{} Ltd\t{domain}\t{}\t", domain.trim_end_matches(".example"), one(&INDUSTRIES, rng)),
            )?;
            time(out, PRESENT - rng.random_range(0..HISTORY_DAYS * DAY))
        };
        ("organizations", Rows { count: self.size.organizations.max(self.size.tenants), write })
    }

    fn contacts(&self) -> (&'static str, Rows) {
        let write: WriteRow = |crm, i, rng, out| {
            let id = i as i64 + 1;
            let tenant = owner(&crm.contacts, id);
            let email = crm.email(id);
            let name = email.split('@').next().unwrap_or_default().replace('.', " ");
            append(out, format_args!("{id}\t{tenant}\t"))?;
            optional(out, Some(crm.organization_of[id as usize]).filter(|&o| o != 0))?;
            append(out, format_args!("{email}\t{name}\t+49 {:09}\t", rng.random_range(0..1_000_000_000u32)))?;
            let created = PRESENT - rng.random_range(DAY..HISTORY_DAYS * DAY);
            time(out, created)?;
            out.push('\t');
            time(out, created + rng.random_range(0..(PRESENT - created)))?;
            out.push('\t');
            optional(out, Crm::uses_region(tenant).then(|| one(&REGIONS, rng)))?;
            optional(out, (tenant % 2 == 0).then(|| rng.random_range(0..100)))?;
            append(out, format_args!("{}", if tenant % 5 == 0 { one(&WORDS, rng) } else { "\\N" }))
        };
        ("contacts", Rows { count: self.size.contacts.max(self.size.tenants), write })
    }

    fn interactions(&self) -> (&'static str, Rows) {
        let write: WriteRow = |crm, i, rng, out| {
            let tenant = crm.tenant(rng);
            let contact = crm.contact_of(tenant, rng);
            let progress = i as u64 * HISTORY_DAYS * DAY / crm.size.interactions as u64;
            let occurred = PRESENT - HISTORY_DAYS * DAY + progress;
            let status = match rng.random_range(0..100) {
                0..3 => "open",
                3..5 => "cancelled",
                _ => "done",
            };
            append(out, format_args!("{}\t{tenant}\t{contact}\t{}\t{status}\t", i + 1, one(&KINDS, rng)))?;
            time(out, occurred)?;
            out.push('\t');
            if status == "open" || rng.random_bool(0.4) {
                time(out, occurred + rng.random_range(DAY..60 * DAY))?;
            } else {
                out.push_str("\\N");
            }
            append(out, format_args!("\t{} {}\t", one(&WORDS, rng), one(&WORDS, rng)))?;
            for _ in 0..rng.random_range(2..9) {
                append(out, format_args!("{} ", one(&WORDS, rng)))?;
            }
            let detail = tenant % 7 == 0 && rng.random_bool(0.3);
            append(out, format_args!("\t{}", if detail { one(&CHANNELS, rng) } else { "\\N" }))
        };
        ("interactions", Rows { count: self.size.interactions, write })
    }
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) -> Result<()> {
    std::fmt::Write::write_fmt(out, text).map_err(Failure::from)
}

/// A value and a tab; `\N` for none.
fn optional(out: &mut String, value: Option<impl std::fmt::Display>) -> Result<()> {
    match value {
        Some(v) => append(out, format_args!("{v}\t")),
        None => append(out, format_args!("\\N\t")),
    }
}

/// A timestamp in UTC from seconds since the epoch. PostgreSQL reads Julian days, which spares us a calendar.
fn time(out: &mut String, seconds: u64) -> Result<()> {
    let (day, second) = (seconds / DAY + 2_440_588, seconds % DAY);
    append(out, format_args!("J{day} {:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60))
}

fn one_of(ids: &[i64], rng: &mut StdRng) -> i64 {
    ids[rng.random_range(0..ids.len())]
}

fn one<'a>(words: &[&'a str], rng: &mut StdRng) -> &'a str {
    words[rng.random_range(0..words.len())]
}

fn pick<'a>(words: &[&'a str], hash: u64) -> &'a str {
    words[hash as usize % words.len()]
}

/// Tenant that owns the thing; from 1. Lists are short and ascending, so a search in each is cheap enough for a loader.
fn owner(of_tenant: &[Vec<i64>], id: i64) -> i32 {
    of_tenant.iter().position(|ids| ids.binary_search(&id).is_ok()).map_or(1, |t| t as i32 + 1)
}

/// A number that looks random but follows from both arguments (the finaliser of splitmix64).
fn mix(seed: u64, value: u64) -> u64 {
    let mut z = seed ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { tenants: 20, organizations: 100, contacts: 500, interactions: 1000 };

    #[test]
    fn everybody_has_an_owner_and_nobody_is_empty() {
        let crm = Crm::new(SIZE, 7);
        assert!(crm.contacts.iter().chain(&crm.organizations).all(|ids| !ids.is_empty()));
        assert_eq!(crm.contacts.iter().map(Vec::len).sum::<usize>(), SIZE.contacts);
        assert_eq!(owner(&crm.contacts, crm.contacts[13][0]), 14);
        assert!(crm.contacts[0].len() > 5 * crm.contacts[19].len());
    }

    #[test]
    fn the_seed_decides() {
        let (a, b, c) = (Crm::new(SIZE, 7), Crm::new(SIZE, 7), Crm::new(SIZE, 8));
        assert_eq!(a.email(42), b.email(42));
        assert_ne!((1..50).map(|i| a.email(i)).collect::<Vec<_>>(), (1..50).map(|i| c.email(i)).collect::<Vec<_>>());
    }

    #[test]
    fn times_are_julian_days() -> Result<()> {
        let mut out = String::new();
        time(&mut out, PRESENT + 3_661)?;
        assert_eq!(out, "J2461042 01:01:01Z");
        Ok(())
    }
}
