//! Pictures of what was measured, as SVG by hand: lines, and bars. Colours are of middle
//! lightness and the ground is clear, so that they read on light and dark pages.

use std::fmt::Write;

pub mod heat;
pub mod panels;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 56.0;
const INK: &str = "#7d8590";
const COLOURS: [&str; 12] = [
    "#3f86c7", "#dd8033", "#3f9d63", "#b364bd", "#cf5b5b", "#8d8a2c", "#2fa3a3", "#a0715a", "#6f6fd0", "#d0669c",
    "#79a83b", "#8b8f96",
];

/// Measured points and the limit below them.
#[derive(Debug, Clone)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Measured: (x, y).
    pub points: Vec<(f64, f64)>,
    /// The limit: (x, y), dashed in the same colour.
    pub limit: Vec<(f64, f64)>,
}

/// One bar of a share.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Before it.
    pub name: String,
    /// What was reached, of 1.
    pub share: f64,
    /// What would be without the wait for the dispatch before, of 1.
    pub undrained: f64,
}

/// Lines over `x_words`; both axes begin at 0.
pub fn lines(title: &str, x_words: &str, y_words: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().chain(&line.limit));
    let most = |axis: fn(&(f64, f64)) -> f64| all().map(axis).filter(|v| v.is_finite()).fold(0.0, f64::max).max(1e-9);
    let (x_step, x_end) = axis(most(|point| point.0));
    let (y_step, y_end) = axis(most(|point| point.1));
    let legend = 20.0 * lines.len().div_ceil(2) as f64;
    let top = TOP + legend;
    let height = HEIGHT + legend;
    let x = |value: f64| LEFT + value / x_end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| height - BOTTOM - value / y_end * (height - BOTTOM - top);
    let mut svg = head(height, title);
    for tick in ticks(y_step, y_end) {
        let at = y(tick);
        let _ = writeln!(
            svg,
            "<path stroke=\"{INK}\" stroke-opacity=\".3\" d=\"M{LEFT} {at:.1}H{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            number(tick)
        );
    }
    for tick in ticks(x_step, x_end) {
        let at = x(tick);
        let _ = writeln!(
            svg,
            "<path stroke=\"{INK}\" d=\"M{at:.1} {:.1}v5\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height - BOTTOM,
            height - BOTTOM + 20.0,
            number(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<path stroke=\"{INK}\" d=\"M{LEFT} {:.1}H{:.1}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        height - BOTTOM,
        WIDTH - RIGHT,
        (LEFT + WIDTH - RIGHT) / 2.0,
        height - 14.0,
        escape(x_words),
        (top + height - BOTTOM) / 2.0,
        escape(y_words)
    );
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let path = |points: &[(f64, f64)]| {
            let corner = |(i, point): (usize, &(f64, f64))| {
                format!("{}{:.1} {:.1}", if i == 0 { "M" } else { "L" }, x(point.0), y(point.1))
            };
            points.iter().enumerate().map(corner).collect::<String>()
        };
        let _ = writeln!(
            svg,
            "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\" d=\"{}\"/>\
             <path fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" d=\"{}\"/>",
            path(&line.limit),
            path(&line.points)
        );
        for point in &line.points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>",
                x(point.0),
                y(point.1)
            );
        }
        let (left, at) = (LEFT + (index % 2) as f64 * 440.0, TOP - 6.0 + 20.0 * (index / 2) as f64);
        let _ = writeln!(
            svg,
            "<path stroke=\"{colour}\" stroke-width=\"2\" d=\"M{left} {:.1}h22\"/>\
             <path stroke=\"{colour}\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\" d=\"M{} {:.1}h22\"/>\
             <text x=\"{}\" y=\"{at:.1}\">{}, its limit dashed</text>",
            at - 4.0,
            left + 28.0,
            at - 4.0,
            left + 58.0,
            escape(&line.name)
        );
    }
    svg + "</svg>\n"
}

