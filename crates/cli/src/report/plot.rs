//! Curves and bars as SVG.
//!
//! Colours are written as place-holders and replaced by CSS variables, so that one drawing serves a light and a
//! dark page. The legend is laid out here, because no font is at hand to measure text with.

use plotters::coord::Shift;
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use super::html::escape;
use crate::table::number;

const WIDTH: u32 = 820;
const HEIGHT: u32 = 380;
/// More points than pixels only make the file larger.
const MAX_POINTS: usize = 1000;

const FG: RGBColor = RGBColor(1, 2, 3);
const GRID: RGBColor = RGBColor(1, 2, 4);
/// Place-holder of series `i` is `(1, 3, i)`; light and dark colour.
const SERIES: [(&str, &str); 6] = [
    ("#2a6fdb", "#6ea8ff"),
    ("#d9730d", "#ffa657"),
    ("#1a8754", "#56d364"),
    ("#8250df", "#c297ff"),
    ("#c0392b", "#ff7b72"),
    ("#6b7480", "#a8b2bd"),
];

/// One curve, or one bar of every group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "P: Point"))]
pub(crate) struct Series<P> {
    /// Name in the legend.
    pub(crate) name: String,
    /// Points, or heights.
    #[serde(deserialize_with = "read_points")]
    pub(crate) data: Vec<P>,
}

/// JSON has no NaN and no infinity: they are written as null, and null reads as NaN.
pub(crate) trait Point: Sized {
    /// The form in a file.
    type Stored: serde::de::DeserializeOwned;
    /// From that form.
    fn from_stored(stored: Self::Stored) -> Self;
}

impl Point for f64 {
    type Stored = Option<f64>;
    fn from_stored(stored: Option<f64>) -> f64 {
        stored.unwrap_or(f64::NAN)
    }
}

impl Point for (f64, f64) {
    type Stored = (Option<f64>, Option<f64>);
    fn from_stored((x, y): Self::Stored) -> Self {
        (f64::from_stored(x), f64::from_stored(y))
    }
}

fn read_points<'de, P: Point, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<P>, D::Error> {
    Ok(Vec::<P::Stored>::deserialize(from)?.into_iter().map(P::from_stored).collect())
}

impl<P> Series<P> {
    /// A named series.
    pub(crate) fn new(name: impl Into<String>, data: Vec<P>) -> Self {
        Series { name: name.into(), data }
    }
}

/// Curves over a common axis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinePlot {
    /// Heading.
    pub(crate) title: String,
    /// Name of the horizontal axis.
    pub(crate) x: String,
    /// Name of the vertical axis.
    pub(crate) y: String,
    /// Logarithmic horizontal axis; points that are not positive are left out.
    #[serde(default)]
    pub(crate) log_x: bool,
    /// Logarithmic vertical axis; points that are not positive are left out.
    #[serde(default)]
    pub(crate) log_y: bool,
    /// The curves.
    pub(crate) series: Vec<Series<(f64, f64)>>,
}

/// Groups of bars.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BarPlot {
    /// Heading.
    pub(crate) title: String,
    /// Name of the vertical axis.
    pub(crate) y: String,
    /// Names below the groups.
    pub(crate) groups: Vec<String>,
    /// Every series has one height per group.
    pub(crate) series: Vec<Series<f64>>,
}

impl LinePlot {
    /// The drawing.
    pub(crate) fn svg(&self) -> String {
        let scaled: Vec<Vec<(f64, f64)>> = self.series.iter().map(|s| self.scaled(&s.data)).collect();
        let xs = padded(scaled.iter().flatten().map(|p| p.0), 0.0);
        let ys = padded(scaled.iter().flatten().map(|p| p.1), 0.06);
        let names: Vec<&str> = self.series.iter().map(|s| s.name.as_str()).collect();
        draw(&self.title, &names, |area| {
            let mut chart = builder(area).build_cartesian_2d(xs.0..xs.1, ys.0..ys.1)?;
            let axis = |log: bool| move |v: &f64| tick(if log { 10f64.powf(*v) } else { *v });
            chart
                .configure_mesh()
                .x_labels(8)
                .y_labels(6)
                .x_label_formatter(&axis(self.log_x))
                .y_label_formatter(&axis(self.log_y))
                .x_desc(&self.x)
                .y_desc(&self.y)
                .label_style(("sans-serif", 13).into_font().color(&FG))
                .axis_desc_style(("sans-serif", 13).into_font().color(&FG))
                .axis_style(GRID)
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .draw()?;
            for (i, points) in scaled.into_iter().enumerate() {
                if points.len() == 1 {
                    chart.draw_series(points.iter().map(|p| Circle::new(*p, 4, colour(i).filled())))?;
                }
                chart.draw_series(LineSeries::new(points, colour(i).stroke_width(2)))?;
            }
            Ok(())
        })
    }

    fn scaled(&self, data: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let scale = |v: f64, log: bool| if log { v.log10() } else { v };
        let all: Vec<_> = data
            .iter()
            .map(|&(x, y)| (scale(x, self.log_x), scale(y, self.log_y)))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        let stride = all.len().div_ceil(MAX_POINTS).max(1);
        let last = all.last().copied();
        let mut kept: Vec<_> = all.into_iter().step_by(stride).collect();
        if stride > 1 {
            kept.extend(last);
        }
        kept
    }
}

