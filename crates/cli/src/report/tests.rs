use super::*;

fn example() -> Report {
    let mut table = Table::new(["optimizer", "bytes"]);
    table.row(["adamw", "100"]).row(["<script>alert(1)</script>", "50"]);
    let mut report = Report::new("A & B");
    report.verdict(Tone::Good, "It \"holds\" <here>").heading("Numbers").text("1 < 2").table("cap", table);
    report.push(Section::Lines(LinePlot {
        title: "loss <x>".to_owned(),
        x: "step".to_owned(),
        y: "nats".to_owned(),
        log_y: true,
        series: vec![Series::new("a&b", vec![(0.0, 10.0), (1.0, 0.1), (2.0, f64::NAN), (3.0, 0.0)])],
        ..LinePlot::default()
    }));
    report.push(Section::Bars(BarPlot {
        title: "bytes".to_owned(),
        y: "MB".to_owned(),
        groups: vec!["nano".to_owned(), "gpt-2".to_owned()],
        series: vec![Series::new("adamw", vec![2.0, 4.0]), Series::new("mini", vec![1.0, 2.0])],
    }));
    report.details("Configuration", "a = \"<b>\"");
    report
}

#[test]
fn text_of_users_cannot_become_markup() {
    let html = example().html();
    assert!(!html.contains("<script") && !html.contains("<here>") && !html.contains("<x>"));
    assert!(html.contains("&lt;script&gt;") && html.contains("A &amp; B") && html.contains("a&amp;b"));
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let html = example().html().replace("http://www.w3.org/2000/svg", "");
    for part in ["http://", "https://", "src=", "@import", "url(", "<link"] {
        assert!(!html.contains(part), "{part}");
    }
}

#[test]
fn every_placeholder_colour_is_replaced() {
    for svg in example().svgs() {
        assert!(!svg.contains("#0102") && !svg.contains("#0103"), "{svg}");
        assert!(svg.contains("var(--s0)") && svg.contains("var(--fg)"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
    }
}

#[test]
fn bars_name_their_groups_and_a_log_axis_leaves_zeros_out() {
    let svgs = example().svgs();
    assert!(svgs[1].contains("nano") && svgs[1].contains("gpt-2"));
    assert!(!svgs[0].contains("NaN") && !svgs[0].contains("inf"));
}

#[test]
fn plots_without_points_or_with_one_value_are_still_drawings() {
    let mut plot = LinePlot::default();
    assert!(plot.svg().starts_with("<svg"));
    plot.series.push(Series::new("flat", vec![(0.0, 2.0), (1.0, 2.0)]));
    plot.series.push(Series::new("point", vec![(1.0, 2.0)]));
    assert!(plot.svg().contains("polyline"));
}

#[test]
fn long_curves_are_thinned_but_keep_their_end() {
    let data: Vec<(f64, f64)> = (0..50_000).map(|i| (f64::from(i), f64::from(i))).collect();
    let plot = LinePlot { series: vec![Series::new("a", data)], ..LinePlot::default() };
    assert!(plot.svg().len() < 60_000);
}

#[test]
fn markdown_has_the_table_with_numbers_at_the_right() {
    let md = example().markdown();
    assert!(md.contains("| optimizer | bytes |\n| --- | ---: |\n| adamw | 100 |"), "{md}");
    assert!(md.starts_with("# A & B\n"));
}

#[test]
fn sections_survive_a_round_trip_through_json() {
    let sections = example().sections;
    let text = serde_json::to_string(&sections).unwrap_or_default();
    assert_eq!(serde_json::from_str::<Vec<Section>>(&text).ok().map(|s| s.len()), Some(sections.len()));
}

#[test]
fn ticks_are_short() {
    let svg = LinePlot {
        log_y: true,
        series: vec![Series::new("a", vec![(0.0, 1e-8), (1.0, 1e4)])],
        ..LinePlot::default()
    }
    .svg();
    assert!(svg.contains("1e-5") && !svg.contains("1.000e"), "{svg}");
}
