//! Which crate may depend on which.

use super::{Report, entries};
use std::path::Path;

const FOUNDATIONS: [&str; 5] = ["rhumb-linalg", "rhumb-core", "rhumb-optim", "rhumb-nn", "rhumb-io"];

/// Crate and the crates of this workspace it may depend on. Families never see each other.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("rhumb-linalg", &[]),
    ("rhumb-krylov", &["rhumb-linalg"]),
    ("rhumb-core", &["rhumb-linalg"]),
    ("rhumb-optim", &["rhumb-linalg", "rhumb-core"]),
    ("rhumb-nn", &["rhumb-linalg", "rhumb-core"]),
    ("rhumb-io", &["rhumb-linalg", "rhumb-core", "rhumb-nn"]),
    ("rhumb-lm", &FOUNDATIONS),
    // These two work on any second-order objective, so models stay out of them.
    ("rhumb-spectrum", &["rhumb-linalg", "rhumb-krylov", "rhumb-core", "rhumb-optim"]),
    ("rhumb-bilevel", &["rhumb-linalg", "rhumb-krylov", "rhumb-core", "rhumb-optim"]),
    ("rhumb-minimax", &FOUNDATIONS),
    ("rhumb-explore", &FOUNDATIONS),
    ("rhumb-twin", &["rhumb-linalg", "rhumb-core", "rhumb-optim"]),
    (
        "rhumb",
        &[
            "rhumb-linalg",
            "rhumb-krylov",
            "rhumb-core",
            "rhumb-optim",
            "rhumb-nn",
            "rhumb-io",
            "rhumb-lm",
            "rhumb-spectrum",
            "rhumb-bilevel",
            "rhumb-minimax",
            "rhumb-explore",
            "rhumb-twin",
        ],
    ),
    ("xtask", &[]),
];

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Dev,
}

