//! What the CRM's users do: named families of statements, each with its share of the load.
//!
//! Most families run as often as their weight says, in a mix that is the same before and after. Two stay at a fixed number of
//! calls per run however fast the server is, because the point of them is how often they are asked.

use crate::crm::{CHANNELS, Crm, INDUSTRIES, KINDS, REGIONS};
use postgres::types::ToSql;
use rand::RngExt;
use rand::rngs::StdRng;

const DAY_S: i64 = 86_400;

/// How often a family runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// In proportion to the other weights.
    Weight(u32),
    /// That many calls, evenly spread over the run.
    Calls(u32),
}

/// What the demo claims about a family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// A filter in constant use, which must get much faster.
    Heavy,
    /// A read without a claim.
    Read,
    Write,
    /// Filters on a field that must not be indexed, which has this table and column.
    Unindexed(&'static str, &'static str),
}

pub type Parameter = Box<dyn ToSql + Sync + Send>;

pub struct Family {
    pub name: &'static str,
    pub sql: &'static str,
    pub share: Share,
    pub role: Role,
    /// Makes parameters for one call.
    pub bind: fn(&Crm, &mut StdRng) -> Vec<Parameter>,
}

macro_rules! parameters {
    ($($value:expr),*) => { vec![$(Box::new($value) as Parameter),*] };
}

