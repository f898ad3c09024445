//! `rhumb cite`.

use serde_json::json;

use crate::embedded::{BIBLIOGRAPHY, unknown};
use crate::exit::Failure;
use crate::output::Output;

/// Arguments of `cite`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the paper; all without it.
    paper: Option<String>,
}

/// Prints BibTeX of a paper and of Rhumb.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let entries = entries(BIBLIOGRAPHY);
    if let Some(paper) = &args.paper {
        let known: Vec<&str> = entries.iter().map(|e| e.0).collect();
        if !known.contains(&paper.as_str()) {
            return Err(unknown("paper", paper, &known));
        }
    }
    let wanted = |key: &str| key == "rhumb" || args.paper.as_deref().is_none_or(|p| p == key);
    let chosen: Vec<_> = entries.into_iter().filter(|e| wanted(e.0)).collect();
    let text: Vec<&str> = chosen.iter().map(|e| e.1).collect();
    let json: Vec<_> = chosen.iter().map(|(key, text)| json!({ "key": key, "bibtex": text })).collect();
    Ok(Output::new(text.join("\n\n") + "\n", json!(json)))
}

/// Key and text of every entry; an entry begins with `@` at the start of a line.
fn entries(bib: &str) -> Vec<(&str, &str)> {
    let mut starts: Vec<usize> = bib.match_indices("\n@").map(|(i, _)| i + 1).collect();
    if bib.starts_with('@') {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([bib.len()]);
    let entry = |(start, end): (usize, usize)| {
        let text = bib[start..end].trim();
        let key = text.split_once('{')?.1.split_once(',')?.0.trim();
        Some((key, text))
    };
    starts.iter().copied().zip(ends).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_cut_at_their_start_of_line() {
        let bib = "@misc{a,\n title={x@y}\n}\n\n@article{ b , t={z}}\n";
        let found: Vec<&str> = entries(bib).iter().map(|e| e.0).collect();
        assert_eq!(found, ["a", "b"]);
    }

    #[test]
    fn every_paper_with_a_page_can_be_cited() {
        let keys: Vec<&str> = entries(BIBLIOGRAPHY).iter().map(|e| e.0).collect();
        assert!(keys.contains(&"rhumb"));
        for (paper, _, _) in crate::embedded::PAGES {
            assert!(keys.contains(paper), "{paper}");
        }
    }
}
