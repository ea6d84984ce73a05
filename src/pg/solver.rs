//! Running HiGHS so that it can be cancelled.
