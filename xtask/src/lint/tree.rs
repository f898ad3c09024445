//! Crates that must not appear in the dependency tree, however deep.

use super::Report;
use std::collections::BTreeSet;

/// Each needs a C library or a C compiler, which a fresh machine does not have.
const FORBIDDEN: [(&str, &str); 3] = [
    ("openssl-sys", "use rustls with the ring provider"),
    ("onig_sys", "use the fancy-regex feature of tokenizers"),
    ("aws-lc-sys", "use rustls with the ring provider"),
];

/// Judges the output of `cargo tree --prefix none`.
pub(crate) fn check(tree: &str) -> Report {
    let names: BTreeSet<&str> = tree.lines().filter_map(|l| l.split_whitespace().next()).collect();
    let mut report = Report::default();
    for (name, remedy) in FORBIDDEN {
        if names.contains(name) {
            report.errors.push(format!(
                "`{name}` is in the dependency tree: {remedy} (`cargo tree --workspace -e normal,build -i {name}` shows who brings it)"
            ));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_crate_is_found_with_its_remedy() {
        let report = check("rhumb v0.1.0 (path)\nureq v3.0.0\nopenssl-sys v0.9.1\n");
        assert_eq!(report.errors.len(), 1);
        assert!(report.errors[0].contains("rustls"));
    }

    #[test]
    fn a_name_that_only_begins_alike_is_fine() {
        assert!(check("openssl-sys-extras v1.0.0\nonig v6.0.0\n").errors.is_empty());
    }
}
