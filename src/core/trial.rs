//! trial: who sees an index that not everybody may use, and what becomes of it.
//!
//! Every transaction has a coin, a number below [`SIDES`]. An index on trial is seen by the transactions whose coin lies in its share;
//! a hidden one has an empty share. So one number says of any set of indexes which of them a transaction sees, and it sees the same
//! ones in all of its statements.

/// A coin is a number from 0 up to, but not including, this.
pub const SIDES: u16 = 10_000;

/// The coins that see an index: from the first up to, but not including, the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    pub from: u16,
    pub until: u16,
}

impl Share {
    /// Nobody sees it.
    pub const HIDDEN: Share = Share { from: 0, until: 0 };

    pub fn is_hidden(self) -> bool {
        self.from >= self.until
    }

    pub fn contains(self, coin: u16) -> bool {
        self.from <= coin && coin < self.until
    }

    /// As a number, for shared memory and files.
    pub fn pack(self) -> u32 {
        u32::from(self.from) | u32::from(self.until) << 16
    }

    pub fn unpack(packed: u32) -> Self {
        Share { from: (packed & 0xFFFF) as u16, until: (packed >> 16) as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_share_survives_packing(from in 0..=SIDES, until in 0..=SIDES) {
            let share = Share { from, until };
            prop_assert_eq!(Share::unpack(share.pack()), share);
            prop_assert_eq!(share.is_hidden(), !(0..SIDES).any(|coin| share.contains(coin)));
        }
    }

    #[test]
    fn nothing_is_packed_as_nothing() {
        assert_eq!(Share::HIDDEN.pack(), 0);
        assert!(Share::HIDDEN.is_hidden());
    }
}
