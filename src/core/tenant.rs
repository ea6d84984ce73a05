//! Where a statement names its tenant, and how that is packed into the one word that capture looks up.

/// What tells the tenant of a statement: a value that the tenant column is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantSource {
    /// `$n`, counted from 1.
    Parameter(u16),
    /// The literal of that number in the text of the statement, counted from 0 ([`crate::literal::compared`]).
    Literal(u16),
}

/// Bits of a word that hold the source; the others hold a part of the template's hash.
const SOURCE: u64 = (1 << 18) - 1;
const KNOWN: u64 = 1 << 17;
const LITERAL: u64 = 1 << 16;

impl TenantSource {
    /// One word for the template with this hash. Never 0.
    pub fn pack(self, hash: u64) -> u64 {
        let (kind, position) = match self {
            TenantSource::Parameter(n) => (0, n),
            TenantSource::Literal(n) => (LITERAL, n),
        };
        hash & !SOURCE | KNOWN | kind | u64::from(position)
    }

    /// The source in a word, when it was packed for the template with this hash.
    pub fn unpack(word: u64, hash: u64) -> Option<Self> {
        if (word ^ hash) & !SOURCE != 0 || word & KNOWN == 0 {
            return None;
        }
        let position = word as u16;
        Some(if word & LITERAL == 0 { TenantSource::Parameter(position) } else { TenantSource::Literal(position) })
    }

    /// As it is stored: `$1`, `literal 0`.
    pub fn name(self) -> String {
        match self {
            TenantSource::Parameter(n) => format!("${n}"),
            TenantSource::Literal(n) => format!("literal {n}"),
        }
    }

    /// The opposite of [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        match (name.strip_prefix('$'), name.strip_prefix("literal ")) {
            (Some(n), _) => n.parse().ok().map(TenantSource::Parameter),
            (_, Some(n)) => n.parse().ok().map(TenantSource::Literal),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_gives_its_source_back_to_its_template_only(literal: bool, n: u16, hash: u64, other: u64) {
            let source = if literal { TenantSource::Literal(n) } else { TenantSource::Parameter(n) };
            let word = source.pack(hash);
            prop_assert_ne!(word, 0);
            prop_assert_eq!(TenantSource::unpack(word, hash), Some(source));
            prop_assert_eq!(TenantSource::unpack(word, other).is_some(), hash & !SOURCE == other & !SOURCE);
            prop_assert_eq!(TenantSource::unpack(0, hash), None);
            prop_assert_eq!(TenantSource::from_name(&source.name()), Some(source));
        }
    }

    #[test]
    fn other_names_are_no_source() {
        for name in ["", "$", "$x", "literal", "literal -1", "5", "$70000"] {
            assert_eq!(TenantSource::from_name(name), None, "{name}");
        }
    }
}
