//! Panels of points and lines over logarithmic axes, two beside each other, with one legend, and charts of bars below.

use super::{COLOURS, INK, LEFT, TOP, WIDTH, axis, escape, head, number};
use std::fmt::Write;

/// Height of a panel with its words.
const PANEL: f64 = 350.0;
const GAP: f64 = 84.0;
const FOOT: f64 = 52.0;
const LEGEND: f64 = 20.0;
/// Height of a bar with the space below it.
const BAR: f64 = 19.0;

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A dot a point.
    Dots,
    /// From point to point.
    Line,
    /// Both.
    Marked,
}

/// Points of one colour.
#[derive(Debug, Clone)]
pub struct Series {
    /// In the legend; series of one name in several panels have one colour.
    pub name: String,
    /// (x, y); those that a logarithm cannot show are left out.
    pub points: Vec<(f64, f64)>,
    /// How they are drawn.
    pub style: Style,
}

/// One chart; y is logarithmic.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Above it.
    pub name: String,
    /// Below it.
    pub x_words: String,
    /// Beside it.
    pub y_words: String,
    /// Else x goes from 0 to the largest.
    pub x_is_log: bool,
    /// A dashed line where y is x, and both axes the same.
    pub diagonal: bool,
    /// What it shows.
    pub series: Vec<Series>,
}

/// Bars over a logarithmic axis, one below the other.
#[derive(Debug, Clone)]
pub struct BarChart {
    /// Above it.
    pub name: String,
    /// Below it.
    pub x_words: String,
    /// From the top; one of a series' name has its colour.
    pub bars: Vec<LogBar>,
}

/// One bar.
#[derive(Debug, Clone)]
pub struct LogBar {
    /// Before it.
    pub name: String,
    /// How long it is; what a logarithm cannot show is no bar.
    pub value: f64,
    /// Behind it.
    pub label: String,
}

/// An axis from `low` to `high`, in logarithms where it is logarithmic.
#[derive(Clone, Copy)]
struct Scale {
    is_log: bool,
    low: f64,
    high: f64,
}

impl Scale {
    /// One that holds all values; whole decades, or from 0.
    fn over(values: impl Iterator<Item = f64>, is_log: bool) -> Scale {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        match (low <= high, is_log) {
            (false, _) => Scale { is_log, low: 0.0, high: 1.0 },
            (true, false) => Scale { is_log, low: 0.0, high: axis(high.max(1e-9)).1 },
            (true, true) => {
                let (low, high) = (low.log10().floor(), high.log10().ceil());
                Scale { is_log, low, high: high.max(low + 1.0) }
            }
        }
    }

