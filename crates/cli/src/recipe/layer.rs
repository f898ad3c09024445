//! Laying tables over each other.

use toml::{Table, Value};

/// Replaces the values of `base` by those of `over`, table by table.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(b)), Value::Table(o)) => merge(b, o),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Applies `a.b=value` and returns the path. The value is TOML; what is no TOML is taken as a text, so that
/// `-s algorithm.kind=gem` needs no quotes.
pub(super) fn set(table: &mut Table, assignment: &str) -> Result<String, String> {
    let Some((path, text)) = assignment.split_once('=') else {
        return Err(format!("-s {assignment}: write key=value, as in -s budget.steps=100"));
    };
    let path = path.trim();
    let keys: Vec<&str> = path.split('.').collect();
    if keys.iter().any(|k| k.is_empty()) {
        return Err(format!("-s {assignment}: the key has an empty part"));
    }
    let value = format!("v = {}", text.trim())
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(text.trim().to_owned()));
    let (last, parents) = (keys[keys.len() - 1], &keys[..keys.len() - 1]);
    let mut at = table;
    for key in parents {
        let next = at.entry(*key).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = next else {
            return Err(format!("-s {assignment}: {key} is a {}, it has no keys", next.type_str()));
        };
        at = next;
    }
    at.insert(last.to_owned(), value);
    Ok(path.to_owned())
}
