//! Shapes of products and of attention, as users and files of shapes write them.

use super::bench::mix;
use raglan::gpu::Gpu;
use raglan::models::{Format, LayerRole, Role, Synthetic, synthetic};
use raglan::ops::Types;
use raglan::schedules::{KvHeads, LinearShape};
use raglan::shaders::attention::head_stride;
use raglan::tune::shapes::{Ragged, Sequence};
use raglan::tune::{self, Inputs};
use raglan::weights::weight_format;

/// What a shape may be, for helps and errors.
pub(super) const SHAPES: &str = "rows=1 cols=4096 inner=4096 format=q4 [normed=1] [gated=1], \
    lengths=512,4096x3 heads=32/8 dim=128 [rows=1], or a model's as llama-2-7b:q4 rows=8 [lengths=512,4096x3]";

/// The largest number of a shape.
const MOST: usize = 1 << 24;

/// A product or a batch of attention.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// `[rows, inner] · [cols, inner]ᵀ`
    Product(Product),
    /// Ragged.
    Attention(Attention),
}

/// A matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Product {
    /// Rows of x and out.
    pub(super) rows: usize,
    /// Columns of out.
    pub(super) cols: usize,
    /// Columns of x and of the weights.
    pub(super) inner: usize,
    /// Of the weights.
    pub(super) format: Format,
    /// Whether x is normed.
    pub(super) normed: bool,
    /// Whether columns are gates and ups in turn.
    pub(super) gated: bool,
}

/// Attention of the last rows of every sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attention {
    /// Tokens of each sequence, its query rows among them.
    pub(super) lengths: Vec<usize>,
    /// Query rows of each.
    pub(super) rows: usize,
    /// Query heads.
    pub(super) heads: usize,
    /// Key and value heads; divides `heads`.
    pub(super) kv_heads: usize,
    /// Columns of a head.
    pub(super) head_dim: usize,
}

impl Shape {
    /// As it is measured on an adapter.
    pub(super) fn of(&self, gpu: &Gpu, inputs: Inputs) -> tune::shapes::Shape {
        match self {
            Shape::Product(product) => {
                let &Product { rows, cols, inner, format, normed, gated } = product;
                let format = weight_format(format);
                tune::shapes::Shape::Linear(LinearShape { rows, cols, inner, format, normed, gated })
            }
            Shape::Attention(attention) => {
                let Attention { rows, heads, kv_heads, head_dim, .. } = *attention;
                let head_stride = head_stride(head_dim).expect("wider heads were refused");
                let kv = Types::of(gpu, inputs.dtype).kv;
                let heads = KvHeads { kv_heads, group: heads / kv_heads, head_stride, kv };
                let sequence = |&length| Sequence { rows, computed: length - rows, is_cut: false };
                tune::shapes::Shape::Attention(Ragged::new(heads, attention.lengths.iter().map(sequence).collect()))
            }
        }
    }
}

/// A shape, and what it is of a model where one was named.
pub(super) type Named = (Option<&'static str>, Shape);

/// Reads one shape, or those of a model.
///
/// # Errors
/// What was met and what was wanted, in words.
pub(super) fn parse(text: &str) -> Result<Vec<Named>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let given = match words.split_first() {
        None => return Err(format!("no shape; wanted {SHAPES}")),
        Some((model, settings)) if !model.contains('=') => return of_model(model, Settings::read(text, settings)?),
        Some(_) => Settings::read(text, &words)?,
    };
    let shape = if given.has("lengths") { attention(&given, None)? } else { product(&given)? };
    given.no_more()?;
    Ok(vec![(None, shape)])
}

