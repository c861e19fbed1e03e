//! Which choice the products of a model take, for every number of rows, known when the model is loaded.

use super::Terms;
use super::linear::{self, FEW_ROWS, LinearChoice, LinearShape};
use super::narrow::narrow;
use super::tuner::{Mode, Tuner};
use raglan_shaders::WeightFormat;
use rustc_hash::FxHashMap;

/// Rows up to which every number is a point of the grid; beyond, sixteen points an octave are.
const EVERY_ROW: usize = 64;

/// A product of a model: all of its shape but the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProductKey {
    /// Columns of out in one binding.
    pub cols: usize,
    /// Columns of x.
    pub inner: usize,
    /// How the weights are stored.
    pub format: WeightFormat,
    /// Whether x is normed, on the way or before.
    pub normed: bool,
    /// Whether pairs of columns are joined to one.
    pub gated: bool,
}

impl ProductKey {
    /// With so many rows.
    pub fn at(self, rows: usize) -> LinearShape {
        let ProductKey { cols, inner, format, normed, gated } = self;
        LinearShape { rows, cols, inner, format, normed, gated }
    }

    /// That of a shape.
    pub fn of(shape: &LinearShape) -> ProductKey {
        let &LinearShape { cols, inner, format, normed, gated, .. } = shape;
        ProductKey { cols, inner, format, normed, gated }
    }
}

/// Times candidates on the adapter.
pub trait Measure {
    /// Microseconds that a product takes that runs so, with the norm before it where it has one; `None` where it fails.
    fn time_us(&mut self, shape: &LinearShape, choice: &LinearChoice) -> Option<f64>;
}

/// The choices of every product, by rows.
#[derive(Debug, Default)]
pub struct LinearTable {
    entries: FxHashMap<ProductKey, Entry>,
    max_rows: usize,
}

#[derive(Debug, Default)]
struct Entry {
    /// Those that some number of rows takes.
    choices: Vec<LinearChoice>,
    /// By point of the grid: into the choices, and the predicted time; not a number where rules chose.
    points: Vec<(u8, f32)>,
}

/// The place of the grid's point that so many rows take: the next at or above them. What is legal there is legal for them.
fn place(rows: usize) -> usize {
    if rows <= EVERY_ROW {
        return rows.max(1) - 1;
    }
    let octave = (rows - 1).ilog2();
    let step = 1 << (octave - 4);
    EVERY_ROW + 16 * (octave as usize - EVERY_ROW.ilog2() as usize) + (rows - (1 << octave)).div_ceil(step) - 1
}

/// The points of the grid for up to `max_rows` rows; the last is that number itself.
fn grid(max_rows: usize) -> Vec<usize> {
    let octaves =
        (EVERY_ROW.ilog2()..usize::BITS).flat_map(|octave| (1..=16).map(move |i| (1 << octave) + (i << (octave - 4))));
    let all = (1..=EVERY_ROW).chain(octaves.take_while(move |&rows| rows < 2 * max_rows));
    let mut points: Vec<usize> = all.take(place(max_rows) + 1).collect();
    if let Some(last) = points.last_mut() {
        *last = (*last).min(max_rows);
    }
    points
}

/// A point of the grid with what its candidates take, in the natural logarithm of microseconds.
struct Point {
    rows: usize,
    log_us: Vec<f32>,
}

/// What a table is filled from.
pub struct Filling<'a, 'm> {
    /// What may run.
    pub terms: &'a Terms,
    /// What predicts.
    pub tuner: &'a Tuner,
    /// What hand-written rules say.
    pub rules: &'a dyn Fn(&LinearShape) -> LinearChoice,
    /// What measures, where the adapter is to be asked.
    pub measure: Option<&'m mut (dyn Measure + 'm)>,
}

impl LinearTable {
    /// The choices of `products` for up to `max_rows` rows. Products whose kernels are compiled together share few choices.
    pub fn fill(products: &[ProductKey], max_rows: usize, mut filling: Filling<'_, '_>) -> LinearTable {
        let mut table = LinearTable { entries: FxHashMap::default(), max_rows };
        let mut families: Vec<Vec<ProductKey>> = Vec::new();
        for &product in products {
            let same =
                |family: &&mut Vec<ProductKey>| (family[0].format, family[0].gated) == (product.format, product.gated);
            match families.iter_mut().find(same) {
                Some(family) if family.contains(&product) => {}
                Some(family) => family.push(product),
                None => families.push(vec![product]),
            }
        }
        let points = grid(max_rows.max(1));
        for family in families {
            family.iter().for_each(|&product| {
                table.entries.insert(product, Entry::default());
            });
            let (few, many) = points.split_at(points.len().min(FEW_ROWS));
            for points in [few, many].into_iter().filter(|points| !points.is_empty()) {
                filling.family(&family, points, &mut table);
            }
        }
        table
    }

