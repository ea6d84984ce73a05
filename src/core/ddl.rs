//! Names and statements of the indexes we make.

use crate::model::{AccessMethod, AttNum, FIRST_EXPRESSION, IndexDef, Key, OpClass, TableInfo};
use std::fmt::Write as _;

/// Longest identifier PostgreSQL keeps, in bytes (`NAMEDATALEN` - 1).
const MAX_NAME: usize = 63;

/// Name of the index: `ip_<table>_<columns>_<6 hex digits>`, cut to 63 bytes between characters. The digits come from the whole
/// definition and the table's name, so that the same index gets the same name and different ones differ even when cut.
pub fn index_name(def: &IndexDef, table: &TableInfo) -> String {
    let part = |c: AttNum| if c >= FIRST_EXPRESSION { words(&table.column_name(c)) } else { table.column_name(c) };
    let columns: Vec<String> = def.keys.iter().map(|k| part(k.column)).collect();
    compose(&table.name, &columns.join("_"), &describe(def, table))
}

/// Of an expression the letters and digits remain: lower(name) is lower_name.
fn words(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    text.split_whitespace().collect::<Vec<_>>().join("_")
}

fn compose(table: &str, columns: &str, whole: &str) -> String {
    let hash = fnv1a(whole.as_bytes()) & 0xff_ffff;
    let suffix = format!("_{hash:06x}");
    let room = MAX_NAME - "ip_".len() - "_".len() - suffix.len();
    // Both parts stay readable: when both are long, they share the room equally.
    let for_table = room.saturating_sub(columns.len()).max(room / 2);
    let name = cut(table, for_table);
    let columns = cut(columns, room - name.len());
    format!("ip_{name}_{columns}{suffix}")
}

/// An index of a partitioned table, as [`create_index`] wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Partitioned<'a> {
    pub statement: &'a str,
    pub name: &'a str,
    pub schema: &'a str,
    pub table: &'a str,
    /// Its keys, as [`TableInfo::column_name`] has them.
    pub columns: &'a [String],
}

impl Partitioned<'_> {
    /// What comes after the table: access method, columns and condition, in which nothing is named that partitions call otherwise. `None`
    /// when the statement is of another form.
    pub fn form(&self, quote: &dyn Fn(&str) -> String) -> Option<&str> {
        let head = format!("CREATE INDEX {} ON {}.{} ", quote(self.name), quote(self.schema), quote(self.table));
        self.statement.strip_prefix(&head)
    }

    /// The index on the partition `schema.table`: its name, and the statement that builds it concurrently.
    pub fn on(&self, schema: &str, table: &str, quote: &dyn Fn(&str) -> String) -> Option<(String, String)> {
        let form = self.form(quote)?;
        let columns: Vec<String> = self.columns.iter().map(|c| words(c)).collect();
        let name = compose(table, &columns.join("_"), &format!("{schema}.{table} {form}"));
        let statement = format!("CREATE INDEX CONCURRENTLY {} ON {}.{} {form}", quote(&name), quote(schema), quote(table));
        Some((name, statement))
    }
}

/// The `CREATE INDEX` statement; on a partitioned table it is never concurrent, which the server cannot do. `quote` makes an identifier safe (`quote_identifier`).
pub fn create_index(def: &IndexDef, table: &TableInfo, quote: &dyn Fn(&str) -> String, concurrently: bool) -> String {
    let mut sql = String::from(if concurrently && table.parts == 0 { "CREATE INDEX CONCURRENTLY " } else { "CREATE INDEX " });
    sql.push_str(&quote(&index_name(def, table)));
    let _ = write!(sql, " ON {}.{} USING {} ", quote(&table.schema), quote(&table.name), def.method.name());
    let column = |c: AttNum| match table.column(c) {
        // An expression is the server's own text, and parentheses are never wrong around it.
        Some(expression) if c >= FIRST_EXPRESSION => format!("({})", expression.name),
        _ => quote(&table.column_name(c)),
    };
    // Nothing else is looked up by the search path: a builder has none.
    let opclass = |o: OpClass| {
        let name = o.name()?;
        let schema = table.trigram_schema.as_ref().filter(|_| o.of_trigrams());
        Some(schema.map_or_else(|| name.to_owned(), |s| format!("{}.{name}", quote(s))))
    };
    write_columns(&mut sql, def, &column, &opclass);
    sql
}

