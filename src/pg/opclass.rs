//! Operator classes of index access methods: between the catalog and the model.

use indexpilot_core::model::{AccessMethod, OpClass};
use pgrx::pg_sys;
use std::ffi::CString;

/// OID of an access method, which is the same in every server.
pub fn method_oid(method: AccessMethod) -> pg_sys::Oid {
    match method {
        AccessMethod::Btree => pg_sys::BTREE_AM_OID,
        AccessMethod::Hash => pg_sys::HASH_AM_OID,
        AccessMethod::Gin => pg_sys::GIN_AM_OID,
        AccessMethod::Gist => pg_sys::GIST_AM_OID,
        AccessMethod::Spgist => pg_sys::SPGIST_AM_OID,
        AccessMethod::Brin => pg_sys::BRIN_AM_OID,
    }
}

/// The access method with that name, if the model has it.
pub fn method(name: &str) -> Option<AccessMethod> {
    use AccessMethod as A;
    [A::Btree, A::Hash, A::Gin, A::Gist, A::Spgist, A::Brin].into_iter().find(|m| m.name() == name)
}

/// The operator class that an index on the type gets when none is named.
pub fn default(method: AccessMethod, type_oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: reads the catalog; InvalidOid when there is none, or more than one.
    let found = unsafe { pg_sys::GetDefaultOpClass(type_oid, method_oid(method)) };
    (found != pg_sys::InvalidOid).then_some(found)
}

/// Operator classes beside the default one that the model knows and that fit the type.
fn special(method: AccessMethod, type_oid: pg_sys::Oid) -> &'static [OpClass] {
    use AccessMethod as A;
    // SAFETY: a catalog lookup that gives the type itself when it is no domain.
    match (method, unsafe { pg_sys::getBaseType(type_oid) }) {
        (A::Btree, pg_sys::TEXTOID) => &[OpClass::TextPattern],
        (A::Btree, pg_sys::VARCHAROID) => &[OpClass::VarcharPattern],
        (A::Btree, pg_sys::BPCHAROID) => &[OpClass::BpcharPattern],
        (A::Gin, pg_sys::TEXTOID | pg_sys::VARCHAROID) => &[OpClass::GinTrigram],
        (A::Gist, pg_sys::TEXTOID | pg_sys::VARCHAROID) => &[OpClass::GistTrigram],
        (A::Gin, pg_sys::JSONBOID) => &[OpClass::JsonbPath],
        _ => &[],
    }
}

/// All operator classes of the model for the type: the default one, then the others.
pub fn all(method: AccessMethod, type_oid: pg_sys::Oid) -> Vec<(OpClass, pg_sys::Oid)> {
    let default = default(method, type_oid).map(|oid| (OpClass::Default, oid));
    let special = special(method, type_oid).iter().filter_map(|class| Some((*class, named(method, *class)?)));
    default.into_iter().chain(special).collect()
}

/// The model's name of an operator class that an index on the type has.
pub fn of(method: AccessMethod, type_oid: pg_sys::Oid, opclass: pg_sys::Oid) -> Option<OpClass> {
    if default(method, type_oid) == Some(opclass) {
        return Some(OpClass::Default);
    }
    special(method, type_oid).iter().copied().find(|class| named(method, *class) == Some(opclass))
}

/// An operator class by its name, in whatever schema it is: only superusers can make one. `None` for an extension that is not there.
fn named(method: AccessMethod, class: OpClass) -> Option<pg_sys::Oid> {
    let name = CString::new(class.name()?).ok()?;
    // SAFETY: the cache's lists of operator classes are by access method and name; its members are rows of pg_opclass, whose copies of
    // numbers outlive the list.
    unsafe {
        let list = pg_sys::SearchSysCacheList(
            pg_sys::SysCacheIdentifier::CLAAMNAMENSP as i32,
            2,
            pg_sys::Datum::from(method_oid(method)),
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(0usize),
        );
        if list.is_null() {
            return None;
        }
        let members = std::slice::from_raw_parts((*list).members.as_ptr(), (*list).n_members.max(0) as usize);
        let mut found: Vec<pg_sys::Oid> = members
            .iter()
            .map(|member| (*pg_sys::GETSTRUCT(&raw mut (**member).tuple).cast::<pg_sys::FormData_pg_opclass>()).oid)
            .collect();
        pg_sys::ReleaseCatCacheList(list);
        found.sort_unstable_by_key(|oid| oid.to_u32());
        found.first().copied()
    }
}

/// The operator family of an operator class.
pub fn family(opclass: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a catalog lookup; callers have just found the operator class.
    unsafe { pg_sys::get_opclass_family(opclass) }
}

/// An index may return rows in the order of the operator's results, such as distances: what it compares with changes from query to
/// query.
pub fn measures_distance(operator: pg_sys::Oid) -> bool {
    // SAFETY: the cache's lists of operators in families are by operator; its members are rows of pg_amop.
    unsafe {
        let list = pg_sys::SearchSysCacheList(
            pg_sys::SysCacheIdentifier::AMOPOPID as i32,
            1,
            pg_sys::Datum::from(operator),
            pg_sys::Datum::from(0usize),
            pg_sys::Datum::from(0usize),
        );
        if list.is_null() {
            return false;
        }
        let members = std::slice::from_raw_parts((*list).members.as_ptr(), (*list).n_members.max(0) as usize);
        let found = members.iter().any(|member| {
            let row = pg_sys::GETSTRUCT(&raw mut (**member).tuple).cast::<pg_sys::FormData_pg_amop>();
            (*row).amoppurpose as u8 == pg_sys::AMOP_ORDER
        });
        pg_sys::ReleaseCatCacheList(list);
        found
    }
}