    /// How a product runs; `None` where it is none of the model's or has more rows than a step.
    pub fn get(&self, shape: &LinearShape) -> Option<&LinearChoice> {
        if shape.rows > self.max_rows {
            return None;
        }
        let entry = self.entries.get(&ProductKey::of(shape))?;
        let (index, _) = *entry.points.get(place(shape.rows))?;
        entry.choices.get(usize::from(index))
    }

    /// The predicted time of a product in microseconds, where its choice was predicted or measured.
    pub fn us(&self, shape: &LinearShape) -> Option<f64> {
        let rows = shape.rows.min(self.max_rows);
        let (_, us) = *self.entries.get(&ProductKey::of(shape))?.points.get(place(rows))?;
        us.is_finite().then_some(f64::from(us))
    }

    /// Every choice that some number of rows takes, by product.
    pub fn chosen(&self) -> impl Iterator<Item = (ProductKey, &LinearChoice)> {
        self.entries.iter().flat_map(|(&product, entry)| entry.choices.iter().map(move |choice| (product, choice)))
    }

    /// Numbers of rows at which choices and times may change, up to the largest step.
    pub fn points(&self) -> Vec<usize> {
        if self.entries.is_empty() { Vec::new() } else { grid(self.max_rows.max(1)) }
    }

    /// Numbers of rows that together meet all that the table can choose: powers of two, and where any choice changes.
    pub fn rows(&self) -> Vec<usize> {
        let points = grid(self.max_rows.max(1));
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let chosen = points.iter().enumerate().filter_map(|(place, &rows)| {
            let picks = self.entries.values().map(|entry| entry.points.get(place).map_or(0, |point| point.0)).collect();
            let is_new = !seen.contains(&picks);
            if is_new {
                seen.push(picks);
            }
            (is_new || rows.is_power_of_two() || rows == self.max_rows).then_some(rows)
        });
        chosen.collect()
    }
}

impl Filling<'_, '_> {
    /// Appends `points` to the entries of a family, all on one side of the border between the spaces.
    fn family(&mut self, family: &[ProductKey], points: &[usize], table: &mut LinearTable) {
        let candidates = self.candidates(family, points);
        let mut all: Vec<Vec<Point>> =
            family.iter().map(|&product| self.points(product, points, &candidates)).collect();
        if self.tuner.mode() != Mode::Default {
            let names: Vec<usize> = candidates.iter().map(|choice| first_alike(&candidates, choice)).collect();
            let flat = all.iter().flatten().zip(points.iter().cycle());
            let weighed: Vec<(f32, &[f32])> =
                flat.map(|(point, &rows)| ((1.0 + 1.0 / rows as f32).ln(), &point.log_us[..])).collect();
            let keep = narrow(&weighed, &names, self.tuner.gain(self.terms.class));
            let drop = |point: &mut Point| {
                let dropped = point.log_us.iter_mut().zip(&keep).filter(|(_, keep)| !**keep);
                dropped.for_each(|(log_us, _)| *log_us = f32::INFINITY);
            };
            all.iter_mut().flatten().for_each(drop);
        }
        for (product, points) in family.iter().zip(all) {
            let entry = table.entries.entry(*product).or_default();
            for point in points {
                let best = point.log_us.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
                let best = best.filter(|(_, log_us)| log_us.is_finite());
                let (choice, us) = match best {
                    Some((index, log_us)) => (candidates[index].clone(), log_us.exp()),
                    None => ((self.rules)(&product.at(point.rows)), f32::NAN),
                };
                let index = entry.choices.iter().position(|known| *known == choice).unwrap_or_else(|| {
                    entry.choices.push(choice);
                    entry.choices.len() - 1
                });
                entry.points.push((u8::try_from(index).expect("a portfolio and some rules"), us));
            }
        }
    }

