//! What belongs to a package: schema, completions, man pages, licences.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use crate::embedded::LICENSES;
use crate::exit::{Failure, write_file};
use crate::output::Output;
use crate::recipe;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The folder; it is made.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// JSON Schema of recipes.
pub(crate) fn schema() -> Result<Output, Failure> {
    let schema = recipe::schema();
    Ok(Output::new(format!("{schema:#}"), schema))
}

/// A completion script.
pub(crate) fn completions(args: &CompletionArgs) -> Result<Output, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::args::Args::command(), "rhumb", &mut script);
    Ok(Output::text(String::from_utf8_lossy(&script).into_owned()))
}

/// Writes a man page for the program and one for every command.
pub(crate) fn man(args: &ManArgs) -> Result<Output, Failure> {
    let mut root = crate::args::Args::command();
    root.build();
    let mut written = Vec::new();
    page(&root, "rhumb", &args.out, &mut written)?;
    let text: String = written.iter().map(|p: &PathBuf| format!("{}\n", p.display())).collect();
    Ok(Output::new(text, json!(written)))
}

fn page(
    command: &clap::Command,
    name: &str,
    out: &std::path::Path,
    written: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.to_owned()))
        .render(&mut text)
        .map_err(|e| Failure::usage(format!("the man page of {name} cannot be made: {e}")))?;
    let path = out.join(format!("{name}.1"));
    write_file(&path, &text)?;
    written.push(path);
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        page(sub, &format!("{name}-{}", sub.get_name()), out, written)?;
    }
    Ok(())
}

/// Licences of the libraries inside the program.
pub(crate) fn licenses() -> Output {
    let list: Vec<_> = LICENSES
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| {
            let mut parts = l.split('\t');
            Some(json!({
                "name": parts.next()?, "version": parts.next()?, "license": parts.next()?,
                "source": parts.next()?,
            }))
        })
        .collect();
    Output::new(LICENSES, json!(list))
}