impl BarPlot {
    /// The drawing.
    pub(crate) fn svg(&self) -> String {
        let n = self.groups.len();
        let heights = self.series.iter().flat_map(|s| s.data.iter().copied());
        let ys = padded(heights.chain([0.0]), 0.06);
        let ys = (if ys.0 > -ys.1 * 0.07 { 0.0 } else { ys.0 }, ys.1);
        let names: Vec<&str> = self.series.iter().map(|s| s.name.as_str()).collect();
        draw(&self.title, &names, |area| {
            let mut chart = builder(area).build_cartesian_2d(-0.5..n as f64 - 0.5, ys.0..ys.1)?;
            let group = |v: &f64| {
                let i = v.round();
                let on_group = (v - i).abs() < 1e-6 && i >= 0.0;
                on_group.then(|| self.groups.get(i as usize).cloned()).flatten().unwrap_or_default()
            };
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_labels(n + 1)
                .y_labels(6)
                .x_label_formatter(&group)
                .y_label_formatter(&|v| tick(*v))
                .y_desc(&self.y)
                .label_style(("sans-serif", 13).into_font().color(&FG))
                .axis_desc_style(("sans-serif", 13).into_font().color(&FG))
                .axis_style(GRID)
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .draw()?;
            let width = 0.8 / self.series.len().max(1) as f64;
            for (i, s) in self.series.iter().enumerate() {
                let bars = s.data.iter().take(n).enumerate().filter(|(_, h)| h.is_finite());
                chart.draw_series(bars.map(|(g, h)| {
                    let left = g as f64 - 0.4 + width * i as f64;
                    Rectangle::new([(left, 0.0), (left + width * 0.92, *h)], colour(i).filled())
                }))?;
            }
            Ok(())
        })
    }
}

fn colour(i: usize) -> RGBColor {
    RGBColor(1, 3, (i % SERIES.len()) as u8)
}

/// Axis labels need fewer digits than tables.
fn tick(v: f64) -> String {
    let text = format!("{v:.2e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let short = mantissa.trim_end_matches('0').trim_end_matches('.');
    match exponent.parse::<i32>() {
        Ok(-3..6) | Err(_) => number(text.parse().unwrap_or(v)),
        Ok(_) => format!("{short}e{exponent}"),
    }
}

/// The range of finite values with a margin; something to draw also for none or one.
fn padded(values: impl Iterator<Item = f64>, margin: f64) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let width = high - low;
    if width <= 1e-12 * low.abs().max(1e-300) {
        let half = (low.abs() * 0.1).max(0.5);
        return (low - half, high + half);
    }
    (low - width * margin, high + width * margin)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn builder<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut b = ChartBuilder::on(area);
    b.margin_top(72).margin_right(18).margin_bottom(8).margin_left(8);
    b.x_label_area_size(44).y_label_area_size(72);
    b
}

fn draw(title: &str, names: &[&str], body: impl FnOnce(&Area<'_>) -> Drawn<'static>) -> String {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        // The backend writes into a string: the only error is a range that cannot be drawn.
        body(&area).map_err(|e| e.to_string()).and_then(|()| area.present().map_err(|e| e.to_string()))
    };
    if let Err(e) = drawn {
        return format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\"><text y=\"20\">{}</text></svg>",
            escape(&e)
        );
    }
    finish(&svg, title, names)
}

/// Replaces place-holders, adds style, title and legend.
fn finish(svg: &str, title: &str, names: &[&str]) -> String {
    let mut out = svg.replace("#010203", "var(--fg)").replace("#010204", "var(--line)");
    for i in 0..SERIES.len() {
        out = out.replace(&format!("#0103{i:02X}"), &format!("var(--s{i})"));
    }
    let vars = |pick: fn(&(&'static str, &'static str)) -> &'static str| -> String {
        SERIES.iter().enumerate().map(|(i, c)| format!("--s{i}:{};", pick(c))).collect()
    };
    let style = format!(
        "<style>svg{{--fg:#1c2128;--line:#d6dbe1;{}}}@media(prefers-color-scheme:dark){{svg{{--fg:#e3e7eb;\
         --line:#3a424b;{}}}}}text{{font-family:system-ui,sans-serif}}</style>",
        vars(|c| c.0),
        vars(|c| c.1)
    );
    let mut head = format!(
        "<text x=\"14\" y=\"22\" font-size=\"16\" font-weight=\"600\" fill=\"var(--fg)\">{}</text>\n",
        escape(title)
    );
    let mut x = 14.0;
    let mut y = 35.0;
    for (i, name) in names.iter().enumerate() {
        let c = i % SERIES.len();
        let width = 42.0 + 7.2 * name.chars().count() as f64;
        if x + width > f64::from(WIDTH) && x > 14.0 {
            (x, y) = (14.0, y + 17.0);
        }
        head.push_str(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"14\" height=\"4\" rx=\"2\" fill=\"var(--s{c})\"/>\n\
             <text x=\"{}\" y=\"{}\" font-size=\"13\" fill=\"var(--fg)\">{}</text>\n",
            x + 20.0,
            y + 7.0,
            escape(name)
        ));
        x += width;
    }
    let open = out.find('>').filter(|_| out.starts_with("<svg")).map_or(0, |i| i + 1);
    let end = out.rfind("</svg>").unwrap_or(out.len());
    format!("{}\n{style}{}{head}</svg>", &out[..open], &out[open..end])
}