/// Bars of shares of the limit, one below the other, in groups with a heading.
pub fn bars(title: &str, groups: &[(String, Vec<Bar>)]) -> String {
    const ROW: f64 = 19.0;
    let names = groups.iter().flat_map(|(_, bars)| bars).map(|bar| bar.name.chars().count()).max().unwrap_or(0) as f64;
    let left = (24.0 + 6.6 * names).clamp(160.0, 480.0);
    let right = WIDTH - 64.0;
    let lines: usize = groups.iter().map(|(_, bars)| bars.len() + 1).sum();
    let bottom = TOP + 26.0 + ROW * lines as f64;
    let x = |share: f64| left + share.clamp(0.0, 1.2) / 1.2 * (right - left);
    let mut svg = head(bottom + 44.0, title);
    let colour = COLOURS[0];
    for (offset, opacity, words) in
        [(0.0, "1", "least time over time"), (180.0, ".35", "the same without the wait for the dispatch before")]
    {
        let (box_x, text_x, box_y, text_y) = (LEFT + offset, LEFT + offset + 20.0, TOP - 13.0, TOP - 4.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{box_x}\" y=\"{box_y}\" width=\"14\" height=\"10\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>\
             <text x=\"{text_x}\" y=\"{text_y}\">{words}</text>",
        );
    }
    for fifth in 0..=6 {
        let share = f64::from(fifth) / 5.0;
        let _ = writeln!(
            svg,
            "<path stroke=\"{INK}\" stroke-opacity=\"{}\" d=\"M{2:.1} {1:.1}V{bottom:.1}\"/>\
             <text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"middle\">{share:.1}</text>",
            if fifth == 5 { "1" } else { ".3" },
            TOP + 8.0,
            x(share),
            bottom + 18.0
        );
    }
    let mut y = TOP + 18.0 - ROW;
    for (heading, bar) in groups.iter().flat_map(|(heading, bars)| {
        std::iter::once((Some(heading), None)).chain(bars.iter().map(|bar| (None, Some(bar))))
    }) {
        y += ROW;
        let Some(bar) = bar else {
            let (words, text_y) = (escape(heading.map_or("", String::as_str)), y + 12.0);
            let _ = writeln!(svg, "<text x=\"24\" y=\"{text_y:.1}\" font-weight=\"bold\">{words}</text>");
            continue;
        };
        let (reached, without) = (x(bar.share), x(bar.undrained.max(bar.share)));
        let (name_x, text_y, value_x) = (left - 8.0, y + 11.0, without + 6.0);
        let (light, full, name) = (without - left, reached - left, escape(&bar.name));
        let _ = writeln!(
            svg,
            "<text x=\"{name_x:.1}\" y=\"{text_y:.1}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{light:.1}\" height=\"13\" fill=\"{colour}\" fill-opacity=\".35\"/>\
             <rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{full:.1}\" height=\"13\" fill=\"{colour}\"/>\
             <text x=\"{value_x:.1}\" y=\"{text_y:.1}\">{:.2}</text>",
            bar.share
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">share of the limit</text>",
        (left + right) / 2.0,
        bottom + 36.0
    );
    svg + "</svg>\n"
}

fn head(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\" \
         fill=\"{INK}\">\n<text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{}</text>\n",
        escape(title)
    )
}

/// A round step and the end of an axis that reaches `most`.
fn axis(most: f64) -> (f64, f64) {
    let power = 10f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| most / step <= 6.0);
    let step = step.unwrap_or(10.0 * power);
    (step, (most / step).ceil() * step)
}

fn ticks(step: f64, end: f64) -> impl Iterator<Item = f64> {
    (0..=(end / step).round() as usize).map(move |tick| tick as f64 * step)
}

/// `32K` for 32,768 would surprise beside 30,000: numbers stand as they are, thousands apart.
fn number(value: f64) -> String {
    if value >= 1000.0 {
        let whole = value.round() as u64;
        let (thousands, rest) = (whole / 1000, whole % 1000);
        return if thousands >= 1000 {
            format!("{},{:03},{rest:03}", thousands / 1000, thousands % 1000)
        } else {
            format!("{thousands},{rest:03}")
        };
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_steps_past_the_largest() {
        assert_eq!(axis(27.7), (5.0, 30.0));
        assert_eq!(axis(70_000.0), (20_000.0, 80_000.0));
        assert_eq!(axis(0.9), (0.2, 1.0));
        assert_eq!(
            (number(32_768.0), number(0.25), number(1_500_000.0)),
            ("32,768".into(), "0.25".into(), "1,500,000".into())
        );
    }

    #[test]
    fn a_picture_names_its_axes_and_every_series() {
        let line =
            Line { name: "a<b".into(), points: vec![(0.0, 1.0), (10.0, 2.0)], limit: vec![(0.0, 0.5), (10.0, 1.0)] };
        let svg = lines("title", "context, tokens", "ms a token", &[line]);
        for text in ["title", "context, tokens", "ms a token", "a&lt;b, its limit dashed"] {
            assert!(svg.contains(text), "{text}");
        }
        let bar = Bar { name: "linear".into(), share: 0.9, undrained: 0.95 };
        let svg = bars("kernels", &[("one model".into(), vec![bar])]);
        assert!(
            svg.contains("linear") && svg.contains("one model") && svg.contains("0.90") && svg.ends_with("</svg>\n")
        );
    }
}
