//! What others reach on TPC-H at scale 1 with 19 of its queries, in bytes of indexes that were really built.
//!
//! Source: runs of the algorithms of Kossmann et al., "Magic mirror in my hand, which is the best in the land?" (VLDB 2020), of an
//! integer program over their configurations, and of two tools, on PostgreSQL 15.20 with default costs, no keys, jit off. The best
//! of Extend, DB2Advis, AutoAdmin, Relaxation and Anytime (DTA) at widths 2 and 3 stands here. Plain B-trees only.

/// A budget (MB of 10^6 bytes), and what others reach within it: cost with HypoPG and with the indexes built, over cost without.
pub struct Anchor {
    pub budget_mb: i64,
    pub best: (&'static str, f64, f64),
    pub program: (f64, f64),
}

pub const ANCHORS: [Anchor; 5] = [
    Anchor { budget_mb: 100, best: ("Anytime, width 2", 0.6481, 0.6675), program: (0.6481, 0.6675) },
    Anchor { budget_mb: 250, best: ("Extend, width 2", 0.5325, 0.5555), program: (0.525, 0.5429) },
    Anchor { budget_mb: 500, best: ("Relaxation, width 3", 0.4958, 0.5095), program: (0.4916, 0.5028) },
    Anchor { budget_mb: 750, best: ("Relaxation, width 3", 0.477, 0.4913), program: (0.4763, 0.49) },
    Anchor { budget_mb: 1000, best: ("Relaxation, width 3", 0.4729, 0.4881), program: (0.4699, 0.4792) },
];

/// Tools that take no budget: MB, and the two costs.
pub const TOOLS: [(&str, i64, f64, f64); 2] =
    [("Dexter 0.6.3", 331, 0.5856, 0.6003), ("supabase index_advisor 0.2.0", 294, 0.5232, 0.5455)];

/// Extend with HypoPG's own sizes: budget, width, cost. What a faithful copy must reach.
pub const EXTEND: [(i64, usize, f64); 4] = [(250, 2, 0.64555), (500, 2, 0.55887), (1000, 2, 0.51658), (1500, 3, 0.49882)];
