//! The program `rhumb`: the only crate that prints, reads the environment and looks at its arguments.
//!
//! A command is a module of [`cmd`] with an argument struct and a function from it to an [`output::Output`];
//! `main` prints that, for people or as JSON, and turns failures into exit codes.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

mod args;
mod cmd;
mod embedded;
mod exit;
mod experiment;
mod interrupt;
mod lm;
mod machine;
mod output;
mod progress;
mod recipe;
mod report;
mod rows;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(not(target_os = "linux"))]
#[path = "sandbox/elsewhere.rs"]
mod sandbox;
mod session;
mod table;

use args::{Args, Command};
use exit::Failure;
use output::{Global, Output};

fn main() -> ExitCode {
    if let Some(code) = sandbox::stage() {
        return code;
    }
    let args = Args::parse();
    let global = Global { json: args.json, quiet: args.quiet };
    match dispatch(args.command, global) {
        Ok(output) => output.print(global.json).unwrap_or_else(|e| {
            let _ = writeln!(std::io::stderr(), "error: cannot write the result: {e}");
            ExitCode::from(2)
        }),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}

fn dispatch(command: Command, global: Global) -> Result<Output, Failure> {
    match command {
        Command::Quickstart(a) => cmd::quickstart::run(&a, global),
        Command::Train(c) => cmd::train::run(&c, global),
        Command::Generate(a) => cmd::generate::run(&a, global),
        Command::Chat(a) => cmd::chat::run(&a, global),
        Command::Score(a) => cmd::score::run(&a, global),
        Command::Judge(a) => cmd::judge::run(&a, global),
        Command::Eval(a) => cmd::eval::run(&a, global),
        Command::Model(c) => cmd::model::run(&c, global),
        Command::Data(c) => cmd::data::run(&c, global),
        Command::Optimizer(c) => cmd::optimizer::run(&c),
        Command::Spectrum(a) => cmd::spectrum::run(&a, global),
        Command::Plan(a) => cmd::plan::run(&a),
        Command::List(a) => cmd::list::run(&a),
        Command::Show(a) => cmd::show::run(&a),
        Command::Run(a) => cmd::run::run(&a, global),
        Command::Check(a) => cmd::check::run(&a, global),
        Command::Report(a) => cmd::report::run(&a),
        Command::Compare(a) => cmd::compare::run(&a),
        Command::Explain(a) => cmd::explain::run(&a),
        Command::Cite(a) => cmd::cite::run(&a),
        Command::Doctor(a) => cmd::doctor::run(&a),
        Command::Schema => cmd::ship::schema(),
        Command::Completions(a) => cmd::ship::completions(&a),
        Command::Man(a) => cmd::ship::man(&a),
        Command::Licenses => Ok(cmd::ship::licenses()),
    }
}
