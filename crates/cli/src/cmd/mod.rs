//! The commands; each has its arguments and a function from them to an output.

pub(crate) mod chat;
pub(crate) mod check;
pub(crate) mod cite;
pub(crate) mod compare;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod judge;
pub(crate) mod list;
pub(crate) mod model;
pub(crate) mod optimizer;
pub(crate) mod plan;
pub(crate) mod quickstart;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod score;
pub(crate) mod ship;
pub(crate) mod show;
pub(crate) mod spectrum;
pub(crate) mod train;

use std::path::PathBuf;

use rhumb_core::Verdict;

use crate::report::metric_table;
use crate::session::RunResult;
use crate::table::Table;

/// Metric, value of every seed and verdict of a finished run, for a terminal.
pub(crate) fn summary(result: &RunResult, folder: Option<&PathBuf>) -> String {
    let mut out = format!("{}: {}\n\n", result.recipe, result.title);
    if let Some(first) = result.seeds.first() {
        for section in &first.sections {
            if let crate::report::Section::Table(_, t) = section {
                out.push_str(&t.render());
                out.push('\n');
            }
        }
    }
    if let Some(t) = metric_table(result).filter(|_| result.seeds.len() > 1) {
        out.push_str(&format!("{}\n", t.render()));
    }
    if let Some(statement) = &result.statement {
        out.push_str(&format!("paper's claim  {statement}\n"));
    }
    let outcome = result.judgement.iter().map(|j| ("outcome", j));
    for (what, j) in outcome.chain(result.controls.iter().map(|j| ("control", j))) {
        let record = match (result.changed.is_empty(), j.as_expected()) {
            (true, true) => format!("as recorded: {}", j.expect.word()),
            (true, false) => format!("NOT as recorded: {}", j.expect.word()),
            (false, _) => format!("not the recorded settings: {}", result.changed.join(" ")),
        };
        out.push_str(&format!("{what:<15}{} ({record})\n", j.sentence));
    }
    if let Some(words) = result.recorded.as_ref().filter(|_| result.changed.is_empty()) {
        out.push_str(&format!("our verdict    {words}\n"));
    }
    if let Some(f) = folder {
        out.push_str(&format!("folder         {}\n", f.display()));
    }
    out
}

/// The table of `check` and `list`.
pub(crate) fn claim_table(rows: &[(String, String, Verdict, Option<String>)]) -> Table {
    let outcome = rows.iter().any(|r| r.3.is_some());
    let mut header = vec!["recipe", "paper's claim", "recorded"];
    header.extend(outcome.then_some("outcome"));
    let mut table = Table::new(header);
    for (name, claim, recorded, found) in rows {
        let mut row = vec![name.clone(), claim.clone(), recorded.word().to_owned()];
        row.extend(found.clone());
        table.row(row);
    }
    table
}
