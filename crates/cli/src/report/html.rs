//! The HTML page.

use super::{Report, Section, Tone};
use crate::table::Table;

const STYLE: &str = include_str!("style.css");

/// Text between tags and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.title);
    let mut body = format!("<header><h1>{title}</h1></header>\n");
    if !report.verdicts.is_empty() {
        body.push_str("<div class=\"verdicts\">\n");
        for (tone, text) in &report.verdicts {
            let class = match tone {
                Tone::Good => "good",
                Tone::Bad => "bad",
                Tone::Plain => "plain",
            };
            body.push_str(&format!("<p class=\"{class}\">{}</p>\n", escape(text)));
        }
        body.push_str("</div>\n");
    }
    for s in &report.sections {
        body.push_str(&section(s));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>Written by Rhumb {}.</footer>\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn section(s: &Section) -> String {
    match s {
        Section::Heading(t) => format!("<h2>{}</h2>\n", escape(t)),
        Section::Text(t) => format!("<p>{}</p>\n", escape(t)),
        Section::Table(caption, t) => table(caption, t),
        Section::Lines(p) => figure(&p.svg()),
        Section::Bars(p) => figure(&p.svg()),
        Section::Heat(p) => figure(&p.svg()),
        Section::Details(summary, t) => {
            format!("<details><summary>{}</summary>\n<pre>{}</pre></details>\n", escape(summary), escape(t))
        }
    }
}

fn figure(svg: &str) -> String {
    format!("<figure>\n{svg}\n</figure>\n")
}

fn table(caption: &str, t: &Table) -> String {
    let mut out = String::from("<div class=\"scroll\"><table>\n");
    if !caption.is_empty() {
        out.push_str(&format!("<caption>{}</caption>\n", escape(caption)));
    }
    let class: Vec<&str> =
        (0..t.header.len()).map(|j| if t.is_numeric(j) { " class=\"n\"" } else { "" }).collect();
    let mut row = |tag: &str, cells: &[String]| {
        out.push_str("<tr>");
        for (cell, class) in cells.iter().zip(&class) {
            out.push_str(&format!("<{tag}{class}>{}</{tag}>", escape(cell)));
        }
        out.push_str("</tr>\n");
    };
    row("th", &t.header);
    for cells in &t.rows {
        row("td", cells);
    }
    out.push_str("</table></div>\n");
    out
}
