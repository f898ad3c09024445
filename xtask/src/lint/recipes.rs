//! A paper has five places under one name: source, recipe, fixture, reference script, page.

use super::{Report, entries};
use std::path::Path;

/// Papers whose source file carries the name of the idea.
const SOURCE_NAME: [(&str, &str); 1] = [("me-a", "moreau_envelope")];

/// Checks every folder under `recipes/`.
pub(crate) fn check(root: &Path) -> Result<Report, String> {
    let mut report = Report::default();
    for paper in papers(root)? {
        for missing in missing(root, &paper)? {
            report.errors.push(format!("recipes/{paper}: {missing} is missing (a paper has five places)"));
        }
    }
    Ok(report)
}

/// `PAPER/NAME` of every recipe, sorted.
pub(crate) fn names(root: &Path) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for paper in papers(root)? {
        for file in entries(&root.join("recipes").join(&paper))? {
            if let Some(name) = stem(&file, "toml") {
                out.push(format!("{paper}/{name}"));
            }
        }
    }
    Ok(out)
}

fn papers(root: &Path) -> Result<Vec<String>, String> {
    let folders = entries(&root.join("recipes"))?;
    let names =
        folders.iter().filter(|d| d.is_dir()).filter_map(|d| d.file_name()?.to_str().map(str::to_owned));
    Ok(names.collect())
}

fn stem<'a>(file: &'a Path, extension: &str) -> Option<&'a str> {
    if file.extension()? != extension {
        return None;
    }
    file.file_stem()?.to_str()
}

fn missing(root: &Path, paper: &str) -> Result<Vec<String>, String> {
    let snake = paper.replace('-', "_");
    let source = SOURCE_NAME.iter().find(|(p, _)| *p == paper).map_or(snake.as_str(), |(_, s)| s);
    let mut out = Vec::new();
    let mut found = false;
    for krate in entries(&root.join("crates"))? {
        found |= has_source(&krate.join("src"), source)?;
    }
    if !found {
        out.push(format!("source crates/*/src/**/{source}.rs"));
    }
    if !entries(&root.join("recipes").join(paper))?.iter().any(|f| stem(f, "toml").is_some()) {
        out.push(format!("recipe recipes/{paper}/*.toml"));
    }
    if entries(&root.join("fixtures").join(paper))?.is_empty() {
        out.push(format!("fixture fixtures/{paper}/*"));
    }
    for (what, file) in
        [("script", format!("reference/{snake}.py")), ("page", format!("docs/src/papers/{paper}.md"))]
    {
        if !root.join(&file).is_file() {
            out.push(format!("{what} {file}"));
        }
    }
    Ok(out)
}

/// Whether a file or folder below `dir` begins with the name (`gem`, `gem_loss.rs`, not `gemm.rs`).
fn has_source(dir: &Path, name: &str) -> Result<bool, String> {
    for path in entries(dir)? {
        let here = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
        let rest = here.strip_prefix(name);
        if rest.is_some_and(|r| r.is_empty() || r.starts_with('_'))
            || (path.is_dir() && has_source(&path, name)?)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::scratch;
    use super::*;
    use std::fs;

    fn put(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folder");
        fs::write(path, "").expect("file");
    }

    #[test]
    fn a_recipe_with_five_places_passes_and_each_missing_one_is_named() {
        let places = [
            "crates/optim/src/adam_mini/mod.rs",
            "recipes/adam-mini/state-half.toml",
            "fixtures/adam-mini/steps.json",
            "reference/adam_mini.py",
            "docs/src/papers/adam-mini.md",
        ];
        for absent in 0..=places.len() {
            let root = scratch(&format!("places-{absent}"));
            fs::create_dir_all(root.join("recipes/adam-mini")).expect("folder");
            for (i, place) in places.iter().enumerate() {
                if i != absent {
                    put(&root, place);
                }
            }
            let errors = check(&root).expect("readable").errors;
            assert_eq!(errors.len(), usize::from(absent < places.len()), "{absent}: {errors:?}");
            fs::remove_dir_all(root).expect("cleaned");
        }
    }

    #[test]
    fn a_matrix_product_is_not_the_source_of_gem() {
        let root = scratch("gem");
        put(&root, "crates/linalg/src/gemm.rs");
        assert!(!has_source(&root.join("crates/linalg/src"), "gem").expect("readable"));
        put(&root, "crates/lm/src/loss/gem.rs");
        assert!(has_source(&root.join("crates/lm/src"), "gem").expect("readable"));
        fs::remove_dir_all(root).expect("cleaned");
    }

    #[test]
    fn recipes_are_listed_by_paper_and_name() {
        let root = scratch("names");
        put(&root, "recipes/gem/toy.toml");
        put(&root, "recipes/adam-mini/state-half.toml");
        put(&root, "recipes/adam-mini/notes.md");
        assert_eq!(names(&root).expect("readable"), ["adam-mini/state-half", "gem/toy"]);
        fs::remove_dir_all(root).expect("cleaned");
    }
}