/// The query that the server runs on this table for each row that is deleted, or gets another key, in the table that `columns`
/// refer to (`RI_FKey_noaction_del`, ri_triggers.c): without an index, each time a scan of the whole table.
pub fn foreign_key_check(table: &TableInfo, columns: &[AttNum], quote: &dyn Fn(&str) -> String) -> String {
    let conditions: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| format!("{} OPERATOR(pg_catalog.=) ${}", quote(&table.column_name(*c)), i + 1))
        .collect();
    let name = format!("{}.{}", quote(&table.schema), quote(&table.name));
    format!("SELECT 1 FROM ONLY {name} x WHERE {} FOR KEY SHARE OF x", conditions.join(" AND "))
}

/// The definition for messages: `crm.contacts (tenant_id, created DESC) INCLUDE (name)`.
pub fn describe(def: &IndexDef, table: &TableInfo) -> String {
    let mut text = format!("{}.{} ", table.schema, table.name);
    if def.method != AccessMethod::Btree {
        let _ = write!(text, "USING {} ", def.method.name());
    }
    write_columns(&mut text, def, &|c| table.column_name(c), &|o| o.name().map(str::to_owned));
    text
}

/// As [`describe`], but of a condition only that there is one: its constants are the literals of somebody's query.
pub fn outline(def: &IndexDef, table: &TableInfo) -> String {
    let whole = describe(&IndexDef { predicate: None, ..def.clone() }, table);
    if def.predicate.is_some() { format!("{whole} WHERE ...") } else { whole }
}

fn write_columns(out: &mut String, def: &IndexDef, name: &dyn Fn(AttNum) -> String, opclass: &dyn Fn(OpClass) -> Option<String>) {
    let class = |k: &Key| opclass(k.opclass).map(|n| format!(" {n}")).unwrap_or_default();
    let keys: Vec<String> = def.keys.iter().map(|k| format!("{}{}{}", name(k.column), class(k), direction(*k))).collect();
    let _ = write!(out, "({})", keys.join(", "));
    if !def.include.is_empty() {
        let include: Vec<String> = def.include.iter().map(|c| name(*c)).collect();
        let _ = write!(out, " INCLUDE ({})", include.join(", "));
    }
    if let Some(predicate) = &def.predicate {
        let _ = write!(out, " WHERE {predicate}");
    }
}

fn direction(key: Key) -> &'static str {
    match (key.descending, key.nulls_first) {
        (false, false) => "",
        (false, true) => " NULLS FIRST",
        (true, true) => " DESC",
        (true, false) => " DESC NULLS LAST",
    }
}

