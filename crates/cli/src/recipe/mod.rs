//! Recipes: the settings of an experiment together with the claim that it tests.
//!
//! A recipe is read in layers: the file, its `[quick]` or `[full]` overlay, then `-s key=value`. The result is
//! one typed [`Recipe`]; a key that no layer may have is an error with its place and the nearest key.

mod layer;
mod locate;

use std::path::Path;

use clap::ValueEnum;
use rhumb_core::Claim;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::embedded;
use crate::exit::{Failure, read_text};
use crate::experiment::Settings;

/// How much work a run may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    /// At most a minute on two cores: proves wiring and sign.
    Quick,
    /// The committed result.
    Full,
}

impl Size {
    /// Name of the overlay in a recipe.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Size::Quick => "quick",
            Size::Full => "full",
        }
    }
}

/// A recipe with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    /// The paper, as `rhumb explain` and `rhumb cite` call it.
    pub(crate) paper: String,
    /// What is tested, in a few words.
    pub(crate) title: String,
    /// Our verdict on the paper's claim in words; it belongs to the committed result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<String>,
    /// Where the settings differ from the paper, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deviations: Vec<String>,
    /// What is run, and its settings.
    pub(crate) algorithm: Settings,
    /// Steps, seeds, time.
    #[serde(default)]
    pub(crate) budget: BudgetSettings,
    /// The statement that the run tests.
    pub(crate) claim: Claim,
    /// What has to come out as well for the claim to mean something, e.g. that a bad optimizer is found to be bad.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) controls: Vec<Claim>,
}

/// The `[budget]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BudgetSettings {
    /// Steps of each arm; without it the algorithm decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) steps: Option<u64>,
    /// Seconds of each arm; without it there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wall_s: Option<f64>,
    /// One independent run for each.
    pub(crate) seeds: Vec<u64>,
    /// Seconds that all of it takes on two cores.
    pub(crate) expected_s: f64,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        BudgetSettings { steps: None, wall_s: None, seeds: vec![0], expected_s: 1.0 }
    }
}

/// The text of a recipe, not yet judged.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// `paper/name`, or the path it was read from.
    pub(crate) name: String,
    /// The file, for messages.
    pub(crate) file: String,
    text: String,
}

impl Source {
    /// All embedded recipes.
    pub(crate) fn all() -> Vec<Source> {
        embedded::RECIPES.iter().map(|(name, file, text)| Source::from_text(name, file, text)).collect()
    }

    /// A recipe from a text that is already here.
    pub(crate) fn from_text(name: &str, file: &str, text: &str) -> Source {
        Source { name: name.to_owned(), file: file.to_owned(), text: text.to_owned() }
    }

    /// The embedded recipe of that name, or the file at that path.
    pub(crate) fn find(name: &str) -> Result<Source, Failure> {
        if let Some((name, file, text)) = embedded::RECIPES.iter().find(|r| r.0 == name) {
            return Ok(Source::from_text(name, file, text));
        }
        if Path::new(name).extension().is_some_and(|e| e == "toml") {
            let path = Path::new(name);
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            return Ok(Source::from_text(&stem, name, &read_text(path)?));
        }
        let known: Vec<&str> = embedded::RECIPES.iter().map(|r| r.0).collect();
        Err(embedded::unknown("recipe", name, &known))
    }

    /// The typed recipe at that size, with overrides `key.path=value` applied last.
    pub(crate) fn resolve(&self, size: Size, overrides: &[String]) -> Result<Recipe, Failure> {
        let wrong = |e: String| Failure::usage(e);
        let mut table: toml::Table =
            self.text.parse().map_err(|e| wrong(locate::syntax(&self.file, &self.text, &e)))?;
        let overlays = [Size::Quick, Size::Full].map(|s| (s, table.remove(s.key())));
        for (s, overlay) in overlays {
            match overlay {
                Some(toml::Value::Table(t)) if s == size => layer::merge(&mut table, t),
                Some(toml::Value::Table(_)) | None => {}
                Some(_) => return Err(wrong(format!("{}: [{}] has to be a table", self.file, s.key()))),
            }
        }
        let mut set = Vec::new();
        for o in overrides {
            set.push(layer::set(&mut table, o).map_err(wrong)?);
        }
        let place = locate::Place { file: &self.file, text: &self.text, overlay: size.key(), set: &set };
        let recipe: Recipe = serde_path_to_error::deserialize(table)
            .map_err(|e| wrong(place.describe(&e.path().to_string(), e.inner().message())))?;
        for claim in std::iter::once(&recipe.claim).chain(&recipe.controls) {
            claim.validate().map_err(|e| wrong(format!("{}: {e}", self.file)))?;
        }
        if recipe.budget.seeds.is_empty() {
            return Err(wrong(place.describe("budget.seeds", "give at least one seed")));
        }
        if recipe.budget.steps == Some(0) {
            return Err(wrong(place.describe("budget.steps", "give at least one step")));
        }
        if recipe.budget.wall_s.is_some_and(|s| !(s > 0.0 && s.is_finite())) {
            return Err(wrong(place.describe("budget.wall_s", "give a number of seconds above 0")));
        }
        let mut seeds = recipe.budget.seeds.clone();
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.len() != recipe.budget.seeds.len() {
            return Err(wrong(
                place.describe("budget.seeds", "a seed is given twice; a second run adds nothing"),
            ));
        }
        Ok(recipe)
    }
}

/// The JSON Schema of a recipe file.
pub(crate) fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Recipe).to_value();
    if let Some(properties) = schema.pointer_mut("/properties").and_then(|p| p.as_object_mut()) {
        for (key, what) in [("quick", "at most a minute"), ("full", "the committed result")] {
            let text = format!("Settings that replace those above with `--budget {key}`: {what}.");
            properties.insert(key.to_owned(), serde_json::json!({ "type": "object", "description": text }));
        }
    }
    schema
}

#[cfg(test)]
mod tests;
