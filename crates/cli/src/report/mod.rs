//! Reports: one HTML file that opens offline, or the same as Markdown.
//!
//! [`Report`] is a builder that knows nothing of runs; [`of_run`] fills it from a run folder.

mod heat;
mod html;
mod plot;
mod run;

use serde::{Deserialize, Serialize};

pub(crate) use self::heat::HeatMap;
pub(crate) use self::plot::{BarPlot, LinePlot, Series};
pub(crate) use self::run::{arms, metric_table, of_run};
use crate::table::Table;

/// How a verdict is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As recorded, or good news.
    Good,
    /// Different from the record.
    Bad,
    /// Neither.
    Plain,
}

/// A part of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Section {
    /// A heading.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// A table with a caption.
    Table(String, Table),
    /// Curves.
    Lines(LinePlot),
    /// Bars.
    Bars(BarPlot),
    /// A square of cells.
    Heat(HeatMap),
    /// A long text that is folded away, e.g. the configuration.
    Details(String, String),
}

/// A report under construction.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    title: String,
    verdicts: Vec<(Tone, String)>,
    sections: Vec<Section>,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Report { title: title.into(), verdicts: Vec::new(), sections: Vec::new() }
    }

    /// A sentence that a reader sees first.
    pub(crate) fn verdict(&mut self, tone: Tone, text: impl Into<String>) -> &mut Self {
        self.verdicts.push((tone, text.into()));
        self
    }

    /// Adds a part.
    pub(crate) fn push(&mut self, section: Section) -> &mut Self {
        self.sections.push(section);
        self
    }

    /// Adds a heading.
    pub(crate) fn heading(&mut self, text: impl Into<String>) -> &mut Self {
        self.push(Section::Heading(text.into()))
    }

    /// Adds a paragraph.
    pub(crate) fn text(&mut self, text: impl Into<String>) -> &mut Self {
        self.push(Section::Text(text.into()))
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, caption: impl Into<String>, table: Table) -> &mut Self {
        self.push(Section::Table(caption.into(), table))
    }

    /// Adds a folded text.
    pub(crate) fn details(&mut self, summary: impl Into<String>, text: impl Into<String>) -> &mut Self {
        self.push(Section::Details(summary.into(), text.into()))
    }

    /// One self-contained HTML file: no script, no font, no image from anywhere else.
    pub(crate) fn html(&self) -> String {
        html::page(self)
    }

    /// Every plot as an SVG file of its own.
    pub(crate) fn svgs(&self) -> Vec<String> {
        let plot = |s: &Section| match s {
            Section::Lines(p) => Some(p.svg()),
            Section::Bars(p) => Some(p.svg()),
            Section::Heat(p) => Some(p.svg()),
            _ => None,
        };
        self.sections.iter().filter_map(plot).collect()
    }

    /// Markdown; plots become a note that the HTML has them.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("# {}\n", self.title);
        for (_, text) in &self.verdicts {
            out.push_str(&format!("\n**{text}**\n"));
        }
        for section in &self.sections {
            out.push_str(&match section {
                Section::Heading(t) => format!("\n## {t}\n"),
                Section::Text(t) => format!("\n{t}\n"),
                Section::Table(caption, t) => format!("\n{caption}\n\n{}", markdown_table(t)),
                Section::Lines(LinePlot { title, .. })
                | Section::Bars(BarPlot { title, .. })
                | Section::Heat(HeatMap { title, .. }) => {
                    format!("\n(plot in the HTML report: {title})\n")
                }
                Section::Details(summary, t) => format!("\n{summary}:\n\n```\n{}\n```\n", t.trim_end()),
            });
        }
        out
    }
}

fn markdown_table(t: &Table) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|c| c.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<String> = (0..t.header.len())
        .map(|j| if t.is_numeric(j) { "---:".to_owned() } else { "---".to_owned() })
        .collect();
    let mut out = line(&t.header);
    out.push_str(&line(&rule));
    for row in &t.rows {
        out.push_str(&line(row));
    }
    out
}

#[cfg(test)]
mod tests;
