//! Background workers: signals, registration, connection, settings.