fn product(given: &Settings<'_>) -> Result<Shape, String> {
    let format = given.text("format")?.unwrap_or("f16");
    let known = || Format::ALL.map(|format| format.name().to_ascii_lowercase()).join(", ");
    let format =
        synthetic::parse_format(format).ok_or_else(|| format!("format={format}: wanted one of {}", known()))?;
    let [rows, cols, inner] = [given.number("rows")?, given.number("cols")?, given.number("inner")?];
    let (normed, gated) = (given.flag("normed")?, given.flag("gated")?);
    if format.row_bytes(inner).is_none() {
        return Err(format!("inner={inner}: rows of {} are whole blocks", format.name()));
    }
    if gated && !cols.is_multiple_of(2) {
        return Err(format!("cols={cols}: a gated product has as many gates as ups"));
    }
    Ok(Shape::Product(Product { rows, cols, inner, format, normed, gated }))
}

/// Heads are the model's, or given.
fn attention(given: &Settings<'_>, of: Option<(usize, usize, usize)>) -> Result<Shape, String> {
    let (heads, kv_heads, head_dim) = match of {
        Some(of) => of,
        None => {
            let text = given.text("heads")?.ok_or_else(|| given.lacks("heads"))?;
            let (heads, kv_heads) = text.split_once('/').unwrap_or((text, text));
            (number("heads", heads)?, number("heads", kv_heads)?, given.number("dim")?)
        }
    };
    let rows = if given.has("rows") { given.number("rows")? } else { 1 };
    let lengths = given.text("lengths")?.ok_or_else(|| given.lacks("lengths"))?;
    let lengths = mix(lengths).map_err(|error| format!("lengths={lengths}: {error}"))?.0;
    if !heads.is_multiple_of(kv_heads) {
        return Err(format!("heads={heads}/{kv_heads}: query heads are a whole number a kv head"));
    }
    if head_dim > 256 || !head_dim.is_multiple_of(8) {
        return Err(format!("dim={head_dim}: wanted a multiple of 8 up to 256"));
    }
    match lengths.iter().find(|&&length| length < rows || length > MOST) {
        Some(length) => Err(format!("lengths: {length} tokens, of which {rows} are query rows; wanted up to {MOST}")),
        None => Ok(Shape::Attention(Attention { lengths, rows, heads, kv_heads, head_dim })),
    }
}

/// The products of a layer and of the vocabulary; attention too where there are lengths.
fn of_model(model: &str, given: Settings<'_>) -> Result<Vec<Named>, String> {
    use LayerRole::{Down, Gate, K, O, Q, Up, V};
    let name = model.strip_prefix(synthetic::PREFIX).unwrap_or(model);
    let model = Synthetic::parse(&format!("{}{name}", synthetic::PREFIX)).map_err(|error| error.to_string())?;
    let (spec, format) = (&model.spec, model.format);
    let rows = if given.has("rows") { given.number("rows")? } else { 1 };
    let shape = |roles: &[LayerRole], normed, gated| {
        let shapes: Vec<_> = roles.iter().map(|&role| spec.shape(Role::Layer(0, role))).collect();
        let (cols, inner) = (shapes.iter().map(|shape| shape[0]).sum(), shapes[0][1]);
        let format = format.row_bytes(inner).map_or(Format::F16, |_| format);
        Shape::Product(Product { rows, cols, inner, format, normed, gated })
    };
    let logits = Product {
        rows,
        cols: spec.vocab_size,
        inner: spec.hidden_size,
        format: format.row_bytes(spec.hidden_size).map_or(Format::F16, |_| format),
        normed: true,
        gated: false,
    };
    let mut shapes = vec![
        (Some("qkv"), shape(&[Q, K, V], true, false)),
        (Some("o"), shape(&[O], false, false)),
        (Some("gate_up"), shape(&[Gate, Up], true, true)),
        (Some("down"), shape(&[Down], false, false)),
        (Some("logits"), Shape::Product(logits)),
    ];
    if given.has("lengths") {
        let heads = (spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim);
        shapes.push((Some("attention"), attention(&given, Some(heads))?));
    }
    given.no_more()?;
    Ok(shapes)
}

