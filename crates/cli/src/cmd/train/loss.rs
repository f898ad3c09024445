//! The losses by name, and their numbers, from the table of the library.

use std::borrow::Cow;

use clap::builder::PossibleValue;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches, ValueEnum};
use rhumb_nn::loss::{LOSSES, LossEntry, LossKind, Parameter};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::exit::{Code, Failure};

/// A loss of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss(&'static LossEntry);

const ALL: [Loss; LOSSES.len()] = {
    let mut all = [Loss::CE; LOSSES.len()];
    let mut i = 0;
    while i < LOSSES.len() {
        all[i] = Loss(LOSSES[i]);
        i += 1;
    }
    all
};

/// A number of some losses: the name of its flag and its value.
pub(crate) type Number = (&'static str, f64);

/// The names of all of them.
pub(super) const NUMBERS: [&str; 4] = ["beta", "lambda", "smoothing", "noise-alpha"];

/// Parameters of that name, with the losses that have them.
fn parameters(name: &str) -> impl Iterator<Item = (Loss, Parameter)> {
    ALL.into_iter().filter_map(move |l| l.0.parameter.filter(|p| p.name == name).map(|p| (l, p)))
}

/// The default of a number.
pub(crate) fn standard(name: &str) -> f64 {
    parameters(name).next().map_or(0.0, |(_, p)| p.default)
}

impl Loss {
    /// Cross-entropy.
    pub(crate) const CE: Loss = Loss(LossKind::Ce.entry());
    /// GEM with the identity link.
    pub(crate) const GEM_LINEAR: Loss = Loss(LossKind::GemLinear { beta: 0.0 }.entry());

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether it is one of the GEM losses.
    pub(crate) fn is_gem(self) -> bool {
        self.has("beta")
    }

    /// Whether it is told apart from another by nothing but a number of that name.
    fn has(self, number: &str) -> bool {
        self.0.parameter.is_some_and(|p| p.name == number)
    }

    /// The loss with its number out of all of them.
    pub(crate) fn kind(self, numbers: &[Number]) -> Result<LossKind, Failure> {
        let own = numbers.iter().find(|(name, _)| self.has(name)).map(|(_, x)| *x);
        self.0.kind(own).map_err(|e| Failure::new(Code::Usage, e))
    }

    /// Refuses numbers that say nothing about any of these losses: those that are not as they come, and those that were
    /// given.
    pub(crate) fn refuse_idle(losses: &[Loss], numbers: &[Number], given: &Given) -> Result<(), Failure> {
        for (name, x) in numbers {
            let standard = x.to_bits() == standard(name).to_bits() && !given.0.contains(name);
            if standard || losses.iter().any(|l| l.has(name)) {
                continue;
            }
            let all = losses.iter().map(|l| l.name()).collect::<Vec<_>>().join(", ");
            let those = parameters(name).map(|(l, _)| l.name()).collect::<Vec<_>>().join(" or ");
            return Err(Failure::usage(format!(
                "--{name} {x} says nothing about --loss {all}: choose {those}, or leave it out"
            )));
        }
        Ok(())
    }
}

/// Numbers of losses that stand on the command line, with the values that they have without it too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given(Vec<&'static str>);

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &&str| {
            let id = name.replace('-', "_");
            // Not every command has all of them, and the matches panic at a flag that a command has not.
            matches.try_contains_id(&id).unwrap_or(false)
                && matches.value_source(&id) == Some(ValueSource::CommandLine)
        };
        Ok(Given(NUMBERS.into_iter().filter(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Given::from_arg_matches(matches)?;
        Ok(())
    }
}

/// It looks at the flags of others and has none of its own.
impl clap::Args for Given {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command
    }
}

impl Default for Loss {
    fn default() -> Self {
        Loss::CE
    }
}

impl PartialEq for Loss {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl ValueEnum for Loss {
    fn value_variants<'a>() -> &'a [Self] {
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.0.about))
    }
}

impl Serialize for Loss {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Loss {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        LossKind::parse(&name, None).map(|k| Loss(k.entry())).map_err(de::Error::custom)
    }
}

impl JsonSchema for Loss {
    fn schema_name() -> Cow<'static, str> {
        "Loss".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = ALL.iter().map(|l| l.name()).collect();
        json_schema!({ "type": "string", "description": "Losses.", "enum": names })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::SftSettings;
    use super::*;

    #[test]
    fn every_loss_is_a_value_of_the_flag_and_of_a_recipe_and_takes_its_number() {
        let s = SftSettings {
            beta: 0.31,
            lambda: 0.32,
            smoothing: 0.33,
            noise_alpha: 0.34,
            ..Default::default()
        };
        for loss in ALL {
            assert_eq!(Loss::from_str(loss.name(), false), Ok(loss));
            let recipe: SftSettings = toml::from_str(&format!("loss = {:?}", loss.name())).unwrap();
            assert_eq!(recipe.loss, loss);
            let kind = loss.kind(&s.numbers()).unwrap();
            assert_eq!(kind.name(), loss.name());
            let want = loss.0.parameter.map(|p| match p.name {
                "beta" => 0.31,
                "lambda" => 0.32,
                "smoothing" => 0.33,
                "noise-alpha" => 0.34,
                other => panic!("no flag sets {other}"),
            });
            assert_eq!(kind.parameter(), want);
        }
    }

    #[test]
    fn a_number_is_refused_unless_one_of_the_losses_has_it() {
        let told = |losses: &[Loss], n: Number| {
            Loss::refuse_idle(losses, &[n], &Given::default())
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default()
        };
        let text = told(&[Loss::CE], ("beta", 0.5));
        assert!(
            text.contains("--beta 0.5 says nothing about --loss ce: choose gem-linear or gem-logsigmoid")
        );
        assert!(told(&[Loss::GEM_LINEAR], ("lambda", 0.5)).contains("choose ce+entropy, or"));
        assert_eq!(told(&[Loss::CE, Loss::GEM_LINEAR], ("beta", 0.5)), "");
        assert_eq!(told(&[Loss::CE], ("beta", 0.7)), "");
    }

    #[test]
    fn an_unknown_loss_is_refused_with_those_that_exist() {
        let error = toml::from_str::<SftSettings>("loss = \"gem\"").unwrap_err().to_string();
        assert!(ALL.iter().all(|l| error.contains(l.name())), "{error}");
        assert!(LossKind::parse("ce+entropy", Some(-1.0)).is_err());
        let numbers = SftSettings { lambda: -1.0, ..Default::default() }.numbers();
        let loss: Loss = serde_json::from_str("\"ce+entropy\"").unwrap();
        assert!(loss.kind(&numbers).unwrap_err().to_string().contains("at least 0"));
    }
}
