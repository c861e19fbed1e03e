//! Shares from 0 to 1 as coloured cells: rows by columns, several maps under one title.

use super::{INK, LEFT, TOP, WIDTH, escape, head};
use std::fmt::Write;

const CELL: f64 = 24.0;
const GAP: f64 = 24.0;
/// Heading, ticks and words of a map.
const AROUND: f64 = 72.0;

/// The colours of 0, of a half and of 1; each text on them is dark.
const STOPS: [[f64; 3]; 3] = [[222.0, 119.0, 105.0], [240.0, 205.0, 120.0], [111.0, 190.0, 140.0]];

/// One map.
#[derive(Debug, Clone)]
pub struct Map {
    /// Above it.
    pub name: String,
    /// Below the columns.
    pub x_words: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Names of the rows, from the top.
    pub rows: Vec<String>,
    /// By row, then by column: a share of 1 and what is written into it; `None` is left blank.
    pub cells: Vec<Vec<Option<(f64, String)>>>,
}

/// All maps under one title, two beside each other.
pub fn heat(title: &str, maps: &[Map]) -> String {
    let height = |pair: &[Map]| AROUND + CELL * pair.iter().map(|map| map.rows.len()).max().unwrap_or(0) as f64;
    let mut svg = head(TOP + maps.chunks(2).map(height).sum::<f64>(), title);
    let wide = (WIDTH - GAP) / 2.0;
    let mut top = TOP;
    for pair in maps.chunks(2) {
        for (index, map) in pair.iter().enumerate() {
            draw(&mut svg, map, (wide + GAP) * index as f64, wide, top);
        }
        top += height(pair);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, map: &Map, left: f64, wide: f64, top: f64) {
    let (left, wide) = (left + LEFT, wide - LEFT);
    let cell = wide / map.columns.len().max(1) as f64;
    let bottom = top + CELL * map.rows.len() as f64;
    let middle = left + wide / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>\
         <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        top - 8.0,
        escape(&map.name),
        bottom + 36.0,
        escape(&map.x_words)
    );
    for (index, name) in map.columns.iter().enumerate() {
        let (x, y) = (left + cell * (index as f64 + 0.5), bottom + 18.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", escape(name));
    }
    for (row, name) in map.rows.iter().enumerate() {
        let y = top + CELL * row as f64;
        let (text_x, text_y) = (left - 8.0, y + 16.0);
        let _ = writeln!(svg, "<text x=\"{text_x:.1}\" y=\"{text_y:.1}\" text-anchor=\"end\">{}</text>", escape(name));
        for (column, met) in map.cells[row].iter().enumerate() {
            let x = left + cell * column as f64;
            let (fill, words) = match met {
                Some((share, words)) => (colour(*share), escape(words)),
                None => ("none".to_owned(), String::new()),
            };
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{CELL:.1}\" fill=\"{fill}\" stroke=\"{INK}\" \
                 stroke-opacity=\".3\"/><text x=\"{:.1}\" y=\"{text_y:.1}\" text-anchor=\"middle\" fill=\"#222\">{words}</text>",
                x + cell / 2.0
            );
        }
    }
}

/// Between the stops.
fn colour(share: f64) -> String {
    let at = 2.0 * share.clamp(0.0, 1.0);
    let (low, part) = if at < 1.0 { (0, at) } else { (1, at - 1.0) };
    let mix = |channel: usize| {
        let (from, to) = (STOPS[low][channel], STOPS[low + 1][channel]);
        (from + part * (to - from)).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_its_colour_and_its_words_and_what_was_not_met_is_blank() {
        let map = Map {
            name: "a<b".into(),
            x_words: "tokens".into(),
            columns: vec!["512".into(), "1024".into()],
            rows: vec!["0 %".into(), "50 %".into()],
            cells: vec![vec![Some((1.0, "1".into())), None], vec![Some((0.5, ".5".into())), Some((0.0, "0".into()))]],
        };
        let svg = heat("title", &[map]);
        for (text, count) in
            [("a&lt;b", 1), ("<rect", 4), ("#6fbe8c", 1), ("#f0cd78", 1), ("#de7769", 1), ("\"none\"", 1)]
        {
            assert_eq!(svg.matches(text).count(), count, "{text}: {svg}");
        }
        assert_eq!((colour(-1.0), colour(7.0)), (colour(0.0), colour(1.0)));
    }
}
