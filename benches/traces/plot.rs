//! A picture of the slots over time: x is simulated time, y the slots, a colour a sequence.

use super::replay::Held;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Columns of the picture.
const COLUMNS: usize = 300;
/// Its size without axes; a column is a whole number of pixels.
const WIDTH: usize = 1200;
const HEIGHT: usize = 640;
/// Room for the words around it.
const LEFT: usize = 90;
const TOP: usize = 84;

/// Where a sequence's runs lie, in pixels from the bottom: first, end.
type Column = Vec<(u64, usize, usize)>;

/// Where the sequences lay, in columns equally far apart in time.
pub(crate) struct Film {
    on: bool,
    column_us: f64,
    capacity: usize,
    columns: Vec<Column>,
}

impl Film {
    /// An empty film of so many simulated seconds.
    pub(crate) fn new(capacity: usize, seconds: f64) -> Film {
        Film { on: true, column_us: seconds * 1e6 / COLUMNS as f64, capacity, columns: Vec::new() }
    }

    /// A film that records nothing.
    pub(crate) fn off() -> Film {
        Film { on: false, column_us: 0.0, capacity: 1, columns: Vec::new() }
    }

    /// Whether a column is due at this time.
    pub(crate) fn wants(&self, us: f64) -> bool {
        self.on && self.columns.len() < COLUMNS && us >= self.columns.len() as f64 * self.column_us
    }

    /// Records the columns that are due.
    pub(crate) fn frame(&mut self, us: f64, held: &[Held]) {
        while self.wants(us) {
            let pixel = |slot: usize| (slot * HEIGHT + self.capacity / 2) / self.capacity;
            let runs = held.iter().flat_map(|held| {
                held.segments.iter().map(|s| (held.number, pixel(s.first_slot), pixel(s.first_slot + s.count)))
            });
            self.columns.push(runs.filter(|run| run.2 > run.1).collect());
        }
    }

    /// An SVG.
    pub(crate) fn draw(&self, workload: &str) -> String {
        let (width, height) = (WIDTH + LEFT + 30, HEIGHT + TOP + 60);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"14\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"18\">KV cache over time by sequence: workload {workload}, {} slots</text>\n\
             <text x=\"{LEFT}\" y=\"46\">A colour is a sequence: its band begins where its prompt has slots, thickens upward as its \
             answer grows in place, and ends with it; white is free.</text>\n\
             <text x=\"{LEFT}\" y=\"66\">A band that shifts was moved; one colour in several bands at once lies in several \
             segments.</text>\n",
            grouped(self.capacity),
        );
        let _ = writeln!(svg, "<g transform=\"translate({LEFT} {}) scale(1 -1)\">", TOP + HEIGHT);
        for (sequence, path) in self.paths() {
            // Golden-angle hues: neighbours in number differ most.
            let (hue, light) = (sequence * 137 % 360, 42 + sequence * 7 % 24);
            let _ = writeln!(svg, "<path fill=\"hsl({hue} 62% {light}%)\" d=\"{path}\"/>");
        }
        let _ = writeln!(
            svg,
            "</g>\n<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#333\"/>"
        );
        self.axes(&mut svg);
        svg + "</svg>\n"
    }

    /// The bands of every sequence: a run that stays where it is over several columns is one box.
    fn paths(&self) -> BTreeMap<u64, String> {
        let pixels = WIDTH / COLUMNS;
        let mut paths: BTreeMap<u64, String> = BTreeMap::new();
        let mut open: HashMap<(u64, usize, usize), usize> = HashMap::new();
        let empty = Column::new();
        for (x, column) in self.columns.iter().chain([&empty]).enumerate() {
            let now = column.iter().map(|run| (*run, open.remove(run).unwrap_or(x))).collect();
            let mut ended: Vec<_> = std::mem::replace(&mut open, now).into_iter().collect();
            ended.sort_unstable();
            for ((sequence, first, end), from) in ended {
                let (left, width) = (from * pixels, (x - from) * pixels);
                let path = paths.entry(sequence).or_default();
                let _ = write!(path, "M{left} {first}h{width}v{}h-{width}z", end - first);
            }
        }
        paths
    }

    fn axes(&self, svg: &mut String) {
        let bottom = TOP + HEIGHT;
        for quarter in 0..=4 {
            let y = bottom - quarter * HEIGHT / 4;
            let _ = writeln!(
                svg,
                "<path stroke=\"#333\" d=\"M{} {y}h-6\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                LEFT,
                LEFT - 10,
                y + 5,
                grouped(self.capacity * quarter / 4),
            );
        }
        for sixth in 0..=6 {
            let x = LEFT + sixth * WIDTH / 6;
            let seconds = self.column_us * COLUMNS as f64 / 1e6 * sixth as f64 / 6.0;
            let _ = writeln!(
                svg,
                "<path stroke=\"#333\" d=\"M{x} {bottom}v6\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{seconds:.0}</text>",
                bottom + 22,
            );
        }
        let (middle, centre) = (TOP + HEIGHT / 2, LEFT + WIDTH / 2);
        let _ = writeln!(
            svg,
            "<text x=\"{centre}\" y=\"{}\" text-anchor=\"middle\">simulated time, seconds</text>\n\
             <text transform=\"translate(20 {middle}) rotate(-90)\" text-anchor=\"middle\">place in the cache, slots</text>",
            bottom + 46,
        );
    }
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1000), number % 1000),
    }
}
