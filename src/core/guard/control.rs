//! Rules about the switches: what people have set, not what the server is doing.

use super::{Config, Facts, Finding, Mode, pass, wait};

/// Off stops everything; below `apply`, only what a person asked for is carried out.
pub(super) fn mode(facts: &Facts, config: &Config) -> Finding {
    let rule = "mode";
    match (config.mode, facts.explicit) {
        (Mode::Off, _) => wait(rule, "indexpilot.mode is off"),
        (Mode::Apply, _) => pass(rule, "indexpilot.mode is apply"),
        (_, true) => pass(rule, "somebody asked for it by a call"),
        // Whoever asked for an index asked for its verdict too; without this, a bad one would stay for ever.
        (_, false) if facts.reverts => pass(rule, "it takes back what IndexPilot did"),
        (Mode::Observe, false) => wait(rule, "indexpilot.mode is observe, and nobody asked for it by a call"),
        (Mode::Advise, false) => wait(rule, "indexpilot.mode is advise, and nobody asked for it by a call"),
    }
}

/// `disable_system()` holds in this database, whoever asks.
pub(super) fn disabled(facts: &Facts, _config: &Config) -> Finding {
    match &facts.disabled {
        Some(reason) => wait("disabled", format!("disable_system() was called: {reason}")),
        None => pass("disabled", "the database is enabled"),
    }
}

/// `indexpilot.apply = off` makes every queued action wait.
pub(super) fn apply(_facts: &Facts, config: &Config) -> Finding {
    match config.apply {
        true => pass("apply", "indexpilot.apply is on"),
        false => wait("apply", "indexpilot.apply is off"),
    }
}