/// The longest beginning of `text` of at most `bytes` bytes that ends between characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// FNV-1a: small, and the same on every platform and in every release, which `std`'s hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::model::ColumnInfo;
    use proptest::prelude::*;

    #[test]
    fn statement_says_only_what_is_not_the_default() {
        let table = fixture::table(1, "contacts", 1000.0, &["tenant_id", "created", "name"]);
        let def = IndexDef::new(table.rel, vec![Key::asc(1), Key::desc(2)], [3]);
        let quote = |s: &str| format!("\"{s}\"");
        let name = index_name(&def, &table);
        assert!(name.starts_with("ip_contacts_tenant_id_created_"), "{name}");
        assert_eq!(
            create_index(&def, &table, &quote, true),
            format!(
                "CREATE INDEX CONCURRENTLY \"{name}\" ON \"public\".\"contacts\" USING btree (\"tenant_id\", \"created\" DESC) INCLUDE (\"name\")"
            )
        );
        assert_eq!(describe(&def, &table), "public.contacts (tenant_id, created DESC) INCLUDE (name)");
    }

    #[test]
    fn partitions_get_the_index_of_their_table() {
        let mut table = fixture::table(1, "events", 1000.0, &["Id", "day"]);
        table.parts = 3;
        let def = IndexDef::new(table.rel, vec![Key::asc(1)], [2]).partial("(day > '2026-01-01'::date)");
        let quote = |s: &str| format!("\"{s}\"");
        let (statement, name) = (create_index(&def, &table, &quote, true), index_name(&def, &table));
        assert!(statement.starts_with("CREATE INDEX \"ip_events_Id_"), "the server builds none concurrently: {statement}");
        let columns = ["Id".to_owned()];
        let index = Partitioned { statement: &statement, name: &name, schema: "public", table: "events", columns: &columns };
        let (jan, on_jan) = index.on("a", "jan", &quote).unwrap();
        let (_, elsewhere) = index.on("b", "jan", &quote).unwrap();
        assert!(jan.starts_with("ip_jan_Id_") && on_jan.replace("\"a\"", "\"b\"") != elsewhere, "each has a name of its own");
        assert_eq!(
            on_jan,
            format!(
                "CREATE INDEX CONCURRENTLY \"{jan}\" ON \"a\".\"jan\" USING btree (\"Id\") INCLUDE (\"day\") WHERE (day > '2026-01-01'::date)"
            )
        );
        let other = Partitioned { table: "other", ..index };
        assert_eq!(other.on("a", "jan", &quote), None, "not of this table");
    }

    #[test]
    fn every_form_has_its_statement() {
        let mut table = fixture::table(1, "contacts", 1000.0, &["tenant_id", "name", "tags"]);
        table.columns.push(ColumnInfo {
            name: "lower(name)".into(),
            reads: vec![2],
            ..fixture::column(FIRST_EXPRESSION, "", 900.0)
        });
        table.trigram_schema = Some("Ext".into());
        let quote = |s: &str| if s == "Ext" { "\"Ext\"".to_owned() } else { s.to_owned() };
        let tail = |def: &IndexDef| create_index(def, &table, &quote, false).split_once(" ON ").unwrap().1.to_owned();
        let def = |keys: &[Key]| IndexDef::new(table.rel, keys.to_vec(), []);
        for (def, wanted) in [
            (def(&[Key::asc(FIRST_EXPRESSION), Key::desc(1)]), "public.contacts USING btree ((lower(name)), tenant_id DESC)"),
            (def(&[Key::asc(2).with(OpClass::TextPattern)]), "public.contacts USING btree (name text_pattern_ops)"),
            (
                def(&[Key::asc(2).with(OpClass::GinTrigram), Key::asc(3)]).by(AccessMethod::Gin),
                "public.contacts USING gin (name \"Ext\".gin_trgm_ops, tags)",
            ),
            (
                def(&[Key::asc(2)]).by(AccessMethod::Hash).partial("(tags IS NOT NULL)"),
                "public.contacts USING hash (name) WHERE (tags IS NOT NULL)",
            ),
        ] {
            assert_eq!(tail(&def), wanted);
        }
        assert!(index_name(&def(&[Key::asc(FIRST_EXPRESSION)]), &table).starts_with("ip_contacts_lower_name_"));
        assert_eq!(
            foreign_key_check(&table, &[1, 2], &quote),
            "SELECT 1 FROM ONLY public.contacts x WHERE tenant_id OPERATOR(pg_catalog.=) $1 AND name OPERATOR(pg_catalog.=) $2 FOR KEY SHARE OF x"
        );
    }

    proptest! {
        #[test]
        fn names_fit_and_end_between_characters(table_name in "\\PC{1,63}", column in "\\PC{1,63}", other in "\\PC{1,63}") {
            let table = fixture::table(1, &table_name, 10.0, &[&column, &other]);
            let one = index_name(&IndexDef::new(table.rel, vec![Key::asc(1), Key::asc(2)], []), &table);
            let two = index_name(&IndexDef::new(table.rel, vec![Key::asc(1), Key::desc(2)], []), &table);
            prop_assert!(one.len() <= 63 && two.len() <= 63);
            prop_assert_ne!(one, two);
        }
    }
}
