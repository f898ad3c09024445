//! Commands that only tell something.

use std::collections::BTreeSet;
use std::process::Stdio;

use super::*;

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = ok(None, &["--help"]);
    let commands = [
        "quickstart",
        "train",
        "generate",
        "score",
        "model",
        "data",
        "list",
        "show",
        "run",
        "check",
        "report",
        "compare",
        "explain",
        "cite",
        "doctor",
        "schema",
        "completions",
        "man",
        "licenses",
    ];
    for c in commands {
        assert!(help.lines().any(|l| l.trim_start().starts_with(c)), "{c}");
        assert!(ok(None, &[c, "--help"]).contains("Usage: rhumb"), "{c}");
    }
    assert!(help.contains("130 interrupted"));
}

#[test]
fn list_and_show_agree_and_parse_as_json() {
    let list = json(None, &["list"]);
    let recipes = list.as_array().unwrap();
    assert!(!recipes.is_empty());
    for r in recipes {
        let name = r["recipe"].as_str().unwrap();
        let shown = json(None, &["show", name]);
        assert_eq!(shown["settings"]["claim"]["expect"], r["expect"]);
        assert_eq!(shown["full_s"], r["full_s"]);
        assert!(!r["statement"].as_str().unwrap().is_empty(), "{name} quotes no claim");
    }
}

#[test]
fn show_prints_toml_that_is_a_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let path = recipe(dir.path(), HALF, |t| t);
    let (a, b) = (json(None, &["show", HALF, "--budget", "quick"]), json(None, &["show", &path]));
    assert_eq!(a["settings"], b["settings"]);
}

#[test]
fn overrides_are_typed_and_win() {
    let shown = json(None, &["show", HALF, "-s", "budget.steps=7", "-s", "algorithm.partition=rhumb"]);
    assert_eq!(shown["settings"]["budget"]["steps"], 7);
    assert_eq!(shown["settings"]["algorithm"]["partition"], "rhumb");
}

#[test]
fn doctor_tells_cores_and_memory_and_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let d = json(Some(dir.path()), &["doctor"]);
    assert!(
        d["machine"]["cores"].as_u64().unwrap() > 0 && d["machine"]["memory_bytes"].as_u64().unwrap() > 0
    );
    assert_eq!(d["out_writable"], true);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn schema_describes_the_recipe_and_its_kinds() {
    let schema = json(None, &["schema"]);
    assert!(schema["properties"]["claim"].is_object());
    assert!(schema.to_string().contains("adam-mini-state"));
}

#[test]
fn papers_are_explained_and_cited() {
    assert!(ok(None, &["explain", "gem"]).starts_with("# GEM"));
    let bib = ok(None, &["cite", "gem"]);
    assert!(bib.contains("2408.16673") && bib.contains("@software{rhumb"));
    assert!(!bib.contains("2406.16793"), "only the paper that was asked for");
}

#[test]
fn completions_and_man_pages_cover_the_nested_commands() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(None, &["completions", shell]).contains("quickstart"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("man");
    ok(None, &["man", "--out", out.to_str().unwrap()]);
    let page = std::fs::read_to_string(out.join("rhumb-train-sft.1")).unwrap();
    assert!(page.contains("optimizer"));
    assert!(out.join("rhumb.1").exists());
}

#[test]
fn licenses_name_libraries_with_their_licence() {
    let list = json(None, &["licenses"]);
    let serde = list.as_array().unwrap().iter().find(|l| l["name"] == "serde").unwrap();
    assert!(serde["license"].as_str().unwrap().contains("MIT"));
}

/// The list covers every platform, the graph this one; what is listed has to be locked in that version.
#[test]
fn the_list_of_licences_is_that_of_the_locked_dependencies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let list = json(None, &["licenses"]);
    let listed: BTreeSet<(String, String)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|l| (l["name"].as_str().unwrap().to_owned(), l["version"].as_str().unwrap().to_owned()))
        .collect();
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
    for (name, version) in &listed {
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&entry), "{name} {version} is listed, not locked: run scripts/licenses.py");
    }
    let tree = ["tree", "--frozen", "-p", "rhumb", "-e", "normal", "--prefix", "none"];
    let out = Command::new(env!("CARGO")).args(tree).current_dir(&root).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut seen = 0;
    for line in String::from_utf8(out.stdout).unwrap().lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        // Crates of this workspace are shown with their folder.
        if line.contains("(/") || line.contains(":\\") {
            continue;
        }
        let key = (name.to_owned(), version.trim_start_matches('v').to_owned());
        assert!(listed.contains(&key), "{name} {version} is not listed: run scripts/licenses.py");
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn a_reader_that_leaves_early_ends_the_program_quietly() {
    for command in ["schema", "licenses", "list"] {
        let mut child =
            rhumb(None).arg(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{command}");
        assert!(out.stderr.is_empty(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
