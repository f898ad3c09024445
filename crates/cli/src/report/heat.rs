//! A square of coloured cells as SVG.

use serde::{Deserialize, Serialize};

use super::html::escape;
use crate::table::number;

/// Numbers for pairs of names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HeatMap {
    /// Heading.
    pub(crate) title: String,
    /// What a cell says.
    pub(crate) unit: String,
    /// Rows and columns.
    pub(crate) names: Vec<String>,
    /// `[names, names]`, row after row.
    pub(crate) values: Vec<f64>,
    /// The number of the darkest cell; lighter ones are shares of it.
    pub(crate) most: f64,
}

/// Room for names, left and above.
const NAMES: usize = 260;
const TOP: usize = 34;
const WIDTH: usize = 820;

impl HeatMap {
    /// The drawing.
    pub(crate) fn svg(&self) -> String {
        let n = self.names.len().max(1);
        let cell = ((WIDTH - NAMES - 10) / n).clamp(6, 44);
        let height = TOP + n * cell + 26;
        let mut out = format!(
            "<svg width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             xmlns=\"http://www.w3.org/2000/svg\">\n<style>svg{{--fg:#1c2128;--cell:#2a6fdb}}\
             @media(prefers-color-scheme:dark){{svg{{--fg:#e3e7eb;--cell:#6ea8ff}}}}\
             text{{font-family:system-ui,sans-serif;fill:var(--fg)}}</style>\n\
             <text x=\"14\" y=\"22\" font-size=\"16\" font-weight=\"600\">{}</text>\n",
            escape(&self.title)
        );
        for (i, name) in self.names.iter().enumerate() {
            let y = TOP + i * cell;
            out.push_str(&format!(
                "<text x=\"{}\" y=\"{}\" font-size=\"11\" text-anchor=\"end\">{}</text>\n",
                NAMES - 6,
                y + cell / 2 + 4,
                escape(&short(name))
            ));
            for (j, other) in self.names.iter().enumerate() {
                let v = self.values.get(i * n + j).copied().unwrap_or(f64::NAN);
                let shade = (v / self.most).clamp(0.0, 1.0);
                let shade = if shade.is_nan() { 0.0 } else { shade };
                out.push_str(&format!(
                    "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"var(--cell)\" \
                     fill-opacity=\"{shade:.3}\"><title>{} and {}: {}</title></rect>\n",
                    NAMES + j * cell,
                    cell - 1,
                    cell - 1,
                    escape(name),
                    escape(other),
                    number(v)
                ));
            }
        }
        out.push_str(&format!(
            "<text x=\"14\" y=\"{}\" font-size=\"12\">{}: white 0, darkest {}</text>\n</svg>",
            height - 8,
            escape(&self.unit),
            number(self.most)
        ));
        out
    }
}

/// The end of a long name, which tells tensors apart.
fn short(name: &str) -> String {
    let n = name.chars().count();
    let most = 38;
    if n <= most {
        name.to_owned()
    } else {
        format!("…{}", name.chars().skip(n - most).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_shaded_by_their_share_and_names_are_escaped() {
        let map = HeatMap {
            title: "a < b".into(),
            unit: "nats".into(),
            names: vec!["x".into(), "y".repeat(50)],
            values: vec![0.0, 0.5, 0.5, f64::NAN],
            most: 0.5,
        };
        let svg = map.svg();
        assert!(svg.contains("a &lt; b") && svg.contains(&format!("…{}", "y".repeat(38))));
        assert_eq!(svg.matches("<rect").count(), 4);
        assert_eq!(svg.matches("fill-opacity=\"1.000\"").count(), 2);
        assert_eq!(svg.matches("fill-opacity=\"0.000\"").count(), 2);
    }
}