pub fn families() -> Vec<Family> {
    vec![
        Family {
            name: "contact by e-mail",
            sql: "SELECT contact_id, full_name, phone, last_seen_at FROM crm.contacts WHERE tenant_id = $1 AND email = $2",
            share: Share::Weight(22),
            role: Role::Heavy,
            bind: |crm, rng| {
                let tenant = crm.tenant(rng);
                parameters![tenant, crm.email(crm.contact_of(tenant, rng))]
            },
        },
        Family {
            name: "contacts of organization",
            sql: "SELECT contact_id, full_name, email FROM crm.contacts WHERE tenant_id = $1 AND organization_id = $2 \
                  ORDER BY full_name LIMIT 50",
            share: Share::Weight(15),
            role: Role::Heavy,
            bind: |crm, rng| {
                let tenant = crm.tenant(rng);
                parameters![tenant, crm.organization_of(tenant, rng)]
            },
        },
        Family {
            name: "timeline of contact",
            sql: "SELECT interaction_id, kind, occurred_at, subject FROM crm.interactions WHERE tenant_id = $1 AND contact_id = $2 \
                  ORDER BY occurred_at DESC LIMIT 20",
            share: Share::Weight(15),
            role: Role::Heavy,
            bind: |crm, rng| {
                let tenant = crm.tenant(rng);
                parameters![tenant, crm.contact_of(tenant, rng)]
            },
        },
        Family {
            name: "interactions by kind",
            sql: "SELECT interaction_id, contact_id, occurred_at, subject FROM crm.interactions \
                  WHERE tenant_id = $1 AND kind = $2 AND occurred_at >= $3 AND occurred_at < $4 ORDER BY occurred_at DESC LIMIT 100",
            share: Share::Weight(7),
            role: Role::Heavy,
            bind: |crm, rng| {
                let from = Crm::some_time_ago(180, rng) - 7 * DAY_S;
                let kind = KINDS[rng.random_range(0..KINDS.len())];
                parameters![crm.tenant(rng), kind, Crm::present(from), Crm::present(from + 7 * DAY_S)]
            },
        },
        Family {
            name: "open follow-ups due",
            sql: "SELECT interaction_id, contact_id, due_at, subject FROM crm.interactions \
                  WHERE tenant_id = $1 AND status = 'open' AND due_at <= $2 ORDER BY due_at LIMIT 50",
            share: Share::Weight(7),
            role: Role::Heavy,
            bind: |crm, rng| parameters![crm.tenant(rng), Crm::present(Crm::some_time_ago(90, rng))],
        },
        Family {
            name: "organization by domain",
            sql: "SELECT organization_id, name, industry FROM crm.organizations WHERE tenant_id = $1 AND domain = $2",
            share: Share::Weight(14),
            role: Role::Heavy,
            bind: |crm, rng| {
                let tenant = crm.tenant(rng);
                parameters![tenant, crm.domain(crm.organization_of(tenant, rng))]
            },
        },
        Family {
            name: "dashboard, 30 days",
            sql: "SELECT kind, count(*), max(occurred_at) FROM crm.interactions WHERE tenant_id = $1 AND occurred_at >= $2 \
                  GROUP BY kind",
            share: Share::Weight(3),
            role: Role::Read,
            bind: |crm, rng| parameters![crm.tenant(rng), Crm::present(-30 * DAY_S)],
        },
        Family {
            name: "contacts by custom region",
            sql: "SELECT contact_id, full_name FROM crm.contacts WHERE tenant_id = $1 AND custom_region = $2 \
                  ORDER BY full_name LIMIT 25",
            share: Share::Weight(3),
            role: Role::Read,
            bind: |crm, rng| {
                let mut tenant = crm.tenant(rng);
                if !Crm::uses_region(tenant) {
                    tenant = 1;
                }
                parameters![tenant, REGIONS[rng.random_range(0..REGIONS.len())]]
            },
        },
        Family {
            name: "custom score (rare)",
            sql: "SELECT contact_id, full_name FROM crm.contacts WHERE custom_score > $1 ORDER BY custom_score DESC LIMIT 10",
            share: Share::Calls(3),
            role: Role::Unindexed("contacts", "custom_score"),
            bind: |_, rng| parameters![rng.random_range(95..99)],
        },
        Family {
            name: "custom channel (unexpressed)",
            sql: "SELECT interaction_id, contact_id, occurred_at FROM crm.interactions WHERE custom_channel_detail = $1 \
                  AND occurred_at >= $2 ORDER BY occurred_at LIMIT 50",
            share: Share::Calls(24),
            role: Role::Unindexed("interactions", "custom_channel_detail"),
            bind: |_, rng| parameters![CHANNELS[rng.random_range(0..CHANNELS.len())], Crm::present(-365 * DAY_S)],
        },
        Family {
            name: "log interaction",
            sql: "INSERT INTO crm.interactions (tenant_id, contact_id, kind, status, occurred_at, due_at, subject, notes) \
                  VALUES ($1, $2, $3, 'open', $4, $5, 'logged by the load generator', NULL)",
            share: Share::Weight(5),
            role: Role::Write,
            bind: |crm, rng| {
                let tenant = crm.tenant(rng);
                let kind = KINDS[rng.random_range(0..KINDS.len())];
                parameters![
                    tenant,
                    crm.contact_of(tenant, rng),
                    kind,
                    Crm::present(rng.random_range(0..DAY_S)),
                    Crm::present(7 * DAY_S)
                ]
            },
        },
        Family {
            name: "contact seen",
            sql: "UPDATE crm.contacts SET last_seen_at = now() WHERE contact_id = $1",
            share: Share::Weight(4),
            role: Role::Write,
            bind: |crm, rng| parameters![crm.contact_of(crm.tenant(rng), rng)],
        },
        Family {
            name: "organization edited",
            sql: "UPDATE crm.organizations SET industry = $2, updated_at = now() WHERE organization_id = $1",
            share: Share::Weight(2),
            role: Role::Write,
            bind: |crm, rng| {
                parameters![crm.organization_of(crm.tenant(rng), rng), INDUSTRIES[rng.random_range(0..INDUSTRIES.len())]]
            },
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm::Size;
    use rand::SeedableRng;

    #[test]
    fn every_family_binds_as_many_parameters_as_its_statement_has() {
        let crm = Crm::new(Size { tenants: 5, organizations: 10, contacts: 50, interactions: 100 }, 1);
        let mut rng = StdRng::seed_from_u64(1);
        for family in families() {
            let wanted = (1..10).take_while(|n| family.sql.contains(&format!("${n}"))).count();
            assert_eq!((family.bind)(&crm, &mut rng).len(), wanted, "{}", family.name);
        }
    }

    #[test]
    fn about_a_tenth_of_the_mix_writes() {
        let weight = |writes: bool| -> u32 {
            families()
                .iter()
                .filter(|f| !writes || f.role == Role::Write)
                .map(|f| if let Share::Weight(w) = f.share { w } else { 0 })
                .sum()
        };
        let share = f64::from(weight(true)) / f64::from(weight(false));
        assert!((0.08..0.15).contains(&share), "{share}");
    }
}
