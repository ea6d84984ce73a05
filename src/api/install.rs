//! What CREATE EXTENSION looks at before it makes anything.

use crate::pg::error::or_raise;
use crate::pg::role;
use crate::store::schema;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn check_schema() {
    or_raise(schema::require_own(role::current()));
}
