//! Supervised fine-tuning, from files to a model folder.

pub(crate) mod intake;
pub(crate) mod setup;

use rhumb_io::template::ChatTemplate;
use rhumb_lm::sft::Sft;

use self::intake::read;
use self::setup::{config_of, named, prepare};
use super::loss::{Given, Loss};
use super::session::{Kind, Session, too_large};
use super::{Sft as Args, SftSettings, origin};
use crate::exit::Failure;
use crate::interrupt;
use crate::lm::{self, LanguageModel};
use crate::output::{Global, Output, warn};
use crate::table::{bytes, counted};

const KIND: Kind = Kind {
    name: "train/sft",
    label: "sft",
    title: "Supervised fine-tuning",
    what: "fine-tuning",
    unit: "conversation",
    try_it: "--chat \"Hello\" --temperature 0.7",
};

/// Runs `rhumb train sft`.
pub(super) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    let s = &args.settings;
    setup::check(s)?;
    says_something(s, &args.given)?;
    let stop = interrupt::install()?;
    let mut session = Session::new(&KIND, s, &args.place, global);
    let earlier = session.earlier()?;
    let (path, _) = named(s)?;
    let data_files: Vec<_> = [("data", &s.data), ("eval data", &s.eval_data), ("template", &s.template)]
        .into_iter()
        .filter_map(|(name, path)| Some((name, vec![path.clone()?])))
        .collect();
    // What is not said on the command line follows from what is.
    let told = SftSettings { full: s.lora.is_none(), ..s.clone() };
    let manifest = |time| origin::manifest(KIND.name, &told, s.seed, path, &data_files, time);
    let mut resumed = None;
    if let Some(earlier) = &earlier {
        let now = manifest(origin::recorded_time(earlier))?;
        if let Some(done) = session.finished_before(earlier, &now)? {
            return Ok(done);
        }
        resumed = Some(now);
    }
    if let Some(plain) = lm::definition(path)? {
        too_large(s, &setup::trained(s, &plain)?)?;
    }
    let mut model = LanguageModel::open_with(path, s.template.as_deref())?;
    let time = origin::template_time(earlier.as_ref());
    let tells_time = model.template.as_ref().is_some_and(ChatTemplate::tells_time);
    model.template = model.template.take().map(|t| t.at(time));
    let data = read(s, &model, Some(&session.out))?;
    data.warnings.iter().for_each(|w| warn(w));
    data.notes.iter().for_each(|n| global.note(n));
    session.files.extend(data.dropped().map(|text| ("dropped.jsonl", text)));
    let config = config_of(s, &data.train)?;
    // A GGUF file tells its shape only when it is read.
    let estimate = too_large(s, &setup::trained(s, &model.decoder)?)?;
    let (decoder, params, frozen) = prepare(s, &mut model)?;
    let seconds = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let manifest = resumed.map_or_else(|| manifest(tells_time.then_some(seconds)), Ok)?;
    let sft = Sft::new(config.clone(), decoder, params, frozen, data.train, &data.held_out)?;
    global.note(&format!(
        "{} of {} tokens; {}; estimated memory {}",
        counted(sft.rows() as u64, "packed row"),
        config.tokens,
        counted(config.steps, "step"),
        bytes(estimate.peak())
    ));
    session.train(sft, &config, &model, estimate, &manifest, stop)
}

/// Settings that would be ignored, and one that does the opposite of what GEM is for.
pub(crate) fn says_something(s: &SftSettings, given: &Given) -> Result<(), Failure> {
    Loss::refuse_idle(&[s.loss], &s.numbers(), given)?;
    if s.loss.kind(&s.numbers())?.is_gem() && s.beta > 1.0 {
        warn(&format!(
            "--beta {} is above 1: the model that comes out is sharper than the data, not more diverse",
            s.beta
        ));
    }
    Ok(())
}
