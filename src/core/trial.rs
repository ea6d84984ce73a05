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

/// What a transaction sees of the indexes on trial in its database; counted apart (`trial_stats.arm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arm {
    /// Nothing is on trial.
    None,
    /// It sees no index on trial.
    Control,
    /// It sees the first index of a comparison, or the new indexes that are tried.
    A,
    /// It sees the second index of a comparison.
    B,
}

impl Arm {
    pub const ALL: [Arm; 4] = [Arm::None, Arm::Control, Arm::A, Arm::B];

    /// As a number, for keys of counters.
    pub fn number(self) -> u32 {
        match self {
            Arm::None => 0,
            Arm::Control => 1,
            Arm::A => 2,
            Arm::B => 3,
        }
    }

    pub fn of(number: u32) -> Self {
        Self::ALL.into_iter().find(|arm| arm.number() == number).unwrap_or(Arm::None)
    }

    /// As in the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Arm::None => "none",
            Arm::Control => "control",
            Arm::A => "a",
            Arm::B => "b",
        }
    }

    /// The coins of the arm when each arm with an index has that percentage of the transactions.
    pub fn share(self, percent: f64) -> Share {
        let width = (f64::from(SIDES) * percent / 100.0).round().clamp(0.0, f64::from(SIDES)) as u16;
        match self {
            Arm::A => Share { from: 0, until: width },
            Arm::B => Share { from: width, until: width.saturating_mul(2).min(SIDES) },
            Arm::None | Arm::Control => Share::HIDDEN,
        }
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
    fn arms_do_not_overlap() {
        for percent in [0.01, 1.0, 10.0, 33.3, 50.0] {
            let (a, b) = (Arm::A.share(percent), Arm::B.share(percent));
            assert_eq!((0..SIDES).filter(|c| a.contains(*c) && b.contains(*c)).count(), 0);
            let coins = |share: Share| (0..SIDES).filter(|c| share.contains(*c)).count();
            assert_eq!(coins(a), (percent * 100.0).round() as usize);
            assert_eq!(coins(b), coins(a));
        }
        assert!((0..SIDES).all(|c| Arm::A.share(100.0).contains(c)));
    }

    #[test]
    fn arms_are_their_numbers() {
        for arm in Arm::ALL {
            assert_eq!(Arm::of(arm.number()), arm);
        }
        assert_eq!(Arm::of(17), Arm::None);
    }

    #[test]
    fn nothing_is_packed_as_nothing() {
        assert_eq!(Share::HIDDEN.pack(), 0);
        assert!(Share::HIDDEN.is_hidden());
    }
}