/// Checks every `crates/*/Cargo.toml` and `xtask/Cargo.toml`.
pub(crate) fn check(root: &Path) -> Result<Report, String> {
    let mut report = Report::default();
    let mut manifests: Vec<_> = entries(&root.join("crates"))?.iter().map(|d| d.join("Cargo.toml")).collect();
    manifests.push(root.join("xtask/Cargo.toml"));
    for manifest in manifests.iter().filter(|m| m.is_file()) {
        let text = std::fs::read_to_string(manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
        report.errors.extend(judge(&text));
    }
    Ok(report)
}

/// The errors of one manifest.
fn judge(manifest: &str) -> Vec<String> {
    let (name, dependencies) = parse(manifest);
    let Some((_, allowed)) = ALLOWED.iter().find(|(n, _)| *n == name) else {
        return vec![format!(
            "crate `{name}` is not in the table of allowed directions (xtask/src/lint/direction.rs)"
        )];
    };
    let mut errors = Vec::new();
    for (dependency, kind) in dependencies {
        let ours = dependency == "rhumb" || dependency.starts_with("rhumb-");
        // Tests of a family may build a model; they still may not look into another family.
        let fine = allowed.contains(&dependency.as_str())
            || (kind == Kind::Dev && name != "xtask" && FOUNDATIONS.contains(&dependency.as_str()));
        if ours && !fine {
            errors.push(format!("`{name}` must not depend on `{dependency}`: wrong crate direction"));
        }
        if name == "xtask" && !ours {
            errors.push(format!("`xtask` uses the standard library only, but depends on `{dependency}`"));
        }
        if name != "rhumb" && (dependency == "clap" || dependency.starts_with("clap_")) {
            errors.push(format!("`{name}` depends on `{dependency}`: arguments belong to crates/cli"));
        }
    }
    errors
}

/// Package name and dependencies. Reads the part of TOML that manifests use: one key a line.
fn parse(manifest: &str) -> (String, Vec<(String, Kind)>) {
    let (mut name, mut section) = (String::new(), String::new());
    let mut out: Vec<(String, Kind)> = Vec::new();
    let mut push = |dependency: &str, section: &str| {
        let kind = if section.contains("dev-dependencies") { Kind::Dev } else { Kind::Normal };
        out.push((dependency.trim().trim_matches('"').to_owned(), kind));
    };
    // Inside a multi-line value lines are not keys.
    let mut open = 0_i32;
    for line in manifest.lines() {
        let line = line.split(" #").next().unwrap_or(line).trim();
        if open == 0 && line.starts_with('[') {
            line.trim_matches(['[', ']']).clone_into(&mut section);
            // [dependencies.NAME]
            if let Some((head, dependency)) = section.rsplit_once("dependencies.")
                && !dependency.contains('.')
            {
                push(dependency, &format!("{head}dependencies"));
            }
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if open == 0
            && let Some((key, value)) = line.split_once('=')
        {
            if section == "package" && key.trim() == "name" {
                value.trim().trim_matches('"').clone_into(&mut name);
            }
            if section.ends_with("dependencies") {
                // A renamed dependency hides behind its key.
                let real = value.split_once("package").and_then(|(_, v)| v.split('"').nth(1));
                push(real.unwrap_or_else(|| key.split('.').next().unwrap_or(key)), &section);
            }
        }
        for c in line.chars() {
            match c {
                '[' | '{' => open += 1,
                ']' | '}' => open -= 1,
                _ => {}
            }
        }
    }
    (name, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_depends_on_another_is_refused() {
        let text = "[package]\nname = \"rhumb-lm\"\n[dependencies]\nrhumb-nn.workspace = true\nrhumb-minimax.workspace = true\n";
        let errors = judge(text);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("`rhumb-lm` must not depend on `rhumb-minimax`"), "{errors:?}");
    }

    #[test]
    fn the_optimizers_do_not_know_models() {
        let text = "[package]\nname = \"rhumb-optim\"\n[dependencies]\nrhumb-nn = { path = \"../nn\" }\n";
        assert_eq!(judge(text).len(), 1);
    }

    #[test]
    fn tests_of_a_family_may_use_models_but_no_other_family() {
        let head = "[package]\nname = \"rhumb-bilevel\"\n[dev-dependencies]\n";
        assert!(judge(&format!("{head}rhumb-nn.workspace = true\n")).is_empty());
        assert_eq!(judge(&format!("{head}rhumb-lm.workspace = true\n")).len(), 1);
    }

    #[test]
    fn only_the_binary_reads_arguments() {
        let bad = "[package]\nname = \"rhumb-nn\"\n[dependencies]\nclap = { version = \"4\" }\n";
        assert!(judge(bad)[0].contains("arguments belong to crates/cli"));
        assert!(judge("[package]\nname = \"rhumb\"\n[dependencies]\nclap = \"4\"\n").is_empty());
    }

    #[test]
    fn the_command_crate_stays_on_the_standard_library() {
        assert_eq!(judge("[package]\nname = \"xtask\"\n[dependencies]\nserde = \"1\"\n").len(), 1);
    }

    #[test]
    fn an_unknown_crate_must_be_placed_first() {
        assert!(judge("[package]\nname = \"rhumb-new\"\n")[0].contains("not in the table"));
    }

    #[test]
    fn tables_renames_targets_and_lists_over_lines_are_read() {
        let text = "[package]\nname = \"a\" # the name\n[dependencies.serde]\nversion = \"1\"\n\
                    [target.'cfg(unix)'.dependencies]\nx = { package = \"libc\", version = \"0.2\" }\n\
                    [dependencies]\ntokenizers = { version = \"0\", features = [\n  \"onig = no\",\n] }\nhalf.workspace = true\n";
        let (name, found) = parse(text);
        assert_eq!(name, "a");
        let names: Vec<&str> = found.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["serde", "libc", "tokenizers", "half"]);
    }
}
