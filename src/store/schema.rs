//! The schema that the extension's objects are about to be made in.

use crate::pg::error::{Error, Kind, Result};
use crate::pg::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Schema {
    owner: String,
    /// The owner is the caller, or a superuser.
    trusted: bool,
    /// Others who may make objects in it.
    makers: Option<String>,
    /// Something in it that is not the extension's.
    object: Option<String>,
}

/// Fails when somebody else owns the schema, may make objects in it, or has done so: they would run as whoever uses the extension.
pub fn require_own(caller: Oid) -> Result<()> {
    let found: Option<Schema> = spi::row(
        "SELECT o.rolname AS owner, o.rolsuper OR o.oid = ($1->>'caller')::oid AS trusted,
                (SELECT string_agg(coalesce(quote_ident(g.rolname), 'PUBLIC'), ', ' ORDER BY g.rolname)
                   FROM aclexplode(n.nspacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
                  WHERE a.privilege_type = 'CREATE' AND a.grantee NOT IN (n.nspowner, ($1->>'caller')::oid) AND g.rolsuper IS NOT TRUE) AS makers,
                (SELECT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_depend d
                  WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.deptype = 'n'
                    AND d.classid <> 'pg_extension'::regclass
                    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
                  ORDER BY d.classid, d.objid LIMIT 1) AS object
           FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname = 'indexpilot'",
        json!({ "caller": caller.to_u32() }),
    )?;
    let Some(schema) = found else { return Ok(()) };
    let error = |message: String, hint: &str| {
        Err(Error::new(Kind::Prerequisite, message)
            .detail("What others put into the extension's schema would run as whoever uses the extension.")
            .hint(hint))
    };
    if !schema.trusted {
        let message = format!("schema \"indexpilot\" belongs to role \"{}\"", schema.owner);
        return error(message, "Run DROP SCHEMA indexpilot, or ALTER SCHEMA indexpilot OWNER TO CURRENT_USER.");
    }
    if let Some(makers) = schema.makers {
        let message = format!("others may make objects in schema \"indexpilot\": {makers}");
        return error(message, &format!("Run REVOKE CREATE ON SCHEMA indexpilot FROM {makers}."));
    }
    if let Some(object) = schema.object {
        let message = format!("schema \"indexpilot\" is not empty: it holds {object}");
        return error(message, "Move what is in it, or run DROP SCHEMA indexpilot CASCADE.");
    }
    Ok(())
}