    /// What the products of a family are chosen from.
    fn candidates(&self, family: &[ProductKey], points: &[usize]) -> Vec<LinearChoice> {
        let rules = || {
            let mut all: Vec<LinearChoice> = Vec::new();
            for (product, &rows) in family.iter().flat_map(|product| points.iter().map(move |rows| (product, rows))) {
                let choice = (self.rules)(&product.at(rows));
                if !all.contains(&choice) {
                    all.push(choice);
                }
            }
            all
        };
        match self.tuner.mode() {
            Mode::Off => Vec::new(),
            Mode::Exhaustive if self.measure.is_some() && self.tuner.linear(points[0]).is_none() => rules(),
            _ => self.tuner.linear(points[0]).map_or_else(Vec::new, |model| model.choices()),
        }
    }

    /// What every candidate of a product takes at every point.
    fn points(&mut self, product: ProductKey, points: &[usize], candidates: &[LinearChoice]) -> Vec<Point> {
        let predicted = |rows: usize| {
            let mut log_us = vec![f32::INFINITY; candidates.len()];
            if let Some(model) = self.tuner.linear(rows).filter(|_| !candidates.is_empty()) {
                model.predict(&product.at(rows), self.terms, &mut log_us);
            }
            Point { rows, log_us }
        };
        let mut all: Vec<Point> = points.iter().map(|&rows| predicted(rows)).collect();
        let mode = self.tuner.mode();
        if mode == Mode::Default {
            for point in &mut all {
                let default = self.tuner.linear(point.rows).map_or(0, |model| model.default_index());
                point
                    .log_us
                    .iter_mut()
                    .enumerate()
                    .filter(|(i, _)| *i != default)
                    .for_each(|(_, us)| *us = f32::INFINITY);
            }
        }
        let Some(measure) = self.measure.as_deref_mut() else { return all };
        let timed = if mode == Mode::Exhaustive {
            candidates.len()
        } else if self.tuner.calibrates() && mode == Mode::Predict {
            super::CALIBRATED
        } else {
            return all;
        };
        let mut first = 0;
        while first < all.len() {
            // The points up to the next power of two share what is measured there.
            let power = all[first].rows.next_power_of_two();
            let end = first + all[first..].iter().take_while(|point| point.rows <= power).count();
            let shape = product.at(all[end - 1].rows);
            let predicted = all[end - 1].log_us.clone();
            let legal = |index: &usize| linear::legal(&candidates[*index], &shape, self.terms);
            let mut order: Vec<usize> = (0..candidates.len()).filter(legal).collect();
            order.sort_by(|a, b| predicted[*a].total_cmp(&predicted[*b]));
            order.truncate(timed);
            let mut measured = vec![f32::INFINITY; candidates.len()];
            for index in order {
                let us = measure.time_us(&shape, &candidates[index]).filter(|us| us.is_finite() && *us > 0.0);
                measured[index] = us.map_or(f32::INFINITY, |us| us.ln() as f32);
            }
            if measured.iter().any(|log_us| log_us.is_finite()) {
                for Point { rows, log_us } in &mut all[first..end] {
                    for (index, log_us) in log_us.iter_mut().enumerate() {
                        // What changes from the measured rows to these, where that is predicted.
                        let change = *log_us - predicted[index];
                        let own = measured[index] + if change.is_finite() { change } else { 0.0 };
                        let is_legal = linear::legal(&candidates[index], &product.at(*rows), self.terms);
                        *log_us = if is_legal { own } else { f32::INFINITY };
                    }
                }
            }
            first = end;
        }
        all
    }
}

/// The first candidate that runs the same kernels: one pipeline serves all of them.
fn first_alike(candidates: &[LinearChoice], choice: &LinearChoice) -> usize {
    let key = |choice: &LinearChoice| (choice.kernel.name, choice.schedule.clone(), choice.fused, choice.splits > 1);
    candidates.iter().position(|other| key(other) == key(choice)).expect("it is one of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_rows_has_the_next_point_of_the_grid() {
        for max_rows in [1, 7, 64, 65, 100, 512, 8192] {
            let points = grid(max_rows);
            assert_eq!(points.last(), Some(&max_rows));
            for rows in 1..=max_rows {
                let next = points.iter().position(|&point| point >= rows).expect("the last is the largest");
                assert_eq!(place(rows), next, "{rows} of {max_rows}");
            }
        }
    }
}
