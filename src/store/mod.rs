//! The tables of schema indexpilot: the only module that writes them.