    fn share(&self, value: f64) -> f64 {
        let value = if self.is_log { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.is_log {
            return super::ticks(axis(self.high).0, self.high).collect();
        }
        let steps: &[f64] = if self.high - self.low < 1.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let powers = self.low as i32..=self.high as i32;
        let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        all.filter(|tick| self.share(*tick) <= 1.0 + 1e-9).collect()
    }
}

/// All panels under one title.
pub fn panels(title: &str, all: &[Panel]) -> String {
    panels_and_bars(title, all, &[])
}

/// All panels under one title, and charts of bars below, two beside each other.
pub fn panels_and_bars(title: &str, panels: &[Panel], charts: &[BarChart]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for series in panels.iter().flat_map(|panel| &panel.series) {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    let top = TOP + LEGEND * names.len().div_ceil(4) as f64;
    let columns = panels.len().clamp(1, 2);
    let below = top + PANEL * panels.len().div_ceil(columns) as f64;
    let mut svg = head(below + charts.chunks(2).map(chart_height).sum::<f64>(), title);
    for (index, name) in names.iter().enumerate() {
        let (x, y) = (LEFT + 220.0 * (index % 4) as f64, TOP - 8.0 + LEGEND * (index / 4) as f64);
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"14\" height=\"10\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            y - 9.0,
            x + 20.0,
            escape(name)
        );
    }
    let wide = (WIDTH - GAP * columns as f64 - 24.0) / columns as f64;
    for (index, panel) in panels.iter().enumerate() {
        let left = GAP + (wide + GAP) * (index % columns) as f64;
        let place = Place { left, right: left + wide, top: top + 24.0 + PANEL * (index / columns) as f64 };
        draw(&mut svg, panel, place, &names);
    }
    let mut top = below;
    for pair in charts.chunks(2) {
        let wide = (WIDTH - 24.0) / pair.len() as f64;
        for (index, chart) in pair.iter().enumerate() {
            let left = wide * index as f64;
            draw_bars(&mut svg, chart, Place { left, right: left + wide, top: top + 24.0 }, &names);
        }
        top += chart_height(pair);
    }
    svg + "</svg>\n"
}

/// Height of charts beside each other with their words.
fn chart_height(charts: &[BarChart]) -> f64 {
    24.0 + FOOT + BAR * charts.iter().map(|chart| chart.bars.len()).max().unwrap_or(0) as f64
}

fn draw_bars(svg: &mut String, chart: &BarChart, Place { left, right, top }: Place, names: &[&str]) {
    let longest = chart.bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0) as f64;
    let (left, right) = (left + (24.0 + 6.6 * longest).min((right - left) / 2.0), right - 64.0);
    let bottom = top + BAR * chart.bars.len() as f64;
    let shown = |value: f64| value.is_finite() && value > 0.0;
    let scale = Scale::over(chart.bars.iter().map(|bar| bar.value).filter(|value| shown(*value)), true);
    let x = |value: f64| left + scale.share(value) * (right - left);
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>",
        (left + right) / 2.0,
        top - 8.0,
        escape(&chart.name)
    );
    for tick in scale.ticks() {
        let at = x(tick);
        let _ = writeln!(
            svg,
            "<path stroke=\"{INK}\" stroke-opacity=\".3\" d=\"M{at:.1} {top:.1}V{bottom:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            power(tick)
        );
    }
    for (index, bar) in chart.bars.iter().enumerate() {
        let y = top + BAR * index as f64;
        let colour =
            names.iter().position(|name| *name == bar.name).map_or(INK, |index| COLOURS[index % COLOURS.len()]);
        // The least has a bar too.
        let reached = if shown(bar.value) { x(bar.value).max(left + 2.0) } else { left };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{2:.1}\" text-anchor=\"end\">{1}</text>\
             <rect x=\"{left:.1}\" y=\"{3:.1}\" width=\"{4:.1}\" height=\"13\" fill=\"{colour}\"/>\
             <text x=\"{5:.1}\" y=\"{2:.1}\">{6}</text>",
            left - 8.0,
            escape(&bar.name),
            y + 12.0,
            y + 2.0,
            reached - left,
            reached + 6.0,
            escape(&bar.label)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        (left + right) / 2.0,
        bottom + 34.0,
        escape(&chart.x_words)
    );
}

/// A tick's value: as it is, or as a power of ten where it is small.
fn power(value: f64) -> String {
    if value < 1e-3 { format!("{value:e}") } else { number(value) }
}

/// Where a panel's axes are.
#[derive(Clone, Copy)]
struct Place {
    left: f64,
    right: f64,
    top: f64,
}

