//! What is told about a finished evaluation: for people, for programs, and in the report.

use std::path::Path;

use rhumb_lm::eval::sampling::Mean;
use serde_json::{Map, Value, json};

use super::ask::{Answer, Sampled};
use super::options::Draws;
use crate::cmd::report::folder::Summary;
use crate::output::command_line;
use crate::report::Section;
use crate::table::{Table, counted, number, seconds};

/// One number with its interval.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    key: String,
    name: String,
    mean: Mean,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Told {
    /// Heading.
    title: String,
    /// What was evaluated, and how.
    about: String,
    measures: Vec<Measure>,
    /// Further tables with their captions.
    tables: Vec<(String, Table)>,
    remarks: Vec<String>,
    json: Map<String, Value>,
}

impl Told {
    pub(super) fn new(title: &str, about: impl Into<String>) -> Self {
        let (title, about) = (title.to_owned(), about.into());
        Told { title, about, measures: Vec::new(), tables: Vec::new(), remarks: Vec::new(), json: Map::new() }
    }

    /// A measure under its name; that of the JSON has underscores.
    pub(super) fn measure(&mut self, name: impl Into<String>, mean: Mean) -> &mut Self {
        let name = name.into();
        self.measures.push(Measure { key: name.replace([' ', '-'], "_"), name, mean });
        self
    }

    /// A table below the measures.
    pub(super) fn table(&mut self, caption: impl Into<String>, table: Table) -> &mut Self {
        self.tables.push((caption.into(), table));
        self
    }

    /// A sentence below the tables.
    pub(super) fn remark(&mut self, text: impl Into<String>) -> &mut Self {
        self.remarks.push(text.into());
        self
    }

    /// A field of the JSON.
    pub(super) fn put(&mut self, key: &str, value: Value) -> &mut Self {
        self.json.insert(key.to_owned(), value);
        self
    }

    /// How many questions were asked, and what [`Told::sampled`] says of their answers.
    pub(super) fn asked<V>(&mut self, answers: &[Vec<Answer<V>>], draws: &Draws) -> &mut Self {
        self.put("questions", answers.len().into()).put("n", draws.n.into()).sampled(&Sampled::of(answers))
    }

    /// What holds of all answers whatever they are: how long they are, and how they end.
    fn sampled(&mut self, s: &Sampled) -> &mut Self {
        let share = |n: usize| format!("{n} of {}", s.answers);
        self.remark(format!(
            "Answers of {} tokens on average; {} cut off at the limit; {} end in a loop.",
            number((10.0 * s.tokens as f64 / s.answers.max(1) as f64).round() / 10.0),
            share(s.cut),
            share(s.looped)
        ));
        for (key, n) in
            [("answers", s.answers), ("new_tokens", s.tokens), ("cut_off", s.cut), ("looped", s.looped)]
        {
            self.put(key, n.into());
        }
        self
    }

    fn main(&self) -> Table {
        let mut t = Table::new(["measure", "value", "95 % interval"]);
        for m in &self.measures {
            t.row([m.name.clone(), number(m.mean.value), interval(&m.mean)]);
        }
        t
    }

    /// For people.
    pub(super) fn text(&self, out: &Path, wall_s: f64) -> String {
        let mut text = format!("{}\n\n", self.about);
        if !self.measures.is_empty() {
            text += &format!("{}\n", self.main().render());
        }
        for (caption, table) in &self.tables {
            text += &format!("{caption}\n{}\n", table.render());
        }
        for remark in &self.remarks {
            text += &format!("{remark}\n");
        }
        text + &format!("{}; report in {}\n", seconds(wall_s), out.join("report.html").display())
    }

    /// For programs.
    pub(super) fn json(&self, label: &str, out: &Path, wall_s: f64) -> Value {
        let measures: Map<String, Value> =
            self.measures.iter().map(|m| (m.key.clone(), value(&m.mean))).collect();
        let mut json = self.json.clone();
        json.insert("measure".into(), label.into());
        json.insert("measures".into(), measures.into());
        json.insert("folder".into(), json!(out));
        json.insert("wall_s".into(), wall_s.into());
        json.into()
    }

    /// What `report.html` is made of, besides the files that every run has.
    pub(super) fn summary(&self, result: Value) -> Summary {
        let mut sections =
            vec![Section::Table("Measures, with intervals over questions".into(), self.main())];
        sections.extend(self.tables.iter().map(|(caption, t)| Section::Table(caption.clone(), t.clone())));
        sections.extend(self.remarks.iter().map(|r| Section::Text(r.clone())));
        let verdicts = vec![self.about.clone()];
        Summary { title: self.title.clone(), verdicts, sections, command: command_line(&[]), result }
    }
}

/// A mean with its interval for programs.
pub(super) fn value(m: &Mean) -> Value {
    json!({ "value": m.value, "low": m.interval.map(|i| i.low), "high": m.interval.map(|i| i.high) })
}

/// An interval for people.
pub(super) fn interval(m: &Mean) -> String {
    m.interval.map_or_else(String::new, |i| format!("[{}, {}]", number(i.low), number(i.high)))
}

/// `100 questions, 4 answers each`.
pub(super) fn size(questions: usize, n: usize) -> String {
    format!("{}, {} each", counted(questions as u64, "question"), counted(n as u64, "answer"))
}
