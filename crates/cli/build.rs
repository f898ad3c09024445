//! Embeds the recipes and the pages of the papers, so that the binary needs no file beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = manifest.join("../..").canonicalize()?;
    let mut recipes = Vec::new();
    for paper in sorted(&root.join("recipes"))?.iter().filter(|p| p.is_dir()) {
        for file in sorted(paper)?.iter().filter(|p| has_extension(p, "toml")) {
            recipes.push((format!("{}/{}", name(paper), name(file)), file.clone()));
        }
    }
    let mut pages = Vec::new();
    for file in sorted(&root.join("docs/src/papers"))?.iter().filter(|p| has_extension(p, "md")) {
        pages.push((name(file), file.clone()));
    }
    let mut code = String::new();
    table(&mut code, "RECIPES", "Name, file and text of every recipe.", &root, &recipes);
    table(&mut code, "PAGES", "Paper, file and text of every page.", &root, &pages);
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("embedded.rs"), code)
}

/// The entries of a folder; none when it does not exist. The folder itself is watched for new files.
fn sorted(dir: &Path) -> io::Result<Vec<PathBuf>> {
    println!("cargo::rerun-if-changed={}", dir.display());
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut out = fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    out.sort();
    Ok(out)
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|e| e == extension)
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn table(code: &mut String, ident: &str, doc: &str, root: &Path, files: &[(String, PathBuf)]) {
    // Writing to a string cannot fail.
    let _ = writeln!(code, "/// {doc}\npub(crate) const {ident}: &[(&str, &str, &str)] = &[");
    for (name, file) in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let shown = file.strip_prefix(root).unwrap_or(file).to_string_lossy().replace('\\', "/");
        let _ = writeln!(code, "    ({name:?}, {shown:?}, include_str!({:?})),", file.display().to_string());
    }
    let _ = writeln!(code, "];");
}
