//! Texts that travel inside the program.

use crate::exit::{Code, Failure};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Citations, one BibTeX entry per paper; the key is the paper's name here.
pub(crate) const BIBLIOGRAPHY: &str = include_str!("../../../docs/src/references.bib");

/// Name, version, licence and source of every library.
pub(crate) const LICENSES: &str = include_str!("licenses.txt");

/// The known name that is nearest to a mistyped one, if any is near.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(d, k)| *d <= (k.len().max(name.len()) / 2).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// The failure for a name that is not among the known ones.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> Failure {
    let hint = match nearest(name, known.iter().copied()) {
        Some(k) => format!("did you mean {k}?"),
        None if known.is_empty() => "none is known yet".to_owned(),
        None => format!("known: {}", known.join(", ")),
    };
    Failure::new(Code::Usage, anyhow::anyhow!("no {what} is called {name:?}: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["adam-mini/state-half", "gem/toy-diversity"];
        assert_eq!(nearest("adam-mini/state-halv", known), Some(known[0]));
        assert_eq!(nearest("adam-mini", known), None);
        assert_eq!(nearest("zzz", known), None);
    }
}