fn draw(svg: &mut String, panel: &Panel, Place { left, right, top }: Place, names: &[&str]) {
    let bottom = top + PANEL - FOOT - 24.0;
    let drawn = |point: &&(f64, f64)| {
        let shows = |value: f64, is_log: bool| value.is_finite() && (!is_log || value > 0.0);
        shows(point.0, panel.x_is_log) && shows(point.1, true)
    };
    let all = || panel.series.iter().flat_map(|series| series.points.iter().filter(drawn));
    let (mut across, mut up) =
        (Scale::over(all().map(|point| point.0), panel.x_is_log), Scale::over(all().map(|point| point.1), true));
    if panel.diagonal {
        across = Scale { low: across.low.min(up.low), high: across.high.max(up.high), ..across };
        up = across;
    }
    let x = |value: f64| left + across.share(value) * (right - left);
    let y = |value: f64| bottom - up.share(value) * (bottom - top);
    let middle = (left + right) / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>",
        top - 8.0,
        escape(&panel.name)
    );
    for tick in up.ticks() {
        let at = y(tick);
        let _ = writeln!(
            svg,
            "<path stroke=\"{INK}\" stroke-opacity=\".3\" d=\"M{left:.1} {at:.1}H{right:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            at + 4.0,
            power(tick)
        );
    }
    for tick in across.ticks() {
        let at = x(tick);
        let _ = writeln!(
            svg,
            "<path stroke=\"{INK}\" d=\"M{at:.1} {bottom:.1}v5\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            number(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<path stroke=\"{INK}\" d=\"M{left:.1} {bottom:.1}H{right:.1}\"/>\
         <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate({:.1} {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        bottom + 36.0,
        escape(&panel.x_words),
        left - 64.0,
        (top + bottom) / 2.0,
        escape(&panel.y_words)
    );
    if panel.diagonal {
        let _ = writeln!(
            svg,
            "<path stroke=\"{INK}\" stroke-dasharray=\"6 4\" d=\"M{left:.1} {bottom:.1}L{right:.1} {top:.1}\"/>"
        );
    }
    // The first lies on top.
    for series in panel.series.iter().rev() {
        let index = names.iter().position(|name| *name == series.name).unwrap_or(0);
        let colour = COLOURS[index % COLOURS.len()];
        let placed: Vec<(f64, f64)> =
            series.points.iter().filter(drawn).map(|point| (x(point.0), y(point.1))).collect();
        if series.style != Style::Dots && !placed.is_empty() {
            let steps: Vec<String> = placed.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            let _ = writeln!(
                svg,
                "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" d=\"M{}\"/>",
                steps.join("L")
            );
        }
        if series.style != Style::Line {
            let (radius, opacity) = if series.style == Style::Dots { (2.5, ".6") } else { (3.5, "1") };
            for (x, y) in &placed {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_hold_all_values_and_a_narrow_range_has_ticks_between() {
        let scale = Scale::over([3.0, 700.0].into_iter(), true);
        assert_eq!((scale.low, scale.high), (0.0, 3.0));
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(Scale::over([2.0].into_iter(), true).ticks(), [1.0, 2.0, 5.0, 10.0]);
        assert_eq!(Scale::over(std::iter::empty(), false).ticks().len(), 6);
    }

    #[test]
    fn panels_share_a_legend_and_leave_out_what_a_logarithm_cannot_show() {
        let panel = |name: &str| Panel {
            name: name.to_owned(),
            x_words: "rows".into(),
            y_words: "time".into(),
            x_is_log: true,
            diagonal: true,
            series: vec![Series {
                name: "a<b".into(),
                points: vec![(1.0, 2.0), (0.0, 1.0), (4.0, f64::NAN)],
                style: Style::Dots,
            }],
        };
        let svg = panels("title", &[panel("one"), panel("two")]);
        assert_eq!(svg.matches("a&lt;b").count(), 1);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn bars_have_their_labels_and_those_of_nothing_are_of_no_width() {
        let bar = |name: &str, value, label: &str| LogBar { name: name.into(), value, label: label.into() };
        let bars = vec![bar("a<b", 1e-5, "0.00001"), bar("none", 0.0, "0"), bar("large", 2.0, "2")];
        let chart = BarChart { name: "divergence".into(), x_words: "nats".into(), bars };
        let svg = panels_and_bars("title", &[], &[chart.clone(), chart]);
        for text in ["a&lt;b", "divergence", "nats", "width=\"0.0\"", "1e-5"] {
            assert_eq!(svg.matches(text).count(), 2, "{text}: {svg}");
        }
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
