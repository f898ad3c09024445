//! `rhumb chat`.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use rhumb_io::complete::{Limits, Stop, complete};
use rhumb_io::template::Message;
use rhumb_nn::model::Session;
use rhumb_nn::sample::{Sampler, SamplerConfig};
use serde::Serialize;
use serde_json::{Value, json};

use super::generate::{Sampling, print, sampler_config};
use crate::exit::{Code, Failure};
use crate::lm::{LanguageModel, from_eval};
use crate::output::{Global, Output, say};

/// Arguments of `chat`.
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Folder or GGUF file of the model.
    model: PathBuf,
    /// The message that the template puts first.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    sampling: Sampling,
    /// New tokens of an answer at most.
    #[arg(long, default_value_t = 256, value_name = "K", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    max_new: u32,
}

/// A conversation with the tokens that the model has seen of it.
struct Talk<'a> {
    lm: &'a LanguageModel,
    session: Session<'a, f32>,
    seen: Vec<u32>,
    messages: Vec<Message>,
    /// Turns that were answered, for programs.
    turns: Vec<Value>,
}

impl Talk<'_> {
    /// Feeds the conversation up to the header of the next answer; what the model has seen already is not fed again.
    fn prompt(&mut self) -> Result<Vec<f32>, Failure> {
        let usage = |e: &dyn std::fmt::Display| Failure::usage(e.to_string());
        let text = self.lm.chat()?.render(&self.messages, true).map_err(|e| usage(&e))?;
        let ids = self.lm.tokenizer.encode(&text).map_err(|e| usage(&e))?;
        let room = self.lm.decoder.config().positions;
        if ids.len() >= room {
            return Err(Failure::usage(format!(
                "the conversation has {} tokens and the model's context {room}: /reset begins a new one",
                ids.len()
            )));
        }
        // The last token has to be fed for its logits.
        let common = ids.iter().zip(&self.seen).take_while(|(a, b)| a == b).count().min(ids.len() - 1);
        self.session.truncate(common);
        self.seen.truncate(common);
        let logits = self.session.push(&ids[common..]).map_err(from_eval)?;
        self.seen.extend_from_slice(&ids[common..]);
        Ok(logits)
    }

    /// Takes one line after another up to `/quit` or the end of input.
    fn listen(
        &mut self,
        args: &Args,
        config: &SamplerConfig,
        system: &[Message],
        global: Global,
    ) -> Result<(), Failure> {
        let watched = std::io::stdin().is_terminal() && !global.quiet;
        if watched {
            say(HELP);
        }
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if watched {
                eprint_prompt();
            }
            let Some(line) = lines.next() else { return Ok(()) };
            let line =
                line.map_err(|e| Failure::usage(format!("cannot read the next turn: {e}; write UTF-8")))?;
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/help" => say(HELP),
                "/reset" => system.clone_into(&mut self.messages),
                "/undo" => {
                    let left = self.messages.len().saturating_sub(2).max(system.len());
                    self.messages.truncate(left);
                }
                text if text.starts_with('/') && !text.contains(' ') => {
                    say(&format!("{text} is no command: {HELP}"));
                }
                text => self.turn(text, args, config, watched, !global.json)?,
            }
        }
    }

    /// Answers what was said; `live` shows the answer while it grows.
    fn turn(
        &mut self,
        text: &str,
        args: &Args,
        config: &SamplerConfig,
        watched: bool,
        live: bool,
    ) -> Result<(), Failure> {
        self.messages.push(Message::new("user", text));
        let first = match self.prompt() {
            // Whoever types can go on; a script should not go on with less than it asked for.
            Err(e) if watched => {
                say(&format!("error: {e}"));
                self.messages.pop();
                return Ok(());
            }
            other => other?,
        };
        let mut sampler = Sampler::of_completion(config.clone(), self.turns.len() as u64)
            .map_err(|e| Failure::new(Code::Usage, e))?;
        sampler.see(&self.seen);
        let mut show = |piece: &str| if live { print(piece) } else { Ok(()) };
        let (lm, max_new) = (self.lm, args.max_new as usize);
        let limits = Limits { eos: &lm.eos, stop: &args.sampling.stop, max_new };
        let answer = complete(&lm.tokenizer, &mut self.session, &first, &mut sampler, limits, &mut show)?;
        show("\n")?;
        if watched && matches!(answer.stop, Stop::MaxNew | Stop::Context) {
            say("(cut off: the limit of tokens was reached)");
        }
        // The last token was drawn, but not fed.
        self.seen.extend(&answer.ids[..answer.ids.len() - 1]);
        self.messages.push(Message::new("assistant", &answer.text));
        self.turns.push(json!({
            "user": text, "assistant": answer.text, "tokens": answer.ids.len(), "stop": answer.stop,
        }));
        Ok(())
    }
}

const HELP: &str =
    "/reset begins a new conversation, /undo takes the last turn back, /quit or the end of input leaves";

/// Reads turns from standard input and answers them.
pub(crate) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let config = sampler_config(&args.sampling);
    config.validate().map_err(|e| Failure::new(Code::Usage, e))?;
    let lm = LanguageModel::open(&args.model)?;
    lm.chat()?;
    let system: Vec<Message> = args.system.iter().map(|t| Message::new("system", t)).collect();
    let mut talk = Talk {
        session: Session::new(&lm.decoder, &lm.params, &[], lm.decoder.config().positions),
        lm: &lm,
        seen: Vec::new(),
        messages: system.clone(),
        turns: Vec::new(),
    };
    let ended = talk.listen(args, &config, &system, global);
    let said = Output::new("", json!({ "turns": talk.turns, "messages": talk.messages }));
    if ended.is_err() && global.json && !talk.turns.is_empty() {
        // The error that matters is the first one.
        let _ = said.print(true);
    }
    ended.map(|()| said)
}

/// The mark behind which a person types.
fn eprint_prompt() {
    use std::io::Write;
    let mut err = std::io::stderr();
    let _ = err.write_all(b"> ").and_then(|()| err.flush());
}
