//! `rhumb report`.

pub(crate) mod folder;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rhumb_core::RunFolder;
use serde_json::json;

use crate::exit::{Failure, read_text, write_file};
use crate::output::Output;
use crate::report;
use crate::session::RunResult;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One page that opens offline.
    Html,
    /// Text with tables.
    Md,
    /// All records of all arms, in long form.
    Csv,
    /// Every plot as a file of its own.
    Svg,
}

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of runs.
    #[arg(required = true, value_name = "RUN_DIR")]
    folders: Vec<PathBuf>,
    /// What to write.
    #[arg(long, value_enum, default_value = "html")]
    format: Format,
}

/// Writes reports into their run folders and names the files.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let mut written = Vec::new();
    for dir in &args.folders {
        written.extend(one(dir, args.format).map_err(|e| e.context(format!("report of {}", dir.display())))?);
    }
    let text: String = written.iter().map(|p| format!("{}\n", p.display())).collect();
    Ok(Output::new(text, json!(written)))
}

fn one(dir: &Path, format: Format) -> Result<Vec<PathBuf>, Failure> {
    // Recipes leave a result; every other run is told from its manifest, records and outcome.
    let plain = !dir.join(RunResult::FILE).exists() && folder::is_run(dir);
    let result = if plain { None } else { Some(RunResult::load(dir)?) };
    if format == Format::Csv {
        let path = dir.join("report.csv");
        write_file(&path, long_form(dir, plain)?.as_bytes())?;
        return Ok(vec![path]);
    }
    let report = match &result {
        Some(result) => report::of_run(&RunFolder::open(dir), result)?,
        None => folder::of_folder(dir)?,
    };
    let files = match format {
        Format::Html | Format::Csv => vec![("report.html".to_owned(), report.html())],
        Format::Md => vec![("report.md".to_owned(), report.markdown())],
        Format::Svg => {
            let plots = report.svgs().into_iter().enumerate();
            plots.map(|(i, svg)| (format!("plot-{}.svg", i + 1), svg)).collect()
        }
    };
    let mut out = Vec::new();
    for (name, text) in files {
        let path = dir.join(name);
        write_file(&path, text.as_bytes())?;
        out.push(path);
    }
    Ok(out)
}

/// `arm,step,quantity,value`, which every table program can pivot.
fn long_form(dir: &Path, plain: bool) -> Result<String, Failure> {
    let mut out = String::from("arm,step,quantity,value\n");
    let mut all = if plain { folder::sources(dir) } else { vec![("seeds".to_owned(), dir.to_owned())] };
    all.extend(report::arms(dir));
    for (arm, folder) in all {
        // Reading the text first gives a missing file its own exit code.
        read_text(&folder.join("records.jsonl"))?;
        for record in RunFolder::open(folder).records()? {
            for (key, value) in record.values().iter().chain(record.machine_values()) {
                out.push_str(&format!("\"{arm}\",{},\"{key}\",{value}\n", record.step));
            }
        }
    }
    Ok(out)
}
