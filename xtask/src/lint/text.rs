//! Lints on the text of files: sizes, places of unsafe code and file access, words that do not belong.

use super::Report;
use std::path::{Path, PathBuf};

/// A file this long has usually lost its reader.
const LONG: usize = 600;

/// Folders for one machine or one person. Written in pieces, or a search for them would find this file.
const MACHINE: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/t", "mp/")];

/// Words of unfinished work. Written in pieces, or this file would find itself.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Where unsafe code may be (module names, as file or folder).
const UNSAFE: [&str; 2] = ["crates/linalg/src/", "crates/nn/src/kernel"];

/// Where libraries may touch files.
const FILES: [&str; 3] = ["crates/io/src", "crates/core/src/checkpoint", "crates/core/src/runfolder"];

/// Checks the given files (relative to the root).
pub(crate) fn check(root: &Path, files: &[PathBuf]) -> Report {
    let mut report = Report::default();
    let machine = machine_paths(root, std::env::var_os("HOME").map(PathBuf::from).as_deref());
    for file in files {
        let name = file.to_string_lossy().replace('\\', "/");
        // Weights, images and the like have no text to judge.
        let Ok(text) = std::fs::read_to_string(root.join(file)) else { continue };
        let made = matches!(extension(&name), "lock" | "svg" | "html") || name.starts_with("LICENSE");
        if !made {
            report.errors.extend(words(&name, &text, &machine));
        }
        if extension(&name) == "rs" {
            rust(&name, &text, &mut report);
        }
    }
    report
}

/// The general list, and this checkout's own parent and the user's home.
fn machine_paths(root: &Path, home: Option<&Path>) -> Vec<String> {
    let mut out: Vec<String> = MACHINE.iter().map(|s| (*s).to_owned()).collect();
    for dir in [root.parent(), home].into_iter().flatten() {
        let text = dir.to_string_lossy();
        // "/" alone would match every path.
        if text.len() > 1 {
            out.push(format!("{}/", text.trim_end_matches('/')));
        }
    }
    out.sort();
    out.dedup();
    out
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, e)| e)
}

fn words(name: &str, text: &str, machine: &[String]) -> Vec<String> {
    let mut errors = Vec::new();
    // The list above has to name what it forbids.
    let own = name == "xtask/src/lint/text.rs";
    let data = matches!(extension(name), "json" | "jsonl" | "csv" | "txt");
    for (i, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", i + 1);
        for path in machine.iter().filter(|_| !own) {
            if let Some(found) = find_path(line, path) {
                errors.push(format!("{at}: `{found}` is a path of one machine"));
                break;
            }
        }
        if ["<<<<<<< ", ">>>>>>> "].iter().any(|m| line.starts_with(m)) {
            errors.push(format!("{at}: both sides of a merge stand here: keep one"));
        }
        for word in UNFINISHED.iter().filter(|_| !data) {
            if contains_word(line, word) {
                errors.push(format!("{at}: `{word}`: finish it or write it down elsewhere"));
            }
        }
    }
    errors
}

/// `path` where it begins a path: not inside a longer one, an address or a variable.
fn find_path<'a>(line: &str, path: &'a str) -> Option<&'a str> {
    line.match_indices(path)
        .any(|(i, _)| {
            let before = line[..i].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "/.-_}~)$:*".contains(c))
        })
        .then_some(path)
}

fn contains_word(line: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(i, _)| {
        !inside(line[..i].chars().next_back()) && !inside(line[i + word.len()..].chars().next())
    })
}

fn rust(name: &str, text: &str, report: &mut Report) {
    let code = without_tests(name, text);
    let lines = code.lines().count();
    if lines > LONG {
        report
            .notices
            .push(format!("{name}: {lines} lines without tests; split it where a reader loses the thread"));
    }
    let library = name.starts_with("crates/") && name.contains("/src/") && !name.starts_with("crates/cli/");
    if !library {
        return;
    }
    for (i, line) in code.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        let at = format!("{name}:{}", i + 1);
        // With the parenthesis, so that `writeln!` and a mention in a string pass.
        for macro_name in ["println!(", "print!(", "eprintln!(", "eprint!(", "dbg!("] {
            let found = line
                .match_indices(macro_name)
                .any(|(j, _)| !line[..j].ends_with(|c: char| c.is_alphanumeric()));
            if found {
                report.errors.push(format!("{at}: `{macro_name}`: libraries never print"));
            }
        }
        if line.contains("(unsafe_code") && !UNSAFE.iter().any(|p| name.starts_with(p)) {
            report.errors.push(format!("{at}: unsafe code belongs to rhumb-linalg and rhumb_nn::kernel"));
        }
        let touches = ["fs::", "File::"].iter().any(|w| contains_path(line, w));
        if touches && !FILES.iter().any(|p| name.starts_with(p)) {
            report.errors.push(format!(
                "{at}: files are opened in rhumb_io, rhumb_core's checkpoint and runfolder, and the binary only"
            ));
        }
        if ["env::var", "env::args"].iter().any(|w| contains_path(line, w)) {
            report.errors.push(format!("{at}: only the binary reads the environment"));
        }
    }
}

