//! What goes wrong on the way in.

use super::*;

#[test]
fn an_unknown_recipe_key_names_line_and_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = recipe(dir.path(), HALF, |t| t.replace("architectures", "architecures"));
    let line = std::fs::read_to_string(&path).unwrap();
    let line = line.lines().position(|l| l.starts_with("architecures")).unwrap() + 1;
    for command in ["run", "check", "show"] {
        let e = fails(Some(dir.path()), 2, &[command, &path]);
        assert!(e.contains(&format!("mine.toml, line {line}: unknown key `architecures`")), "{e}");
        assert!(e.contains("did you mean `architectures`?"), "{e}");
    }
}

#[test]
fn an_unknown_override_names_the_nearest_key() {
    let e = fails(None, 2, &["show", HALF, "-s", "budget.sedes=[1]"]);
    assert_eq!(e, "error: -s budget.sedes: unknown key `sedes` in budget: did you mean `seeds`?\n");
}

#[test]
fn unknown_names_get_a_suggestion() {
    let cases: [(&[&str], &str); 4] = [
        (&["run", "adam-mini/state-halve"], "adam-mini/state-half"),
        (&["check", "adam-mni/state-half"], "adam-mini/state-half"),
        (&["explain", "gme"], "gem"),
        (&["cite", "adam-min"], "adam-mini"),
    ];
    for (args, want) in cases {
        let e = fails(None, 2, args);
        assert!(e.contains(&format!("did you mean {want}?")), "{e}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("run");
    let e = fails(None, 2, &["run", HALF, "--out", below.to_str().unwrap()]);
    assert!(e.contains("cannot create") && e.contains("file/run") && e.contains("choose another"), "{e}");
    assert_eq!(e.matches("os error").count(), 1, "the cause is told once: {e}");
}

#[test]
fn a_folder_with_a_run_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    ok(Some(dir.path()), &["run", HALF, "--out", "a"]);
    let e = fails(Some(dir.path()), 2, &["run", HALF, "--out", "a"]);
    assert!(e.contains("holds a run already"), "{e}");
    let e = fails(Some(dir.path()), 2, &["run", HALF, "--out", "a", "--resume", "--seeds", "1"]);
    assert!(e.contains("other settings"), "{e}");
}

#[test]
fn missing_files_have_their_own_exit_code() {
    let e = fails(None, 4, &["run", "absent.toml"]);
    assert!(e.contains("cannot read absent.toml"), "{e}");
    let e = fails(None, 4, &["report", "absent"]);
    assert!(e.contains("report of absent") && e.contains("no folder"), "{e}");
    fails(None, 4, &["generate", "absent-model", "--prompt", "x"]);
}

#[test]
fn broken_run_folders_are_told_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let d = Some(dir.path());
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(fails(d, 4, &["report", "empty"]).contains("has no result.json"));
    ok(d, &["run", HALF, "--out", "a"]);
    let file = dir.path().join("a/result.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let e = fails(d, 2, &["report", "a"]);
    assert!(e.contains("result.json, line "), "{e}");
    std::fs::write(&file, text).unwrap();
    std::fs::write(dir.path().join("a/records.jsonl"), "{}\nnonsense\n").unwrap();
    let e = fails(d, 2, &["report", "a", "--format", "csv"]);
    assert!(e.contains("records.jsonl, line "), "{e}");
    std::fs::remove_file(dir.path().join("a/manifest.json")).unwrap();
    let e = fails(d, 2, &["report", "a"]);
    assert!(e.contains("manifest.json"), "{e}");
}

#[test]
fn a_wrong_command_line_ends_with_two() {
    for args in [&["no-such-command"][..], &["run"], &["check"], &["run", HALF, "--resume"]] {
        fails(None, 2, args);
    }
}