/// Words of `NAME=VALUE`, and which were asked for.
struct Settings<'a> {
    text: &'a str,
    words: Vec<(&'a str, &'a str, std::cell::Cell<bool>)>,
}

impl<'a> Settings<'a> {
    fn read(text: &'a str, words: &[&'a str]) -> Result<Settings<'a>, String> {
        let mut read: Vec<(&str, &str, std::cell::Cell<bool>)> = Vec::new();
        for word in words {
            let Some((name, value)) = word.split_once('=') else {
                return Err(format!("{text:?}: {word:?} is not NAME=VALUE; wanted {SHAPES}"));
            };
            if read.iter().any(|(other, ..)| *other == name) {
                return Err(format!("{text:?}: {name} is there twice"));
            }
            read.push((name, value, false.into()));
        }
        Ok(Settings { text, words: read })
    }

    fn has(&self, name: &str) -> bool {
        self.words.iter().any(|(other, ..)| *other == name)
    }

    fn lacks(&self, name: &str) -> String {
        format!("{:?} has no {name}; wanted {SHAPES}", self.text)
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        let found = self.words.iter().find(|(other, ..)| *other == name);
        Ok(found.map(|(_, value, asked)| {
            asked.set(true);
            *value
        }))
    }

    fn number(&self, name: &str) -> Result<usize, String> {
        number(name, self.text(name)?.ok_or_else(|| self.lacks(name))?)
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        match self.text(name)? {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(format!("{name}={other}: wanted 0 or 1")),
        }
    }

    /// # Errors
    /// If there is a setting that nothing asked for.
    fn no_more(&self) -> Result<(), String> {
        match self.words.iter().find(|(.., asked)| !asked.get()) {
            Some((name, ..)) => Err(format!("{:?}: {name} means nothing here; wanted {SHAPES}", self.text)),
            None => Ok(()),
        }
    }
}

fn number(name: &str, text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("{name}={text}: wanted a whole number from 1 to {MOST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_attention_and_models_are_read() {
        let one = |text: &str| parse(text).map(|mut all| all.remove(0).1);
        let product = Product { rows: 1, cols: 4096, inner: 64, format: Format::Q4_0, normed: true, gated: false };
        assert_eq!(one("rows=1 cols=4096 inner=64 format=q4 normed=1"), Ok(Shape::Product(product)));
        let attention = Attention { lengths: vec![512, 9, 9], rows: 1, heads: 32, kv_heads: 8, head_dim: 128 };
        assert_eq!(one("lengths=512,9x2 heads=32/8 dim=128"), Ok(Shape::Attention(attention)));
        let model = parse("llama-2-7b:q4 rows=8 lengths=512").unwrap_or_default();
        let Some((Some("gate_up"), Shape::Product(gate_up))) = model.get(2) else { panic!("{model:?}") };
        assert_eq!((model.len(), gate_up.cols, gate_up.gated, gate_up.format), (6, 22016, true, Format::Q4_0));
        assert!(matches!(&model[5].1, Shape::Attention(attention) if attention.rows == 8 && attention.heads == 32));
    }

    #[test]
    fn what_is_no_shape_says_what_one_is() {
        for (text, words) in [
            ("", "no shape"),
            ("rows=1 cols=2", "no inner"),
            ("rows=0 cols=2 inner=2", "rows=0"),
            ("rows=1 cols=2 inner=33 format=q4", "whole blocks"),
            ("rows=1 cols=2 inner=32 format=int3", "q4_k"),
            ("rows=1 rows=1 cols=2 inner=32", "twice"),
            ("rows=1 cols=2 inner=32 depth=4", "depth means nothing"),
            ("rows=1 cols=2 inner", "NAME=VALUE"),
            ("lengths=5x0 heads=4 dim=64", "5x0"),
            ("lengths=5 heads=4/3 dim=64", "4/3"),
            ("lengths=5 heads=4 dim=64 rows=9", "9 are query rows"),
            ("gpt-5:q4 rows=8", "gpt-5"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