/// The word at the start of a path segment (`std::fs::read`, not `offs::x`).
fn contains_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(i, _)| !line[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The part of a source file before its test module; nothing of a file that is one.
fn without_tests<'a>(name: &str, text: &'a str) -> &'a str {
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
        return "";
    }
    let opens_module = |end: &usize| {
        let mut rest = text[*end..].lines().skip(1).skip_while(|l| l.starts_with("#["));
        rest.next().is_some_and(|l| l.starts_with("mod "))
    };
    let end = text.match_indices("\n#[cfg(test)]").map(|(i, _)| i).find(opens_module);
    end.map_or(text, |end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Report {
        let mut report = Report::default();
        rust(name, text, &mut report);
        report.errors.extend(words(name, text, &machine_paths(Path::new("/srv/checkout"), None)));
        report
    }

    #[test]
    fn a_path_of_one_machine_is_found_with_its_line() {
        let errors = found("docs/a.md", "fine\nsee /home/somebody/model.gguf\n").errors;
        assert_eq!(errors, ["docs/a.md:2: `/home/` is a path of one machine"]);
        assert_eq!(found("docs/a.md", "in `/srv/notes`").errors.len(), 1);
    }

    #[test]
    fn both_sides_of_a_merge_are_found() {
        let text = "a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> other\n";
        let errors = found("docs/a.md", text).errors;
        assert!(errors.len() == 2 && errors[0].starts_with("docs/a.md:2: both sides"), "{errors:?}");
    }

    #[test]
    fn addresses_and_relative_paths_are_no_machine_paths() {
        for line in [
            "https://example.org/home/x",
            "target/tmp/x",
            "$XDG/tmp/x",
            "${A}/home/x",
            concat!("~/ro", "ot/x"),
            "a/*/tmp/b",
        ] {
            assert!(found("docs/a.md", line).errors.is_empty(), "{line}");
        }
    }

    #[test]
    fn unfinished_work_is_found_as_a_word_only() {
        let word = UNFINISHED[0];
        assert_eq!(found("a.py", &format!("# {word}: later")).errors.len(), 1);
        assert!(found("a.py", &format!("x = {word}S")).errors.is_empty());
        assert!(found("a.jsonl", word).errors.is_empty(), "data may say what it likes");
    }

    #[test]
    fn libraries_do_not_print_but_their_documentation_and_tests_may() {
        let text = "/// println!(\"{x}\");\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n println!(\"x\");\n}\n";
        assert!(found("crates/core/src/a.rs", text).errors.is_empty());
        assert_eq!(found("crates/core/src/a.rs", "fn f() { println!(\"x\") }").errors.len(), 1);
        assert!(found("crates/cli/src/a.rs", "fn f() { println!(\"x\") }").errors.is_empty());
        assert!(found("crates/core/src/a.rs", "fn f() { writeln!(out, \"x\") }").errors.is_empty());
    }

    #[test]
    fn unsafe_code_files_and_the_environment_have_their_places() {
        let cases = [
            (
                "#![expect(unsafe_code, reason = \"simd\")]",
                "crates/nn/src/kernel/mod.rs",
                "crates/nn/src/tape.rs",
            ),
            ("let x = std::fs::read(p)?;", "crates/io/src/gguf.rs", "crates/lm/src/data.rs"),
            ("let x = File::open(p)?;", "crates/core/src/checkpoint.rs", "crates/core/src/run.rs"),
            ("std::env::var(\"X\")", "crates/cli/src/main.rs", "crates/core/src/run.rs"),
        ];
        for (line, good, bad) in cases {
            assert!(found(good, line).errors.is_empty(), "{good}");
            assert_eq!(found(bad, line).errors.len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_long_file_is_a_notice_and_tests_do_not_count() {
        let long = "fn f() {}\n".repeat(LONG + 1);
        assert_eq!(found("crates/core/src/a.rs", &long).notices.len(), 1);
        let tests = format!("fn f() {{}}\n\n#[cfg(test)]\n#[expect(x)]\nmod tests {{\n{long}}}\n");
        assert!(found("crates/core/src/a.rs", &tests).notices.is_empty());
    }
}
